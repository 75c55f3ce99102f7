//! A device without one: memory behind opaque addresses, and streams whose work is done as late as it can be, in the worst
//! order that is allowed, so that an order nobody asked for shows as wrong values.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sightline_core::{DType, ImageSpec, Picture, Plane, TensorView, TensorViewMut};
use sightline_engine_api::{
    Device, DeviceBuffer, DeviceMark, DeviceMasks, DeviceOps, DevicePicture, DevicePlane, DeviceTensor,
    EngineError, Kind, PictureRef, Stream,
};

use crate::masks::FakeMasks;

/// Which stream goes first when more than one may. Whatever it is, results must be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// In this order; those that are not named come last, the lowest number first.
    First(Vec<Stream>),
    /// By lot, from this seed.
    Random(u64),
}

/// What a [`FakeDevice`] was asked to do since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DeviceCounts {
    pub allocations: u64,
    pub marks: u64,
    pub uploads: u64,
    pub copies: u64,
    /// Fills, clamps, roundings, additions, preprocessings, masks.
    pub kernels: u64,
    /// Pictures preprocessed from host memory, and from memory of this device.
    pub host_pictures: u64,
    pub device_pictures: u64,
    pub runs: u64,
    pub downloads: u64,
    pub downloaded_bytes: u64,
    /// Waits for an engine's event, on the host.
    pub waits: u64,
}

type Work = Box<dyn FnOnce(&mut Memory) -> Result<(), EngineError> + Send>;

enum Step {
    Do(Work),
    /// A point is reached.
    Pass(u64),
    /// Not before a point is reached.
    Await(u64),
}

/// Buffers by address.
#[derive(Default)]
pub(crate) struct Memory(BTreeMap<u64, Vec<u8>>);

impl Memory {
    fn bytes(&mut self, tensor: &DeviceTensor) -> Result<&mut [u8], EngineError> {
        let len = tensor.shape.elements() * tensor.dtype.size_bytes();
        let buffer = self.0.get_mut(&tensor.buffer.address()).map(Vec::as_mut_slice);
        let part = buffer.and_then(|bytes| bytes.get_mut(tensor.offset_bytes..tensor.offset_bytes + len));
        part.ok_or_else(|| {
            let got = format!("{len} bytes at {} of {:?}", tensor.offset_bytes, tensor.buffer);
            EngineError::new(Kind::Interface, "device tensor", "memory of this device", got)
        })
    }

    pub(crate) fn f32(&mut self, tensor: &DeviceTensor) -> Result<Vec<f32>, EngineError> {
        Ok(self.bytes(tensor)?.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect())
    }

    pub(crate) fn i64(&mut self, tensor: &DeviceTensor) -> Result<Vec<i64>, EngineError> {
        Ok(self.bytes(tensor)?.as_chunks::<8>().0.iter().map(|bytes| i64::from_ne_bytes(*bytes)).collect())
    }

    pub(crate) fn put_f32(&mut self, tensor: &DeviceTensor, values: &[f32]) -> Result<(), EngineError> {
        let to = self.bytes(tensor)?.as_chunks_mut::<4>().0;
        to.iter_mut().zip(values).for_each(|(to, value)| *to = value.to_ne_bytes());
        Ok(())
    }

