//! `sightlineoverlay`: draws what `sightlinetrack` put on the buffers.

mod imp;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use gst::{glib, prelude::*};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("sightlineoverlay", gst::DebugColorFlags::empty(), Some("Sightline overlay"))
});

glib::wrapper! {
    /// The element.
    pub struct SightlineOverlay(ObjectSubclass<imp::SightlineOverlay>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers the element.
pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "sightlineoverlay", gst::Rank::NONE, SightlineOverlay::static_type())
}
