//! GStreamer elements: `sightlinetrack` follows prompted objects, `sightlineoverlay` draws them.
//!
//! The elements' pages, with properties, signals, events, messages and the layout of the metadata, are in this
//! room's README. From Rust, [`plugin_register_static`] makes the elements known without a plugin path, [`record`],
//! [`live_record`] and [`query_record`] read what `sightlinetrack` says on the bus and [`meta`] what it puts on buffers.

mod device;
mod frame;
mod histogram;
pub mod live_record;
pub mod meta;
mod overlay;
mod pixels;
pub mod query_record;
pub mod record;
mod track;

pub use describe::plugin_register_static;
pub use overlay::SightlineOverlay;
pub use track::{Late, Mode, SightlineTrack, builtin, check_texts};

/// One sink and one source pad of the formats in [`pixels::FORMATS`], in each of the memories.
fn pad_templates(memories: &[device::Memory]) -> Vec<gst::PadTemplate> {
    let caps = device::Memory::caps(memories);
    [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
        .into_iter()
        .filter_map(|(name, direction)| {
            gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
        })
        .collect()
}

fn plugin_init(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    meta::register();
    track::register(plugin)?;
    overlay::register(plugin)
}

// The macro writes public items without documentation.
#[allow(missing_docs)]
mod describe {
    use super::plugin_init;

    gst::plugin_define!(
        sightline,
        env!("CARGO_PKG_DESCRIPTION"),
        plugin_init,
        concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
        "MIT OR Apache-2.0",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        "Unknown package origin",
        env!("BUILD_REL_DATE")
    );
}
