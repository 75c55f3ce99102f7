//! Preprocessing and the image encoder apart from the tracker, for a thread of their own.

use std::time::{Duration, Instant};

use sightline_core::{Picture, Shape};

use crate::{
    TrackerError,
    binder::Bound,
    error::Kind,
    graphs::{Graphs, feature_buffers, timed},
    session::Eyes,
    view::{Sights, Viewer},
};

/// The half of a [`Session`](crate::Session) that needs nothing but the picture; see
/// [`Session::split`](crate::Session::split).
pub struct Encoder {
    eyes: Eyes,
    graph: Bound,
    /// Names and shapes of the feature levels.
    levels: Vec<(String, Shape)>,
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
        Self { eyes, graph, levels: graphs.levels().to_vec(), viewer }
    }

    /// Buffers for one frame, still empty. Two are enough: one is filled while the other is tracked.
    pub fn slot(&self) -> Encoded {
        Encoded {
            features: feature_buffers(&self.levels),
            filled: false,
            preprocess: Duration::ZERO,
            image_encoder: Duration::ZERO,
        }
    }

    /// Encodes a picture. Allocates nothing once it has seen a picture of this size.
    ///
    /// # Errors
    /// `Kind::Picture` when the picture cannot be read, `Kind::Engine` when the graph fails: `into` is then empty, and
    /// the frame counts as not seen.
    pub fn run(&mut self, picture: &Picture<'_>, into: &mut Encoded) -> Result<(), TrackerError> {
        into.filled = false;
        check_sizes(&into.features, &self.levels)?;
        let start = Instant::now();
        let (image, _) = self.eyes.look(picture, Sights::default(), &mut self.viewer)?;
        into.preprocess = start.elapsed();
        into.image_encoder = Duration::ZERO;
        timed(&mut into.image_encoder, || self.graph.encode(image, &mut into.features))?;
        into.filled = true;
        Ok(())
    }
}

/// A frame's features on their way from the [`Encoder`] to the tracker.
pub struct Encoded {
    /// A buffer a level, as the frame ring has them.
    features: Vec<Vec<f32>>,
    filled: bool,
    preprocess: Duration,
    image_encoder: Duration,
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

    /// The features, to be swapped for others: from now on this is empty.
    pub(crate) fn take(&mut self, levels: &[(String, Shape)]) -> Result<&mut [Vec<f32>], TrackerError> {
        if !std::mem::take(&mut self.filled) {
            let expected = "one that the encoder has filled";
            return Err(TrackerError::new(Kind::Picture, "encoded frame", expected, "an empty one"));
        }
        check_sizes(&self.features, levels)?;
        Ok(&mut self.features)
    }
}

/// Refuses buffers of another model.
fn check_sizes(features: &[Vec<f32>], levels: &[(String, Shape)]) -> Result<(), TrackerError> {
    let got = || features.iter().map(Vec::len);
    let expected = || levels.iter().map(|(_, shape)| shape.elements());
    if got().eq(expected()) {
        return Ok(());
    }
    let sizes = |sizes: Vec<usize>| format!("levels of {sizes:?} values");
    let (expected, got) = (sizes(expected().collect()), sizes(got().collect()));
    Err(TrackerError::new(Kind::Picture, "encoded frame", expected, got))
}
