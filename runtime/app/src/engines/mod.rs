//! `sightline engines`: a model's graphs compiled by TensorRT for this machine, and what becomes of them.

mod build;
mod clean;
mod compare;
mod list;
mod process;
mod sizes;
mod trtexec;
mod verify;

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use sightline_engine_api::{GraphName, ModelSpec};
use sightline_engine_registry::{
    ModelSource, installed,
    plan::{Machine, PlanError, Sidecar, cache_folder, model_folder},
    resolve,
};

use crate::cli::{EnginesArgs, EnginesCommand};

/// `sightline engines`.
pub(crate) fn run(args: &EnginesArgs) -> Result<ExitCode> {
    match &args.command {
        EnginesCommand::Build(build) => build::run(build).map(|()| ExitCode::SUCCESS),
        EnginesCommand::List(list) => list::run(list).map(|()| ExitCode::SUCCESS),
        EnginesCommand::Verify(verify) => verify::run(verify),
        EnginesCommand::Clean(clean) => clean::run(clean).map(|()| ExitCode::SUCCESS),
    }
}

/// A model whose graphs are files, and where its plans are.
#[derive(Debug)]
struct Subject {
    name: String,
    source: ModelSource,
    spec: ModelSpec,
    plans: PathBuf,
}

impl Subject {
    fn open(name_or_dir: &str) -> Result<Self> {
        let source = resolve(name_or_dir)?;
        let spec = source.spec().with_context(|| format!("cannot read model {name_or_dir:?}"))?;
        let plans = match &source {
            ModelSource::Folder(folder) => model_folder(folder),
            ModelSource::Embedded => cache_folder()
                .context("folder for plans: expected XDG_CACHE_HOME or HOME to be set, got none")?,
            other => bail!("model {name_or_dir:?}: expected one with graphs in files, got {other}"),
        };
        Ok(Self { name: spec.name.clone(), source, spec, plans })
    }

    /// The model asked for, or all that are here; those that cannot be read have no plans to speak of.
    fn all(named: Option<&str>) -> Result<Vec<Self>> {
        match named {
            Some(name) => Ok(vec![Self::open(name)?]),
            None => Ok(installed().iter().filter_map(|model| Self::open(&model.name).ok()).collect()),
        }
    }

    /// The SHA-256 of a graph's file, by its name in a plan's key.
    fn sha256(&self, component: &str) -> Option<&str> {
        let graph = GraphName::ALL.into_iter().find(|graph| graph.as_str() == component)?;
        Some(&self.spec.graphs.get(&graph)?.sha256)
    }

    /// What a graph computes in, by the record the exporter leaves; `fp32` without one.
    fn precision(&self, graph: GraphName) -> String {
        let record = || -> Option<String> {
            let ModelSource::Folder(folder) = &self.source else { return None };
            let text = fs::read_to_string(folder.join("verify.json")).ok()?;
            let record: serde_json::Value = serde_json::from_str(&text).ok()?;
            let graphs: BTreeMap<String, String> =
                serde_json::from_value(record.get("precision")?.clone()).ok()?;
            graphs.get(graph.as_str()).cloned()
        };
        record().unwrap_or_else(|| "fp32".to_owned())
    }
}

/// Whether a plan was built for this machine. A tool that does not say its version's build leaves that open.
fn fits(sidecar: &Sidecar, plan: &std::path::Path, machine: &Machine) -> Result<(), PlanError> {
    let mut machine = machine.clone();
    if machine.tensorrt.build == 0 {
        machine.tensorrt.build = sidecar.key.tensorrt.build;
    }
    sidecar.check(plan, &machine)
}
