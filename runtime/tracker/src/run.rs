//! What happens to one object on one frame: it is tracked, prompted, or a late prompt is replayed.

use sightline_core::NormBox;
use sightline_engine_api::EngineError;

use crate::{
    frames::Frames,
    graphs::Graphs,
    object::Object,
    prompt::{Ask, Resolved},
};

/// Follows objects, at most [`Graphs::lanes`], to frame `tick` with what each remembers.
pub(crate) fn track(
    graphs: &mut Graphs,
    frames: &Frames,
    objects: &mut [&mut Object],
    tick: u64,
) -> Result<(), EngineError> {
    let features = frames.features(tick);
    for (lane, object) in objects.iter_mut().enumerate() {
        recall(graphs, frames, object, tick, lane);
    }
    graphs.attend(features, objects.iter().map(|object| &object.window))?;
    graphs.decode_track(features, objects.len())?;
    let gate = graphs.spec.memory.min_object_score;
    let worth = |score: f32| gate.is_none_or(|least| score > least);
    if (0..objects.len()).any(|lane| worth(graphs.decoded(lane).score)) {
        graphs.encode_memory(features, objects.len(), false)?;
    }
    for (lane, object) in objects.iter_mut().enumerate() {
        let serial = worth(graphs.decoded(lane).score).then(|| graphs.next_serial());
        let memory = serial.map(|serial| (graphs.memory(lane), serial));
        object.put(tick, false, graphs.decoded(lane), memory);
    }
    Ok(())
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
                graphs.set_prev_mask(0, None, NormBox::WHOLE);
                graphs.ignore_memory(features, true);
            } else if graphs.prompts_take_pix_feat() {
                recall(graphs, frames, object, tick, 0);
                graphs.attend(features, std::iter::once(&object.window))?;
            } else {
                graphs.set_prev_mask(0, previous(frames, object, tick), frames.view(tick));
            }
            let earlier = object.mask(tick);
            if let Some(logits) = earlier {
                graphs.set_mask_input(logits);
            }
            graphs.decode_points(features, &coords, &labels, multimask, earlier.is_some())?;
        }
        Resolved::Mask { full, low_res } => {
            graphs.set_prev_mask(0, None, NormBox::WHOLE);
            graphs.decode_mask(features, &full, &low_res)?;
        }
    }
    graphs.encode_memory(features, 1, true)?;
    let serial = graphs.next_serial();
    object.put(tick, cond, graphs.decoded(0), Some((graphs.memory(0), serial)));
    Ok(())
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
        track(graphs, frames, &mut [&mut *object], later)?;
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

/// Lays out in `lane` what the object brings to memory attention on frame `tick`.
fn recall(graphs: &mut Graphs, frames: &Frames, object: &mut Object, tick: u64, lane: usize) {
    object.window.gather(&object.bank, tick);
    graphs.set_prev_mask(lane, previous(frames, object, tick), frames.view(tick));
}
