//! GStreamer's video formats in the core's words.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use gst::prelude::*;
use sightline_core::{ColorMatrix, ColorRange, PixelFormat};

use crate::device::Memory;

/// Every format both elements take, in the order we would rather be given them.
pub(crate) const FORMATS: [gst_video::VideoFormat; 9] = [
    gst_video::VideoFormat::Nv12,
    gst_video::VideoFormat::I420,
    gst_video::VideoFormat::Yuy2,
    gst_video::VideoFormat::Rgb,
    gst_video::VideoFormat::Bgr,
    gst_video::VideoFormat::Rgbx,
    gst_video::VideoFormat::Bgrx,
    gst_video::VideoFormat::Rgba,
    gst_video::VideoFormat::Bgra,
];

/// What the negotiated caps mean to the corridor.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) memory: Memory,
    pub(crate) info: gst_video::VideoInfo,
    pub(crate) format: PixelFormat,
    pub(crate) matrix: ColorMatrix,
    pub(crate) range: ColorRange,
    pub(crate) said: Arc<Said>,
}

/// What is told once for all buffers of some caps.
#[derive(Debug, Default)]
pub(crate) struct Said {
    unreadable: AtomicBool,
    fetched: AtomicBool,
    /// Who says it, and in which category.
    log: Option<(gst::glib::WeakRef<gst::Element>, gst::DebugCategory)>,
}

impl Said {
    /// Nothing yet.
    pub(crate) fn by(element: &impl IsA<gst::Element>, category: gst::DebugCategory) -> Self {
        Self { log: Some((element.upcast_ref().downgrade(), category)), ..Self::default() }
    }

    /// None of them can be read; `true` the first time.
    pub(crate) fn unreadable(&self) -> bool {
        !self.unreadable.swap(true, Ordering::Relaxed)
    }

    /// Whether that was said.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// They do not stay where they are.
    pub(crate) fn fetched(&self, reason: &str) {
        if self.fetched.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some((element, category)) = &self.log
            && let Some(element) = element.upgrade()
        {
            gst::warning!(category, obj = element, "pictures are fetched to system memory: {reason}");
        }
    }
}

impl Layout {
    /// Reads caps that passed the pad template.
    pub(crate) fn from_caps(caps: &gst::CapsRef) -> Result<Self, gst::glib::BoolError> {
        use gst_video::VideoFormat as V;
        let memory = Memory::of(caps);
        let info = gst_video::VideoInfo::from_caps(caps)?;
        let format = match info.format() {
            V::Nv12 => PixelFormat::Nv12,
            V::I420 => PixelFormat::I420,
            V::Yuy2 => PixelFormat::Yuy2,
            V::Rgb => PixelFormat::Rgb,
            V::Bgr => PixelFormat::Bgr,
            V::Rgbx => PixelFormat::Rgbx,
            V::Bgrx => PixelFormat::Bgrx,
            V::Rgba => PixelFormat::Rgba,
            V::Bgra => PixelFormat::Bgra,
            other => return Err(gst::glib::bool_error!("caps format: expected NV12 or alike, got {other}")),
        };
        let matrix = match info.colorimetry().matrix() {
            gst_video::VideoColorMatrix::Bt709 => ColorMatrix::Bt709,
            gst_video::VideoColorMatrix::Bt2020 => ColorMatrix::Bt2020,
            _ => ColorMatrix::Bt601,
        };
        let range = match info.colorimetry().range() {
            gst_video::VideoColorRange::Range0_255 => ColorRange::Full,
            _ => ColorRange::Limited,
        };
        Ok(Self { memory, info, format, matrix, range, said: Arc::default() })
    }

    pub(crate) fn width_px(&self) -> u32 {
        self.info.width()
    }
    pub(crate) fn height_px(&self) -> u32 {
        self.info.height()
    }
}
