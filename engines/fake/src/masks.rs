//! Masks of logits, pixel by pixel as PyTorch's formula says.

use sightline_engine_api::{DeviceMasks, DeviceTensor, EngineError, Kind, MaskRoom, Stream};

use crate::FakeDevice;

/// Those of a [`FakeDevice`].
#[derive(Debug)]
pub(crate) struct FakeMasks {
    pub(crate) device: FakeDevice,
    pub(crate) objects: usize,
    pub(crate) most_pixels: usize,
}

impl DeviceMasks for FakeMasks {
    fn find_to(
        &mut self,
        stream: Stream,
        logits: &DeviceTensor,
        room: MaskRoom,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        let &[objects, 1, height, width] = logits.shape.dims() else {
            return Err(EngineError::new(Kind::Interface, "mask logits", "[B,1,h,w]", logits.shape));
        };
        if objects > self.objects || room.pixels() > self.most_pixels {
            let expected = format!("at most {} of {} pixels", self.objects, self.most_pixels);
            let got = format!("{objects} of {}", room.pixels());
            return Err(EngineError::new(Kind::Interface, "masks", expected, got));
        }
        if to.shape.elements() != objects * room.words() / 2 {
            let expected = format!("{objects} of {} words", room.words());
            return Err(EngineError::new(Kind::Interface, "place of masks", expected, to.shape));
        }
        self.device.counted(|counts| counts.kernels += 1);
        let (source, place) = (logits.clone(), to.clone());
        self.device.give(stream, &[logits, to], move |memory| {
            let logits = memory.f32(&source)?;
            let mut all = Vec::with_capacity(objects * room.words());
            for logits in logits.chunks_exact(width * height) {
                let mut words = mask(logits, (width, height), room);
                // What nobody has written is not to be read.
                words.resize(room.words(), 0xdead_beef);
                all.extend(words);
            }
            memory.put_words(&place, &all)
        })
    }
}

/// Where a pixel looks, `area_pixel_compute_source_index` and `guard_index_and_lambda` of PyTorch's `UpSample.h`.
fn tap(at: u32, low: usize, high: u32) -> (usize, usize, f32) {
    let source = ((low as f32 / high as f32) * (at as f32 + 0.5) - 0.5).max(0.0);
    let first = (source as usize).min(low - 1);
    (first, (first + 1).min(low - 1), (source - first as f32).clamp(0.0, 1.0))
}

/// Head and runs as [`MaskRoom`] says; the runs are left out where there is no room for them.
fn mask(logits: &[f32], (low_width, low_height): (usize, usize), room: MaskRoom) -> Vec<u32> {
    let (width, height) = room.size_px();
    let [mut area, mut x0, mut y0, mut x1, mut y1] = [0, u32::MAX, u32::MAX, 0, 0];
    let (mut counts, mut before) = (vec![0_u32], false);
    let rows: Vec<_> = (0..height).map(|y| tap(y, low_height, height)).collect();
    for x in 0..width {
        let (left, right, share) = tap(x, low_width, width);
        let across = |row: usize| {
            let row = &logits[row * low_width..][..low_width];
            (1.0 - share) * row[left] + share * row[right]
        };
        for (y, (upper, lower, down)) in rows.iter().enumerate() {
            let set = (1.0 - down) * across(*upper) + down * across(*lower) > 0.0;
            if set != before {
                counts.push(0);
                before = set;
            }
            if let Some(last) = counts.last_mut() {
                *last += 1;
            }
            if set {
                let y = y as u32;
                area += 1;
                (x0, y0, x1, y1) = (x0.min(x), y0.min(y), x + 1, y1.max(y + 1));
            }
        }
    }
    let changes = counts.len() as u32 - 1;
    let faulty = logits.iter().any(|logit| !logit.is_finite());
    let positive = logits.iter().any(|logit| *logit > 0.0);
    let flags = [u32::from(faulty), u32::from(positive)];
    if changes > room.most_changes() {
        return [vec![0, u32::MAX, u32::MAX, 0, 0, changes], flags.into()].concat();
    }
    [vec![area, x0, y0, x1, y1, changes], flags.into(), counts].concat()
}
