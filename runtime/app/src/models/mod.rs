//! Models: from a name on the command line to a tracking session, and `sightline models`.

mod checkpoint;
mod download;
mod exporter;
mod golden;
mod install;
mod list;
mod parity;
mod shelf;
mod speed;
mod verify;

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use sightline_config::{Catalogue, CatalogueEntry};
use sightline_engine_api::Model;
use sightline_engine_registry::LoadOptions;
use sightline_tracker::{Options, Output, Session};

pub(crate) use self::exporter::narrowing;
use crate::cli::{ModelsArgs, ModelsCommand};

/// Loads a model; `threads` 0 means what was tuned, or one for each core.
pub(crate) fn load(name: &str, threads: usize) -> Result<Model> {
    let options = LoadOptions { threads: NonZeroUsize::new(threads), ..LoadOptions::default() };
    sightline_engine_registry::load(name, &options).with_context(|| match Catalogue::built_in() {
        Ok(catalogue) if catalogue.get(name).is_some() => {
            format!("cannot load model {name:?}; `sightline models pull {name}` installs it")
        }
        _ => format!("cannot load model {name:?}; `sightline models list` shows which there are"),
    })
}

/// A session over a freshly loaded model.
pub(crate) fn session(name: &str, threads: usize, history: usize, max_objects: usize) -> Result<Session> {
    session_with(name, threads, history, max_objects, Output::default())
}

/// The same with more to be had of it.
pub(crate) fn session_with(
    name: &str,
    threads: usize,
    history: usize,
    max_objects: usize,
    output: Output,
) -> Result<Session> {
    let options = Options { history, max_objects, ..Options::default() };
    Ok(Session::with(load(name, threads)?, options, output)?)
}

/// `sightline models`.
pub(crate) fn run(args: &ModelsArgs) -> Result<()> {
    let catalogue = || catalogue(args);
    match &args.command {
        ModelsCommand::List(list) => list::run(&catalogue()?, list),
        ModelsCommand::Pull(pull) => install::pull(&catalogue()?, pull),
        ModelsCommand::Export(export) => install::export(&catalogue()?, export),
        ModelsCommand::Verify(verify) => verify::run(verify),
        ModelsCommand::Remove(remove) => shelf::remove(&remove.name),
    }
}

fn catalogue(args: &ModelsArgs) -> Result<Catalogue> {
    let built_in = Catalogue::built_in()?;
    match args.catalogue.clone().or_else(|| variable("SIGHTLINE_CATALOGUE")) {
        Some(folder) => Ok(built_in.overlaid(&folder)?),
        None => Ok(built_in),
    }
}

/// What is known of a published model that can be run.
fn known<'a>(catalogue: &'a Catalogue, name: &str) -> Result<&'a CatalogueEntry> {
    let Some(entry) = catalogue.get(name) else {
        if sightline_engine_registry::installed().iter().any(|model| model.name == name) {
            bail!("model {name:?}: expected one of the catalogue, got one that is here already");
        }
        let names: Vec<_> = catalogue
            .entries()
            .filter(|entry| entry.not_runnable.is_none())
            .map(|entry| entry.name.as_str())
            .collect();
        bail!("model: expected one of {}, got {name:?}", names.join(", "));
    };
    if let Some(reason) = &entry.not_runnable {
        bail!("model {name:?}: expected one that can be run, got one that cannot yet: {reason}");
    }
    Ok(entry)
}

/// A path in the environment; an empty one is none.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Writes a small file of facts next to a model.
fn write_json(path: &std::path::Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {path:?}"))
}

/// `1234567` as `1.2 MB`.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
