//! `sightline trace`: a model's raw outputs on a folder of frames, for comparing with another implementation.

mod npz;
mod prompts;

use anyhow::{Context as _, Result, bail};
use sightline_tracker::At;

use self::{
    npz::NpzWriter,
    prompts::{Planned, When},
};
use crate::{cli::TraceArgs, eval, models, pictures};

pub(crate) use self::prompts::check_size;

/// Runs the command.
pub(crate) fn run(args: &TraceArgs) -> Result<()> {
    let frames = pictures::list(&args.frames, &["png", "jpg", "jpeg"])?;
    let first = pictures::read_rgb(&frames[0])?;
    let size_px = (first.width_px, first.height_px);
    let planned = prompts::read(&args.prompts, frames.len(), size_px)?;
    let mut objects: Vec<_> = planned.iter().map(|plan| plan.object).collect();
    objects.sort();
    objects.dedup();
    let mut session = models::session(&args.model, args.threads, args.history, objects.len())?;
    let mut out = NpzWriter::create(&args.out)?;
    let mut arrays = 0;
    for (index, path) in frames.iter().enumerate() {
        let picture = pictures::read_rgb(path)?;
        if (picture.width_px, picture.height_px) != size_px {
            bail!(
                "picture {path:?}: expected {}x{} pixels as the first one has, got {}x{}",
                size_px.0,
                size_px.1,
                picture.width_px,
                picture.height_px
            );
        }
        let give = |when: When| planned.iter().filter(move |p| p.frame == index && p.when == when);
        for Planned { object, prompt, .. } in give(When::Before) {
            session.prompt(*object, At::Next, prompt.clone()).with_context(|| format!("frame {index}"))?;
        }
        let stamp = eval::stamp(index);
        session.process(stamp, &picture.view()?).with_context(|| format!("frame {index} ({path:?})"))?;
        for Planned { object, prompt, .. } in give(When::After) {
            session
                .prompt(*object, At::Frame(stamp.index), prompt.clone())
                .with_context(|| format!("frame {index}, correction"))?;
        }
        arrays += dump(&mut out, &session, index)?;
    }
    out.finish().with_context(|| format!("cannot write {:?}", args.out))?;
    tracing::info!(frames = frames.len(), objects = objects.len(), arrays, out = ?args.out, "trace written");
    Ok(())
}

/// Writes what the tracker holds of every object after a frame.
fn dump(out: &mut NpzWriter, session: &sightline_tracker::Session, frame: usize) -> Result<usize> {
    let masks = session.tracker().spec().masks;
    let mut arrays = 0;
    for object in session.tracker().objects() {
        let id = object.id;
        out.add(&format!("logits_{frame}_{id}"), &[masks.height_px, masks.width_px], object.low_res)?;
        out.add(&format!("score_{frame}_{id}"), &[1], &[object.object_score])?;
        out.add(&format!("iou_{frame}_{id}"), &[1], &[object.iou])?;
        arrays += 3;
    }
    Ok(arrays)
}
