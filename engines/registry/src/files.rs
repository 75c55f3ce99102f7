use std::{
    borrow::Cow,
    env,
    ffi::OsString,
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use sightline_engine_api::{EngineError, GraphSpec, Kind, ModelSpec};

use crate::manifest;

include!(concat!(env!("OUT_DIR"), "/nano.rs"));

pub(crate) const NANO_NAME: &str = "nano";
pub(crate) const FAKE_NAME: &str = "fake";
const MANIFEST: &str = "model.toml";

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelSource {
    /// Inside this binary.
    Embedded,
    /// A folder with a `model.toml`.
    Folder(PathBuf),
    /// No files at all: arithmetic that follows a colour, for tests.
    Fake,
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Fake => f.write_str("fake"),
        }
    }
}

/// A model that can be asked for by name.
#[derive(Debug, Clone)]
pub struct ModelEntry {
    /// What to ask for.
    pub name: String,
    /// Where it comes from.
    pub source: ModelSource,
    /// Its manifest, or what is wrong with it. The graphs' files are not looked at.
    pub spec: Result<ModelSpec, EngineError>,
}

impl ModelEntry {
    /// The family its manifest names; `?` if that cannot be read.
    pub fn family(&self) -> &str {
        self.spec.as_ref().map_or("?", |spec| spec.family.as_str())
    }
}

