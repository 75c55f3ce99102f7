//! What happens to an object on one frame: it is tracked or prompted.

use sightline_core::NormBox;
use sightline_engine_api::EngineError;

use crate::{
    graphs::Graphs,
    object::Object,
    prompt::{Ask, Resolved},
};

/// What the model sees of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) features: &'a [Vec<f32>],
    /// The part of the picture they show.
    pub(crate) view: NormBox,
}

/// Follows objects, at most [`Graphs::lanes`], to frame `tick` with what each remembers, and if `remember` makes a
/// memory of it.
pub(crate) fn track(
    graphs: &mut Graphs,
    look: Look<'_>,
    objects: &mut [&mut Object],
    tick: u64,
    remember: bool,
) -> Result<(), EngineError> {
    let Look { features, view } = look;
    for (lane, object) in objects.iter_mut().enumerate() {
        object.arrive(tick);
        recall(graphs, view, object, tick, lane);
    }
    graphs.attend(features, objects.iter().map(|object| &object.window))?;
    graphs.decode_track(features, objects.len())?;
    let gate = graphs.spec.memory.min_object_score;
    let worth = |score: f32| remember && gate.is_none_or(|least| score > least);
    if (0..objects.len()).any(|lane| worth(graphs.decoded(lane).score)) {
        graphs.encode_memory(features, objects.len(), false)?;
    }
    for (lane, object) in objects.iter_mut().enumerate() {
        let serial = worth(graphs.decoded(lane).score).then(|| graphs.next_serial());
        let memory = serial.map(|serial| (graphs.memory(lane), serial));
        object.put(tick, view, false, graphs.decoded(lane), memory);
        if !remember {
            object.pass();
        }
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
    look: Look<'_>,
    object: &mut Object,
    tick: u64,
    ask: &Ask,
) -> Result<(), EngineError> {
    let Look { features, view } = look;
    object.arrive(tick);
    let cond = !object.knows(tick) || object.is_cond(tick);
    object.clicked &= ask.object_extent().is_none();
    match ask.resolve(&graphs.spec, graphs.fixed_points(), view) {
        Resolved::Points { coords, labels, multimask } => {
            if cond {
                graphs.set_prev_mask(0, None, NormBox::WHOLE);
                graphs.ignore_memory(features, true);
            } else if graphs.prompts_take_pix_feat() {
                recall(graphs, view, object, tick, 0);
                graphs.attend(features, std::iter::once(&object.window))?;
            } else {
                graphs.set_prev_mask(0, object.previous(tick), view);
            }
            let earlier = object.knows(tick).then(|| object.mask(tick)).flatten();
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
    object.put(tick, view, cond, graphs.decoded(0), Some((graphs.memory(0), serial)));
    Ok(())
}

/// Lays out in `lane` what the object brings to memory attention on frame `tick`.
fn recall(graphs: &mut Graphs, view: NormBox, object: &mut Object, tick: u64, lane: usize) {
    object.gather(tick);
    graphs.set_prev_mask(lane, object.previous(tick), view);
}
