//! `sightlineoverlay`'s part in the pipeline.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::subclass::prelude::*;
use gst_video::prelude::*;
use sightline_core::{ObjectResult, TrackState};
use sightline_vision::draw::{Painter, PictureMut, PlaneMut, label, palette};

use super::CAT;
use crate::{device, meta::SightlineMeta, pixels::Layout};

/// Width of a contour: one pixel in this many rows of the picture, at least 1.
const CONTOUR_ROWS: u32 = 360;

#[derive(Debug, Clone, Copy)]
struct Settings {
    alpha: f64,
    contour: bool,
    labels: bool,
    age: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { alpha: 0.45, contour: true, labels: true, age: false }
    }
}

#[derive(Default)]
struct State {
    layout: Option<Layout>,
    painter: Painter,
}

/// The element.
#[derive(Default)]
pub struct SightlineOverlay {
    settings: Mutex<Settings>,
    state: Mutex<State>,
}

impl SightlineOverlay {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[glib::object_subclass]
impl ObjectSubclass for SightlineOverlay {
    const NAME: &'static str = "GstSightlineOverlay";
    type Type = super::SightlineOverlay;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for SightlineOverlay {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let defaults = Settings::default();
            let switch = |name: &'static str, nick, blurb, default| {
                glib::ParamSpecBoolean::builder(name)
                    .nick(nick)
                    .blurb(blurb)
                    .default_value(default)
                    .mutable_playing()
                    .build()
            };
            vec![
                glib::ParamSpecDouble::builder("alpha")
                    .nick("Alpha")
                    .blurb(
                        "How much of its colour an object's mask takes on: 0 leaves the picture, 1 hides it",
                    )
                    .minimum(0.0)
                    .maximum(1.0)
                    .default_value(defaults.alpha)
                    .mutable_playing()
                    .controllable()
                    .build(),
                switch("contour", "Contour", "Draw the masks' inner border", defaults.contour),
                switch(
                    "labels",
                    "Labels",
                    "Write each object's id and score at its box; a trailing ~ marks masks of an earlier frame",
                    defaults.labels,
                ),
                switch(
                    "age",
                    "Age",
                    "Write in the top left corner how much older than the picture its masks are",
                    defaults.age,
                ),
            ]
        });
        PROPERTIES.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = self.settings();
        let switch = || value.get().unwrap_or_default();
        match pspec.name() {
            "alpha" => settings.alpha = value.get().unwrap_or_default(),
            "contour" => settings.contour = switch(),
            "labels" => settings.labels = switch(),
            "age" => settings.age = switch(),
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = self.settings();
        match pspec.name() {
            "alpha" => settings.alpha.to_value(),
            "contour" => settings.contour.to_value(),
            "labels" => settings.labels.to_value(),
            "age" => settings.age.to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for SightlineOverlay {}

impl ElementImpl for SightlineOverlay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Sightline overlay",
                "Filter/Effect/Video",
                "Draws the masks, contours and ids that sightlinetrack put on the buffers",
                "The Sightline authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        // NVMM cannot be drawn on; CUDA memory is fetched, drawn on and brought back by GStreamer.
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let here = device::found().iter().copied();
            crate::pad_templates(&here.filter(|memory| *memory != device::Memory::Nvmm).collect::<Vec<_>>())
        });
        TEMPLATES.as_ref()
    }
}

impl BaseTransformImpl for SightlineOverlay {
    const MODE: gst_base::subclass::BaseTransformMode = gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        crate::meta::register();
        *self.state() = State::default();
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let layout = Layout::from_caps(incaps).map_err(|error| gst::loggable_error!(CAT, "{error}"))?;
        self.state().layout = Some(layout);
        Ok(())
    }

    fn transform_ip(&self, buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        let settings = *self.settings();
        let meta = match SightlineMeta::from_buffer(buffer) {
            // Nothing to draw: the pixels are not even mapped.
            Ok(None) => return Ok(gst::FlowSuccess::Ok),
            Ok(Some(meta)) => meta,
            Err(error) => {
                gst::warning!(CAT, imp = self, "nothing drawn: {error}");
                return Ok(gst::FlowSuccess::Ok);
            }
        };
        let nothing = settings.alpha == 0.0 && !settings.contour && !settings.labels;
        if (nothing || meta.objects.iter().all(|object| object.bounds.is_none())) && !settings.age {
            return Ok(gst::FlowSuccess::Ok);
        }
        let mut state = self.state();
        let State { layout, painter } = &mut *state;
        let layout = layout.as_ref().ok_or(gst::FlowError::NotNegotiated)?;
        if let Err(error) = draw(buffer, layout, painter, &meta, settings) {
            // A picture that cannot be written is passed on undrawn.
            gst::warning!(CAT, imp = self, "nothing drawn: {error}");
        }
        Ok(gst::FlowSuccess::Ok)
    }
}

fn draw(
    buffer: &mut gst::BufferRef,
    layout: &Layout,
    painter: &mut Painter,
    meta: &SightlineMeta,
    settings: Settings,
) -> Result<(), String> {
    let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &layout.info)
        .map_err(|error| error.to_string())?;
    let mut strides = [0; 3];
    for (to, from) in strides.iter_mut().zip(frame.plane_stride()) {
        *to = usize::try_from(*from).unwrap_or(0);
    }
    let [a, b, c, _] = frame.planes_data_mut();
    let planes = [a, b, c].into_iter().zip(strides).take(layout.format.planes());
    let planes = planes.map(|(data, stride_bytes)| PlaneMut { data, stride_bytes });
    let (width_px, height_px) = (layout.width_px(), layout.height_px());
    let mut picture = PictureMut::new(layout.format, width_px, height_px, planes)
        .map_err(|error| error.to_string())?
        .with_color(layout.matrix, layout.range);

    let visible = || meta.objects.iter().filter(|object| object.bounds.is_some());
    for object in visible() {
        let color = palette(object.id.0);
        if settings.alpha > 0.0 {
            painter.fill(&mut picture, &object.mask, color, settings.alpha as f32);
        }
        if settings.contour {
            painter.contour(&mut picture, &object.mask, color, (height_px / CONTOUR_ROWS).max(1));
        }
    }
    // Above every mask, so that none hides them.
    for object in visible().filter(|_| settings.labels) {
        let Some(bounds) = object.bounds else { continue };
        let [x0, y0, ..] = bounds.to_pixels(width_px, height_px);
        label(&mut picture, x0 as u32, y0 as u32, &text(object), palette(object.id.0));
    }
    if settings.age {
        let age = meta.age.map_or_else(|| "age ?".into(), |age| format!("age {} ms", age.as_millis()));
        label(&mut picture, 0, 0, &age, palette(0));
    }
    Ok(())
}

fn text(object: &ObjectResult) -> String {
    let stale = if object.state == TrackState::Coasted { "~" } else { "" };
    format!("#{} {:.0}%{stale}", object.id, object.score * 100.0)
}
