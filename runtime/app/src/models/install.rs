//! `sightline models pull` and `export`: from a checkpoint to an installed model.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sightline_config::{Catalogue, CatalogueEntry};
use sightline_engine_registry::locate_onnxruntime;

use super::{
    checkpoint::{self, Wanted},
    download::{self, Patience},
    exporter::Exporter,
    known,
    shelf::{self, Shelf},
    verify,
};
use crate::cli::{ExportArgs, ExportFlags, PullArgs};

/// Its name in a model's folder.
const ORIGIN: &str = "origin.json";

/// Where an installed model came from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Origin {
    /// The catalogue's entry.
    pub(super) model: String,
    /// A file or an address.
    pub(super) checkpoint: String,
    pub(super) sha256: Option<String>,
    pub(super) image_size_px: u32,
    /// As it was asked for; none is the exporter's default.
    pub(super) precision: Option<String>,
    /// The clips that an 8 bit image encoder was calibrated on; empty: its encoder is not 8 bit.
    #[serde(default)]
    pub(super) int8_encoder: Vec<PathBuf>,
}

impl Origin {
    /// What is written in a model's folder; none for a folder that was not installed by us.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(folder.join(ORIGIN)).ok()?).ok()
    }
}

/// `sightline models pull`.
pub(super) fn pull(catalogue: &Catalogue, args: &PullArgs) -> Result<()> {
    let entry = known(catalogue, &args.name)?;
    let job = Job::new(entry, &args.export)?;
    // What is downloaded has the catalogue's name, what is installed may have another.
    let lock = (job.lock()?, (job.name != args.name).then(|| job.shelf.lock(&args.name)).transpose()?);
    let patience = Patience {
        connect: Duration::from_secs_f64(args.connect_timeout),
        stall: Duration::from_secs_f64(args.stall_timeout),
    };
    let wanted = Wanted { entry, layout: args.layout, from: args.from.as_deref(), patience };
    let local = checkpoint::obtain(&wanted, &job.shelf)?;
    let path = local.path.to_str().context("checkpoint's path: expected UTF-8")?;
    let origin = Origin { sha256: Some(local.hashed.sha256.clone()), ..job.origin(local.from.clone()) };
    let done = job.run(path, origin);
    if done.is_err() && local.ours {
        tracing::warn!(path = ?local.path, "the download is kept for the next attempt; remove it to have it fetched anew");
    }
    done?;
    local.proved()?;
    if !args.keep_checkpoint {
        local.discard()?;
    }
    drop(lock);
    Ok(())
}

/// `sightline models export`.
pub(super) fn export(catalogue: &Catalogue, args: &ExportArgs) -> Result<()> {
    let entry = known(catalogue, &args.name)?;
    let job = Job::new(entry, &args.export)?;
    let lock = job.lock()?;
    let sha256 = match args.checkpoint.starts_with("random:") {
        true => None,
        false => Some(download::hash(Path::new(&args.checkpoint))?.sha256),
    };
    job.run(&args.checkpoint, Origin { sha256, ..job.origin(args.checkpoint.clone()) })?;
    drop(lock);
    Ok(())
}

/// What happens to a checkpoint, checked before it is waited for.
struct Job<'a> {
    entry: &'a CatalogueEntry,
    flags: &'a ExportFlags,
    name: &'a str,
    image_size_px: u32,
    exporter: Exporter,
    shelf: Shelf,
}

impl<'a> Job<'a> {
    fn new(entry: &'a CatalogueEntry, flags: &'a ExportFlags) -> Result<Self> {
        let name = flags.install_as.as_deref().unwrap_or(&entry.name);
        let shelf = Shelf::first()?;
        shelf::check_free(name, &shelf)?;
        let Some(image_size_px) = flags.image_size.or(entry.default_image_size_px) else {
            bail!("image size: expected --image-size, got none");
        };
        if let Some(missing) = flags.int8_encoder.iter().find(|clip| !clip.exists()) {
            bail!("--int8-encoder {missing:?}: expected a video or a folder of pictures, got no such file");
        }
        let exporter = Exporter::find(flags)?;
        locate_onnxruntime().context("a model is verified before it is installed")?;
        Ok(Self { entry, flags, name, image_size_px, exporter, shelf })
    }

    fn lock(&self) -> Result<fs::File> {
        self.shelf.lock(self.name)
    }

    fn origin(&self, checkpoint: String) -> Origin {
        Origin {
            model: self.entry.name.clone(),
            checkpoint,
            sha256: None,
            image_size_px: self.image_size_px,
            precision: self.flags.precision.clone(),
            int8_encoder: self.flags.int8_encoder.clone(),
        }
    }

    /// Exports into a folder beside the models, verifies it there, and only then gives it its name.
    fn run(&self, checkpoint: &str, origin: Origin) -> Result<()> {
        let staging = self.shelf.staging(self.name)?;
        let out = staging.path();
        self.exporter.run(self.entry, checkpoint, self.image_size_px, self.name, self.flags, out)?;
        super::write_json(&out.join(ORIGIN), &origin)?;
        let report = verify::check(&out.display().to_string(), Some(out), &self.flags.verify)?;
        crate::print_stdout(&report.text(self.name))?;
        report.passed()?;
        let place = self.shelf.model(self.name);
        staging.install(&place)?;
        crate::print_stdout(&format!(
            "installed {}\n  sightline run --model {} ...\n",
            place.display(),
            self.name
        ))
    }
}
