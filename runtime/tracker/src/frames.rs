//! The last frames' features, kept for late prompts and corrections.
//!
//! The newest `history` frames are all kept. Older ones are kept as long as there is room, and thinned with age:
//! what gives way is the frame whose neighbours in time are closest together for its age, so that a fixed number of
//! slots reaches far back. Frames that a question is about are pinned; once there is one, what lies before the
//! oldest of them gives way first.

use std::{collections::VecDeque, time::Duration};

use sightline_core::{FrameStamp, NormBox, OwnedPicture};
use sightline_engine_api::{EngineError, PictureSource};

use crate::{At, TrackerError, error::Kind, run::Look, slab::Slab};

/// Frames older than this many times the capacity give way first.
const REACH: u64 = 4;

/// Frames pinned at once.
const MOST_PINS: usize = 64;

/// Where a prompt's frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Among the kept ones.
    Kept {
        tick: u64,
        /// Frames at or after what is asked for, and before this one, have been let go.
        degraded: bool,
    },
    /// Still to come.
    Future,
}

/// Frames there may be where pictures are kept; what they weigh is the limit.
const MOST_PICTURES: usize = 1 << 16;

/// Pictures kept in place of features.
#[derive(Default)]
struct Pictures {
    most_bytes: usize,
    held_bytes: usize,
    /// A buffer for the next one.
    spare: Option<OwnedPicture>,
}

#[derive(Debug, Clone)]
struct Kept {
    tick: u64,
    stamp: FrameStamp,
    view: NormBox,
    /// Where its features are, if they still are.
    slot: usize,
    picture: Option<OwnedPicture>,
    /// Questions about it that are open.
    pins: u32,
    /// The newest frame let go between the one kept before and this one.
    gone: Option<FrameStamp>,
}

/// A ring of feature sets with room for `capacity` frames and the one under way.
pub(crate) struct Frames {
    features: Vec<Vec<Slab>>,
    /// Ascending by tick.
    kept: VecDeque<Kept>,
    /// Slots that hold nothing, the one under way included (the last). Empty where pictures are kept: the features
    /// then are a ring of their own.
    free: Vec<usize>,
    pictures: Option<Pictures>,
    /// Newest frames that are never thinned.
    history: usize,
    capacity: usize,
    /// The tick the next frame gets. Ticks count frames tracked.
    next: u64,
    /// What the frame under way shows of the picture.
    view: NormBox,
}

impl Frames {
    /// Room for `history` frames, and for as many more as `memory_bytes` hold: of features, or, where the model is
    /// shown parts of the picture (`parts`), of pictures, of which another part can be shown later. `buffers` makes a
    /// frame's features.
    pub(crate) fn new(
        history: usize,
        memory_bytes: usize,
        parts: bool,
        buffers: impl Fn() -> Result<Vec<Slab>, EngineError>,
    ) -> Result<Self, EngineError> {
        let first = buffers()?;
        let set_bytes: usize = first.iter().map(|level| 4 * level.len()).sum();
        let parts = parts && memory_bytes > 0;
        let room = if parts { MOST_PICTURES } else { memory_bytes / set_bytes.max(1) };
        let capacity = history.max(room);
        let slots = 0..=if parts { history } else { capacity };
        let others = slots.clone().skip(1).map(|_| buffers());
        Ok(Self {
            features: std::iter::once(Ok(first)).chain(others).collect::<Result<_, _>>()?,
            kept: VecDeque::with_capacity(capacity.min(1024) + 1),
            free: if parts { Vec::new() } else { slots.rev().collect() },
            pictures: parts.then(|| Pictures { most_bytes: memory_bytes, ..Pictures::default() }),
            history,
            capacity,
            next: 0,
            view: NormBox::WHOLE,
        })
    }

    /// Where the features of the frame under way go.
    fn next_slot(&self) -> usize {
        self.free.last().copied().unwrap_or((self.next % self.features.len() as u64) as usize)
    }

    /// The tick of the frame under way or to come.
    pub(crate) fn next_tick(&self) -> u64 {
        self.next
    }

    /// The newest frame.
    pub(crate) fn newest(&self) -> Option<FrameStamp> {
        self.kept.back().map(|kept| kept.stamp)
    }

    /// The newest frame's tick.
    pub(crate) fn newest_tick(&self) -> Option<u64> {
        self.kept.back().map(|kept| kept.tick)
    }

    /// The oldest of the newest `history` ticks.
    pub(crate) fn history_tick(&self) -> u64 {
        self.next.saturating_sub(self.history as u64)
    }

