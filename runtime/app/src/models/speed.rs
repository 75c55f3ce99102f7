//! How long a step takes here: one object on a drawn clip of the model's own size.

use std::{
    fmt, fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sightline_core::{NormBox, ObjectId, Prompt};
use sightline_tracker::{At, Session};

use crate::{eval, pictures::RgbPicture};

/// Its name in a model's folder.
const FILE: &str = "measured.json";
/// The first steps pay for pages and caches.
const WARM_UP: usize = 3;
const STEPS: usize = 15;
/// A large model on a small machine is measured by fewer steps.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Speed {
    /// Median of a step, from a picture in memory to a mask of its size.
    pub(super) step_p50_ms: f64,
    pub(super) steps: usize,
    pub(super) objects: usize,
    pub(super) threads: usize,
    pub(super) image_px: [usize; 2],
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [width, height] = self.image_px;
        write!(
            f,
            "{:.1} ms a frame (median of {}) with {} object{}, {} thread{}, {width}x{height}",
            self.step_p50_ms,
            self.steps,
            self.objects,
            if self.objects == 1 { "" } else { "s" },
            self.threads,
            if self.threads == 1 { "" } else { "s" }
        )
    }
}

impl Speed {
    /// What an earlier measurement left in a model's folder.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(folder.join(FILE)).ok()?).ok()
    }

    /// Leaves it in the model's folder for `sightline models list`; a folder that cannot be written stays without.
    pub(super) fn write(&self, folder: &Path) {
        if let Err(error) = super::write_json(&folder.join(FILE), self) {
            tracing::warn!(error = format!("{error:#}"), "the measurement is not kept");
        }
    }
}

/// Measures; what the session remembers is forgotten.
pub(super) fn measure(session: &mut Session, threads: usize) -> Result<Speed> {
    session.reset();
    let image = &session.tracker().spec().image;
    let (width, height) = (image.width_px, image.height_px);
    let object = ObjectId(1);
    let around = NormBox::from_pixels(square(0, width), width as u32, height as u32)?;
    session.prompt(object, At::Next, Prompt::Box(around)).context("measuring")?;
    let mut times_ms = Vec::with_capacity(STEPS);
    let began = Instant::now();
    for index in 0..WARM_UP + STEPS {
        let picture = drawn(index, width, height);
        let start = Instant::now();
        session.process(eval::stamp(index), &picture.view()?).context("measuring")?;
        if index >= WARM_UP {
            times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        if began.elapsed() > PATIENCE && !times_ms.is_empty() {
            break;
        }
    }
    times_ms.sort_by(f64::total_cmp);
    Ok(Speed {
        step_p50_ms: times_ms[times_ms.len() / 2],
        steps: times_ms.len(),
        objects: 1,
        threads,
        image_px: [width, height],
    })
}

/// A square of a quarter of the width that moves right by a pixel a frame.
fn square(index: usize, width: usize) -> [f32; 4] {
    let side = width as f32 / 4.0;
    let left = side + index as f32;
    [left, side, left + side, 2.0 * side]
}

fn drawn(index: usize, width: usize, height: usize) -> RgbPicture {
    let [x0, y0, x1, y1] = square(index, width);
    let inside = |x: usize, y: usize| (x0..x1).contains(&(x as f32)) && (y0..y1).contains(&(y as f32));
    let pixel = |x: usize, y: usize| match inside(x, y) {
        true => [220, 60, 40],
        false => [(x * 255 / width) as u8 / 2, (y * 255 / height) as u8 / 2, 90],
    };
    let data =
        (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
    RgbPicture { width_px: width as u32, height_px: height as u32, data }
}
