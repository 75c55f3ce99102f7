//! `SightlineMeta`: the masks on a buffer, and which frame they were computed from.
//!
//! A `GstCustomMeta` without tags, so that it survives conversion, scaling and encoding elements untouched; its
//! coordinates are normalised for the same reason. Cropping and flipping leave it stale. The field table is in
//! this room's README.

use std::{sync::Once, time::Duration};

use sightline_core::{Degrade, FrameResult, FrameStamp, ObjectResult, Outcome, ValueError};

use crate::record::{
    coast, degrade_of, get, ns, objects_of, objects_to_array, outcome_of, set_outcome, set_stamp, stamp_of,
};

/// The custom meta's name.
pub const META_NAME: &str = "SightlineMeta";
/// The type of the regions of interest that go with it.
pub const ROI_TYPE: &str = "sightline";

/// The content of a `SightlineMeta`.
#[derive(Debug, Clone, PartialEq)]
pub struct SightlineMeta {
    /// The frame the masks speak of.
    pub computed: FrameStamp,
    /// This buffer's running time less that frame's; `None` where either has none.
    pub age: Option<Duration>,
    /// Index of the frame the engines looked at for them: an earlier one than `computed` where masks were carried on by
    /// motion.
    pub looked: u64,
    /// Its age.
    pub looked_age: Option<Duration>,
    /// What was given up.
    pub degrade: Degrade,
    /// From that frame's arrival to its masks being ready.
    pub latency: Duration,
    /// What became of that frame.
    pub outcome: Outcome,
    /// Its objects; `coasted` where the masks come from an earlier frame than this buffer.
    pub objects: Vec<ObjectResult>,
}

impl SightlineMeta {
    /// Reads the meta of a buffer; `None` when it has none.
    ///
    /// # Errors
    /// `Kind::Encoding`, naming the field that is missing or does not decode.
    pub fn from_buffer(buffer: &gst::BufferRef) -> Result<Option<Self>, ValueError> {
        if !gst::meta::CustomMeta::is_registered(META_NAME) {
            return Ok(None);
        }
        match gst::meta::CustomMeta::from_buffer(buffer, META_NAME) {
            Ok(meta) => Self::from_structure(meta.structure()).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Reads the meta's structure.
    ///
    /// # Errors
    /// `Kind::Encoding`, naming the field that is missing or does not decode.
    pub fn from_structure(structure: &gst::StructureRef) -> Result<Self, ValueError> {
        Ok(Self {
            computed: stamp_of(structure)?,
            age: structure.get::<u64>("age").ok().map(Duration::from_nanos),
            looked: get(structure, "looked-index")?,
            looked_age: structure.get::<u64>("looked-age").ok().map(Duration::from_nanos),
            degrade: degrade_of(structure)?,
            latency: Duration::from_nanos(get(structure, "latency")?),
            outcome: outcome_of(structure)?,
            objects: objects_of(structure)?,
        })
    }
}

/// Registers the meta, once per process.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !gst::meta::CustomMeta::is_registered(META_NAME) {
            gst::meta::CustomMeta::register_simple(META_NAME);
        }
    });
}

/// The newest masks, made ready on the worker so that attaching them is cheap.
#[derive(Debug)]
pub(crate) struct Published {
    result: FrameResult,
    /// The frame the engines looked at.
    looked: FrameStamp,
    /// Where the objects are expected when the next buffer passes; empty where they stay.
    expected: Vec<ObjectResult>,
    degrade: Degrade,
    /// The meta's fields but the ages, for the masks' own buffer.
    fresh: gst::Structure,
    /// And for later ones.
    coasted: gst::Structure,
}

impl Published {
    /// What the engines found on a frame, and where that is expected to be on the next one (empty: where it is).
    pub(crate) fn new(result: FrameResult, expected: Vec<ObjectResult>, degrade: Degrade) -> Self {
        let looked = result.frame;
        Self::with(result, looked, expected, degrade)
    }

    /// What was carried on by motion from the frame `looked` to the result's.
    pub(crate) fn carried(result: FrameResult, looked: FrameStamp, degrade: Degrade) -> Self {
        Self::with(result, looked, Vec::new(), degrade)
    }

    fn with(result: FrameResult, looked: FrameStamp, expected: Vec<ObjectResult>, degrade: Degrade) -> Self {
        let fields = |objects: &[ObjectResult], coasted| {
            let mut fields = gst::Structure::new_empty(META_NAME);
            set_stamp(&mut fields, result.frame);
            fields.set("latency", ns(result.latency));
            set_outcome(&mut fields, result.outcome);
            fields.set("looked-index", looked.index);
            fields.set("degrade", degrade.as_str());
            fields.set("objects", objects_to_array(objects, coasted));
            fields
        };
        let later = if expected.is_empty() { &result.objects } else { &expected };
        let (fresh, coasted) = (fields(&result.objects, false), fields(later, true));
        Self { result, looked, expected, degrade, fresh, coasted }
    }

    pub(crate) fn result(&self) -> &FrameResult {
        &self.result
    }

    pub(crate) fn looked(&self) -> FrameStamp {
        self.looked
    }

    pub(crate) fn degrade(&self) -> Degrade {
        self.degrade
    }

    /// Attaches the meta and a region of interest for every visible object. `true` when the masks are this very
    /// buffer's.
    pub(crate) fn attach(
        &self,
        buffer: &mut gst::BufferRef,
        of: FrameStamp,
        size_px: (u32, u32),
    ) -> Result<bool, gst::glib::BoolError> {
        let fresh = self.looked.index == of.index;
        let mut meta = gst::meta::CustomMeta::add(buffer, META_NAME)?;
        let structure = meta.mut_structure();
        let span = |now: Option<Duration>, then: Option<Duration>| Some(now?.saturating_sub(then?));
        let age = |from: FrameStamp| {
            span(of.running_time, from.running_time).or_else(|| span(of.pts, from.pts)).map(ns)
        };
        structure.set_if_some("age", age(self.result.frame));
        structure.set_if_some("looked-age", age(self.looked));
        for (field, value) in if fresh { self.fresh.iter() } else { self.coasted.iter() } {
            structure.set_value(field, value.clone());
        }
        let later = !fresh && !self.expected.is_empty();
        for object in if later { &self.expected } else { &self.result.objects } {
            add_roi(buffer, object, fresh, size_px);
        }
        Ok(fresh)
    }
}

fn add_roi(
    buffer: &mut gst::BufferRef,
    object: &ObjectResult,
    fresh: bool,
    (width_px, height_px): (u32, u32),
) {
    let Some(bounds) = object.bounds else { return };
    let [x0, y0, x1, y1] = bounds.to_pixels(width_px, height_px);
    let (x, y) = (x0.floor() as u32, y0.floor() as u32);
    let rect = (x, y, (x1.ceil() as u32).saturating_sub(x), (y1.ceil() as u32).saturating_sub(y));
    let mut roi = gst_video::VideoRegionOfInterestMeta::add(buffer, ROI_TYPE, rect);
    roi.set_id(i32::try_from(object.id.0).unwrap_or(i32::MAX));
    let state = if fresh { object.state } else { coast(object.state) };
    roi.add_param(
        gst::Structure::builder(ROI_TYPE)
            .field("id", object.id.0)
            .field("state", state.as_str())
            .field("score", f64::from(object.score))
            .field("iou", f64::from(object.iou))
            .build(),
    );
}
