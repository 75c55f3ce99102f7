//! The parity set of the embedded model, which is built in as the model is: `engines/nano/golden`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sightline_tracker::{Options, Session};

use super::parity::{self, Parity};
use crate::trace::Clip;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../../../../engines/nano/golden/", $name)).as_slice())),*]
    };
}

static FILES: [(&str, &[u8]); 15] = files![
    "frames/00000.png",
    "frames/00001.png",
    "frames/00002.png",
    "frames/00003.png",
    "frames/00004.png",
    "frames/00005.png",
    "frames/00006.png",
    "frames/00007.png",
    "frames/00008.png",
    "frames/00009.png",
    "frames/00010.png",
    "frames/00011.png",
    "logits.npz",
    "prompts.json",
    "wagon.png",
];

/// A folder of its own among the temporary ones, gone when dropped.
struct Unpacked(PathBuf);

impl Unpacked {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("sightline-golden-{}", std::process::id()));
        let cannot = || format!("cannot unpack the parity set to {folder:?}");
        // Fails where there is something already: it would not be ours to write into or to remove.
        fs::create_dir(&folder).with_context(cannot)?;
        let unpacked = Self(folder.clone());
        fs::create_dir(folder.join("frames")).with_context(cannot)?;
        for (name, bytes) in FILES {
            fs::write(folder.join(name), bytes).with_context(cannot)?;
        }
        Ok(unpacked)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Replays the set. The frames have the model's own size and it is shown all of them, as its reference was: neither
/// resampling nor the view has a part in the difference.
pub(super) fn replay(name: &str, threads: usize) -> Result<Parity> {
    let unpacked = Unpacked::new()?;
    let clip = Clip::open(&unpacked.path().join("frames"), &unpacked.path().join("prompts.json"))?;
    let mut model = super::load(name, threads)?;
    model.spec.view = None;
    let mut session =
        Session::new(model, Options { history: 1, max_objects: clip.objects(), ..Options::default() })?;
    parity::replay(&unpacked.path().join("logits.npz"), &clip, &mut session)
}
