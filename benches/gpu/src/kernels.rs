//! Our kernels: against their references on the processor, bit for bit, and beside a copy on the device that reads and
//! writes as many bytes, which no kernel can be faster than by much.

use std::{sync::Arc, time::Instant};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use sightline_core::{
    DType, Filter, ImageSpec, Picture, PixelFormat, Plane, Shape, TensorView, TensorViewMut,
};
use sightline_engine_api::{DeviceOps, DevicePicture, DevicePlane, DeviceTensor, EngineError, Stream};
use sightline_engine_cuda::{CudaDevice, Ink, MaskFinder, reference};

#[derive(Debug, Args)]
pub(crate) struct KernelsArgs {
    /// The driver's number for the GPU
    #[arg(long, default_value_t = 0)]
    device: u32,
    /// Launches a round; a round's mean is one measurement
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    launches: u32,
    /// Rounds, of which the middle one counts
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Kernels {
    device: String,
    /// Of a copy of 512 MiB on the device, read and written counted.
    copy_gb_per_s: f64,
    kernels: Vec<Line>,
}

/// A kernel on something of a size.
#[derive(Debug, Serialize)]
struct Line {
    kernel: String,
    /// Least bytes it has to read and write.
    bytes: usize,
    us: f64,
    /// A copy that reads and writes as many.
    copy_us: f64,
    /// Values that are not the reference's, to the bit.
    differ: usize,
}

const ON: Stream = Stream::TRACK;
const WIDE: (u32, u32) = (1280, 720);
/// Of the SAM2 family at 1024: its input, and its low-resolution masks.
const INPUT: usize = 1024;
const LOW: usize = 256;

struct Bench<'a> {
    args: &'a KernelsArgs,
    device: Arc<CudaDevice>,
    lines: Vec<Line>,
}

pub(crate) fn run(args: &KernelsArgs) -> Result<Kernels> {
    let device = CudaDevice::open(args.device, None)?;
    let mut bench = Bench { args, device, lines: Vec::new() };
    let large = 512 << 20;
    let us = bench.copy_us(2 * large)?;
    bench.pictures()?;
    bench.masks()?;
    bench.tensors()?;
    let copy_gb_per_s = (2 * large) as f64 / us / 1e3;
    Ok(Kernels { device: bench.device.info().to_string(), copy_gb_per_s, kernels: bench.lines })
}

