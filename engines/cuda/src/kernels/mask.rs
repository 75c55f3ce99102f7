use std::sync::Arc;

use sightline_core::DType;
use sightline_engine_api::{
    DeviceBuffer, DeviceMasks, DeviceOps, DevicePicture, DeviceTensor, EngineError, MaskRoom, Stream,
};

use super::{Kernel, arguments};
use crate::{
    CudaDevice, CudaError, FoundMask, Kind,
    kernels::overlay::{self, Ink},
    reference,
};

/// Threads a block.
const BLOCK: u32 = 256;
/// Words whose changes are counted together, as mask.cu has them.
const WORDS_PER_GROUP: usize = 32;
const WORDS_PER_CHUNK: usize = 1024;
const HEAD_WORDS: usize = MaskRoom::HEAD_WORDS;

/// Turns mask logits on the device into bits there, and run lengths, area and box, there or on the host. Owns its
/// memory: keep one per stream of frames.
///
/// The mask is that of PyTorch's `F.interpolate(mode="bilinear", align_corners=False) > 0` in f32, as
/// `sightline_vision::MaskUpscaler` gives it.
#[derive(Debug)]
pub struct MaskFinder {
    device: Arc<CudaDevice>,
    objects: usize,
    most_pixels: usize,
    capacity: u32,
    bits: Arc<dyn DeviceBuffer>,
    group_changes: Arc<dyn DeviceBuffer>,
    chunk_changes: Arc<dyn DeviceBuffer>,
    places: Arc<dyn DeviceBuffer>,
    /// What was found, for [`MaskFinder::collect`]: a head and `capacity` + 1 run lengths each.
    found: Option<Arc<dyn DeviceBuffer>>,
    /// What the last `find` was given.
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    objects: usize,
    width_px: u32,
    height_px: u32,
    words: u32,
}

fn words_of(pixels: usize) -> usize {
    pixels.div_ceil(32)
}

impl MaskFinder {
    /// Memory for up to `objects` masks of up to `width_px` x `height_px`. A mask of more than `capacity` changes
    /// between set and not set is encoded on the host, from its bits.
    ///
    /// # Errors
    /// `Kind::Argument` when a number is 0 or the picture has more pixels than 32 bits count; `Kind::Memory`.
    pub fn new(
        device: Arc<CudaDevice>,
        objects: usize,
        width_px: u32,
        height_px: u32,
        capacity: u32,
    ) -> Result<Self, CudaError> {
        let mut finder = Self::scratch(device, objects, width_px as usize * height_px as usize, capacity)?;
        finder.found = Some(finder.alloc(HEAD_WORDS + capacity as usize + 1)?);
        Ok(finder)
    }

    /// One whose masks go elsewhere ([`DeviceMasks`]).
    pub(crate) fn scratch(
        device: Arc<CudaDevice>,
        objects: usize,
        most_pixels: usize,
        capacity: u32,
    ) -> Result<Self, CudaError> {
        let limit = u32::MAX as usize - 32;
        let (true, 1..=65_535, 1..=0xff_ffff) = ((1..limit).contains(&most_pixels), objects, capacity) else {
            let got = format!("{objects} of {most_pixels} pixels, {capacity} changes");
            return Err(CudaError::new(
                Kind::Argument,
                "masks on a device",
                "at least one, of 2^32 pixels",
                got,
            ));
        };
        let words = words_of(most_pixels);
        Ok(Self {
            bits: alloc(&device, objects, words)?,
            group_changes: alloc(&device, objects, words.div_ceil(WORDS_PER_GROUP))?,
            chunk_changes: alloc(&device, objects, words.div_ceil(WORDS_PER_CHUNK))?,
            places: alloc(&device, objects, capacity as usize)?,
            found: None,
            device,
            objects,
            most_pixels,
            capacity,
            last: None,
        })
    }

    fn alloc(&self, words: usize) -> Result<Arc<dyn DeviceBuffer>, CudaError> {
        alloc(&self.device, self.objects, words)
    }

    /// Gives the work to `stream`: `logits` `[objects,1,height,width]` f32 (finite; positive means object) that cover
    /// the whole picture. Waits for nothing.
    ///
    /// # Errors
    /// `Kind::Argument` for more objects or pixels than there is memory for, or another shape; `Kind::Driver`.
    pub fn find(
        &mut self,
        stream: Stream,
        logits: &DeviceTensor,
        width_px: u32,
        height_px: u32,
    ) -> Result<(), CudaError> {
        self.last = None;
        let objects = self.check(logits, width_px, height_px)?;
        let found = self.found()?.address();
        // SAFETY: checked; `found` has room for a head and `capacity` + 1 run lengths of `self.objects` masks, and is
        // freed with `self`.
        unsafe { self.launch(stream, logits, (width_px, height_px), self.capacity, (found, self.stride()))? };
        let words = words_of(width_px as usize * height_px as usize) as u32;
        self.last = Some(Last { objects, width_px, height_px, words });
        Ok(())
    }

