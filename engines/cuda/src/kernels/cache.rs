use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process,
};

use sha2::{Digest, Sha256};

use crate::DeviceInfo;

/// Bytes of the hash that leads a file.
const HASH: usize = 32;

/// Where compiled kernels are kept: `$XDG_CACHE_HOME/sightline/kernels` (`~/.cache/sightline/kernels`).
pub fn kernel_cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let home = home.or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(home.join("sightline/kernels"))
}

/// One file: the hash of an image, and the image.
pub(crate) struct Entry(Option<PathBuf>);

impl Entry {
    /// Named by all that an image depends on.
    pub(crate) fn new(source: &str, options: &[&str], info: &DeviceInfo) -> Self {
        Self::within(kernel_cache().as_deref(), source, options, &info.architecture())
    }

    fn within(folder: Option<&Path>, source: &str, options: &[&str], architecture: &str) -> Self {
        let mut hash = Sha256::new();
        for part in options.iter().chain([&source]) {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let hash: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Self(folder.map(|folder| folder.join(format!("{hash}-{architecture}.image"))))
    }

    /// The image, if there is one and it is whole.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.0.as_ref()?).ok()?;
        let image = bytes.split_off_checked(HASH)?;
        (Sha256::digest(&image)[..] == bytes[..]).then_some(image)
    }

    /// Keeps an image; another process sees it whole or not at all.
    pub(crate) fn write(&self, image: &[u8]) -> io::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let part = path.with_extension(format!("{}.part", process::id()));
        fs::write(&part, [&Sha256::digest(image)[..], image].concat())?;
        fs::rename(&part, path)
    }
}

/// `Vec::split_off` that does not panic.
trait SplitOffChecked: Sized {
    fn split_off_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitOffChecked for Vec<u8> {
    fn split_off_checked(&mut self, at: usize) -> Option<Self> {
        (at <= self.len()).then(|| self.split_off(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_again_by_what_it_was_made_of_and_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |source, options: &[&str], architecture| {
            Entry::within(Some(folder.path()), source, options, architecture)
        };
        let made = entry("source", &["--a", "--b"], "sm_90");
        assert_eq!(made.read(), None);
        made.write(b"image").unwrap();
        assert_eq!(made.read().as_deref(), Some(&b"image"[..]));
        for (case, other) in [
            ("source", entry("source2", &["--a", "--b"], "sm_90")),
            ("options", entry("source", &["--a"], "sm_90")),
            ("where options end", entry("source", &["--a--b"], "sm_90")),
            ("architecture", entry("source", &["--a", "--b"], "sm_87")),
        ] {
            assert_eq!(other.read(), None, "{case}");
        }
        let path = made.0.as_ref().unwrap();
        let whole = fs::read(path).unwrap();
        for (case, bytes) in [("cut", &whole[..whole.len() - 1]), ("shorter than a hash", &whole[..9])] {
            fs::write(path, bytes).unwrap();
            assert_eq!(made.read(), None, "{case}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no part is left");
    }

    #[test]
    fn without_a_home_nothing_is_kept() {
        let entry = Entry::within(None, "source", &[], "sm_90");
        entry.write(b"image").unwrap();
        assert_eq!(entry.read(), None);
    }
}