    pub(crate) fn put_words(&mut self, tensor: &DeviceTensor, words: &[u32]) -> Result<(), EngineError> {
        let to = self.bytes(tensor)?.as_chunks_mut::<4>().0;
        to.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_ne_bytes());
        Ok(())
    }

    /// Looks at a picture in rows.
    fn see(
        &self,
        picture: &DevicePicture,
        look: impl FnOnce(&Picture<'_>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let refuse = |got: &str| EngineError::new(Kind::Interface, "picture", "rows in device memory", got);
        let bytes = self.0.get(&picture.buffer().address()).ok_or_else(|| refuse("freed memory"))?;
        let mut planes = [Plane::default(); 3];
        for (to, (plane, (left, top))) in planes.iter_mut().zip(picture.planes()) {
            let DevicePlane::Rows { offset_bytes, stride_bytes } = plane else {
                return Err(refuse("a tiled plane"));
            };
            let data = bytes.get(offset_bytes + top * stride_bytes + left..);
            *to = Plane { data: data.ok_or_else(|| refuse("less"))?, stride_bytes };
        }
        let (width_px, height_px) = picture.size_px();
        let seen = Picture::new(picture.format(), width_px, height_px, &planes)?;
        look(&seen.with_color(picture.matrix(), picture.range()))
    }

    fn map(&mut self, tensor: &DeviceTensor, change: impl Fn(f32) -> f32) -> Result<(), EngineError> {
        let mut values = self.f32(tensor)?;
        values.iter_mut().for_each(|value| *value = change(*value));
        self.put_f32(tensor, &values)
    }
}

struct State {
    memory: Memory,
    streams: BTreeMap<Stream, VecDeque<Step>>,
    /// Points that were passed, and those that marks stand at.
    passed: Vec<bool>,
    marks: Vec<Option<u64>>,
    next_address: u64,
    schedule: Schedule,
    failed: Option<EngineError>,
    counts: DeviceCounts,
}

impl State {
    fn address(&mut self, bytes: usize) -> u64 {
        let address = self.next_address;
        self.next_address += (bytes as u64).next_multiple_of(256) + 256;
        address
    }

    fn point(&mut self) -> u64 {
        self.passed.push(false);
        self.passed.len() as u64 - 1
    }

    fn push(&mut self, stream: Stream, step: Step) {
        self.streams.entry(stream).or_default().push_back(step);
    }

    /// Does steps until a point is passed.
    fn run_to(&mut self, point: u64) -> Result<(), EngineError> {
        while !self.passed[point as usize] {
            if !self.step() {
                return Err(EngineError::new(Kind::Run, "fake device", "work that can go on", "a deadlock"));
            }
        }
        Ok(())
    }

    /// Does the step that is first by the schedule; false if there is none.
    fn step(&mut self) -> bool {
        let ready = |steps: &VecDeque<Step>| match steps.front() {
            None => false,
            Some(Step::Await(point)) => self.passed[*point as usize],
            Some(_) => true,
        };
        let mut ready: Vec<Stream> =
            self.streams.iter().filter(|(_, steps)| ready(steps)).map(|(stream, _)| *stream).collect();
        match &mut self.schedule {
            Schedule::First(order) => {
                ready.sort_by_key(|stream| order.iter().position(|first| first == stream).unwrap_or(64));
            }
            Schedule::Random(seed) => {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let lot = (*seed >> 33) as usize % ready.len().max(1);
                ready.rotate_left(lot);
            }
        }
        let next = ready.first().and_then(|stream| self.streams.get_mut(stream)?.pop_front());
        match next {
            None => return false,
            Some(Step::Await(_)) => {}
            Some(Step::Pass(point)) => self.passed[point as usize] = true,
            Some(Step::Do(work)) => {
                if let Err(error) = work(&mut self.memory) {
                    self.failed.get_or_insert(error);
                }
            }
        }
        true
    }
}