impl ModelSource {
    /// The manifest, checked.
    ///
    /// # Errors
    /// `Kind::Model` for a manifest that cannot be read or is none, `Kind::Interface` for a graph it declares that
    /// does not fulfil the contract.
    pub fn spec(&self) -> Result<ModelSpec, EngineError> {
        if *self == Self::Fake {
            return Ok(sightline_engine_fake::model(sightline_engine_fake::FakeOptions::default()).spec);
        }
        let bytes = self.manifest()?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            EngineError::new(Kind::Model, self.file(Path::new(MANIFEST)), "UTF-8 text", error)
        })?;
        manifest::parse(text).map_err(|error| error.within(self.file(Path::new(MANIFEST))))
    }

    fn manifest(&self) -> Result<Cow<'static, [u8]>, EngineError> {
        self.read(Path::new(MANIFEST)).map_err(|got| {
            EngineError::new(Kind::Model, self.file(Path::new(MANIFEST)), "a readable file", got)
        })
    }

    /// SHA-256 of the manifest, lower-case hex; of nothing for a model without one.
    pub(crate) fn manifest_hash(&self) -> Result<String, EngineError> {
        let bytes = if *self == Self::Fake { Cow::default() } else { self.manifest()? };
        Ok(hex(&Sha256::digest(&bytes)))
    }

    /// A graph's file, once it has proved to be the one that the manifest names. What is returned is what was
    /// hashed: the file may change afterwards.
    ///
    /// # Errors
    /// `Kind::Model`.
    pub fn graph(&self, graph: &GraphSpec) -> Result<Cow<'static, [u8]>, EngineError> {
        let wrong = |expected: &dyn fmt::Display, got: &dyn fmt::Display| {
            EngineError::new(Kind::Model, self.file(&graph.file), expected, got)
        };
        let bytes = self.read(&graph.file).map_err(|got| wrong(&"a readable file", &got))?;
        let found = hex(&Sha256::digest(&bytes));
        if found != graph.sha256 {
            // A truncated download is the usual reason, and the length shows it.
            let got = format!("{found} ({} bytes)", bytes.len());
            return Err(wrong(&format_args!("SHA-256 {}", graph.sha256), &got));
        }
        Ok(bytes)
    }

    fn file(&self, name: &Path) -> String {
        match self {
            Self::Folder(folder) => format!("file {:?}", folder.join(name).display().to_string()),
            Self::Embedded | Self::Fake => format!("embedded file {:?}", name.display().to_string()),
        }
    }

    fn read(&self, name: &Path) -> Result<Cow<'static, [u8]>, String> {
        match self {
            Self::Folder(folder) => match fs::read(folder.join(name)) {
                Ok(bytes) => Ok(Cow::Owned(bytes)),
                Err(error) if error.kind() == ErrorKind::NotFound => Err("no such file".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            Self::Embedded => NANO
                .iter()
                .find(|(file, _)| Path::new(file) == name)
                .map(|(_, bytes)| Cow::Borrowed(*bytes))
                .ok_or_else(|| "no such file".to_owned()),
            Self::Fake => Err("a model without files".to_owned()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The folders that hold models, one folder each: those of `$SIGHTLINE_MODELS` (separated by `:`), then
/// `$XDG_DATA_HOME/sightline/models`. The first one is where a new model belongs. They need not exist.
pub fn shelves() -> Vec<PathBuf> {
    let named = set("SIGHTLINE_MODELS");
    named
        .iter()
        .flat_map(env::split_paths)
        .filter(|path| !path.as_os_str().is_empty())
        .chain(data_home().map(|home| home.join("sightline/models")))
        .collect()
}

/// `$XDG_DATA_HOME`, or what stands in for it.
pub(crate) fn data_home() -> Option<PathBuf> {
    set("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".local/share")))
}

fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Turns what a user typed into a source. `fake` and `nano` are built in; anything with a `/` in it, and `.` and
/// `..`, is a folder; any other name is looked for on the shelves and, last, in the working directory.
pub(crate) fn find(name_or_dir: &str, shelves: &[PathBuf]) -> Result<ModelSource, EngineError> {
    let has_manifest = |folder: &Path| folder.join(MANIFEST).is_file();
    match name_or_dir {
        FAKE_NAME => return Ok(ModelSource::Fake),
        NANO_NAME if NANO.is_empty() => {
            return Err(EngineError::new(
                Kind::Model,
                "model \"nano\"",
                "it to be built in (feature `nano`, and files in engines/nano/model when building)",
                "a build without it",
            ));
        }
        NANO_NAME => return Ok(ModelSource::Embedded),
        _ => {}
    }
    let given = Path::new(name_or_dir);
    if name_or_dir.contains('/') || name_or_dir == "." || name_or_dir == ".." {
        if has_manifest(given) {
            return Ok(ModelSource::Folder(given.to_owned()));
        }
        let got = if given.is_dir() { "a folder without one" } else { "no such folder" };
        return Err(EngineError::new(
            Kind::Model,
            format_args!("model folder {name_or_dir:?}"),
            "a folder with a model.toml",
            got,
        ));
    }
    let found = shelves.iter().map(|shelf| shelf.join(given)).find(|folder| has_manifest(folder));
    if let Some(folder) = found.or_else(|| has_manifest(given).then(|| given.to_owned())) {
        return Ok(ModelSource::Folder(folder));
    }
    let known: Vec<_> = list(shelves).into_iter().map(|entry| entry.name).collect();
    let shelves: Vec<_> = shelves.iter().map(|shelf| shelf.display().to_string()).collect();
    Err(EngineError::new(
        Kind::Model,
        "model",
        format_args!(
            "the path of a model folder, or one of {} (looked in {})",
            known.join(", "),
            if shelves.is_empty() { "no folder".to_owned() } else { shelves.join(", ") }
        ),
        format_args!("{name_or_dir:?}"),
    ))
}

/// Where the model is that a name or a folder asks for, by the rules of [`crate::load`].
///
/// # Errors
/// `Kind::Model` for a name nobody has, listing those that there are, or a folder without a `model.toml`.
pub fn resolve(name_or_dir: &str) -> Result<ModelSource, EngineError> {
    find(name_or_dir, &shelves())
}

/// Every model that can be asked for by name, the built-in ones first; of two of one name, the one that would be
/// loaded.
pub fn installed() -> Vec<ModelEntry> {
    list(&shelves())
}

fn list(shelves: &[PathBuf]) -> Vec<ModelEntry> {
    let mut entries: Vec<ModelEntry> = Vec::new();
    let mut add = |name: String, source: ModelSource| {
        if entries.iter().all(|entry| entry.name != name) {
            let spec = source.spec();
            entries.push(ModelEntry { name, source, spec });
        }
    };
    if !NANO.is_empty() {
        add(NANO_NAME.to_owned(), ModelSource::Embedded);
    }
    add(FAKE_NAME.to_owned(), ModelSource::Fake);
    for shelf in shelves {
        let mut folders: Vec<_> =
            fs::read_dir(shelf).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        folders.sort();
        for folder in folders.into_iter().filter(|folder| folder.join(MANIFEST).is_file()) {
            // Hidden folders are models on their way in or out.
            let name = folder.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.filter(|name| !name.starts_with('.')) {
                add(name.to_owned(), ModelSource::Folder(folder.clone()));
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(root: &Path, name: &str) -> PathBuf {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(MANIFEST), "").unwrap();
        folder
    }

    #[test]
    fn names_are_looked_up_shelf_by_shelf() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("a"), root.path().join("b"));
        folder(&second, "tiny");
        let shelves = [first.clone(), second.clone()];
        assert_eq!(find("tiny", &shelves).unwrap(), ModelSource::Folder(second.join("tiny")));
        folder(&first, "tiny");
        assert_eq!(find("tiny", &shelves).unwrap(), ModelSource::Folder(first.join("tiny")));
        folder(&first, "fake");
        folder(&first, ".new-tiny");
        assert_eq!(find("fake", &shelves).unwrap(), ModelSource::Fake, "built-in names cannot be shadowed");
        let names: Vec<_> = list(&shelves).into_iter().map(|entry| (entry.name, entry.source)).collect();
        assert_eq!(names.iter().filter(|(name, _)| name == "tiny").count(), 1);
        assert!(names.iter().all(|(name, _)| !name.starts_with('.')), "a half installed model is none");
        assert!(names.contains(&("tiny".to_owned(), ModelSource::Folder(first.join("tiny")))));
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let root = tempfile::tempdir().unwrap();
        folder(root.path(), "sam2.1-tiny");
        let error = find("sam3", &[root.path().to_owned()]).expect_err("unknown");
        assert_eq!(error.kind(), Kind::Model);
        let text = error.to_string();
        for part in ["fake", "sam2.1-tiny", "\"sam3\"", &root.path().display().to_string()] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_path_is_only_a_path() {
        let root = tempfile::tempdir().unwrap();
        let path = folder(root.path(), "tiny").display().to_string();
        assert_eq!(find(&path, &[]).unwrap(), ModelSource::Folder(path.clone().into()));
        let text = find(&format!("{path}/none"), &[]).expect_err("missing").to_string();
        assert!(text.contains("no such folder"), "{text}");
        let text = find(&root.path().display().to_string(), &[]).expect_err("no manifest").to_string();
        assert!(text.contains("a folder without one"), "{text}");
    }
}
