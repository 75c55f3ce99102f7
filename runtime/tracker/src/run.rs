//! What happens to one object on one frame: it is tracked, prompted, or a late prompt is replayed.

use sightline_core::NormBox;
use sightline_engine_api::EngineError;

use crate::{
    frames::Frames,
    graphs::Graphs,
    object::{Decoded, Object},
    prompt::{Ask, Resolved},
};

/// Follows the object to frame `tick` with what it remembers.
pub(crate) fn track(
    graphs: &mut Graphs,
    frames: &Frames,
    object: &mut Object,
    tick: u64,
) -> Result<(), EngineError> {
    let features = frames.features(tick);
    attend(graphs, frames, object, tick)?;
    graphs.decode_track(features)?;
    let gate = graphs.spec.memory.min_object_score;
    let remember = gate.is_none_or(|least| graphs.object_score[0] > least);
    store(graphs, features, object, tick, Stored { cond: false, prompted: false, remember })
}

/// Gives a prompt on frame `tick`.
///
/// A frame the object has not been tracked on becomes a conditioning frame and reads no memory. Prompted again, a
/// conditioning frame stays one; a tracked frame is corrected with its memory in sight and stays a tracked one.
/// Clicks and boxes refine what the frame said before.
pub(crate) fn prompt(
    graphs: &mut Graphs,
    frames: &Frames,
    object: &mut Object,
    tick: u64,
    ask: &Ask,
) -> Result<(), EngineError> {
    let features = frames.features(tick);
    let cond = !object.knows(tick) || object.bank.is_cond(tick);
    object.clicked &= ask.object_extent().is_none();
    match ask.resolve(&graphs.spec, graphs.fixed_points(), frames.view(tick)) {
        Resolved::Points { coords, labels, multimask } => {
            if cond {
                graphs.set_prev_mask(None, NormBox::WHOLE);
                graphs.ignore_memory(features, true);
            } else if graphs.prompts_take_pix_feat() {
                attend(graphs, frames, object, tick)?;
            } else {
                graphs.set_prev_mask(previous(frames, object, tick), frames.view(tick));
            }
            let earlier = object.mask(tick);
            if let Some(logits) = earlier {
                graphs.set_mask_input(logits);
            }
            graphs.decode_points(features, &coords, &labels, multimask, earlier.is_some())?;
        }
        Resolved::Mask { full, low_res } => {
            graphs.set_prev_mask(None, NormBox::WHOLE);
            graphs.decode_mask(features, &full, &low_res)?;
        }
    }
    store(graphs, features, object, tick, Stored { cond, prompted: true, remember: true })
}

/// Gives a prompt on a kept frame and brings the object up to the newest one.
pub(crate) fn replay(
    graphs: &mut Graphs,
    frames: &Frames,
    object: &mut Object,
    tick: u64,
    ask: Ask,
) -> Result<(), EngineError> {
    prompt(graphs, frames, object, tick, &ask)?;
    if !object.bank.is_cond(tick) {
        object.log(tick, ask);
    }
    for later in tick + 1..frames.next_tick() {
        // A conditioning frame owes nothing to the frames before it.
        if object.bank.is_cond(later) {
            continue;
        }
        track(graphs, frames, object, later)?;
        for ask in object.take_corrections(later) {
            prompt(graphs, frames, object, later, &ask)?;
            object.log(later, ask);
        }
    }
    Ok(())
}

/// The logits on the frame before, and what they cover of the picture.
fn previous<'a>(frames: &Frames, object: &'a Object, tick: u64) -> Option<(&'a [f32], NormBox)> {
    let before = tick.checked_sub(1)?;
    Some((object.mask(before)?, frames.view(before)))
}

fn attend(graphs: &mut Graphs, frames: &Frames, object: &mut Object, tick: u64) -> Result<(), EngineError> {
    object.window.gather(&object.bank, tick);
    graphs.set_prev_mask(previous(frames, object, tick), frames.view(tick));
    graphs.attend(frames.features(tick), &object.window)
}

struct Stored {
    cond: bool,
    prompted: bool,
    remember: bool,
}

fn store(
    graphs: &mut Graphs,
    features: &[Vec<f32>],
    object: &mut Object,
    tick: u64,
    how: Stored,
) -> Result<(), EngineError> {
    let mut serial = None;
    if how.remember {
        graphs.encode_memory(features, how.prompted)?;
        serial = Some(graphs.next_serial());
    }
    let decoded = Decoded {
        low_res: &graphs.low_res,
        score: graphs.object_score[0],
        iou: graphs.iou[0],
        pointer: &graphs.pointer,
        memory: serial.map(|serial| (graphs.memory.as_slice(), serial)),
    };
    object.put(tick, how.cond, decoded);
    Ok(())
}
