//! What happens to an object on one frame: it is tracked or prompted.
//!
//! On the host a graph's run is over when it returns, and what it said is the object's at once. On a device graphs are
//! only told what to do; [`conclude`] waits for all of a frame, and gives the objects what is theirs if all is well.

use sightline_core::NormBox;
use sightline_engine_api::EngineError;

use crate::{
    graphs::{Graphs, Points},
    object::{Keep, Object, Pending},
    prompt::{Ask, Resolved},
    said::Places,
    slab::Slab,
};

/// What the model sees of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) features: &'a [Slab],
    /// The part of the picture they show.
    pub(crate) view: NormBox,
}

/// Follows objects, at most [`Graphs::lanes`], to frame `tick` with what each remembers, and if `remember` makes a
/// memory of it. `window` is the one of the frame's windows that is theirs alone.
pub(crate) fn track(
    graphs: &mut Graphs,
    look: Look<'_>,
    objects: &mut [&mut Object],
    tick: u64,
    remember: bool,
    window: usize,
) -> Result<(), EngineError> {
    let Look { features, view } = look;
    let mut places = Places::default();
    for (lane, object) in objects.iter_mut().enumerate() {
        object.arrive(&graphs.ground, tick)?;
        places.add(object.make_places(&graphs.ground, tick)?);
        recall(graphs, view, object, tick, (window, lane))?;
    }
    attend(graphs, features, objects, window)?;
    let seat = graphs.decode_track(features, objects.len(), &places)?;
    let keep = if remember { Keep::IfWorth } else { Keep::Never };
    // On a device nobody knows yet whether it is worth it.
    let wanted = graphs.ground.is_device() || (0..objects.len()).any(|lane| graphs.is_worth(seat, lane));
    if remember && wanted {
        graphs.encode_memory(features, seat, objects.len(), false, &places)?;
    }
    for (lane, object) in objects.iter_mut().enumerate() {
        object.expect(Pending { tick, seat, lane, view, cond: false, keep });
    }
    settle_on_host(graphs, objects.iter_mut().map(|object| &mut **object))
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
    object.arrive(&graphs.ground, tick)?;
    let cond = !object.knows(tick) || object.is_cond(tick);
    object.clicked &= ask.object_extent().is_none();
    let mut places = Places::default();
    places.add(object.make_places(&graphs.ground, tick)?);
    // A run of one that is not settled yet is done over in its place.
    let earlier = object.pending_on(tick);
    let seat = match earlier.filter(|earlier| earlier.lane == 0) {
        Some(earlier) => earlier.seat,
        None => graphs.take_seat(1),
    };
    match ask.resolve(&graphs.spec, graphs.fixed_points(), view) {
        Resolved::Points { coords, labels, multimask } => {
            if cond {
                graphs.set_prev_mask(0, None, NormBox::WHOLE)?;
                graphs.ignore_memory(features, true)?;
            } else if graphs.prompts_take_pix_feat() {
                let aside = graphs.window_aside();
                recall(graphs, view, object, tick, (aside, 0))?;
                attend(graphs, features, &[&mut *object], aside)?;
            } else {
                graphs.set_prev_mask(0, object.previous(tick), view)?;
            }
            let refine = match earlier {
                Some(earlier) => graphs.refine_decoded(earlier.seat, earlier.lane).map(|()| true)?,
                None => match object.knows(tick).then(|| object.mask(tick)).flatten() {
                    Some(logits) => graphs.set_mask_input(&logits).map(|()| true)?,
                    None => false,
                },
            };
            let points = Points { coords: &coords, labels: &labels, multimask };
            graphs.decode_points(features, points, refine, seat, &places)?;
        }
        Resolved::Mask { full, low_res } => {
            graphs.set_prev_mask(0, None, NormBox::WHOLE)?;
            graphs.decode_mask(features, &full, &low_res, seat, &places)?;
        }
    }
    graphs.encode_memory(features, seat, 1, true, &places)?;
    object.expect(Pending { tick, seat, lane: 0, view, cond, keep: Keep::Always });
    settle_on_host(graphs, std::iter::once(object))
}

/// Waits for what graphs have been told since [`Graphs::begin`], where they run on a device, and gives it to the objects
/// it is about. If anything failed, some may have got theirs: the caller has them all forget the frame.
pub(crate) fn conclude<'a>(
    graphs: &mut Graphs,
    objects: impl Iterator<Item = &'a mut Object>,
) -> Result<(), EngineError> {
    graphs.collect()?;
    let mut settled = Vec::new();
    for object in objects {
        let pending = object.pending();
        settle(graphs, object)?;
        settled.extend(pending.map(|pending| (pending.tick, object)));
    }
    match graphs.wanted() {
        Some(size_px) => fetch(graphs, settled.into_iter(), size_px),
        None => Ok(()),
    }
}

/// Where masks are made on a device: brings the logits of those objects to the host that have none of this size on that
/// frame, with one wait, and makes them here.
pub(crate) fn fetch<'a>(
    graphs: &mut Graphs,
    objects: impl Iterator<Item = (u64, &'a mut Object)>,
    size_px: (u32, u32),
) -> Result<(), EngineError> {
    let mut lacking = Vec::new();
    for (tick, object) in objects {
        lacking.extend(object.lacks_mask(tick, size_px).map(|logits| (tick, object, logits)));
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let tensors: Vec<_> = lacking.iter().map(|(.., logits)| logits.clone()).collect();
    let masks = graphs.fetch_masks(&tensors, size_px)?;
    for ((tick, object, _), mask) in lacking.into_iter().zip(masks) {
        object.take_mask(tick, mask);
    }
    Ok(())
}

fn settle_on_host<'a>(
    graphs: &mut Graphs,
    mut objects: impl Iterator<Item = &'a mut Object>,
) -> Result<(), EngineError> {
    if graphs.ground.is_device() {
        return Ok(());
    }
    objects.try_for_each(|object| settle(graphs, object))
}

fn settle(graphs: &mut Graphs, object: &mut Object) -> Result<(), EngineError> {
    let Some(pending) = object.take_pending() else { return Ok(()) };
    let Pending { seat, lane, keep, .. } = pending;
    let worth = keep == Keep::Always || keep == Keep::IfWorth && graphs.is_worth(seat, lane);
    let serial = graphs.next_serial();
    let found = graphs.found(seat, lane)?;
    let memory = worth.then(|| graphs.memory(lane));
    object.put(&graphs.ground, pending, graphs.decoded(seat, lane), found, memory, serial)
}

/// Lays out in a window's lane what the object brings to memory attention on frame `tick`.
fn recall(
    graphs: &mut Graphs,
    view: NormBox,
    object: &Object,
    tick: u64,
    (window, lane): (usize, usize),
) -> Result<(), EngineError> {
    graphs.gather(window, lane, &object.bank, object.local(tick))?;
    graphs.set_prev_mask(lane, object.previous(tick), view)
}

fn attend(
    graphs: &mut Graphs,
    features: &[Slab],
    objects: &[&mut Object],
    window: usize,
) -> Result<(), EngineError> {
    graphs.attend(features, window, objects.iter().map(|object| &object.bank))
}