    /// Words from a mask of [`MaskFinder::find`] to the next.
    fn stride(&self) -> usize {
        HEAD_WORDS + self.capacity as usize + 1
    }

    fn found(&self) -> Result<&Arc<dyn DeviceBuffer>, CudaError> {
        self.found.as_ref().ok_or_else(|| {
            CudaError::new(Kind::Argument, "masks", "a place of their own", "those that go elsewhere")
        })
    }

    /// The objects that logits are of, if there is memory for them.
    fn check(&self, logits: &DeviceTensor, width_px: u32, height_px: u32) -> Result<usize, CudaError> {
        let what = "mask logits";
        let total = width_px as usize * height_px as usize;
        let (1.., true, &[objects, 1, low_height, low_width]) =
            (total, total <= self.most_pixels, logits.shape.dims())
        else {
            let expected = format!("[objects,1,height,width] for at most {} pixels", self.most_pixels);
            let got = format!("{} for {width_px}x{height_px}", logits.shape);
            return Err(CudaError::new(Kind::Argument, what, expected, got));
        };
        let sides = 1..=MaskRoom::MOST_SIDE_PX as usize;
        let all = [low_width, low_height, width_px as usize, height_px as usize];
        if !(1..=self.objects).contains(&objects) || !all.iter().all(|side| sides.contains(side)) {
            let expected = format!("1 to {} objects, sides of 1 to 65535", self.objects);
            return Err(CudaError::new(Kind::Argument, what, expected, logits.shape));
        }
        Ok(objects)
    }

    /// Makes masks of `logits`, whose heads and runs go to an address, so many words from one to the next.
    ///
    /// # Safety
    /// [`MaskFinder::check`] has found the logits and the size right, `capacity` is at most ours, and at the address there
    /// is room for a head and `capacity` + 1 run lengths of each object, for as long as the device works.
    unsafe fn launch(
        &self,
        stream: Stream,
        logits: &DeviceTensor,
        (width_px, height_px): (u32, u32),
        capacity: u32,
        (found, stride): (u64, usize),
    ) -> Result<(), CudaError> {
        let &[objects, 1, low_height, low_width] = logits.shape.dims() else { return Ok(()) };
        let logits = self.device.address("mask logits", logits, DType::F32)?;
        let on = self.device.stream(stream)?;
        let total = width_px * height_px;
        let words = words_of(total as usize) as u32;
        let groups = words.div_ceil(WORDS_PER_GROUP as u32);
        let chunks = words.div_ceil(WORDS_PER_CHUNK as u32);
        let elements = (low_width * low_height) as u32;
        let (low_width, low_height) = (low_width as i32, low_height as i32);
        let (width, height, stride) = (width_px as i32, height_px as i32, stride as u32);
        let (bits, places) = (self.bits.address(), self.places.address());
        let (group_changes, chunk_changes) = (self.group_changes.address(), self.chunk_changes.address());
        let kernels = &self.device.kernels;
        let grid = |threads: u32| [threads.div_ceil(BLOCK), objects as u32];
        // SAFETY: each list is the kernel's own, in mask.cu. `logits` has objects x low height x low width floats; ours
        // have room for `self.objects` times: `words` of `most_pixels`, as many groups and chunks, `capacity` places;
        // `objects` and `total` were compared with those by `check`, `found` is the caller's promise. Ours are freed
        // with `self`, which waits for the device, as the logits' buffer does.
        unsafe {
            let list = arguments![
                logits,
                low_width,
                low_height,
                width,
                height,
                words,
                bits,
                groups,
                group_changes,
                chunks,
                chunk_changes
            ];
            kernels.launch(Kernel::MaskBits, &on, grid(words), BLOCK, list)?;
            let list = arguments![
                bits,
                total,
                words,
                groups,
                group_changes,
                chunks,
                chunk_changes,
                capacity,
                places,
                found,
                stride
            ];
            kernels.launch(Kernel::MaskRunsPlace, &on, grid(words), BLOCK, list)?;
            let list = arguments![
                places,
                capacity,
                height,
                total,
                found,
                stride,
                groups,
                group_changes,
                chunks,
                chunk_changes
            ];
            let runs = grid((capacity + 1).max(groups));
            kernels.launch(Kernel::MaskRunsMeasure, &on, runs, BLOCK, list)?;
            let list = arguments![logits, elements, found, stride];
            kernels.launch(Kernel::MaskLook, &on, grid(elements), BLOCK, list)
        }
    }

