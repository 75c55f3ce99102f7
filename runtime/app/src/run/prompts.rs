//! From `--box`, `--point` and `--mask` to prompts for `sightlinetrack`.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use gst::prelude::*;
use sightline_core::{Mask, NormBox, NormPoint, Rle};

use crate::{cli::PromptArg, pictures, trace::check_size};

/// A prompt whose file, if any, is read.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    Box([f32; 4]),
    Point([f32; 2]),
    Mask(PathBuf, Arc<Mask>),
}

/// Reads what must be read.
pub(crate) fn read(arguments: &[PromptArg]) -> Result<Vec<Given>> {
    let read = |argument: &PromptArg| {
        Ok(match argument {
            PromptArg::Box(corners) => Given::Box(*corners),
            PromptArg::Point(at) => Given::Point(*at),
            PromptArg::Mask(path) => Given::Mask(path.clone(), Arc::new(pictures::read_mask(path)?)),
        })
    };
    arguments.iter().map(read).collect()
}

impl Given {
    /// The structure of the action signal `add-object`; without `at`, the next frame is meant.
    pub(crate) fn structure(&self, id: u32, at: Option<gst::ClockTime>) -> gst::Structure {
        let numbers = |values: &[f32]| gst::Array::new(values.iter().map(|v| f64::from(*v).to_send_value()));
        let mut structure = gst::Structure::builder("sightline-prompt").field("id", id).build();
        match self {
            Self::Box(corners) => structure.set("box-px", numbers(corners)),
            Self::Point(at) => structure.set("points-px", numbers(at)),
            Self::Mask(_, mask) => {
                structure.set("mask", Rle::encode(mask).to_coco_string());
                structure.set("mask-width", mask.width_px());
                structure.set("mask-height", mask.height_px());
            }
        }
        if let Some(at) = at {
            structure.set("running-time", at.nseconds());
        }
        structure
    }

    /// Refuses what does not fit the picture.
    pub(crate) fn check(&self, width_px: u32, height_px: u32) -> Result<()> {
        match self {
            Self::Box([x0, y0, x1, y1]) => NormBox::from_pixels([*x0, *y0, *x1, *y1], width_px, height_px)
                .map(drop)
                .with_context(|| format!("--box {x0},{y0},{x1},{y1}")),
            Self::Point([x, y]) => NormPoint::from_pixels(*x, *y, width_px, height_px)
                .map(drop)
                .with_context(|| format!("--point {x},{y}")),
            Self::Mask(path, mask) => {
                check_size(path, (mask.width_px(), mask.height_px()), (width_px, height_px))
            }
        }
    }
}

/// Name of the application message that says a prompt does not fit the picture, and of its field.
pub(crate) const MISFIT: &str = "sightline-misfit";
pub(crate) const MISFIT_TEXT: &str = "text";

/// Checks the prompts against the picture's size as soon as it is known, and says so on the bus if one does not fit.
pub(crate) fn check_when_size_is_known(track: &gst::Element, prompts: Vec<Given>) {
    let Some(pad) = track.static_pad("sink") else { return };
    let track = track.downgrade();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(event) = info.event() else { return gst::PadProbeReturn::Ok };
        let gst::EventView::Caps(caps) = event.view() else { return gst::PadProbeReturn::Ok };
        let caps = caps.caps();
        let side = |name| {
            caps.structure(0).and_then(|s| s.get::<i32>(name).ok()).and_then(|v| u32::try_from(v).ok())
        };
        if let (Some(width), Some(height)) = (side("width"), side("height")) {
            let misfit = prompts.iter().find_map(|prompt| prompt.check(width, height).err());
            if let (Some(misfit), Some(track)) = (misfit, track.upgrade()) {
                let text = format!("{misfit:#}");
                let structure = gst::Structure::builder(MISFIT).field(MISFIT_TEXT, text).build();
                // Without a bus nobody is listening.
                let _ = track.post_message(gst::message::Application::new(structure));
            }
        }
        // Sizes may change later; the prompts were meant for the first one.
        gst::PadProbeReturn::Remove
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_that_do_not_fit_are_named() {
        let mask = Given::Mask("m.png".into(), Arc::new(Mask::new(4, 3)));
        for (case, given, message) in [
            (
                "box",
                Given::Box([900.0, 0.0, 950.0, 9.0]),
                "--box 900,0,950,9: box: expected a box that meets the 640x360",
            ),
            ("point", Given::Point([5.0, 361.0]), "--point 5,361: point: expected x in 0..=640"),
            ("mask", mask, "mask \"m.png\": expected 640x360 pixels as the picture has, got 4x3"),
        ] {
            let error = format!("{:#}", given.check(640, 360).expect_err(case));
            assert!(error.starts_with(message), "{case}: {error}");
        }
        assert!(Given::Box([-5.0, 0.0, 9.0, 9.0]).check(640, 360).is_ok(), "hanging over is fine");
    }
}
