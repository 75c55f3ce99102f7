//! The thread "sightline-encode": the image encoder, a frame ahead of the tracker.
//!
//! Frames in flight are in the tracker, encoded, or here; one more waits in the mailbox for one of them to end. What is
//! encoded early only waits, and grows old, until the tracker is through: so the newest frame is taken as late as still
//! keeps the tracker busy, however many slots there are. Two are what one tracker and one encoder can use. With more, a
//! tracker that takes longer than it was expected to finds a newer frame encoded, and the older one is given up for it, as
//! in the mailbox. Between the two threads are rings without a lock, as long as there are frames in flight: encoded
//! frames one way, their buffers back.
//!
//! On a device a frame is handed on as soon as the device was told to encode it, and this thread looks when it is over:
//! only then is it known how early it must begin the next time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ringbuf::{
    HeapCons, HeapProd, HeapRb,
    traits::{Consumer, Observer, Producer, Split},
};
use sightline_core::FrameStamp;
use sightline_engine_registry::Turn;
use sightline_tracker::{Encoded, Encoder};

use super::{
    hub::{Hub, Job},
    priority,
};

/// How often this looks whether a device has encoded a frame, and for how long at most.
const LOOK: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(1);
/// Encoding is begun earlier than it must by this part of its time: times vary.
const MARGIN: f64 = 0.15;
/// Weight of the newest time in what is expected.
const NEWEST: f64 = 0.2;

/// A frame that was encoded; or why it was not, and whether the next one may be.
pub(crate) type Ready = Result<Encoded, (String, bool)>;

type Frame = (FrameStamp, Job, Ready);

/// What the two stages take.
#[derive(Debug, Default)]
struct Pace {
    encoding: Option<Duration>,
    tracking: Option<Duration>,
    tracking_since: Option<Instant>,
}

fn expect(time: &mut Option<Duration>, newest: Duration) {
    *time = Some(time.map_or(newest, |time| time.mul_f64(1.0 - NEWEST) + newest.mul_f64(NEWEST)));
}

impl Pace {
    /// When encoding is to begin, so as to be ready as the tracker is, which has `waiting` frames to do first; `None` for
    /// now.
    fn begin_at(&self, waiting: usize) -> Option<Instant> {
        let (encoding, tracking) = self.encoding.zip(self.tracking)?;
        let until = tracking.mul_f64(1.0 + waiting as f64);
        Some(self.tracking_since? + until.saturating_sub(encoding.mul_f64(1.0 + MARGIN)))
    }

    fn tracked(&mut self) {
        if let Some(since) = self.tracking_since.take() {
            expect(&mut self.tracking, since.elapsed());
        }
    }
}

/// The tracker's end.
pub(crate) struct Belt {
    ready: HeapCons<Frame>,
    spare: HeapProd<Encoded>,
    pace: Arc<Mutex<Pace>>,
}

fn lock(pace: &Mutex<Pace>) -> MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Belt {
    /// Whether a frame waits for the tracker.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A frame that waits while a newer one does: it is looked at no more.
    pub(crate) fn superseded(&mut self) -> Option<Frame> {
        // Of two in flight one is tracked, or about to be. One that failed has its reason to tell, and takes nobody's turn.
        let newer = self.ready.capacity().get() > 2 && self.ready.iter().skip(1).any(|frame| frame.2.is_ok());
        let older = newer && self.ready.try_peek().is_some_and(|frame| frame.2.is_ok());
        if older { self.ready.try_pop() } else { None }
    }

    /// Takes back the buffers of a frame that was not tracked.
    pub(crate) fn untracked(&mut self, ready: Ready) {
        if let Ok(encoded) = ready {
            let _ = self.spare.try_push(encoded);
        }
    }

    /// The next frame for the tracker, which begins with it.
    pub(crate) fn take(&mut self) -> Option<Frame> {
        let taken = self.ready.try_pop()?;
        lock(&self.pace).tracking_since = Some(Instant::now());
        Some(taken)
    }

    /// The tracker is through with a frame.
    pub(crate) fn give_back(&mut self, encoded: Option<Encoded>) {
        lock(&self.pace).tracked();
        // There are never more of them than fit.
        if let Some(encoded) = encoded {
            let _ = self.spare.try_push(encoded);
        }
    }
}

/// Starts the thread, with buffers for `flights` frames; it ends when the hub is closed. `turn` speaks for the image encoder where engines are shared, which
/// is wanted to be through `due` after a frame's arrival.
///
/// # Errors
/// When the system has no thread to give.
pub(crate) fn spawn(
    hub: Arc<Hub>,
    encoder: Encoder,
    turn: Option<Turn>,
    due: Duration,
    flights: usize,
) -> std::io::Result<(Belt, JoinHandle<()>)> {
    let (ready, to_track) = HeapRb::new(flights).split();
    let (mut spare, mut spares) = HeapRb::new(flights).split();
    for _ in 0..flights {
        let _ = spare.try_push(encoder.slot());
    }
    let pace = Arc::<Mutex<Pace>>::default();
    let belt = Belt { ready: to_track, spare, pace: Arc::clone(&pace) };
    let thread = std::thread::Builder::new().name("sightline-encode".into());
    let join = thread.spawn(move || {
        priority::give_way();
        let (mut encoder, mut ready) = (encoder, ready);
        let mut kept: Option<Encoded> = None;
        while let Some((stamp, job)) = hub.next_to_encode(|| lock(&pace).begin_at(ready.occupied_len())) {
            let begun = Instant::now();
            let mut encoded = kept.take().or_else(|| spares.try_pop()).unwrap_or_else(|| encoder.slot());
            if let Some(turn) = &turn {
                turn.due(job.arrival + due);
            }
            let run = || {
                let done = encoder.run(&job.copy, &mut encoded);
                done.map_err(|error| (error.to_string(), error.is_transient()))
            };
            // Our bug; it costs this frame, and is told as its error.
            let done = catch_unwind(AssertUnwindSafe(run))
                .unwrap_or_else(|_| Err(("the image encoder panicked, please report it".into(), false)));
            let encoding = encoded.encoding();
            let frame = match done {
                Ok(()) => Ok(encoded),
                Err(reason) => {
                    kept = Some(encoded);
                    Err(reason)
                }
            };
            // As many fit as may be in flight.
            let _ = ready.try_push((stamp, job, frame));
            hub.wake();
            while !encoding.is_over() && begun.elapsed() < PATIENCE {
                std::thread::sleep(LOOK);
            }
            expect(&mut lock(&pace).encoding, begun.elapsed());
        }
    })?;
    Ok((belt, join))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_begins_as_late_as_it_may() {
        let mut pace = Pace::default();
        assert_eq!(pace.begin_at(0), None, "nothing is known yet");
        let (now, ms) = (Instant::now(), Duration::from_millis);
        pace = Pace { encoding: Some(ms(100)), tracking: Some(ms(215)), tracking_since: Some(now) };
        assert_eq!(pace.begin_at(0), Some(now + ms(100)));
        assert_eq!(pace.begin_at(1), Some(now + ms(100 + 215)), "a frame that would wait is not begun");
        pace.encoding = Some(ms(200));
        assert_eq!(pace.begin_at(0), Some(now + ms(215) - ms(215)), "the encoder is what takes time");
        pace.tracked();
        assert_eq!(pace.begin_at(0), None, "the tracker waits");
    }
}
