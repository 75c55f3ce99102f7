//! The last frames' features, kept for late prompts and corrections.

use std::time::Duration;

use sightline_core::{FrameStamp, NormBox, Shape};

use crate::{At, TrackerError, error::Kind};

/// Where a prompt's frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Among the kept ones: its tick.
    Kept(u64),
    /// Still to come.
    Future,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    tick: u64,
    stamp: FrameStamp,
    view: NormBox,
}

/// A ring of feature sets, one slot more than `history` for the frame under way.
pub(crate) struct Frames {
    features: Vec<Vec<Vec<f32>>>,
    kept: Vec<Option<Kept>>,
    history: usize,
    /// The tick the next frame gets. Ticks count frames tracked.
    next: u64,
    /// First tick since the last reset.
    first: u64,
    newest: Option<FrameStamp>,
    /// What the frame under way shows of the picture.
    view: NormBox,
    /// The newest frame let go.
    gone: Option<FrameStamp>,
}

impl Frames {
    pub(crate) fn new(history: usize, levels: &[(String, Shape)]) -> Self {
        let set = || levels.iter().map(|(_, shape)| vec![0.0; shape.elements()]).collect();
        Self {
            features: (0..=history).map(|_| set()).collect(),
            kept: vec![None; history + 1],
            history,
            next: 0,
            first: 0,
            newest: None,
            view: NormBox::WHOLE,
            gone: None,
        }
    }

    fn slot(&self, tick: u64) -> usize {
        (tick % self.features.len() as u64) as usize
    }

    /// The tick of the frame under way or to come.
    pub(crate) fn next_tick(&self) -> u64 {
        self.next
    }

    /// The newest frame.
    pub(crate) fn newest(&self) -> Option<FrameStamp> {
        self.newest
    }

    /// The newest frame's tick.
    pub(crate) fn newest_tick(&self) -> Option<u64> {
        (self.next > self.first).then(|| self.next - 1)
    }

    /// The oldest tick whose features are kept.
    pub(crate) fn oldest_tick(&self) -> u64 {
        self.next.saturating_sub(self.history as u64).max(self.first)
    }

    /// The features of a kept frame or of the one under way.
    pub(crate) fn features(&self, tick: u64) -> &[Vec<f32>] {
        &self.features[self.slot(tick)]
    }

    /// What a frame shows of the picture: one kept, the one let go last, or the one under way.
    pub(crate) fn view(&self, tick: u64) -> NormBox {
        self.kept[self.slot(tick)].filter(|kept| kept.tick == tick).map_or(self.view, |kept| kept.view)
    }

    /// Where the features of the frame under way go, which shows `view` of the picture. No kept frame's are there.
    pub(crate) fn under_way(&mut self, view: NormBox) -> &mut [Vec<f32>] {
        self.view = view;
        let slot = self.slot(self.next);
        &mut self.features[slot]
    }

    /// The frame under way becomes the newest.
    pub(crate) fn commit(&mut self, stamp: FrameStamp) {
        let (slot, tick) = (self.slot(self.next), self.next);
        self.kept[slot] = Some(Kept { tick, stamp, view: self.view });
        self.newest = Some(stamp);
        self.next += 1;
        if let Some(old) = self.next.checked_sub(self.history as u64 + 1).filter(|old| *old >= self.first) {
            self.gone = self.kept[self.slot(old)].map(|kept| kept.stamp).or(self.gone);
        }
    }

    /// Forgets every frame; ticks go on, so nothing older can be mistaken for what comes.
    pub(crate) fn reset(&mut self) {
        self.kept.fill(None);
        self.first = self.next;
        (self.newest, self.gone) = (None, None);
    }

    pub(crate) fn stamp(&self, tick: u64) -> Option<FrameStamp> {
        self.kept[self.slot(tick)].filter(|kept| kept.tick == tick).map(|kept| kept.stamp)
    }

    /// Kept frames, oldest first.
    fn stamps(&self) -> impl Iterator<Item = (u64, FrameStamp)> + '_ {
        (self.oldest_tick()..self.next).filter_map(|tick| Some((tick, self.stamp(tick)?)))
    }

    /// Finds the first frame at or after what is asked for.
    pub(crate) fn find(&self, at: At) -> Result<Found, TrackerError> {
        if at == At::Next {
            return Ok(Found::Future);
        }
        if self.gone.is_some_and(|gone| reaches(gone, at)) {
            return Err(self.gone_error(at));
        }
        let found = self.stamps().find(|(_, stamp)| reaches(*stamp, at));
        Ok(found.map_or(Found::Future, |(tick, _)| Found::Kept(tick)))
    }

    fn gone_error(&self, at: At) -> TrackerError {
        let name = |stamp: FrameStamp| match at {
            At::RunningTime(_) => stamp.running_time.map_or("unknown".into(), |time| format!("{time:?}")),
            _ => stamp.index.to_string(),
        };
        let oldest = self.stamps().next().map_or("none".into(), |(_, stamp)| name(stamp));
        let newest = self.newest.map_or("none".into(), name);
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

    fn stamp(index: u64) -> FrameStamp {
        let running_time = Some(Duration::from_millis(index * 10));
        FrameStamp { index, pts: None, running_time }
    }

    #[test]
    fn a_prompt_finds_the_first_frame_at_or_after_it() {
        let mut frames = Frames::new(3, &[]);
        assert_eq!(frames.find(At::Frame(0)).unwrap(), Found::Future, "nothing yet");
        // Frames 3, 5, 6, 9 and 10 were tracked, the others dropped; 6, 9 and 10 are kept as ticks 2, 3, 4.
        for index in [3, 5, 6, 9, 10] {
            frames.commit(stamp(index));
        }
        let ms = |ms| At::RunningTime(Duration::from_millis(ms));
        for (at, wanted) in [
            (At::Next, Some(Found::Future)),
            (At::Frame(3), None),
            (At::Frame(5), None),
            (At::Frame(6), Some(Found::Kept(2))),
            (At::Frame(7), Some(Found::Kept(3))),
            (At::Frame(10), Some(Found::Kept(4))),
            (At::Frame(11), Some(Found::Future)),
            (ms(50), None),
            (ms(51), Some(Found::Kept(2))),
            (ms(100), Some(Found::Kept(4))),
            (ms(101), Some(Found::Future)),
        ] {
            match (frames.find(at), wanted) {
                (Ok(found), Some(wanted)) => assert_eq!(found, wanted, "{at:?}"),
                (Err(error), None) => {
                    assert_eq!(error.kind(), Kind::Gone, "{at:?}");
                    assert!(error.is_transient());
                }
                (got, _) => panic!("{at:?}: {got:?}"),
            }
        }
        let error = frames.find(At::Frame(5)).unwrap_err().to_string();
        assert_eq!(error, "prompt for frame: expected one of the kept, 6 to 10, or later, got 5");
        frames.reset();
        assert_eq!(frames.find(At::Frame(5)).unwrap(), Found::Future, "nothing is kept after a reset");
    }
}
