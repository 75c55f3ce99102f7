//! What became of a frame, in Rust and as the `GstStructure` of the `sightline-frame` message.
//!
//! The field tables are in this room's README.

use std::{sync::Arc, time::Duration};

use gst::prelude::*;
use sightline_core::{
    Degrade, FrameResult, FrameStamp, Kind, NormBox, ObjectId, ObjectResult, Outcome, Rle, SkipReason,
    StageTimes, TrackState, ValueError,
};

/// Name of the element message, and of the structure in it.
pub const FRAME_MESSAGE: &str = "sightline-frame";
/// Name of the element message for a prompt that was used.
pub const PROMPT_APPLIED_MESSAGE: &str = "sightline-prompt-applied";
/// Name of the element message for a prompt that was not.
pub const PROMPT_REFUSED_MESSAGE: &str = "sightline-prompt-refused";
/// Name of the element message for a late prompt's object that is live.
pub const CAUGHT_UP_MESSAGE: &str = "sightline-caught-up";
/// Name of each structure in the field `objects`.
pub const OBJECT_STRUCTURE: &str = "sightline-object";

/// One frame and its one outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameRecord {
    /// Which frame.
    pub frame: FrameStamp,
    /// What became of it.
    pub outcome: Outcome,
    /// From the buffer's arrival to this outcome.
    pub latency: Duration,
    /// Where the time went; all zero for a frame that was skipped.
    pub stages: StageTimes,
    /// The objects, in the order of their ids; empty for a frame that was skipped.
    pub objects: Vec<ObjectResult>,
    /// What was given up when this was settled.
    pub degrade: Degrade,
    /// What went wrong, when the outcome is `skipped(error)`.
    pub error: Option<String>,
}

impl FrameRecord {
    /// A frame that was not looked at.
    pub fn skipped(frame: FrameStamp, reason: SkipReason, latency: Duration) -> Self {
        Self {
            frame,
            outcome: Outcome::Skipped(reason),
            latency,
            stages: StageTimes::default(),
            objects: Vec::new(),
            degrade: Degrade::Full,
            error: None,
        }
    }

    /// The structure that travels in the message.
    pub fn to_structure(&self) -> gst::Structure {
        let mut structure = gst::Structure::new_empty(FRAME_MESSAGE);
        set_stamp(&mut structure, self.frame);
        set_outcome(&mut structure, self.outcome);
        structure.set("latency", ns(self.latency));
        for ((_, time), field) in self.stages.named().iter().zip(STAGE_FIELDS) {
            structure.set(field, ns(*time));
        }
        structure.set("objects", objects_to_array(&self.objects, false));
        structure.set("degrade", self.degrade.as_str());
        structure.set_if_some("error", self.error.as_deref());
        structure
    }

    /// Reads the structure of a `sightline-frame` message.
    ///
    /// # Errors
    /// `Kind::Encoding`, naming the field that is missing or does not decode.
    pub fn from_structure(structure: &gst::StructureRef) -> Result<Self, ValueError> {
        if structure.name() != FRAME_MESSAGE {
            return Err(refuse("structure", FRAME_MESSAGE, structure.name()));
        }
        let mut stages = StageTimes::default();
        let into = [
            &mut stages.queue,
            &mut stages.preprocess,
            &mut stages.image_encoder,
            &mut stages.memory_attention,
            &mut stages.decoder,
            &mut stages.memory_encoder,
            &mut stages.postprocess,
        ];
        for (stage, field) in into.into_iter().zip(STAGE_FIELDS) {
            *stage = Duration::from_nanos(get(structure, field)?);
        }
        Ok(Self {
            frame: stamp_of(structure)?,
            outcome: outcome_of(structure)?,
            latency: Duration::from_nanos(get(structure, "latency")?),
            stages,
            objects: objects_of(structure)?,
            degrade: degrade_of(structure)?,
            error: structure.get::<String>("error").ok(),
        })
    }
}

impl From<&FrameResult> for FrameRecord {
    fn from(result: &FrameResult) -> Self {
        Self {
            frame: result.frame,
            outcome: result.outcome,
            latency: result.latency,
            stages: result.stages,
            objects: result.objects.clone(),
            degrade: Degrade::Full,
            error: None,
        }
    }
}

impl From<&FrameRecord> for gst::Structure {
    fn from(record: &FrameRecord) -> Self {
        record.to_structure()
    }
}

