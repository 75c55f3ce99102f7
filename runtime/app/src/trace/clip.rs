//! A folder of frames and the prompts for it, given to a session frame by frame.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sightline_tracker::{At, Session};

use super::prompts::{self, Planned, When};
use crate::{eval, pictures};

/// Frames in the order of their names, all of one size, and what is prompted on them.
#[derive(Debug)]
pub(crate) struct Clip {
    frames: Vec<PathBuf>,
    size_px: (u32, u32),
    planned: Vec<Planned>,
}

impl Clip {
    /// Reads the prompts and the first frame.
    pub(crate) fn open(frames: &Path, prompts: &Path) -> Result<Self> {
        let frames = pictures::list(frames, &["png", "jpg", "jpeg"])?;
        let first = pictures::read_rgb(&frames[0])?;
        let size_px = (first.width_px, first.height_px);
        let planned = prompts::read(prompts, frames.len(), size_px)?;
        Ok(Self { frames, size_px, planned })
    }

    /// How many frames.
    pub(crate) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// How many objects are prompted.
    pub(crate) fn objects(&self) -> usize {
        let mut objects: Vec<_> = self.planned.iter().map(|plan| plan.object).collect();
        objects.sort();
        objects.dedup();
        objects.len()
    }

    /// Gives every frame and its prompts to a session that has seen none; `each` is called after every frame.
    pub(crate) fn replay(
        &self,
        session: &mut Session,
        mut each: impl FnMut(usize, &Session) -> Result<()>,
    ) -> Result<()> {
        for (index, path) in self.frames.iter().enumerate() {
            let picture = pictures::read_rgb(path)?;
            if (picture.width_px, picture.height_px) != self.size_px {
                bail!(
                    "picture {path:?}: expected {}x{} pixels as the first one has, got {}x{}",
                    self.size_px.0,
                    self.size_px.1,
                    picture.width_px,
                    picture.height_px
                );
            }
            let give = |when: When| self.planned.iter().filter(move |p| p.frame == index && p.when == when);
            for Planned { object, prompt, .. } in give(When::Before) {
                session
                    .prompt(*object, At::Next, prompt.clone())
                    .with_context(|| format!("frame {index}"))?;
            }
            let stamp = eval::stamp(index);
            session.process(stamp, &picture.view()?).with_context(|| format!("frame {index} ({path:?})"))?;
            for Planned { object, prompt, .. } in give(When::After) {
                session
                    .prompt(*object, At::Frame(stamp.index), prompt.clone())
                    .with_context(|| format!("frame {index}, correction"))?;
            }
            each(index, session)?;
        }
        Ok(())
    }
}
