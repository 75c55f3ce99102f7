//! The corridor's pixel work, one stage a group, on one core of the CPU.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use sightline_core::{Filter, ImageSpec, Mask, NormBox, Picture, PixelFormat, Plane, Rle};
use sightline_vision::draw::{Painter, PictureMut, PlaneMut, label, palette, rectangle};
use sightline_vision::{Coaster, Course, MaskUpscaler, Preprocessor, Ride, davis, downscale, resize_mask};

const SIZES: [(&str, u32, u32); 2] = [("720p", 1280, 720), ("1080p", 1920, 1080)];

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn planes(format: PixelFormat, width: u32, height: u32) -> Vec<(Vec<u8>, usize)> {
    let extents = (0..format.planes()).map(|plane| format.plane_extent(plane, width, height));
    extents.map(|(row, rows)| (noise(row * rows), row)).collect()
}

/// An ellipse of the given size in the middle of a picture.
fn ellipse(width: u32, height: u32, across: u32, down: u32) -> Mask {
    let mut mask = Mask::new(width, height);
    for (at, byte) in mask.data_mut().iter_mut().enumerate() {
        let (x, y) = (at as u32 % width, at as u32 / width);
        let (dx, dy) = (f64::from(x) - f64::from(width) / 2.0, f64::from(y) - f64::from(height) / 2.0);
        *byte = u8::from((2.0 * dx / f64::from(across)).hypot(2.0 * dy / f64::from(down)) < 1.0);
    }
    mask
}

/// Logits of a disk that covers a part of the picture.
fn logits(side: usize, part: f32) -> Vec<f32> {
    let radius = side as f32 * (part / std::f32::consts::PI).sqrt();
    let middle = side as f32 / 2.0;
    let at = |index: usize| ((index % side) as f32 - middle, (index / side) as f32 - middle);
    (0..side * side).map(at).map(|(x, y)| radius - x.hypot(y)).collect()
}

/// To the sizes of the SAM2 family, and to that of the embedded model if it is built in.
fn image_specs() -> Vec<(String, ImageSpec)> {
    let mut specs: Vec<_> = [256, 512, 1024]
        .map(|side| {
            let filter = if side == 256 { Filter::Bilinear } else { Filter::Bicubic };
            let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
            (side.to_string(), ImageSpec { height_px: side, width_px: side, mean, std, filter })
        })
        .into();
    let nano = sightline_engine_registry::installed().into_iter().find(|entry| entry.name == "nano");
    specs.extend(nano.and_then(|entry| entry.spec.ok()).map(|spec| ("nano".to_owned(), spec.image)));
    specs
}

fn preprocess(c: &mut Criterion) {
    let mut group = c.benchmark_group("preprocess/cpu");
    for (size, width, height) in SIZES {
        for (to, spec) in image_specs() {
            for format in PixelFormat::ALL {
                let owned = planes(format, width, height);
                let planes: Vec<_> =
                    owned.iter().map(|(data, stride)| Plane { data, stride_bytes: *stride }).collect();
                let picture = Picture::new(format, width, height, &planes).unwrap();
                let mut preprocessor = Preprocessor::new(&spec);
                let mut out = vec![0.0; 3 * spec.height_px * spec.width_px];
                let name = format!("{format:?}/{:?}", spec.filter).to_lowercase();
                group.bench_function(BenchmarkId::new(name, format!("{size}-{to}")), |b| {
                    b.iter(|| preprocessor.run(black_box(&picture), &mut out).unwrap());
                });
            }
        }
    }
    group.finish();
}

fn masks(c: &mut Criterion) {
    let mut group = c.benchmark_group("masks/cpu");
    for (size, width, height) in SIZES {
        for side in [64, 128, 256] {
            for (name, part) in [("object", 0.1), ("whole", 4.0)] {
                let logits = logits(side, part);
                let mut upscaler = MaskUpscaler::new(side, side);
                group.bench_function(
                    BenchmarkId::new(format!("upscale/{name}"), format!("{side}-{size}")),
                    |b| {
                        b.iter(|| upscaler.run(black_box(&logits), width, height).unwrap());
                    },
                );
            }
        }
        let mask = ellipse(width, height, width / 4, height * 2 / 3);
        let rle = Rle::encode(&mask);
        group.bench_function(BenchmarkId::new("rle/encode", size), |b| {
            b.iter(|| Rle::encode(black_box(&mask)))
        });
        group.bench_function(BenchmarkId::new("rle/decode", size), |b| b.iter(|| black_box(&rle).decode()));
        group.bench_function(BenchmarkId::new("rle/coco", size), |b| {
            b.iter(|| black_box(&rle).to_coco_string())
        });
        group.bench_function(BenchmarkId::new("resize_mask", format!("{size}-512")), |b| {
            b.iter(|| resize_mask(black_box(&mask), 512, 512));
        });
    }
    let map = logits(512, 0.1);
    group.bench_function("downscale/512-128", |b| b.iter(|| downscale(black_box(&map), 512, 512, 128, 128)));
    group.finish();
}

