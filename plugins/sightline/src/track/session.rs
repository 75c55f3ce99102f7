//! The tracker that the settings ask for.

use sightline_engine_api::EngineError;
use sightline_engine_registry::{LoadOptions, Turn, load, shared, tuned};
use sightline_tracker::{CleanUp, Options, Output, Session};

use super::{
    relay::Relay,
    settings::{Ahead, Settings},
};

/// What the worker needs of models.
pub(crate) struct Opened {
    pub(crate) relay: Relay,
    /// Our hand on the engines, where they are shared.
    pub(crate) turn: Option<Turn>,
    /// The image encoder is to run ahead of the tracker.
    pub(crate) ahead: bool,
    /// What really runs the model, as its backend names it: `onnxruntime/cpu`.
    pub(crate) engine: String,
}

/// Loads the models that the settings name. Opens files, may take long.
///
/// # Errors
/// The reason, as text for a message.
pub(crate) fn open(settings: &Settings) -> Result<Opened, String> {
    let (main, turn, engine) = session(settings, &settings.model, &settings.engines)?;
    let small = match settings.smaller_model.as_str() {
        "" => None,
        // Engines of its own: it is there for when the others are too slow.
        name => Some(session(settings, name, "")?.0),
    };
    let ahead = match settings.encode_ahead {
        Ahead::Auto => tuned(&settings.model).is_some_and(|tuned| tuned.pipelined),
        Ahead::On => true,
        Ahead::Off => false,
    };
    Ok(Opened { relay: Relay::new(main, small), turn, ahead, engine })
}

fn session(settings: &Settings, model: &str, group: &str) -> Result<(Session, Option<Turn>, String), String> {
    let provider = settings.provider.parse().map_err(|error: EngineError| error.to_string())?;
    let options = LoadOptions {
        provider,
        threads: std::num::NonZeroUsize::new(settings.threads as usize),
        batch: std::num::NonZeroUsize::new(settings.feeds_together as usize),
        ..LoadOptions::default()
    };
    let loaded = match group {
        "" => load(model, &options).map(|model| (model, None)),
        group => shared(group, model, &options).map(|(model, turn)| (model, Some(turn))),
    };
    let (model, turn) = loaded.map_err(|error| error.to_string())?;
    let engine = model.image_encoder.provider().to_owned();
    let options = Options {
        history: settings.history as usize,
        memory_bytes: (settings.catch_up_memory as usize) << 20,
        max_objects: settings.max_objects as usize,
    };
    let clean_up = CleanUp {
        fill_hole_area_px: settings.fill_hole_area as usize,
        sprinkle_area_px: settings.sprinkle_area as usize,
    };
    let output = Output { clean_up, ..Output::default() };
    let session = Session::with(model, options, output).map_err(|error| error.to_string())?;
    Ok((session, turn, engine))
}
