//! What was measured to be best on this machine, a model at a time: `tune.toml` in the data directory.
//!
//! `sightline doctor --tune` measures and writes it; [`load`](crate::load) reads it for the number of threads where
//! none is given. An entry holds for one manifest, one kind of processor and one number of cores, so that what was
//! measured elsewhere, or for a model that has changed, is not believed.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
};

use serde::{Deserialize, Serialize};
use sightline_engine_api::{EngineError, Kind};

use crate::files::{self, ModelSource};

const HEAD: &str =
    "# Written by `sightline doctor --tune`. Without an entry, engines take a thread a core.\n";

/// How a model runs best here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuned {
    /// Threads of each engine.
    pub threads: NonZeroUsize,
    /// Whether the image encoder runs a frame ahead of the tracker, on a thread of its own.
    pub pipelined: bool,
}

/// What a measurement holds for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TuneKey {
    /// The model's name.
    pub model: String,
    /// SHA-256 of its manifest, which names the hashes of its graphs.
    pub manifest: String,
    /// What the processor calls itself.
    pub processor: String,
    /// Cores this process may use.
    pub cores: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    key: TuneKey,
    #[serde(flatten)]
    tuned: Tuned,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    #[serde(default)]
    tuned: Vec<Entry>,
}

impl TuneKey {
    /// The key of a model, found as [`crate::load`] finds it, on this machine.
    ///
    /// # Errors
    /// `Kind::Model` when there is no such model, or no sound manifest.
    pub fn here(name_or_dir: &str) -> Result<Self, EngineError> {
        Self::of(&files::find(name_or_dir, &files::shelves())?)
    }

    fn of(source: &ModelSource) -> Result<Self, EngineError> {
        Ok(Self {
            model: source.spec()?.name,
            manifest: source.manifest_hash()?,
            processor: processor(),
            cores: thread::available_parallelism().map_or(1, NonZeroUsize::get),
        })
    }
}

/// What was measured to be best for a model on this machine; `None` if nothing was. Opens files.
pub fn tuned(name_or_dir: &str) -> Option<Tuned> {
    tuned_source(&files::find(name_or_dir, &files::shelves()).ok()?)
}

pub(crate) fn tuned_source(source: &ModelSource) -> Option<Tuned> {
    let file = path()?;
    // Without a file there is no need to hash anything.
    file.is_file().then(|| TuneKey::of(source).ok()).flatten().and_then(|key| look_up(&file, &key))
}

/// Keeps what was measured, in place of what was known for the same key; gives the file.
///
/// # Errors
/// `Kind::Unavailable` when there is no data directory or it cannot be written to.
pub fn keep_tuned(key: TuneKey, tuned: Tuned) -> Result<PathBuf, EngineError> {
    let file = path().ok_or_else(|| {
        EngineError::new(Kind::Unavailable, "data directory", "$XDG_DATA_HOME or $HOME", "neither")
    })?;
    keep(&file, Entry { key, tuned })?;
    Ok(file)
}

fn path() -> Option<PathBuf> {
    files::data_home().map(|home| home.join("sightline/tune.toml"))
}

fn look_up(file: &Path, key: &TuneKey) -> Option<Tuned> {
    read(file).tuned.into_iter().find(|entry| entry.key == *key).map(|entry| entry.tuned)
}

/// A file that cannot be read is as good as none: it only holds what can be measured again.
fn read(file: &Path) -> Document {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Document::default(),
        Err(error) => return unreadable(file, &error),
    };
    toml::from_str(&text).unwrap_or_else(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> Document {
    tracing::warn!(file = %file.display(), %error, "what was tuned cannot be read, as if nothing was");
    Document::default()
}

fn keep(file: &Path, entry: Entry) -> Result<(), EngineError> {
    let fail = |got: &dyn std::fmt::Display| {
        EngineError::new(
            Kind::Unavailable,
            format_args!("file {:?}", file.display()),
            "it to be written",
            got,
        )
    };
    let mut document = read(file);
    document.tuned.retain(|known| known.key != entry.key);
    document.tuned.push(entry);
    let text = toml::to_string(&document).map_err(|error| fail(&error))?;
    // Whole or not at all, whoever reads it meanwhile.
    let draft = file.with_extension(format!("toml.{}", std::process::id()));
    let write = || {
        fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
        fs::write(&draft, HEAD.to_owned() + &text)?;
        fs::rename(&draft, file)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&draft);
        fail(&error)
    })
}

/// What the processor calls itself, or its architecture where it says nothing.
fn processor() -> String {
    let told = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    told.filter(|name| !name.is_empty()).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(cores: usize, threads: usize) -> Entry {
        let key = TuneKey { cores, ..TuneKey::here("fake").unwrap() };
        Entry { key, tuned: Tuned { threads: threads.try_into().unwrap(), pipelined: threads > 1 } }
    }

    #[test]
    fn what_is_kept_is_found_for_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("not/there/yet/tune.toml");
        let (two, four) = (entry(2, 1), entry(4, 3));
        assert_eq!(look_up(&file, &two.key), None);
        keep(&file, two.clone()).unwrap();
        keep(&file, four.clone()).unwrap();
        assert_eq!(look_up(&file, &two.key), Some(two.tuned));
        assert_eq!(look_up(&file, &four.key), Some(four.tuned));
        let again = Entry { tuned: Tuned { threads: NonZeroUsize::MIN, pipelined: true }, ..two.clone() };
        keep(&file, again.clone()).unwrap();
        assert_eq!(look_up(&file, &two.key), Some(again.tuned), "the newer word counts");
        assert_eq!(read(&file).tuned.len(), 2);
        let elsewhere = [
            TuneKey { model: "nano".into(), ..two.key.clone() },
            TuneKey { manifest: "0".into(), ..two.key.clone() },
            TuneKey { processor: "another".into(), ..two.key.clone() },
            TuneKey { cores: 3, ..two.key },
        ];
        assert!(elsewhere.iter().all(|key| look_up(&file, key).is_none()));
        let names: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "no draft is left");
    }

    #[test]
    fn what_cannot_be_read_is_measured_again_and_what_cannot_be_written_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tune.toml");
        fs::write(&file, "tuned = \"all of it\"").unwrap();
        let two = entry(2, 1);
        assert_eq!(look_up(&file, &two.key), None);
        keep(&file, two.clone()).unwrap();
        assert_eq!(look_up(&file, &two.key), Some(two.tuned));
        let error = keep(&file.join("in/a/file.toml"), two).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains("tune.toml/in/a/file.toml"), "{error}");
    }

    #[test]
    fn a_key_names_the_machine_and_the_manifest() {
        let (fake, processor) = (TuneKey::here("fake").unwrap(), processor());
        assert_eq!((fake.model.as_str(), &fake.processor), ("fake", &processor));
        assert!(fake.cores > 0 && !processor.is_empty());
        let tiny = TuneKey::here(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny")).unwrap();
        assert!(tiny.manifest.len() == 64 && tiny.manifest != fake.manifest, "{tiny:?}");
        assert_eq!(TuneKey::here("no-such-model").unwrap_err().kind(), Kind::Model);
    }
}