fn measures(c: &mut Criterion) {
    let mut group = c.benchmark_group("davis/cpu");
    let (truth, pred) = (ellipse(854, 480, 300, 300), ellipse(854, 480, 310, 290));
    group.bench_function("j/854x480", |b| {
        b.iter(|| davis::region_similarity(black_box(&pred), &truth).unwrap());
    });
    group.bench_function("f/854x480", |b| b.iter(|| davis::boundary_f(black_box(&pred), &truth).unwrap()));
    group.finish();
}

fn draw(c: &mut Criterion) {
    let mut group = c.benchmark_group("draw/cpu");
    let (width, height) = (1280, 720);
    let mask = Rle::encode(&ellipse(width, height, 300, 500));
    let bounds = NormBox { x0: 0.4, y0: 0.15, x1: 0.6, y1: 0.85 };
    for format in PixelFormat::ALL {
        let mut owned = planes(format, width, height);
        let planes = owned.iter_mut().map(|(data, stride)| PlaneMut { data, stride_bytes: *stride });
        let mut picture = PictureMut::new(format, width, height, planes).unwrap();
        let mut painter = Painter::new();
        let name = format!("{format:?}/720p").to_lowercase();
        group.bench_function(BenchmarkId::new("fill-300x500", &name), |b| {
            b.iter(|| painter.fill(&mut picture, black_box(&mask), palette(0), 0.45));
        });
        group.bench_function(BenchmarkId::new("contour-300x500", &name), |b| {
            b.iter(|| painter.contour(&mut picture, black_box(&mask), palette(1), 3));
        });
        group.bench_function(BenchmarkId::new("rectangle", &name), |b| {
            b.iter(|| rectangle(&mut picture, black_box(bounds), palette(2), 3));
        });
        group.bench_function(BenchmarkId::new("label", &name), |b| {
            b.iter(|| label(&mut picture, 400, 100, black_box("person 0.97"), palette(3)));
        });
    }
    group.finish();
}

/// A smooth pattern, moved to the right; noise would have nothing to follow.
fn moved_luma(width: u32, height: u32, by: f32) -> Vec<u8> {
    let value = |at: u32| {
        let (x, y) = ((at % width) as f32 - by, (at / width) as f32);
        let waves = (x / 17.0).sin() * (y / 23.0).cos() + (x / 41.0 + y / 29.0).sin();
        (127.0 + 60.0 * waves) as u8
    };
    (0..width * height).map(value).collect()
}

fn coast(c: &mut Criterion) {
    let mut group = c.benchmark_group("coast/cpu");
    for (size, width, height) in SIZES {
        let mut coaster = Coaster::new(8);
        let chroma = vec![128; (width * height / 2) as usize];
        let frames: Vec<_> = [0.0, 9.0].map(|by| moved_luma(width, height, by)).into();
        let stride_bytes = width as usize;
        let pictures: Vec<_> = frames
            .iter()
            .map(|luma| [luma, &chroma].map(|data| Plane { data, stride_bytes }))
            .map(|planes| Picture::new(PixelFormat::Nv12, width, height, &planes).unwrap())
            .collect();
        let mut index = 0;
        group.bench_function(BenchmarkId::new("see/nv12", size), |b| {
            b.iter(|| {
                index += 1;
                coaster.see(index, black_box(&pictures[0])).unwrap();
            });
        });
        coaster.see(index + 1, &pictures[0]).unwrap();
        coaster.see(index + 2, &pictures[1]).unwrap();
        let masks = [
            ellipse(width, height, width / 4, height * 2 / 3),
            ellipse(width, height, width / 4 - 20, height * 2 / 3),
        ];
        let [mask, older] = masks.map(|mask| Rle::encode(&mask));
        let ride = Ride::new(Arc::new(mask.clone()), index + 1);
        group.bench_function(BenchmarkId::new("carry/one-frame", size), |b| {
            b.iter_batched_ref(
                || ride.clone(),
                |ride| coaster.carry(ride, index + 2).unwrap(),
                BatchSize::SmallInput,
            );
        });
        let mut there = ride.clone();
        coaster.carry(&mut there, index + 2).unwrap();
        group.bench_function(BenchmarkId::new("carry/mask-only", size), |b| {
            b.iter(|| coaster.carry(&mut there, index + 2).unwrap());
        });
        let frame = Duration::from_millis(40);
        group.bench_function(BenchmarkId::new("course", size), |b| {
            b.iter(|| Course::of(black_box(&older), &mask, frame).unwrap());
        });
        // Another way of the same size, so that there is something to do.
        let course = Course::of(&mask, &shifted(&mask), frame).unwrap();
        group.bench_function(BenchmarkId::new("ahead", size), |b| {
            b.iter(|| course.ahead(black_box(&mask), frame))
        });
    }
    group.finish();
}

/// The mask ten pixels further right.
fn shifted(mask: &Rle) -> Rle {
    let by = 10 * mask.height_px();
    let mut counts = mask.counts().to_vec();
    counts[0] += by;
    if let Some(last) = counts.last_mut() {
        *last -= by;
    }
    Rle::new(mask.width_px(), mask.height_px(), counts).unwrap()
}

criterion_group!(benches, preprocess, masks, measures, draw, coast);
criterion_main!(benches);