    /// Kept frames after `tick`.
    pub(crate) fn after(&self, tick: u64) -> usize {
        self.kept.len() - self.kept.partition_point(|kept| kept.tick <= tick)
    }

    /// The frame that lies `stride` kept frames after `tick`, or the newest if there are fewer; `None` if there is
    /// none.
    pub(crate) fn later(&self, tick: u64, stride: usize) -> Option<u64> {
        let first = self.kept.partition_point(|kept| kept.tick <= tick);
        let last = self.kept.len().checked_sub(1).filter(|last| *last >= first)?;
        Some(self.kept[(first + stride.max(1) - 1).min(last)].tick)
    }

    fn at(&self, tick: u64) -> Option<&Kept> {
        self.kept.binary_search_by_key(&tick, |kept| kept.tick).ok().map(|at| &self.kept[at])
    }

    /// What the model saw of a frame of the history or of the one under way; of an older one where features are kept.
    pub(crate) fn look(&self, tick: u64) -> Look<'_> {
        let kept = self.at(tick);
        let slot = kept.map_or(self.next_slot(), |kept| kept.slot);
        Look { features: &self.features[slot], view: kept.map_or(self.view, |kept| kept.view) }
    }

    /// What a frame shows of the picture: one kept, or the one under way.
    pub(crate) fn view(&self, tick: u64) -> NormBox {
        self.look(tick).view
    }

    /// Where the features of the frame under way go, which shows `view` of the picture. No kept frame's are there.
    pub(crate) fn under_way(&mut self, view: NormBox) -> &mut [Slab] {
        self.view = view;
        let slot = self.next_slot();
        &mut self.features[slot]
    }

    /// The frame under way becomes the newest.
    pub(crate) fn commit(&mut self, stamp: FrameStamp) {
        let slot = self.next_slot();
        self.free.pop();
        let (tick, view) = (self.next, self.view);
        self.kept.push_back(Kept { tick, stamp, view, slot, picture: None, pins: 0, gone: None });
        self.next += 1;
        if self.kept.len() > self.capacity {
            self.thin();
        }
    }

    /// Whether a kept frame's features still are there.
    pub(crate) fn has_features(&self, tick: u64) -> bool {
        self.at(tick).is_some() && (!self.keeps_pictures() || tick >= self.history_tick())
    }

    /// Whether pictures are kept.
    pub(crate) fn keeps_pictures(&self) -> bool {
        self.pictures.is_some()
    }

    /// Keeps the newest frame's picture, in host memory. One of which the history would not fit is not kept, nor one that
    /// cannot be had there.
    pub(crate) fn keep_picture(&mut self, picture: &dyn PictureSource) {
        let Some(pictures) = &mut self.pictures else { return };
        let Ok(picture) = picture.on_host() else { return };
        let mut copy = pictures.spare.take().unwrap_or_default();
        copy.copy_from(&picture);
        if copy.bytes() * (self.history + 1) > pictures.most_bytes {
            return;
        }
        pictures.held_bytes += copy.bytes();
        if let Some(newest) = self.kept.back_mut() {
            newest.picture = Some(copy);
        }
        while self.pictures.as_ref().is_some_and(|pictures| pictures.held_bytes > pictures.most_bytes)
            && self.kept.len() > 1
        {
            self.thin();
        }
    }

    /// A kept frame's picture.
    pub(crate) fn picture(&self, tick: u64) -> Option<&OwnedPicture> {
        self.at(tick)?.picture.as_ref()
    }

    /// Lets one frame go.
    fn thin(&mut self) {
        let old = self.kept.len().saturating_sub(self.history).max(1);
        let pinned = self.kept.iter().position(|kept| kept.pins > 0);
        let reach = REACH * self.kept.len() as u64;
        let at = match pinned {
            Some(first) if first > 0 => 0,
            None if self.next - self.kept[0].tick > reach => 0,
            // If all are pinned, the oldest all the same.
            _ => (0..old)
                .filter(|at| self.kept[*at].pins == 0)
                .min_by(|a, b| self.crowding(*a).total_cmp(&self.crowding(*b)))
                .unwrap_or(0),
        };
        let Some(leaving) = self.kept.remove(at) else { return };
        self.let_go(leaving.slot, leaving.picture);
        if let Some(next) = self.kept.get_mut(at) {
            next.gone = Some(leaving.stamp);
        }
    }

    fn let_go(&mut self, slot: usize, picture: Option<OwnedPicture>) {
        match &mut self.pictures {
            Some(pictures) => {
                pictures.held_bytes -= picture.as_ref().map_or(0, OwnedPicture::bytes);
                pictures.spare = picture.or(pictures.spare.take());
            }
            None => self.free.push(slot),
        }
    }

    /// The gap that letting the frame go would leave, for its age: the smaller, the less it is missed.
    fn crowding(&self, at: usize) -> f64 {
        let tick = |at: usize| self.kept.get(at).map(|kept| kept.tick as f64);
        let neighbours = at.checked_sub(1).and_then(tick).zip(tick(at + 1));
        let gap = neighbours.map_or(f64::MAX, |(before, after)| after - before);
        gap / (self.next - self.kept[at].tick) as f64
    }

    /// Keeps the newest frame until it is released, if there is room for pins: at most half of what is kept.
    pub(crate) fn pin_newest(&mut self) -> Option<FrameStamp> {
        let pinned = self.kept.iter().filter(|kept| kept.pins > 0).count();
        // What there is room for is known once it is full.
        let room = pinned < (self.capacity / 2).min(MOST_PINS);
        let newest = self.kept.back_mut()?;
        newest.pins += u32::from(room);
        room.then_some(newest.stamp)
    }

    /// Keeps a frame until it is released.
    pub(crate) fn pin(&mut self, tick: u64) {
        if let Ok(at) = self.kept.binary_search_by_key(&tick, |kept| kept.tick) {
            self.kept[at].pins += 1;
        }
    }

    /// Takes a pin off.
    pub(crate) fn release(&mut self, tick: u64) {
        if let Ok(at) = self.kept.binary_search_by_key(&tick, |kept| kept.tick) {
            self.kept[at].pins = self.kept[at].pins.saturating_sub(1);
        }
    }

    /// Takes a pin off the frame of this index.
    pub(crate) fn release_index(&mut self, index: u64) {
        if let Some(kept) = self.kept.iter().find(|kept| kept.stamp.index == index) {
            self.release(kept.tick);
        }
    }

    /// Forgets every frame; ticks go on, so nothing older can be mistaken for what comes.
    pub(crate) fn reset(&mut self) {
        while let Some(kept) = self.kept.pop_front() {
            self.let_go(kept.slot, kept.picture);
        }
    }

    pub(crate) fn stamp(&self, tick: u64) -> Option<FrameStamp> {
        self.at(tick).map(|kept| kept.stamp)
    }

    /// Finds the first frame at or after what is asked for.
    pub(crate) fn find(&self, at: At) -> Found {
        if at == At::Next {
            return Found::Future;
        }
        match self.kept.iter().find(|kept| reaches(kept.stamp, at)) {
            Some(kept) => {
                Found::Kept { tick: kept.tick, degraded: kept.gone.is_some_and(|gone| reaches(gone, at)) }
            }
            None => Found::Future,
        }
    }

    /// That the frame asked for is not among the kept.
    pub(crate) fn gone_error(&self, at: At) -> TrackerError {
        let name = |stamp: FrameStamp| match at {
            At::RunningTime(_) => stamp.running_time.map_or("unknown".into(), |time| format!("{time:?}")),
            _ => stamp.index.to_string(),
        };
        let oldest = self.kept.front().map_or("none".into(), |kept| name(kept.stamp));
        let newest = self.newest().map_or("none".into(), name);
        let (what, got) = match at {
            At::RunningTime(time) => ("running time", format!("{time:?}")),
            At::Frame(index) => ("frame", index.to_string()),
            At::Next => ("frame", "the next".into()),
        };
        let expected = format!("one of the kept, {oldest} to {newest}, or later");
        TrackerError::new(Kind::Gone, format_args!("prompt for {what}"), expected, got)
    }
}

