//! A drawn picture that moves: speed does not depend on what it shows.

use anyhow::Result;
use sightline_core::{FrameStamp, NormBox, ObjectId, Picture, PixelFormat, Plane, Prompt};
use sightline_tracker::{At, Session};

/// Pictures drawn; played round and round.
const PICTURES: usize = 8;
/// What is shown a second.
pub(crate) const FPS: f64 = 30.0;

/// Pictures in memory, RGB.
pub(crate) struct Scene {
    width: u32,
    height: u32,
    pictures: Vec<Vec<u8>>,
}

impl Scene {
    /// Draws.
    pub(crate) fn new((width, height): (u32, u32)) -> Self {
        let draw = |number: usize| {
            let shift = 7 * number;
            let rows = (0..height as usize).flat_map(|y| (0..width as usize).map(move |x| (x + shift, y)));
            // Tiles, each with a colour of its own and a slope inside: edges and smooth parts.
            let pixel = |(x, y): (usize, usize)| {
                let tile = (x / 96).wrapping_mul(31) ^ (y / 72).wrapping_mul(57);
                [tile.wrapping_mul(83) + x / 3, tile.wrapping_mul(29) + y / 2, tile.wrapping_mul(131)]
            };
            rows.flat_map(|at| pixel(at).map(|value| value as u8)).collect()
        };
        Self { width, height, pictures: (0..PICTURES).map(draw).collect() }
    }

    /// Width and height in pixels.
    pub(crate) fn size_px(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// A frame.
    pub(crate) fn picture(&self, frame: u64) -> Result<Picture<'_>> {
        let data = &self.pictures[frame as usize % PICTURES];
        let plane = Plane { data, stride_bytes: 3 * self.width as usize };
        Ok(Picture::new(PixelFormat::Rgb, self.width, self.height, &[plane])?)
    }
}

/// A frame's place in time.
pub(crate) fn stamp(frame: u64) -> FrameStamp {
    let at = Some(std::time::Duration::from_secs_f64(frame as f64 / FPS));
    FrameStamp { index: frame, pts: at, running_time: at }
}

/// The `n`th object's box: they lie spread over the picture.
pub(crate) fn prompt(object: u32) -> Prompt {
    let (column, row) = ((object % 4) as f32, (object / 4 % 4) as f32);
    let (x0, y0) = (0.03 + 0.24 * column, 0.03 + 0.24 * row);
    Prompt::Box(NormBox { x0, y0, x1: x0 + 0.18, y1: y0 + 0.18 })
}

/// Prompts `objects` objects on the next frame.
pub(crate) fn prompt_all(session: &mut Session, objects: u32) -> Result<()> {
    for object in 0..objects {
        session.prompt(ObjectId(object + 1), At::Next, prompt(object))?;
    }
    Ok(())
}