    /// The masks of the last [`MaskFinder::find`], in its order. Waits for `stream`, which must be its stream or
    /// ordered behind it.
    ///
    /// # Errors
    /// `Kind::Argument` before the first `find`; `Kind::Driver`, also for what went wrong in any work waited for.
    pub fn collect(&mut self, stream: Stream) -> Result<Vec<FoundMask>, CudaError> {
        let Last { objects, width_px, height_px, words } = self.last()?;
        let mut found = vec![0; objects * self.stride() * 4];
        let from = [(self.found()?.address(), found.len())];
        self.device.download_bytes(stream, &from, &mut [&mut found])?;
        let found = words_from(&found);
        let masks = found.chunks_exact(self.stride()).enumerate();
        masks
            .map(|(object, found)| {
                let (&[area_px, x0, y0, x1, y1, changes, ..], counts) = found.split_at(HEAD_WORDS) else {
                    return Err(CudaError::new(Kind::Driver, "masks found", "eight words", found.len()));
                };
                if changes > self.capacity {
                    let mut bits = vec![0; words as usize * 4];
                    let from = self.bits.address() + object as u64 * u64::from(words) * 4;
                    self.device.download_bytes(stream, &[(from, bits.len())], &mut [&mut bits])?;
                    return Ok(reference::measure(&words_from(&bits), width_px, height_px));
                }
                let counts = counts[..=changes as usize].to_vec();
                let bounds_px = (area_px > 0).then_some([x0, y0, x1, y1]);
                FoundMask::new(width_px, height_px, counts, area_px, bounds_px)
            })
            .collect()
    }

    /// Tints masks of the last [`MaskFinder::find`] into a picture of the same size, in the order given; `stream` is its
    /// stream or ordered behind it.
    ///
    /// # Errors
    /// `Kind::Argument` for a mask that was not found, another size or another device; `Kind::Driver`.
    pub fn fill(&self, stream: Stream, picture: &DevicePicture, inks: &[Ink]) -> Result<(), CudaError> {
        let Last { objects, width_px, height_px, words } = self.last()?;
        if picture.size_px() != (width_px, height_px) {
            let expected = format!("{width_px}x{height_px}");
            let got = format_args!("{:?}", picture.size_px()).to_string();
            return Err(CudaError::new(Kind::Argument, "picture to draw on", expected, got));
        }
        if let Some(ink) = inks.iter().find(|ink| ink.mask >= objects) {
            let expected = format!("a number below {objects}");
            return Err(CudaError::new(Kind::Argument, "mask to draw", expected, ink.mask));
        }
        // SAFETY: `bits` holds `words` for each of the objects.
        unsafe { overlay::fill(&self.device, stream, picture, self.bits.address(), words, inks) }
    }

    /// The bits of the last [`MaskFinder::find`] as the device has them: its buffer, and the 32 bit words a mask. Bit
    /// `x * height + y` of a mask is its pixel, the lowest of a word first.
    pub fn bits(&self) -> Option<(&Arc<dyn DeviceBuffer>, usize)> {
        self.last.map(|last| (&self.bits, last.words as usize))
    }

    fn last(&self) -> Result<Last, CudaError> {
        self.last.ok_or_else(|| CudaError::new(Kind::Argument, "masks", "a `find` that succeeded", "none"))
    }
}

impl DeviceMasks for MaskFinder {
    fn find_to(
        &mut self,
        stream: Stream,
        logits: &DeviceTensor,
        room: MaskRoom,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        let (width_px, height_px) = room.size_px();
        let (words, capacity) = (room.words(), room.most_changes());
        let objects = self.check(logits, width_px, height_px)?;
        let found = self.device.address("place of masks", to, DType::I64)?;
        if to.shape.elements() * 2 != objects * words || capacity > self.capacity {
            let expected = format!("{objects} of {words} words, at most {} changes", self.capacity);
            let got = format_args!("{}, {capacity} changes", to.shape).to_string();
            return Err(CudaError::new(Kind::Argument, "place of masks", expected, got).into());
        }
        // SAFETY: checked; `to` lies within its buffer and has `words` for each object, which are a head and
        // `capacity` + 1 run lengths or more; its buffer is freed only once the device is idle.
        unsafe { self.launch(stream, logits, room.size_px(), capacity, (found, words)) }?;
        Ok(())
    }
}

fn alloc(device: &CudaDevice, objects: usize, words: usize) -> Result<Arc<dyn DeviceBuffer>, CudaError> {
    let bytes = words.saturating_mul(objects * 4);
    DeviceOps::alloc(device, bytes).map_err(|error| {
        CudaError::new(Kind::Memory, "masks on a device", format_args!("{bytes} bytes"), error)
    })
}

fn words_from(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect()
}
