//! The tracker as the worker drives it.

use std::collections::BTreeSet;

use sightline_core::{FrameResult, FrameStamp, ObjectId, ObjectResult, Picture, Prompt};
use sightline_engine_api::EngineError;
use sightline_engine_registry::{LoadOptions, load};
use sightline_tracker::{Applied, At, Options, Session, TrackerError};

use super::{
    settings::Settings,
    worker::{Failure, Track},
};

/// Loads the model that the settings name and makes a session of it. Opens files, may take long.
///
/// # Errors
/// The reason, as text for a message.
pub(crate) fn open(settings: &Settings) -> Result<Box<dyn Track>, String> {
    let provider = settings.provider.parse().map_err(|error: EngineError| error.to_string())?;
    let options = LoadOptions {
        provider,
        threads: std::num::NonZeroUsize::new(settings.threads as usize),
        ..LoadOptions::default()
    };
    let model = load(&settings.model, &options).map_err(|error| error.to_string())?;
    let options = Options { history: settings.history as usize, max_objects: settings.max_objects as usize };
    let session = Session::new(model, options).map_err(|error| error.to_string())?;
    Ok(Box::new(Tracked::new(session)))
}

/// A session, and which objects wait for their first frame.
pub(crate) struct Tracked {
    session: Session,
    waiting: BTreeSet<ObjectId>,
}

impl Tracked {
    pub(crate) fn new(session: Session) -> Self {
        Self { session, waiting: BTreeSet::new() }
    }
}

fn failure(error: TrackerError) -> Failure {
    Failure { reason: error.to_string(), transient: error.is_transient() }
}

impl Track for Tracked {
    fn process(&mut self, frame: FrameStamp, picture: &Picture<'_>) -> Result<FrameResult, Failure> {
        let result = self.session.process(frame, picture).map_err(failure)?;
        self.waiting.clear();
        Ok(result)
    }

    fn prompt(
        &mut self,
        id: ObjectId,
        frame: Option<u64>,
        prompt: Prompt,
    ) -> Result<Option<FrameStamp>, Failure> {
        match self.session.prompt(id, frame.map_or(At::Next, At::Frame), prompt).map_err(failure)? {
            Applied::Now(stamp) => Ok(Some(stamp)),
            Applied::Pending => {
                self.waiting.insert(id);
                Ok(None)
            }
        }
    }

    fn results(&mut self, (width_px, height_px): (u32, u32)) -> Result<Vec<ObjectResult>, Failure> {
        self.session.results(width_px, height_px).map_err(failure)
    }

    fn has(&self, id: ObjectId) -> bool {
        self.waiting.contains(&id) || self.session.tracker().objects().any(|object| object.id == id)
    }

    fn is_idle(&self) -> bool {
        self.session.tracker().is_idle()
    }

    fn remove(&mut self, id: ObjectId) -> bool {
        self.waiting.remove(&id);
        self.session.remove(id)
    }

    fn clear(&mut self) {
        self.waiting.clear();
        self.session.clear();
    }
}