impl TryFrom<&gst::StructureRef> for FrameRecord {
    type Error = ValueError;

    fn try_from(structure: &gst::StructureRef) -> Result<Self, ValueError> {
        Self::from_structure(structure)
    }
}

/// In the order of [`StageTimes::named`].
const STAGE_FIELDS: [&str; 7] = [
    "time-queue",
    "time-preprocess",
    "time-image-encoder",
    "time-memory-attention",
    "time-decoder",
    "time-memory-encoder",
    "time-postprocess",
];

pub(crate) fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn refuse(subject: &str, expected: &str, got: impl std::fmt::Display) -> ValueError {
    ValueError::new(Kind::Encoding, subject, expected, got)
}

/// Reads a field that must be there.
pub(crate) fn get<'a, T: gst::glib::value::FromValue<'a>>(
    structure: &'a gst::StructureRef,
    field: &str,
) -> Result<T, ValueError> {
    let value = structure.value(field).map_err(|_| {
        refuse(field, "a field of that name", format_args!("{} without it", structure.name()))
    })?;
    value.get::<T>().map_err(|error| refuse(field, "another type", error))
}

pub(crate) fn set_stamp(structure: &mut gst::StructureRef, stamp: FrameStamp) {
    structure.set("index", stamp.index);
    structure.set_if_some("pts", stamp.pts.map(ns));
    structure.set_if_some("running-time", stamp.running_time.map(ns));
}

pub(crate) fn stamp_of(structure: &gst::StructureRef) -> Result<FrameStamp, ValueError> {
    let time = |field| structure.get::<u64>(field).ok().map(Duration::from_nanos);
    Ok(FrameStamp { index: get(structure, "index")?, pts: time("pts"), running_time: time("running-time") })
}

pub(crate) fn degrade_of(structure: &gst::StructureRef) -> Result<Degrade, ValueError> {
    get::<&str>(structure, "degrade")?.parse()
}

pub(crate) fn set_outcome(structure: &mut gst::StructureRef, outcome: Outcome) {
    structure.set("outcome", outcome.as_str());
    structure.set_if_some("reason", outcome.skip_reason().map(SkipReason::as_str));
}

pub(crate) fn outcome_of(structure: &gst::StructureRef) -> Result<Outcome, ValueError> {
    match get::<&str>(structure, "outcome")? {
        "masks" => Ok(Outcome::Masks),
        "no-object" => Ok(Outcome::NoObject),
        "skipped" => {
            let name: &str = get(structure, "reason")?;
            let reason = SkipReason::ALL.into_iter().find(|reason| reason.as_str() == name);
            reason.map(Outcome::Skipped).ok_or_else(|| refuse("reason", "a reason to skip", name))
        }
        other => Err(refuse("outcome", "masks, no-object or skipped", other)),
    }
}

/// The objects as a `GstValueArray` of structures; `coasted` turns what was tracked into what is carried over.
pub(crate) fn objects_to_array(objects: &[ObjectResult], coasted: bool) -> gst::Array {
    gst::Array::new(objects.iter().map(|object| {
        let state = if coasted { coast(object.state) } else { object.state };
        let mut structure = gst::Structure::builder(OBJECT_STRUCTURE)
            .field("id", object.id.0)
            .field("state", state.as_str())
            .field("score", f64::from(object.score))
            .field("iou", f64::from(object.iou))
            .build();
        if let Some(bounds) = object.bounds {
            let [x0, y0, x1, y1] = [bounds.x0, bounds.y0, bounds.x1, bounds.y1].map(f64::from);
            structure.set("x", x0);
            structure.set("y", y0);
            structure.set("w", x1 - x0);
            structure.set("h", y1 - y0);
        }
        structure.set("mask", object.mask.to_coco_string());
        structure.set("mask-width", object.mask.width_px());
        structure.set("mask-height", object.mask.height_px());
        structure.to_send_value()
    }))
}

/// What an object's state is on a frame that was not looked at.
pub(crate) fn coast(state: TrackState) -> TrackState {
    match state {
        TrackState::Tracking => TrackState::Coasted,
        other => other,
    }
}

pub(crate) fn objects_of(structure: &gst::StructureRef) -> Result<Vec<ObjectResult>, ValueError> {
    let array: gst::ArrayRef<'_> = get(structure, "objects")?;
    array
        .as_slice()
        .iter()
        .map(|value| {
            let object = value
                .get::<&gst::StructureRef>()
                .map_err(|error| refuse("objects", "an array of structures", error))?;
            object_of(object)
        })
        .collect()
}

