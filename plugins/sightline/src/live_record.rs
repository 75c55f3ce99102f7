//! What changes for all frames at once: the degrade ladder, and gaps of the camera. In Rust and as messages.
//!
//! The field tables are in this room's README.

use std::time::Duration;

use sightline_core::{Degrade, FrameStamp, ObjectId, TrackState, ValueError};

use crate::record::{get, ns, refuse, set_stamp, stamp_of};

/// Name of the element message for a step on the degrade ladder.
pub const DEGRADE_MESSAGE: &str = "sightline-degrade";
/// Name of the element message for objects that are carried over, or given up, while no frames come.
pub const TRACKS_MESSAGE: &str = "sightline-tracks";
/// Name of the element message for an object that is seen again after frames had stopped.
pub const REACQUIRED_MESSAGE: &str = "sightline-reacquired";

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub enum LiveRecord {
    /// More, or less, is given up.
    Degrade {
        /// What was given up until now.
        from: Degrade,
        /// What is from now on.
        to: Degrade,
        /// The age that made for it.
        age: Duration,
    },
    /// What has become of objects while no frames come.
    Tracks {
        /// `Coasted`, later `Lost`.
        state: TrackState,
        /// The objects.
        ids: Vec<ObjectId>,
        /// How long no frames have come.
        gap: Duration,
    },
    /// An object is seen again on the first frames after a gap.
    Reacquired {
        /// The object.
        id: ObjectId,
        /// Where it was seen.
        frame: FrameStamp,
        /// How long no frames came.
        gap: Duration,
    },
}

impl LiveRecord {
    /// The structure that travels in the message.
    pub fn to_structure(&self) -> gst::Structure {
        match self {
            Self::Degrade { from, to, age } => gst::Structure::builder(DEGRADE_MESSAGE)
                .field("from", from.as_str())
                .field("to", to.as_str())
                .field("level", to.level())
                .field("age", ns(*age))
                .build(),
            Self::Tracks { state, ids, gap } => gst::Structure::builder(TRACKS_MESSAGE)
                .field("state", state.as_str())
                .field("ids", gst::Array::new(ids.iter().map(|id| id.0)))
                .field("gap", ns(*gap))
                .build(),
            Self::Reacquired { id, frame, gap } => {
                let mut structure = gst::Structure::builder(REACQUIRED_MESSAGE)
                    .field("id", id.0)
                    .field("gap", ns(*gap))
                    .build();
                set_stamp(&mut structure, *frame);
                structure
            }
        }
    }

    /// Reads the structure of a message; `None` for a message of another name.
    ///
    /// # Errors
    /// `Kind::Encoding`, naming the field that is missing or does not decode.
    pub fn from_structure(structure: &gst::StructureRef) -> Result<Option<Self>, ValueError> {
        let time = |field| get(structure, field).map(Duration::from_nanos);
        Ok(Some(match structure.name().as_str() {
            DEGRADE_MESSAGE => Self::Degrade {
                from: get::<&str>(structure, "from")?.parse()?,
                to: get::<&str>(structure, "to")?.parse()?,
                age: time("age")?,
            },
            TRACKS_MESSAGE => {
                let ids = get::<gst::Array>(structure, "ids")?;
                let id = |value: &gst::glib::SendValue| value.get::<u32>().map(ObjectId);
                let ids: Result<_, _> = ids.iter().map(id).collect();
                Self::Tracks {
                    state: match get::<&str>(structure, "state")? {
                        "coasted" => TrackState::Coasted,
                        "lost" => TrackState::Lost,
                        other => return Err(refuse("state", "coasted or lost", other)),
                    },
                    ids: ids.map_err(|error| refuse("ids", "numbers", error))?,
                    gap: time("gap")?,
                }
            }
            REACQUIRED_MESSAGE => Self::Reacquired {
                id: ObjectId(get(structure, "id")?),
                frame: stamp_of(structure)?,
                gap: time("gap")?,
            },
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_bus() {
        gst::init().unwrap();
        let (age, gap) = (Duration::from_millis(321), Duration::from_secs(7));
        let frame = FrameStamp { index: 9, pts: Some(age), running_time: None };
        for record in [
            LiveRecord::Degrade { from: Degrade::Full, to: Degrade::Coast, age },
            LiveRecord::Tracks { state: TrackState::Lost, ids: vec![ObjectId(1), ObjectId(7)], gap },
            LiveRecord::Reacquired { id: ObjectId(7), frame, gap },
        ] {
            let text: gst::Structure = record.to_structure().to_string().parse().unwrap();
            assert_eq!(LiveRecord::from_structure(&text).unwrap(), Some(record.clone()));
            let mut bad = record.to_structure();
            bad.remove_field(if matches!(record, LiveRecord::Degrade { .. }) { "to" } else { "gap" });
            assert!(LiveRecord::from_structure(&bad).is_err());
        }
        assert_eq!(LiveRecord::from_structure(&gst::Structure::new_empty("other")).unwrap(), None);
    }
}
