//! `sightline engines clean`: takes away what nothing can use, and says what it took.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use sightline_engine_registry::plan::{Machine, PlanEntry, Sidecar, cache_folder, plans_in};

use super::{
    Subject,
    build::{lock, staging_left},
    fits,
    list::machine,
    process::Interrupt,
};
use crate::{cli::CleanArgs, models::megabytes};

/// Something to remove, and why.
struct Waste {
    path: PathBuf,
    bytes: u64,
    reason: String,
}

/// The command.
pub(super) fn run(args: &CleanArgs) -> Result<()> {
    let interrupt = Interrupt::install();
    let machine = match args.foreign {
        true => Some(machine(args.tool.trtexec.as_deref(), &interrupt).map_err(|reason| anyhow!(reason))?),
        false => None,
    };
    let (mut count, mut bytes) = (0, 0);
    let mut remove = |waste: Waste| -> Result<()> {
        interrupt.check()?;
        if !args.dry_run {
            take_away(&waste.path).with_context(|| format!("cannot remove {:?}", waste.path))?;
        }
        (count, bytes) = (count + 1, bytes + waste.bytes);
        let size = megabytes(waste.bytes);
        crate::print_stdout(&format!("{}  {size}  {}\n", waste.path.display(), waste.reason))
    };
    for subject in Subject::all(args.model.as_deref())? {
        if !subject.plans.is_dir() {
            continue;
        }
        let _lock = lock(&subject.plans)?;
        for path in staging_left(&subject.plans) {
            remove(Waste { bytes: 0, path, reason: "left by an interrupted build".to_owned() })?;
        }
        for entry in plans_in(&subject.plans)? {
            if let Some(reason) = reason(&subject, &entry, args.all, machine.as_ref()) {
                let bytes = fs::metadata(&entry.path).map_or(0, |file| file.len());
                remove(Waste { path: entry.path, bytes, reason })?;
            }
        }
    }
    if args.all && args.model.is_none() {
        for path in timing_caches() {
            let bytes = fs::metadata(&path).map_or(0, |file| file.len());
            remove(Waste { path, bytes, reason: "timings of builds".to_owned() })?;
        }
    }
    let (what, size) = (if args.dry_run { "to remove" } else { "removed" }, megabytes(bytes));
    crate::print_stdout(&format!("{what}: {count}, {size}\n"))
}

/// Why a plan goes; none keeps it. Its bytes are read only when all else is right.
fn reason(subject: &Subject, entry: &PlanEntry, all: bool, machine: Option<&Machine>) -> Option<String> {
    if all {
        return Some("all were asked for".to_owned());
    }
    let sidecar = match &entry.sidecar {
        Ok(sidecar) => sidecar,
        Err(error) => return Some(error.to_string()),
    };
    if subject.sha256(&sidecar.key.component) != Some(&sidecar.key.onnx_sha256) {
        return Some(format!("of a {} that the model no longer has", sidecar.key.component));
    }
    if let Some(Err(error)) = machine.map(|machine| fits(sidecar, &entry.path, machine)) {
        return Some(error.to_string());
    }
    let intact = fs::read(&entry.path)
        .map_err(|error| error.to_string())
        .and_then(|bytes| sidecar.check_bytes(&entry.path, &bytes).map_err(|error| error.to_string()));
    intact.err()
}

/// A plan with its sidecar, the plan first: a sidecar alone hurts nobody.
fn take_away(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return fs::remove_dir_all(path);
    }
    fs::remove_file(path)?;
    match fs::remove_file(Sidecar::path_of(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn timing_caches() -> Vec<PathBuf> {
    let folder = cache_folder().and_then(|folder| fs::read_dir(folder).ok());
    let entries = folder.into_iter().flatten().flatten().map(|entry| entry.path());
    let is_timing = |path: &PathBuf| {
        let name = super::build::name_of(path);
        name.starts_with("timing-trt") && name.ends_with(".cache")
    };
    entries.filter(is_timing).collect()
}
