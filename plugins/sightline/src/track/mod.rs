//! `sightlinetrack`: prompts in, masks out, one thread beside the stream.

mod admission;
mod ahead;
pub mod builtin;
mod coast;
mod draft;
mod events;
mod gap;
mod guess;
mod hub;
mod imp;
mod ladder;
mod mailbox;
mod mask_file;
mod notice;
mod passage;
mod priority;
mod prompts;
mod questions;
mod relay;
mod session;
mod settings;
mod share;
mod talk;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::LazyLock;

use gst::{glib, prelude::*};

pub use settings::{Late, Mode};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("sightlinetrack", gst::DebugColorFlags::empty(), Some("Sightline tracker"))
});

glib::wrapper! {
    /// The element.
    pub struct SightlineTrack(ObjectSubclass<imp::SightlineTrack>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Whether `sightlinetrack` would take these values of its properties `prompts` and `queries`; mask files are read.
///
/// # Errors
/// The element's own, which name the prompt or the question.
pub fn check_texts(prompts: &str, queries: &str) -> Result<(), sightline_core::ValueError> {
    for prompt in prompts::parse_text(prompts)? {
        if let Some(draft::MaskSource::File(path)) = &prompt.draft.mask {
            mask_file::read(path)?;
        }
    }
    questions::parse_text(queries).map(drop)
}

/// Registers the element.
pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "sightlinetrack", gst::Rank::NONE, SightlineTrack::static_type())
}
