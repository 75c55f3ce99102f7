//! From a model's name on the command line to a tracking session.

use std::num::NonZeroUsize;

use anyhow::{Context as _, Result};
use sightline_engine_api::Model;
use sightline_engine_registry::LoadOptions;
use sightline_tracker::{Options, Session};

/// Loads a model; `threads` 0 means one for each core.
pub(crate) fn load(name: &str, threads: usize) -> Result<Model> {
    let options = LoadOptions { threads: NonZeroUsize::new(threads), ..LoadOptions::default() };
    sightline_engine_registry::load(name, &options)
        .with_context(|| format!("cannot load model {name:?}; `sightline doctor` lists those installed"))
}

/// A session over a freshly loaded model.
pub(crate) fn session(name: &str, threads: usize, history: usize, max_objects: usize) -> Result<Session> {
    Ok(Session::new(load(name, threads)?, Options { history, max_objects })?)
}
