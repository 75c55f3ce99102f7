//! Preprocessing and the image encoder apart from the tracker, for a thread of their own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sightline_core::Shape;
use sightline_engine_api::{DeviceMark, DeviceOps, EngineError, PictureSource};

use crate::{
    TrackerError,
    binder::Bound,
    error::Kind,
    graphs::{Graphs, feature_buffers, timed},
    session::Eyes,
    slab::{Ground, Intake, Slab},
    view::{Sights, Viewer},
};

/// The half of a [`Session`](crate::Session) that needs nothing but the picture; see
/// [`Session::split`](crate::Session::split).
pub struct Encoder {
    eyes: Eyes,
    graph: Bound,
    /// Names and shapes of the feature levels.
    levels: Vec<(String, Shape)>,
    ground: Ground,
    /// Always the whole picture.
    viewer: Viewer,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("levels", &self.levels).finish_non_exhaustive()
    }
}

impl Encoder {
    pub(crate) fn new(eyes: Eyes, graph: Bound, graphs: &Graphs) -> Self {
        let viewer = Viewer::new(None, &graphs.spec.image);
        Self { eyes, graph, levels: graphs.levels().to_vec(), ground: graphs.ground.clone(), viewer }
    }

    /// Buffers for one frame, still empty. Two keep both halves at work: one is filled while the other is tracked. Where there is no
    /// memory for them, [`Encoder::run`] says so.
    pub fn slot(&self) -> Encoded {
        let room = || {
            let features = feature_buffers(&self.ground, &self.levels)?;
            Ok(Room { features, intake: Intake::new(&self.ground, self.eyes.spec())? })
        };
        Encoded { room: room(), filled: false, preprocess: Duration::ZERO, image_encoder: Duration::ZERO }
    }

    /// Encodes a picture. Allocates nothing once it has seen a picture of this size. On a device this is work given to
    /// it: the encoder may still be at it when the call returns, and the tracker waits for it there. A picture that lies
    /// on that device is read there.
    ///
    /// # Errors
    /// `Kind::Picture` when the picture cannot be read, `Kind::Engine` when the graph fails: `into` is then empty, and
    /// the frame counts as not seen.
    pub fn run(&mut self, picture: &dyn PictureSource, into: &mut Encoded) -> Result<(), TrackerError> {
        into.filled = false;
        let Room { features, intake } = into.room.as_mut().map_err(|error| error.clone())?;
        check_sizes(features, &self.levels, &self.ground)?;
        let start = Instant::now();
        self.eyes.look(picture, Sights::default(), &mut self.viewer, intake)?;
        into.preprocess = start.elapsed();
        into.image_encoder = Duration::ZERO;
        timed(&mut into.image_encoder, || self.graph.encode(intake, None, features))?;
        into.filled = true;
        Ok(())
    }
}

/// A frame's features on their way from the [`Encoder`] to the tracker.
pub struct Encoded {
    room: Result<Room, EngineError>,
    filled: bool,
    preprocess: Duration,
    image_encoder: Duration,
}

/// A frame's buffers: its picture, and what is made of it.
pub(crate) struct Room {
    /// A buffer a level, as the frame ring has them.
    pub(crate) features: Vec<Slab>,
    pub(crate) intake: Intake,
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoded").field("filled", &self.filled).finish_non_exhaustive()
    }
}

impl Encoded {
    /// Time from the picture to the tensor.
    pub fn preprocess(&self) -> Duration {
        self.preprocess
    }

    /// Time in the image encoder.
    pub fn image_encoder(&self) -> Duration {
        self.image_encoder
    }

    /// The end of its encoding, for whoever wants to know when that is. It says what was last begun in this buffer.
    pub fn encoding(&self) -> Encoding {
        let room = self.room.as_ref().ok().filter(|_| self.filled);
        Encoding(room.and_then(|room| room.intake.end()))
    }

    /// The features, to be swapped for others: from now on this is empty.
    pub(crate) fn take(
        &mut self,
        levels: &[(String, Shape)],
        ground: &Ground,
    ) -> Result<&mut Room, TrackerError> {
        if !std::mem::take(&mut self.filled) {
            let expected = "one that the encoder has filled";
            return Err(TrackerError::new(Kind::Picture, "encoded frame", expected, "an empty one"));
        }
        let room = self.room.as_mut().map_err(|error| error.clone())?;
        check_sizes(&room.features, levels, ground)?;
        Ok(room)
    }
}

/// A picture's encoding, which may be under way on a device.
#[derive(Debug)]
pub struct Encoding(Option<(Arc<dyn DeviceOps>, Arc<dyn DeviceMark>)>);

impl Encoding {
    /// Whether it is over. Looks, and waits for nothing; where the device does not say, it is.
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|(ops, mark)| ops.is_past(&**mark).unwrap_or(true))
    }
}

/// Refuses buffers of another model.
fn check_sizes(features: &[Slab], levels: &[(String, Shape)], ground: &Ground) -> Result<(), TrackerError> {
    let got = || features.iter().map(Slab::len);
    let expected = || levels.iter().map(|(_, shape)| shape.elements());
    let here = features.iter().all(|level| level.is_device() == ground.is_device());
    if here && got().eq(expected()) {
        return Ok(());
    }
    let sizes = |sizes: Vec<usize>| format!("levels of {sizes:?} values");
    let (expected, got) = (sizes(expected().collect()), sizes(got().collect()));
    Err(TrackerError::new(Kind::Picture, "encoded frame", expected, got))
}
