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
mod priority;
mod prompts;
mod questions;
mod relay;
mod session;
mod settings;
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

/// Registers the element.
pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "sightlinetrack", gst::Rank::NONE, SightlineTrack::static_type())
}