type Preprocess = dyn Fn(&Picture<'_>, &ImageSpec, &mut [f32]) -> Result<(), EngineError> + Send + Sync;

/// A device in host memory; it calls itself `cuda:0`. Clones are the same device.
#[derive(Clone)]
pub struct FakeDevice(Arc<Inner>);

struct Inner {
    state: Arc<Mutex<State>>,
    preprocess: Arc<Preprocess>,
}

impl fmt::Debug for FakeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeDevice").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// A buffer or a mark.
#[derive(Debug)]
struct Held {
    address: u64,
    len_bytes: usize,
    writer: Option<Stream>,
}

impl DeviceBuffer for Held {
    fn device(&self) -> Device {
        FakeDevice::DEVICE
    }
    fn address(&self) -> u64 {
        self.address
    }
    fn len_bytes(&self) -> usize {
        self.len_bytes
    }
    fn writer(&self) -> Option<u64> {
        self.writer.map(|stream| stream.0)
    }
}

impl DeviceMark for Held {
    fn handle(&self) -> u64 {
        self.address
    }
}

impl FakeDevice {
    const DEVICE: Device = Device::Cuda { ordinal: 0 };

    /// A device whose pictures are preprocessed by this function.
    pub fn new(
        schedule: Schedule,
        preprocess: impl Fn(&Picture<'_>, &ImageSpec, &mut [f32]) -> Result<(), EngineError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let state = State {
            memory: Memory::default(),
            streams: BTreeMap::new(),
            passed: Vec::new(),
            marks: Vec::new(),
            next_address: 0x7f00_0000_0000,
            schedule,
            failed: None,
            counts: DeviceCounts::default(),
        };
        Self(Arc::new(Inner { state: Arc::new(Mutex::new(state)), preprocess: Arc::new(preprocess) }))
    }

    /// Memory of somebody else's on this device, as a decoder lends it, that a stream of theirs has still to write these
    /// bytes to.
    pub fn lend(&self, writer: Stream, bytes: Vec<u8>) -> Arc<dyn DeviceBuffer> {
        let mut state = self.state();
        let (address, len_bytes) = (state.address(bytes.len()), bytes.len());
        state.memory.0.insert(address, vec![7; len_bytes]);
        let work = move |memory: &mut Memory| {
            memory.0.insert(address, bytes);
            Ok(())
        };
        state.push(writer, Step::Do(Box::new(work)));
        Arc::new(Held { address, len_bytes, writer: Some(writer) })
    }

    /// What it was asked to do.
    pub fn counts(&self) -> DeviceCounts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counted(&self, count: impl FnOnce(&mut DeviceCounts)) {
        count(&mut self.state().counts);
    }

    /// Gives work to a stream once all its tensors are known to lie here.
    pub(crate) fn give(
        &self,
        stream: Stream,
        tensors: &[&DeviceTensor],
        work: impl FnOnce(&mut Memory) -> Result<(), EngineError> + Send + 'static,
    ) -> Result<(), EngineError> {
        let mut state = self.state();
        for tensor in tensors {
            state.memory.bytes(tensor)?;
        }
        state.push(stream, Step::Do(Box::new(work)));
        Ok(())
    }
}

fn same_size(what: &str, from: &DeviceTensor, to: &DeviceTensor) -> Result<(), EngineError> {
    let bytes = |tensor: &DeviceTensor| tensor.shape.elements() * tensor.dtype.size_bytes();
    if bytes(from) != bytes(to) {
        let (expected, got) = (format!("{} bytes", bytes(to)), bytes(from));
        return Err(EngineError::new(Kind::Interface, what, expected, got));
    }
    let (a, b) = (from.offset_bytes, to.offset_bytes);
    if from.buffer.address() == to.buffer.address() && a < b + bytes(to) && b < a + bytes(from) {
        return Err(EngineError::new(Kind::Interface, what, "tensors apart", "two that overlap"));
    }
    Ok(())
}

impl DeviceOps for FakeDevice {
    fn device(&self) -> Device {
        Self::DEVICE
    }

    fn alloc(&self, bytes: usize) -> Result<Arc<dyn DeviceBuffer>, EngineError> {
        let mut state = self.state();
        state.counts.allocations += 1;
        let address = state.address(bytes);
        state.memory.0.insert(address, vec![0; bytes]);
        Ok(Arc::new(Held { address, len_bytes: bytes, writer: None }))
    }

    fn owns(&self, buffer: &dyn DeviceBuffer) -> bool {
        // What is lent is another's, and only read.
        let held = (buffer as &dyn Any).downcast_ref::<Held>().filter(|held| held.writer.is_none());
        held.is_some() && self.state().memory.0.contains_key(&buffer.address())
    }

    fn mark(&self) -> Result<Arc<dyn DeviceMark>, EngineError> {
        let mut state = self.state();
        state.counts.marks += 1;
        state.marks.push(None);
        Ok(Arc::new(Held { address: state.marks.len() as u64 - 1, len_bytes: 0, writer: None }))
    }

    fn record(&self, stream: Stream, mark: &dyn DeviceMark) -> Result<(), EngineError> {
        let mut state = self.state();
        let point = state.point();
        state.marks[mark.handle() as usize] = Some(point);
        state.push(stream, Step::Pass(point));
        Ok(())
    }

    fn wait(&self, stream: Stream, mark: &dyn DeviceMark) -> Result<(), EngineError> {
        let mut state = self.state();
        if let Some(point) = state.marks[mark.handle() as usize] {
            state.push(stream, Step::Await(point));
        }
        Ok(())
    }

    /// Being looked at, it goes one step on: what nobody looks at or waits for stands still.
    fn is_past(&self, mark: &dyn DeviceMark) -> Result<bool, EngineError> {
        let mut state = self.state();
        let Some(point) = state.marks[mark.handle() as usize] else { return Ok(true) };
        if !state.passed[point as usize] {
            state.step();
        }
        Ok(state.passed[point as usize])
    }

    fn order(&self, before: Stream, after: Stream) -> Result<(), EngineError> {
        let mut state = self.state();
        let point = state.point();
        state.push(before, Step::Pass(point));
        state.push(after, Step::Await(point));
        Ok(())
    }

    fn upload(&self, stream: Stream, from: TensorView<'_>, to: &DeviceTensor) -> Result<(), EngineError> {
        if (from.dtype(), from.shape()) != (to.dtype, to.shape) {
            let expected = format!("{} {}", to.dtype, to.shape);
            let got = format!("{} {}", from.dtype(), from.shape());
            return Err(EngineError::new(Kind::Interface, "upload", expected, got));
        }
        self.counted(|counts| counts.uploads += 1);
        let bytes: Vec<u8> = match from {
            TensorView::F32(_, values) => values.iter().flat_map(|value| value.to_ne_bytes()).collect(),
            TensorView::I64(_, values) => values.iter().flat_map(|value| value.to_ne_bytes()).collect(),
        };
        let place = to.clone();
        self.give(stream, &[to], move |memory| {
            memory.bytes(&place)?.copy_from_slice(&bytes);
            Ok(())
        })
    }

    fn copy(&self, stream: Stream, from: &DeviceTensor, to: &DeviceTensor) -> Result<(), EngineError> {
        same_size("copy", from, to)?;
        self.counted(|counts| counts.copies += 1);
        let (source, place) = (from.clone(), to.clone());
        self.give(stream, &[from, to], move |memory| {
            let bytes = memory.bytes(&source)?.to_vec();
            memory.bytes(&place)?.copy_from_slice(&bytes);
            Ok(())
        })
    }

    fn fill(&self, stream: Stream, value: f32, to: &DeviceTensor) -> Result<(), EngineError> {
        self.counted(|counts| counts.kernels += 1);
        let place = to.clone();
        self.give(stream, &[to], move |memory| memory.map(&place, |_| value))
    }

    fn clamp(
        &self,
        stream: Stream,
        from: &DeviceTensor,
        limit: f32,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        same_size("clamp", from, to)?;
        self.counted(|counts| counts.kernels += 1);
        let (source, place) = (from.clone(), to.clone());
        self.give(stream, &[from, to], move |memory| {
            let values: Vec<f32> =
                memory.f32(&source)?.into_iter().map(|value| value.clamp(-limit, limit)).collect();
            memory.put_f32(&place, &values)
        })
    }

    fn round_to_bf16(&self, stream: Stream, tensor: &DeviceTensor) -> Result<(), EngineError> {
        self.counted(|counts| counts.kernels += 1);
        let place = tensor.clone();
        self.give(stream, &[tensor], move |memory| memory.map(&place, nearest_bf16))
    }

    fn add_channels(
        &self,
        stream: Stream,
        from: &DeviceTensor,
        values: &DeviceTensor,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        same_size("sum over channels", from, to)?;
        self.counted(|counts| counts.kernels += 1);
        let (source, added, place) = (from.clone(), values.clone(), to.clone());
        self.give(stream, &[from, values, to], move |memory| {
            let (mut sums, added) = (memory.f32(&source)?, memory.f32(&added)?);
            let plane = sums.len() / added.len().max(1);
            for (plane, value) in sums.chunks_exact_mut(plane.max(1)).zip(&added) {
                plane.iter_mut().for_each(|sum| *sum += value);
            }
            memory.put_f32(&place, &sums)
        })
    }

    fn preprocess(
        &self,
        stream: Stream,
        picture: &PictureRef<'_>,
        spec: &ImageSpec,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        self.counted(|counts| counts.kernels += 1);
        let (place, mut image) = (to.clone(), vec![0.0; to.shape.elements()]);
        let picture = match picture {
            PictureRef::Host(picture) => {
                (self.0.preprocess)(picture, spec, &mut image)?;
                self.counted(|counts| counts.host_pictures += 1);
                return self.give(stream, &[to], move |memory| memory.put_f32(&place, &image));
            }
            PictureRef::Device(picture) => picture.clone(),
        };
        let known = self.state().memory.0.contains_key(&picture.buffer().address());
        if picture.device() != Self::DEVICE || !known {
            let got = format!("{:?}", picture.buffer());
            return Err(EngineError::new(Kind::Interface, "picture", "memory of this device", got));
        }
        if let Some(writer) = picture.buffer().writer() {
            self.order(Stream(writer), stream)?;
        }
        self.counted(|counts| counts.device_pictures += 1);
        let (preprocess, spec) = (self.0.preprocess.clone(), spec.clone());
        // Read when the stream comes to it, and held until then.
        self.give(stream, &[to], move |memory| {
            memory.see(&picture, |picture| preprocess(picture, &spec, &mut image))?;
            memory.put_f32(&place, &image)
        })
    }

    fn masks(
        self: Arc<Self>,
        objects: usize,
        most_pixels: usize,
    ) -> Result<Option<Box<dyn DeviceMasks>>, EngineError> {
        // Scratch is an allocation.
        self.counted(|counts| counts.allocations += 1);
        Ok(Some(Box::new(FakeMasks { device: Self::clone(&self), objects, most_pixels })))
    }

    fn download(
        &self,
        stream: Stream,
        parts: &mut [(DeviceTensor, TensorViewMut<'_>)],
    ) -> Result<(), EngineError> {
        let mut state = self.state();
        state.counts.downloads += 1;
        let point = state.point();
        state.push(stream, Step::Pass(point));
        state.run_to(point)?;
        for (from, to) in parts {
            state.counts.downloaded_bytes += (from.shape.elements() * from.dtype.size_bytes()) as u64;
            match to {
                TensorViewMut::F32(_, data) if from.dtype == DType::F32 => {
                    data.copy_from_slice(&state.memory.f32(from)?);
                }
                TensorViewMut::I64(_, data) if from.dtype == DType::I64 => {
                    data.copy_from_slice(&state.memory.i64(from)?);
                }
                other => {
                    let (expected, got) = (from.dtype, other.dtype());
                    return Err(EngineError::new(Kind::Interface, "download", expected, got));
                }
            }
        }
        state.failed.take().map_or(Ok(()), Err)
    }
}

/// To nearest, ties to even.
fn nearest_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return value;
    }
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}