fn object_of(object: &gst::StructureRef) -> Result<ObjectResult, ValueError> {
    let state = match get::<&str>(object, "state")? {
        "tracking" => TrackState::Tracking,
        "lost" => TrackState::Lost,
        "coasted" => TrackState::Coasted,
        other => return Err(refuse("state", "tracking, lost or coasted", other)),
    };
    let bounds = if object.has_field("x") {
        let [x, y, w, h] =
            [get::<f64>(object, "x")?, get(object, "y")?, get(object, "w")?, get(object, "h")?];
        Some(NormBox { x0: x as f32, y0: y as f32, x1: (x + w) as f32, y1: (y + h) as f32 })
    } else {
        None
    };
    let mask =
        Rle::from_coco_string(get(object, "mask-width")?, get(object, "mask-height")?, get(object, "mask")?)?;
    Ok(ObjectResult {
        id: ObjectId(get(object, "id")?),
        state,
        score: get::<f64>(object, "score")? as f32,
        iou: get::<f64>(object, "iou")? as f32,
        bounds,
        mask: Arc::new(mask),
    })
}

#[cfg(test)]
mod tests {
    use sightline_core::Mask;

    use super::*;

    fn object(id: u32, state: TrackState) -> ObjectResult {
        let mut mask = Mask::new(20, 10);
        if state != TrackState::Lost {
            (3..7).for_each(|y| mask.data_mut()[y * 20 + 4..y * 20 + 11].fill(1));
        }
        let mask = Rle::encode(&mask);
        ObjectResult {
            id: ObjectId(id),
            state,
            score: 0.9 / id as f32,
            iou: 0.1,
            bounds: mask.bounds(),
            mask: Arc::new(mask),
        }
    }

    #[test]
    fn records_survive_the_bus() {
        gst::init().unwrap();
        let times = |n: u64| Duration::from_nanos(n);
        let stages = StageTimes {
            queue: times(1),
            preprocess: times(2),
            image_encoder: times(3),
            memory_attention: times(4),
            decoder: times(5),
            memory_encoder: times(6),
            postprocess: times(7),
        };
        let stamp = FrameStamp { index: u64::MAX, pts: Some(times(41)), running_time: None };
        let all =
            [object(1, TrackState::Tracking), object(7, TrackState::Lost), object(9, TrackState::Coasted)];
        let mut records = vec![FrameRecord {
            frame: stamp,
            outcome: Outcome::Masks,
            latency: times(1 << 40),
            stages,
            objects: all.to_vec(),
            degrade: Degrade::Coast,
            error: None,
        }];
        records.push(FrameRecord { outcome: Outcome::NoObject, objects: vec![], ..records[0].clone() });
        for reason in SkipReason::ALL {
            records.push(FrameRecord::skipped(stamp, reason, times(3)));
        }
        records.push(FrameRecord { error: Some("decoder: expected a run".into()), ..records[4].clone() });
        for record in records {
            let structure = record.to_structure();
            assert_eq!(FrameRecord::from_structure(&structure).unwrap(), record);
            // And through GStreamer's own text form, as gst-launch -m prints it.
            let text: gst::Structure = structure.to_string().parse().unwrap();
            assert_eq!(FrameRecord::try_from(text.as_ref()).unwrap(), record);
        }
    }

    #[test]
    fn a_missing_or_wrong_field_is_named() {
        gst::init().unwrap();
        let stamp = FrameStamp { index: 0, pts: None, running_time: None };
        let good = FrameRecord::skipped(stamp, SkipReason::Error, Duration::ZERO).to_structure();
        for (case, field, value) in [
            ("missing", "outcome", None),
            ("unknown outcome", "outcome", Some("lost".to_send_value())),
            ("unknown reason", "reason", Some("bored".to_send_value())),
            ("wrong type", "index", Some("one".to_send_value())),
        ] {
            let mut bad = good.clone();
            match value {
                None => bad.remove_field(field),
                Some(value) => bad.set_value(field, value),
            }
            let error = FrameRecord::from_structure(&bad).expect_err(case);
            assert!(error.to_string().starts_with(field), "{case}: {error}");
        }
        assert!(FrameRecord::from_structure(&gst::Structure::new_empty("other")).is_err());
    }
}