/// Whether a frame is at or after what is asked for.
pub(crate) fn reaches(stamp: FrameStamp, at: At) -> bool {
    let reached = |time: Duration, asked: Duration| time >= asked;
    match at {
        At::Next => true,
        At::Frame(index) => stamp.index >= index,
        At::RunningTime(asked) => stamp.running_time.is_some_and(|time| reached(time, asked)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Ground;

    fn stamp(index: u64) -> FrameStamp {
        let running_time = Some(Duration::from_millis(index * 10));
        FrameStamp { index, pts: None, running_time }
    }

    #[test]
    fn a_prompt_finds_the_first_frame_at_or_after_it() {
        let mut frames = frames(3, 0);
        assert_eq!(frames.find(At::Frame(0)), Found::Future, "nothing yet");
        // Frames 3, 5, 6, 9 and 10 were tracked, the others dropped; 6, 9 and 10 are kept as ticks 2, 3, 4.
        for index in [3, 5, 6, 9, 10] {
            frames.commit(stamp(index));
        }
        let ms = |ms| At::RunningTime(Duration::from_millis(ms));
        let kept = |tick, degraded| Found::Kept { tick, degraded };
        for (at, wanted) in [
            (At::Next, Found::Future),
            (At::Frame(3), kept(2, true)),
            (At::Frame(5), kept(2, true)),
            (At::Frame(6), kept(2, false)),
            (At::Frame(7), kept(3, false)),
            (At::Frame(10), kept(4, false)),
            (At::Frame(11), Found::Future),
            (ms(50), kept(2, true)),
            (ms(51), kept(2, false)),
            (ms(100), kept(4, false)),
            (ms(101), Found::Future),
        ] {
            assert_eq!(frames.find(at), wanted, "{at:?}");
        }
        let error = frames.gone_error(At::Frame(5));
        assert!(error.kind() == Kind::Gone && error.is_transient());
        assert_eq!(error.to_string(), "prompt for frame: expected one of the kept, 6 to 10, or later, got 5");
        frames.reset();
        assert_eq!(frames.find(At::Frame(5)), Found::Future, "nothing is kept after a reset");
    }

    fn kept(frames: &Frames) -> Vec<u64> {
        frames.kept.iter().map(|kept| kept.tick).collect()
    }

    /// Features of four values a frame.
    fn frames(history: usize, memory_bytes: usize) -> Frames {
        let ground = Ground::new(None);
        Frames::new(history, memory_bytes, false, || Ok(vec![ground.slab(4)?])).unwrap()
    }

    #[test]
    fn older_frames_are_thinned_with_age() {
        let mut frames = frames(4, 16 * 16);
        (0..1000).for_each(|index| frames.commit(stamp(index)));
        let ticks = kept(&frames);
        assert_eq!(ticks.len(), 16, "{ticks:?}");
        assert_eq!(ticks[12..], [996, 997, 998, 999], "{ticks:?}");
        assert!((936..=960).contains(&ticks[0]), "reaches back 40 to 64 frames: {ticks:?}");
        let gaps: Vec<u64> = ticks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.windows(2).all(|pair| pair[1] <= pair[0] + 2), "denser towards now: {gaps:?}");
        // Every slot is used once.
        let mut slots: Vec<usize> =
            frames.kept.iter().map(|kept| kept.slot).chain(frames.free.clone()).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..17).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_asked_about_stays_and_what_lies_before_it_goes_first() {
        let mut frames = frames(2, 8 * 16);
        (0..20).for_each(|index| frames.commit(stamp(index)));
        assert_eq!(frames.pin_newest().map(|stamp| stamp.index), Some(19));
        (20..27).for_each(|index| frames.commit(stamp(index)));
        assert_eq!(kept(&frames), (19..27).collect::<Vec<_>>(), "all since then, while there is room");
        (27..400).for_each(|index| frames.commit(stamp(index)));
        assert_eq!(kept(&frames)[0], 19);
        assert_eq!(frames.find(At::Frame(19)), Found::Kept { tick: 19, degraded: false });
        let second = kept(&frames)[1];
        assert_eq!(frames.find(At::Frame(20)), Found::Kept { tick: second, degraded: true });
        frames.release(19);
        (400..500).for_each(|index| frames.commit(stamp(index)));
        assert!(kept(&frames)[0] > 400, "{:?}", kept(&frames));
        // Pins may take half of the room.
        let pinned: usize = (500..600)
            .map(|index| {
                frames.commit(stamp(index));
                usize::from(frames.pin_newest().is_some())
            })
            .sum();
        assert_eq!(pinned, 4);
        assert_eq!(kept(&frames)[..4], [500, 501, 502, 503]);
    }

    #[test]
    fn strides_end_on_the_newest() {
        let mut frames = frames(8, 0);
        (0..6).for_each(|index| frames.commit(stamp(index)));
        assert_eq!((frames.later(1, 1), frames.later(1, 3), frames.later(1, 9)), (Some(2), Some(4), Some(5)));
        assert_eq!((frames.later(5, 1), frames.after(1), frames.after(5)), (None, 4, 0));
    }
}
