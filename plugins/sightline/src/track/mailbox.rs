//! The corridor's single drop point: the newest frame waits for those in flight.

use std::collections::VecDeque;

use sightline_core::FrameStamp;

/// A mailbox of depth one whose full-policy is `DropOldest`, with room for a few frames in flight beside it.
///
/// A frame is in here from [`Mailbox::offer`] until it comes back out of `offer` (superseded), [`Mailbox::finish`]
/// (looked at) or [`Mailbox::cancel`] (flushed): exactly one of the three, so that counting what comes out counts
/// every frame once.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    waiting: Option<(FrameStamp, T)>,
    /// And whether it was cancelled: it keeps its place until whoever has it is through.
    in_flight: VecDeque<(FrameStamp, bool)>,
    flights: usize,
}

impl<T> Mailbox<T> {
    /// For `flights` frames in flight at once, at least 1.
    pub(crate) fn new(flights: usize) -> Self {
        Self { waiting: None, in_flight: VecDeque::with_capacity(flights), flights }
    }

    /// Leaves a frame; gives back the one whose place it took.
    pub(crate) fn offer(&mut self, stamp: FrameStamp, item: T) -> Option<(FrameStamp, T)> {
        self.waiting.replace((stamp, item))
    }

    /// Takes the waiting frame and marks it in flight; `None` when nothing waits or no more may fly.
    pub(crate) fn take(&mut self) -> Option<(FrameStamp, T)> {
        if self.in_flight.len() >= self.flights {
            return None;
        }
        let (stamp, item) = self.waiting.take()?;
        self.in_flight.push_back((stamp, false));
        Some((stamp, item))
    }

    /// Whether [`Mailbox::take`] would give a frame.
    pub(crate) fn has_work(&self) -> bool {
        self.waiting.is_some() && self.in_flight.len() < self.flights
    }

    /// Ends the flight of frame `index`; `false` when it was cancelled meanwhile and its outcome told already.
    pub(crate) fn finish(&mut self, index: u64) -> bool {
        let mine = self.in_flight.iter().position(|(stamp, _)| stamp.index == index);
        mine.and_then(|at| self.in_flight.remove(at)).is_some_and(|(_, cancelled)| !cancelled)
    }

    /// Cancels all that is in it: the frames that were in flight, then the one that was waiting.
    pub(crate) fn cancel(&mut self) -> (Vec<FrameStamp>, Option<(FrameStamp, T)>) {
        let flying = self.in_flight.iter_mut().filter(|(_, cancelled)| !cancelled);
        let told = flying.map(|(stamp, cancelled)| {
            *cancelled = true;
            *stamp
        });
        (told.collect(), self.waiting.take())
    }

    /// Whether frame `index` has no outcome yet.
    pub(crate) fn holds(&self, index: u64) -> bool {
        self.in_flight.iter().any(|(stamp, cancelled)| stamp.index == index && !cancelled)
            || self.waiting.as_ref().is_some_and(|(stamp, _)| stamp.index == index)
    }

    /// Frames that have no outcome yet.
    pub(crate) fn len(&self) -> u64 {
        let flying = self.in_flight.iter().filter(|(_, cancelled)| !cancelled).count();
        flying as u64 + u64::from(self.waiting.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(index: u64) -> FrameStamp {
        FrameStamp { index, pts: None, running_time: None }
    }

    #[test]
    fn the_newest_waits_while_one_is_in_flight() {
        let mut mailbox = Mailbox::new(1);
        assert!(mailbox.offer(stamp(0), "a").is_none());
        assert_eq!(mailbox.take().map(|(s, _)| s.index), Some(0));
        assert!(mailbox.offer(stamp(1), "b").is_none());
        assert!(mailbox.take().is_none(), "one is in flight");
        assert_eq!(mailbox.offer(stamp(2), "c").map(|(s, _)| s.index), Some(1));
        assert_eq!(mailbox.len(), 2);
        assert!(mailbox.finish(0));
        assert_eq!(mailbox.take().map(|(s, i)| (s.index, i)), Some((2, "c")));
        assert!(mailbox.finish(2));
        assert_eq!(mailbox.len(), 0);
    }

    #[test]
    fn a_cancelled_flight_is_not_finished_again() {
        let mut mailbox = Mailbox::new(1);
        mailbox.offer(stamp(7), ());
        mailbox.take();
        mailbox.offer(stamp(8), ());
        let (flying, waiting) = mailbox.cancel();
        let flying: Vec<u64> = flying.iter().map(|s| s.index).collect();
        assert_eq!((flying, waiting.map(|(s, ())| s.index)), (vec![7], Some(8)));
        assert!(!mailbox.finish(7));
        assert!(!mailbox.holds(7) && !mailbox.holds(8));
    }

    /// Random walks: what goes in comes out once, and what comes out of `take` is always the newest.
    #[test]
    fn every_frame_comes_out_exactly_once() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % n
        };
        for flights in 1..=3 {
            let mut mailbox = Mailbox::new(flights);
            let (mut offered, mut out, mut flying) = (0_u64, 0_u64, Vec::new());
            for _ in 0..20_000 {
                match next(8) {
                    0..=3 => {
                        out += u64::from(mailbox.offer(stamp(offered), ()).is_some());
                        offered += 1;
                    }
                    4 => {
                        // A worker does not know that its frame was cancelled before it ends it.
                        if let Some((taken, ())) = mailbox.take() {
                            assert_eq!(taken.index, offered - 1);
                            flying.push(taken.index);
                        }
                        assert!(mailbox.len() <= flights as u64 + 1);
                    }
                    5 | 6 if !flying.is_empty() => {
                        let index = flying.remove(next(flying.len() as u64) as usize);
                        out += u64::from(mailbox.finish(index));
                    }
                    _ => {
                        if next(10) == 0 {
                            let (a, b) = mailbox.cancel();
                            out += a.len() as u64 + u64::from(b.is_some());
                        }
                    }
                }
                assert_eq!(offered, out + mailbox.len());
            }
        }
    }
}