impl Bench<'_> {
    fn tensor(&self, dtype: DType, dims: &[usize]) -> Result<DeviceTensor> {
        let shape = Shape::new(dims)?;
        let buffer = self.device.alloc(dtype.size_bytes() * shape.elements())?;
        Ok(DeviceTensor { buffer, offset_bytes: 0, dtype, shape })
    }

    fn floats(&self, values: &[f32], dims: &[usize]) -> Result<DeviceTensor> {
        let tensor = self.tensor(DType::F32, dims)?;
        self.device.upload(ON, TensorView::f32(dims, values)?, &tensor)?;
        Ok(tensor)
    }

    fn read(&self, tensor: &DeviceTensor) -> Result<Vec<f32>> {
        let mut values = vec![f32::NAN; tensor.shape.elements()];
        let view = TensorViewMut::F32(tensor.shape, &mut values);
        self.device.download(ON, &mut [(tensor.clone(), view)])?;
        Ok(values)
    }

    /// Microseconds of one launch, the middle of all rounds.
    fn time(&self, mut launch: impl FnMut() -> Result<(), EngineError>) -> Result<f64> {
        launch()?;
        let mut rounds = Vec::new();
        for _ in 0..self.args.rounds {
            self.device.synchronize(ON)?;
            let start = Instant::now();
            (0..self.args.launches).try_for_each(|_| launch())?;
            self.device.synchronize(ON)?;
            rounds.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(self.args.launches));
        }
        rounds.sort_by(f64::total_cmp);
        Ok(rounds[rounds.len() / 2])
    }

    fn copy_us(&self, bytes: usize) -> Result<f64> {
        let half = (bytes / 8).max(1);
        let (from, to) = (self.tensor(DType::F32, &[half])?, self.tensor(DType::F32, &[half])?);
        self.time(|| self.device.copy(ON, &from, &to))
    }

    fn line(&mut self, kernel: String, bytes: usize, us: f64, differ: usize) -> Result<()> {
        let copy_us = self.copy_us(bytes)?;
        self.lines.push(Line { kernel, bytes, us, copy_us, differ });
        Ok(())
    }

    fn pictures(&mut self) -> Result<()> {
        let spec = ImageSpec {
            height_px: INPUT,
            width_px: INPUT,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            filter: Filter::Bicubic,
        };
        for (format, (width, height)) in [
            (PixelFormat::Nv12, WIDE),
            (PixelFormat::I420, WIDE),
            (PixelFormat::Rgb, WIDE),
            (PixelFormat::Nv12, (1920, 1080)),
        ] {
            let planes: Vec<Vec<u8>> = (0..format.planes())
                .map(|plane| {
                    let (row, rows) = format.plane_extent(plane, width, height);
                    noise(row * rows).map(|value| (value * 127.0 + 128.0) as u8).collect()
                })
                .collect();
            let borrowed: Vec<Plane<'_>> = planes
                .iter()
                .enumerate()
                .map(|(plane, data)| Plane {
                    data,
                    stride_bytes: format.plane_extent(plane, width, height).0,
                })
                .collect();
            let picture = Picture::new(format, width, height, &borrowed)?;
            let raw: usize = planes.iter().map(Vec::len).sum();
            let on_device = self.device.upload_picture(ON, &picture)?;
            for dtype in [DType::F32, DType::F16] {
                let to = self.tensor(dtype, &[1, 3, INPUT, INPUT])?;
                let us = self.time(|| Ok(self.device.preprocess_picture(ON, &on_device, &spec, &to)?))?;
                let differ = match dtype {
                    DType::F32 => differ(&self.read(&to)?, &reference::preprocess(&picture, &spec)),
                    // Halves are the same values rounded; the tests hold them against the reference.
                    _ => 0,
                };
                let bytes = raw + 3 * INPUT * INPUT * dtype.size_bytes();
                let kernel = format!("picture {format:?} {width}x{height} to {INPUT}x{INPUT} {dtype}");
                self.line(kernel, bytes, us, differ)?;
            }
        }
        Ok(())
    }

    fn masks(&mut self) -> Result<()> {
        let (width, height) = WIDE;
        for objects in [1, 4, 16] {
            let logits: Vec<f32> = (0..objects * LOW * LOW)
                .map(|at| {
                    let (x, y, object) = (at % LOW, at / LOW % LOW, at / LOW / LOW);
                    let middle = 40.0 + 11.0 * object as f32;
                    let away = (x as f32 - middle).hypot(y as f32 - middle);
                    30.0 - away + 3.0 * (x as f32 / 5.0).sin()
                })
                .collect();
            let tensor = self.floats(&logits, &[objects, 1, LOW, LOW])?;
            let mut finder = MaskFinder::new(self.device.clone(), objects, width, height, 1 << 16)?;
            let us = self.time(|| Ok(finder.find(ON, &tensor, width, height)?))?;
            let found = finder.collect(ON)?;
            let bits = |object: usize| {
                let logits = &logits[object * LOW * LOW..][..LOW * LOW];
                reference::mask_bits(logits, LOW, LOW, width, height)
            };
            let wrong = (0..objects)
                .filter(|object| found[*object] != reference::measure(&bits(*object), width, height))
                .count();
            let bytes = objects * (LOW * LOW * 4 + (width * height) as usize / 8);
            self.line(format!("masks of {objects} to {width}x{height}, box, area, runs"), bytes, us, wrong)?;
            if objects == 1 {
                self.overlay(&finder, &bits(0))?;
            }
        }
        Ok(())
    }

    fn overlay(&mut self, finder: &MaskFinder, bits: &[u32]) -> Result<()> {
        let ((width, height), ink) = (WIDE, Ink { mask: 0, bytes: [30, 200, 90], weight: 115 });
        let words = 3 * (width * height) as usize / 8;
        let mut bytes: Vec<u8> = (0..8 * words).map(|at| (at * 7 % 251) as u8).collect();
        let as_words = |bytes: &[u8]| -> Vec<i64> {
            bytes.as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word)).collect()
        };
        let tensor = self.tensor(DType::I64, &[words])?;
        let given = as_words(&bytes);
        self.device.upload(ON, TensorView::i64(&[words], &given)?, &tensor)?;
        let stride = 3 * width as usize;
        let rows = DevicePlane::Rows { offset_bytes: 0, stride_bytes: stride };
        let picture = DevicePicture::new(tensor.buffer.clone(), PixelFormat::Rgb, (width, height), &[rows])?;
        finder.fill(ON, &picture, &[ink])?;
        let mut got = vec![0; words];
        self.device.download(ON, &mut [(tensor.clone(), TensorViewMut::I64(tensor.shape, &mut got))])?;
        let size = (width as usize, height as usize);
        let planes = &mut [(bytes.as_mut_slice(), stride)];
        reference::fill(PixelFormat::Rgb, size, planes, bits, ink.bytes, ink.weight);
        let wrong = got.iter().zip(as_words(&bytes)).filter(|(got, expected)| **got != *expected).count();
        let us = self.time(|| Ok(finder.fill(ON, &picture, &[ink])?))?;
        // The picture is read and written at most once; outside the mask neither.
        let area: usize = bits.iter().map(|word| word.count_ones() as usize).sum();
        self.line(
            format!("overlay of one mask on RGB {width}x{height}"),
            6 * area + bits.len() * 4,
            us,
            wrong,
        )
    }

    fn tensors(&mut self) -> Result<()> {
        let dims = [1, 256, 64, 64];
        let elements: usize = dims.iter().product();
        let values: Vec<f32> = noise(elements).map(|value| 100.0 * value).collect();
        let channels: Vec<f32> = noise(dims[1]).collect();
        let (from, to) = (self.floats(&values, &dims)?, self.tensor(DType::F32, &dims)?);
        let added = self.floats(&channels, &[dims[1]])?;
        let device = self.device.clone();
        let mut expected = values.clone();
        reference::clamp(&mut expected, 32.0);
        let us = self.time(|| device.clamp(ON, &from, 32.0, &to))?;
        let wrong = differ(&self.read(&to)?, &expected);
        self.line("clamp [1,256,64,64]".into(), 8 * elements, us, wrong)?;
        let mut expected = values.clone();
        reference::add_channels(&mut expected, &channels);
        let us = self.time(|| device.add_channels(ON, &from, &added, &to))?;
        let wrong = differ(&self.read(&to)?, &expected);
        self.line("add a value a channel [1,256,64,64]".into(), 8 * elements, us, wrong)?;
        let us = self.time(|| device.round_to_bf16(ON, &to))?;
        reference::round_to_bf16(&mut expected);
        let wrong = differ(&self.read(&to)?, &expected);
        self.line("round to bfloat16 [1,256,64,64]".into(), 8 * elements, us, wrong)?;
        let us = self.time(|| device.fill(ON, 1.5, &to))?;
        let wrong = self.read(&to)?.iter().filter(|value| **value != 1.5).count();
        self.line("fill [1,256,64,64]".into(), 4 * elements, us, wrong)
    }
}

fn differ(got: &[f32], expected: &[f32]) -> usize {
    got.iter().zip(expected).filter(|(got, expected)| got.to_bits() != expected.to_bits()).count()
        + got.len().abs_diff(expected.len())
}

/// -1 to 1, the same every time.
fn noise(count: usize) -> impl Iterator<Item = f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}
