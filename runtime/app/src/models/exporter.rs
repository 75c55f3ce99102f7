//! The Python exporter: where it is, and one run of it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use sightline_config::CatalogueEntry;
use sightline_engine_registry::shelves;

use super::variable;
use crate::cli::ExportFlags;

/// Where this binary was built; it may be gone, or on another machine.
const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engines/export");

/// What turns a checkpoint into graphs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exporter {
    /// `python -m sightline_export` with this folder on the path.
    Module { python: PathBuf, folder: PathBuf },
    /// A program that takes the same flags.
    Program(PathBuf),
}

impl Exporter {
    /// By flag, by `SIGHTLINE_EXPORTER`, or in the repository this binary was built in.
    pub(super) fn find(flags: &ExportFlags) -> Result<Self> {
        Self::named(flags.exporter.as_deref(), flags.python.as_deref())
    }

    fn named(exporter: Option<&Path>, python: Option<&Path>) -> Result<Self> {
        let named = exporter.map(Path::to_owned).or_else(|| variable("SIGHTLINE_EXPORTER"));
        let place = named.clone().unwrap_or_else(|| PathBuf::from(BUILT_IN));
        if named.is_some() && place.is_file() {
            return Ok(Self::Program(std::path::absolute(&place)?));
        }
        if !place.join("sightline_export").is_dir() {
            bail!(
                "exporter: expected the folder engines/export of the Sightline repository, got no \
                 \"sightline_export\" in {place:?}; clone the repository and type: \
                 export SIGHTLINE_EXPORTER=<repository>/engines/export"
            );
        }
        let folder = std::fs::canonicalize(&place).with_context(|| format!("cannot read {place:?}"))?;
        let python = self::python(python, &folder)?;
        Ok(Self::Module { python, folder })
    }

    /// Exports `checkpoint` to the folder `out`; what the exporter says goes to stderr.
    pub(super) fn run(
        &self,
        entry: &CatalogueEntry,
        checkpoint: &str,
        image_size_px: u32,
        name: &str,
        flags: &ExportFlags,
        out: &Path,
    ) -> Result<()> {
        let mut command = match self {
            Self::Program(program) => Command::new(program),
            Self::Module { python, folder } => {
                let mut command = Command::new(python);
                command.args(["-m", "sightline_export"]).env("PYTHONPATH", folder);
                command
            }
        };
        command.args(["--family", &entry.family, "--checkpoint", checkpoint, "--name", name]);
        command.args(["--image-size", &image_size_px.to_string()]).arg("--out").arg(out);
        if let Some(config) = &entry.config {
            command.args(["--config", config]);
        }
        if let Some(precision) = &flags.precision {
            command.args(["--precision", precision]);
        }
        if let Some(max_cond) = flags.max_cond {
            command.args(["--max-cond", &max_cond.to_string()]);
        }
        if !flags.int8_encoder.is_empty() {
            command.arg("--int8-encoder").args(&flags.int8_encoder);
        }
        tracing::info!(model = name, image_size_px, "exporting; this takes minutes for the larger models");
        run(command).with_context(|| format!("exporter {}", self.place().display()))
    }

    fn place(&self) -> &Path {
        match self {
            Self::Program(program) => program,
            Self::Module { folder, .. } => folder,
        }
    }
}

/// A Python with the exporter's packages: by flag, by `SIGHTLINE_PYTHON`, or where `setup_venv.sh` is told to put it.
fn python(named: Option<&Path>, folder: &Path) -> Result<PathBuf> {
    if let Some(named) = named.map(Path::to_owned).or_else(|| variable("SIGHTLINE_PYTHON")) {
        return Ok(named);
    }
    let data = shelves().pop().and_then(|shelf| shelf.parent().map(Path::to_owned)).unwrap_or_default();
    let places = [data.join("export-venv"), folder.join("../../.cache/export-venv")];
    let found = places.iter().map(|place| place.join("bin/python")).find(|python| python.is_file());
    found.with_context(|| {
        format!(
            "exporter's Python: expected {}, got no such file; type: {} {}",
            places[0].join("bin/python").display(),
            folder.join("setup_venv.sh").display(),
            places[0].display()
        )
    })
}

/// What makes a graph of less than 32 bits of the one at `source`, which computes in them, and writes it to `target`.
pub(crate) fn narrowing(precision: &str, source: &Path, target: &Path) -> Result<Command> {
    let mut command = match Exporter::named(None, None)? {
        Exporter::Program(program) => {
            let mut command = Command::new(program);
            command.arg("--narrow");
            command
        }
        Exporter::Module { python, folder } => {
            let mut command = Command::new(python);
            command.args(["-m", "sightline_export.narrow"]).env("PYTHONPATH", folder);
            command
        }
    };
    command.args(["--precision", precision]).arg(source).arg(target);
    Ok(command)
}

/// Runs to the end; the last line of a failed one is why.
fn run(mut command: Command) -> Result<()> {
    let stderr = std::io::stderr();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stderr.as_fd().try_clone_to_owned()?)
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut last = String::new();
    if let Some(pipe) = child.stderr.take() {
        for line in BufReader::new(pipe).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
            // Nobody to tell when stderr is gone.
            let _ = writeln!(std::io::stderr(), "{line}");
            if !line.is_empty() {
                last = line;
            }
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("expected it to succeed, got {status}{}{last}", if last.is_empty() { "" } else { ": " });
    }
    Ok(())
}
