//! From a catalogue's entry to a checkpoint on this disk whose hash is the one it must have.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use sightline_config::{CatalogueEntry, Checkpoint, Layout};

use super::{
    download::{self, Hashed, Patience},
    shelf::Shelf,
};
use crate::cli::LayoutArg;

/// A checkpoint that is here.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) path: PathBuf,
    /// Where it came from.
    pub(super) from: String,
    pub(super) hashed: Hashed,
    /// Whether we brought it here, and may take it away.
    pub(super) ours: bool,
    /// Where its hash is to be written down, if nobody knew one.
    record: Option<PathBuf>,
}

impl Local {
    /// Takes it away if we brought it here.
    pub(super) fn discard(&self) -> Result<()> {
        if !self.ours {
            return Ok(());
        }
        fs::remove_file(origin_of(&self.path))
            .and_then(|()| fs::remove_file(&self.path))
            .with_context(|| format!("cannot remove {:?}", self.path))
    }

    /// Call it when the checkpoint has proved to be one: what a captive portal sends must not become the measure.
    pub(super) fn proved(&self) -> Result<()> {
        let Some(record) = &self.record else { return Ok(()) };
        let sha256 = &self.hashed.sha256;
        tracing::warn!(
            sha256,
            "no hash of this checkpoint was known; this one is written down, and later ones must be the same"
        );
        let name = record.file_stem().unwrap_or_default().to_string_lossy();
        // The form that `sha256sum --check` reads.
        fs::write(record, format!("{sha256}  {name}\n")).with_context(|| format!("cannot write {record:?}"))
    }
}

/// What is wanted and where it may come from.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) entry: &'a CatalogueEntry,
    pub(super) layout: Option<LayoutArg>,
    /// Instead of its publisher.
    pub(super) from: Option<&'a str>,
    pub(super) patience: Patience,
}

/// Brings the checkpoint here, or finds it where an earlier attempt left it, and checks it.
pub(super) fn obtain(wanted: &Wanted<'_>, shelf: &Shelf) -> Result<Local> {
    let offered = choose(wanted)?;
    let stem = format!("{}.{}", wanted.entry.name, offered.layout);
    let recorded = shelf.downloads().join(format!("{stem}.sha256"));
    let expected = Expected::new(offered, &recorded)?;
    let address = wanted.from.unwrap_or(&offered.address);
    let record = matches!(expected, Expected::Unknown).then(|| recorded.clone());
    if !is_address(address) {
        let path = PathBuf::from(address);
        let hashed = download::hash(&path)?;
        expected.check(&format!("checkpoint {path:?}"), &hashed, &recorded)?;
        return Ok(Local { path, from: address.to_owned(), hashed, ours: false, record });
    }
    let whole = shelf.downloads().join(&stem);
    let (origin, known) = (origin_of(&whole), record.is_none());
    let local = |hashed| Local { path: whole.clone(), from: address.to_owned(), hashed, ours: true, record };
    if whole.is_file() {
        // Downloaded before, but then not exported: its hash says whether it is the one, or else where it is from.
        let hashed = download::hash(&whole)?;
        let same = fs::read_to_string(&origin).is_ok_and(|from| from.trim_end() == address);
        let sound = expected.check(&format!("checkpoint {whole:?}"), &hashed, &recorded).is_ok();
        if sound && (same || known) {
            tracing::info!(path = ?whole, "already downloaded");
            return Ok(local(hashed));
        }
        fs::remove_file(&whole).with_context(|| format!("cannot remove {whole:?}"))?;
    }
    let part = whole.with_added_extension("part");
    tracing::info!(model = wanted.entry.name, address, "downloading");
    let hashed = download::fetch(address, &part, offered.length_bytes, wanted.patience)?;
    if let Err(error) = expected.check(&format!("download {address}"), &hashed, &recorded) {
        // Going on with wrong bytes cannot make them right.
        download::discard(&part);
        return Err(error);
    }
    fs::write(&origin, format!("{address}\n")).with_context(|| format!("cannot write {origin:?}"))?;
    fs::rename(&part, &whole).with_context(|| format!("cannot move {part:?} to {whole:?}"))?;
    Ok(local(hashed))
}

/// The file beside a download that says where it is from.
fn origin_of(whole: &Path) -> PathBuf {
    whole.with_added_extension("from")
}

/// The publisher's offer of the layout asked for: by flag, else by what `--from` ends in, else the first.
fn choose<'a>(wanted: &Wanted<'a>) -> Result<&'a Checkpoint> {
    let asked = match wanted.layout {
        Some(LayoutArg::Pt) => Some(Layout::Pt),
        Some(LayoutArg::Safetensors) => Some(Layout::Safetensors),
        None => wanted
            .from
            .map(|from| if from.ends_with(".safetensors") { Layout::Safetensors } else { Layout::Pt }),
    };
    let entry = wanted.entry;
    let found = entry.checkpoints.iter().find(|offer| asked.is_none_or(|layout| offer.layout == layout));
    found.with_context(|| {
        let layouts: Vec<_> = entry.checkpoints.iter().map(|offer| offer.layout.as_str()).collect();
        let asked = asked.map_or("none", Layout::as_str);
        format!("layout of model {:?}: expected {}, got {asked}", entry.name, layouts.join(" or "))
    })
}

fn is_address(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// What a checkpoint must hash to, and who says so.
#[derive(Debug)]
enum Expected {
    Catalogue(String),
    /// Nobody published a hash; the first one seen was written down.
    Recorded(String),
    Unknown,
}

impl Expected {
    fn new(offered: &Checkpoint, recorded: &Path) -> Result<Self> {
        if let Some(hash) = &offered.sha256 {
            return Ok(Self::Catalogue(hash.clone()));
        }
        match fs::read_to_string(recorded) {
            Ok(text) => {
                let hash = text.split_whitespace().next().unwrap_or_default();
                Ok(Self::Recorded(hash.to_owned()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::Unknown),
            Err(error) => Err(error).with_context(|| format!("cannot read {recorded:?}")),
        }
    }

    fn check(&self, subject: &str, got: &Hashed, record: &Path) -> Result<()> {
        match self {
            Self::Catalogue(hash) | Self::Recorded(hash) if *hash == got.sha256 => Ok(()),
            Self::Catalogue(hash) => bail!(
                "{subject}: expected SHA-256 {hash} as the catalogue says, got {} ({} bytes)",
                got.sha256,
                got.length_bytes
            ),
            Self::Recorded(hash) => bail!(
                "{subject}: expected SHA-256 {hash} as when it was first seen, got {} ({} bytes); \
                 if its publisher has changed it, remove {record:?}",
                got.sha256,
                got.length_bytes
            ),
            Self::Unknown => Ok(()),
        }
    }
}
