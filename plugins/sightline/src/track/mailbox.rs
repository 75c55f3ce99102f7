//! The corridor's single drop point: one frame in flight, the newest waiting.

use sightline_core::FrameStamp;

/// A mailbox of depth one whose full-policy is `DropOldest`, with room for one frame in flight beside it.
///
/// A frame is in here from [`Mailbox::offer`] until it comes back out of `offer` (superseded), [`Mailbox::finish`]
/// (looked at) or [`Mailbox::cancel`] (flushed): exactly one of the three, so that counting what comes out counts
/// every frame once.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    waiting: Option<(FrameStamp, T)>,
    in_flight: Option<FrameStamp>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { waiting: None, in_flight: None }
    }
}

impl<T> Mailbox<T> {
    /// Leaves a frame; gives back the one whose place it took.
    pub(crate) fn offer(&mut self, stamp: FrameStamp, item: T) -> Option<(FrameStamp, T)> {
        self.waiting.replace((stamp, item))
    }

    /// Takes the waiting frame and marks it in flight; `None` when nothing waits or one is in flight already.
    pub(crate) fn take(&mut self) -> Option<(FrameStamp, T)> {
        if self.in_flight.is_some() {
            return None;
        }
        let (stamp, item) = self.waiting.take()?;
        self.in_flight = Some(stamp);
        Some((stamp, item))
    }

    /// Ends the flight of frame `index`; `false` when it was cancelled meanwhile and its outcome told already.
    pub(crate) fn finish(&mut self, index: u64) -> bool {
        let mine = self.in_flight.is_some_and(|stamp| stamp.index == index);
        if mine {
            self.in_flight = None;
        }
        mine
    }

    /// Empties the mailbox: the frame that was in flight, then the one that was waiting.
    pub(crate) fn cancel(&mut self) -> (Option<FrameStamp>, Option<(FrameStamp, T)>) {
        (self.in_flight.take(), self.waiting.take())
    }

    /// Whether frame `index` has no outcome yet.
    pub(crate) fn holds(&self, index: u64) -> bool {
        self.in_flight.is_some_and(|stamp| stamp.index == index)
            || self.waiting.as_ref().is_some_and(|(stamp, _)| stamp.index == index)
    }

    /// Frames that have no outcome yet, 0 to 2.
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.in_flight.is_some()) + u64::from(self.waiting.is_some())
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
        let mut mailbox = Mailbox::default();
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
        let mut mailbox = Mailbox::default();
        mailbox.offer(stamp(7), ());
        mailbox.take();
        mailbox.offer(stamp(8), ());
        let (flying, waiting) = mailbox.cancel();
        assert_eq!((flying.map(|s| s.index), waiting.map(|(s, ())| s.index)), (Some(7), Some(8)));
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
        let mut mailbox = Mailbox::default();
        let (mut offered, mut out, mut worker) = (0_u64, 0_u64, None);
        for _ in 0..20_000 {
            match next(8) {
                0..=3 => {
                    out += u64::from(mailbox.offer(stamp(offered), ()).is_some());
                    offered += 1;
                }
                4 => {
                    if worker.is_none()
                        && let Some((taken, ())) = mailbox.take()
                    {
                        assert_eq!(taken.index, offered - 1);
                        worker = Some(taken.index);
                    }
                }
                5 | 6 => {
                    if let Some(index) = worker.take() {
                        out += u64::from(mailbox.finish(index));
                    }
                }
                _ => {
                    if next(10) == 0 {
                        let (a, b) = mailbox.cancel();
                        out += u64::from(a.is_some()) + u64::from(b.is_some());
                    }
                }
            }
            assert_eq!(offered, out + mailbox.len());
        }
    }
}
