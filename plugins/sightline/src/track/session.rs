//! The tracker that the settings ask for.

use sightline_engine_api::EngineError;
use sightline_engine_registry::{LoadOptions, load};
use sightline_tracker::{CleanUp, Options, Session};

use super::{relay::Relay, settings::Settings};

/// Loads the models that the settings name. Opens files, may take long.
///
/// # Errors
/// The reason, as text for a message.
pub(crate) fn open(settings: &Settings) -> Result<Relay, String> {
    let main = session(settings, &settings.model)?;
    let small = Some(&settings.smaller_model).filter(|name| !name.is_empty());
    Ok(Relay::new(main, small.map(|name| session(settings, name)).transpose()?))
}

fn session(settings: &Settings, model: &str) -> Result<Session, String> {
    let provider = settings.provider.parse().map_err(|error: EngineError| error.to_string())?;
    let options = LoadOptions {
        provider,
        threads: std::num::NonZeroUsize::new(settings.threads as usize),
        ..LoadOptions::default()
    };
    let model = load(model, &options).map_err(|error| error.to_string())?;
    let options = Options {
        history: settings.history as usize,
        memory_bytes: (settings.catch_up_memory as usize) << 20,
        max_objects: settings.max_objects as usize,
    };
    let clean_up = CleanUp {
        fill_hole_area_px: settings.fill_hole_area as usize,
        sprinkle_area_px: settings.sprinkle_area as usize,
    };
    Ok(Session::new(model, options).map_err(|error| error.to_string())?.with_clean_up(clean_up))
}
