//! Where models are installed: one folder each, put in place and taken away by a rename.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use sightline_engine_registry::{ModelSource, resolve, shelves};

/// The folder of folders that new models go to.
#[derive(Debug, Clone)]
pub(super) struct Shelf(PathBuf);

impl Shelf {
    /// The first one that the registry looks in.
    pub(super) fn first() -> Result<Self> {
        let shelf = shelves().into_iter().next();
        shelf.map(Self).ok_or_else(|| {
            anyhow!("folder for models: expected SIGHTLINE_MODELS, XDG_DATA_HOME or HOME to be set, got none")
        })
    }

    /// Where a model of this name belongs.
    pub(super) fn model(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where downloads, whole and partial, are kept.
    pub(super) fn downloads(&self) -> PathBuf {
        self.0.join(".downloads")
    }

    /// Keeps other processes from installing the same name for as long as it lives.
    pub(super) fn lock(&self, name: &str) -> Result<File> {
        let folder = self.downloads();
        fs::create_dir_all(&folder).with_context(|| format!("cannot make folder {folder:?}"))?;
        let path = folder.join(format!("{name}.lock"));
        let file = File::create(&path).with_context(|| format!("cannot write {path:?}"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!("model {name:?}: expected to be alone at installing it, got another process at it")
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {path:?}")),
        }
    }

    /// An empty folder beside the models, to build one in. Hold the lock.
    pub(super) fn staging(&self, name: &str) -> Result<Staging> {
        // Its own name each time: an exporter that outlived a killed process writes into what is gone, not in here.
        let path = self.0.join(format!(".new-{}-{name}", std::process::id()));
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let file = entry.file_name();
            let found = file.to_str().and_then(|file| file.strip_prefix(".new-")?.split_once('-'));
            if found.is_some_and(|(_, of)| of == name) {
                let stale = entry.path();
                fs::remove_dir_all(&stale).with_context(|| format!("cannot clear {stale:?}"))?;
            }
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot make folder {path:?}"))?;
        Ok(Staging { path })
    }
}

/// A model that is being built; gone when dropped.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
}

impl Staging {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place, whole or not at all.
    pub(super) fn install(self, place: &Path) -> Result<()> {
        fs::rename(&self.path, place).with_context(|| format!("cannot move {:?} to {place:?}", self.path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a rename there is nothing here; after a failure the next attempt clears what this one could not.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Names become folders.
pub(super) fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) {
        return Ok(());
    }
    bail!("model name: expected letters, digits and . - _ +, the first a letter or a digit, got {name:?}")
}

/// Refuses a name that is taken.
pub(super) fn check_free(name: &str, shelf: &Shelf) -> Result<()> {
    check_name(name)?;
    match resolve(name) {
        Ok(ModelSource::Embedded | ModelSource::Fake) => {
            bail!("model {name:?}: expected a name that is free, got one that is built in")
        }
        _ if shelf.model(name).symlink_metadata().is_ok() => bail!(
            "model {name:?}: expected a name that is free, got one that is installed at {:?}; \
             `sightline models remove {name}` frees it, --as takes another",
            shelf.model(name)
        ),
        _ => Ok(()),
    }
}

/// `sightline models remove`: out of sight by a rename, then gone.
pub(super) fn remove(name: &str) -> Result<()> {
    check_name(name)?;
    if let Ok(source @ (ModelSource::Embedded | ModelSource::Fake)) = resolve(name) {
        bail!("model {name:?}: expected an installed one, got one that is built in ({source})");
    }
    let shelves = shelves();
    let Some(shelf) = shelves.iter().find(|shelf| shelf.join(name).join("model.toml").is_file()) else {
        let looked = shelves.iter().map(|shelf| shelf.display().to_string()).collect::<Vec<_>>().join(", ");
        bail!("model {name:?}: expected an installed one, got none of that name (looked in {looked})");
    };
    let (place, aside) = (shelf.join(name), shelf.join(format!(".old-{name}")));
    let cannot = || format!("cannot remove {place:?}");
    if place.is_symlink() {
        // Somebody keeps it elsewhere: only the name goes.
        fs::remove_file(&place).with_context(cannot)?;
    } else {
        if aside.exists() {
            fs::remove_dir_all(&aside).with_context(cannot)?;
        }
        fs::rename(&place, &aside).and_then(|()| fs::remove_dir_all(&aside)).with_context(cannot)?;
    }
    crate::print_stdout(&format!("removed {}\n", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_there_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf(root.path().join("models"));
        let lock = shelf.lock("m").unwrap();
        let error = shelf.lock("m").expect_err("a second one").to_string();
        assert!(error.contains("another process"), "{error}");
        shelf.lock("other").unwrap();

        let staging = shelf.staging("m").unwrap();
        fs::write(staging.path().join("model.toml"), "half").unwrap();
        let path = staging.path().to_owned();
        drop(staging);
        assert!(!path.exists());

        // What a killed process left is cleared.
        let stale = root.path().join("models/.new-1-m");
        fs::create_dir_all(&stale).unwrap();
        fs::write(stale.join("junk"), "").unwrap();
        let others = root.path().join("models/.new-1-x-m");
        fs::create_dir_all(&others).unwrap();
        let staging = shelf.staging("m").unwrap();
        assert!(!stale.exists() && others.exists());
        fs::write(staging.path().join("model.toml"), "whole").unwrap();
        staging.install(&shelf.model("m")).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read_dir(shelf.model("m")).unwrap().count(), 1);
        assert!(check_free("m", &shelf).unwrap_err().to_string().contains("sightline models remove m"));
        check_free("n", &shelf).unwrap();
        drop(lock);
        shelf.lock("m").unwrap();
    }

    #[test]
    fn names_stay_within_the_shelf() {
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a b", "ä"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["sam2.1-base+", "2x", "tiny_256"] {
            check_name(name).unwrap();
        }
    }
}
