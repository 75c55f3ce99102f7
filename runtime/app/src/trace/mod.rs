//! `sightline trace`: a model's raw outputs on a folder of frames, for comparing with another implementation.

mod clip;
mod npz;
mod prompts;

use anyhow::{Context as _, Result};
use sightline_tracker::Output;

use self::npz::NpzWriter;
use crate::{cli::TraceArgs, models};

pub(crate) use self::{clip::Clip, npz::read as read_npz, prompts::check_size};

/// Runs the command.
pub(crate) fn run(args: &TraceArgs) -> Result<()> {
    let clip = Clip::open(&args.frames, &args.prompts)?;
    let (frames, objects) = (clip.frames(), clip.objects());
    let output = Output { low_res: true, ..Output::default() };
    let mut session = models::session_with(&args.model, args.threads, args.history, objects, output)?;
    let mut out = NpzWriter::create(&args.out)?;
    let mut arrays = 0;
    clip.replay(&mut session, |frame, session| {
        arrays += dump(&mut out, session, frame)?;
        Ok(())
    })?;
    out.finish().with_context(|| format!("cannot write {:?}", args.out))?;
    tracing::info!(frames, objects, arrays, out = ?args.out, "trace written");
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
