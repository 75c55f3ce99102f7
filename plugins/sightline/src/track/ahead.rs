//! The thread "sightline-encode": the image encoder, a frame ahead of the tracker.
//!
//! Two frames are in flight, one in the tracker and one here; a third waits in the mailbox for one of them to end. What
//! is encoded early only waits, and grows old, until the tracker is through: so the newest frame is taken as late as
//! still keeps the tracker busy. Between the two threads are rings without a lock, as long as there are frames in flight:
//! encoded frames one way, their buffers back.

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

/// Frames in flight.
pub(crate) const FLIGHTS: usize = 2;
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
    /// When encoding is to begin, so as to be ready as the tracker is; `None` for now.
    fn begin_at(&self) -> Option<Instant> {
        let (encoding, tracking) = self.encoding.zip(self.tracking)?;
        Some(self.tracking_since? + tracking.saturating_sub(encoding.mul_f64(1.0 + MARGIN)))
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

/// Starts the thread; it ends when the hub is closed. `turn` speaks for the image encoder where engines are shared, which
/// is wanted to be through `due` after a frame's arrival.
///
/// # Errors
/// When the system has no thread to give.
pub(crate) fn spawn(
    hub: Arc<Hub>,
    encoder: Encoder,
    turn: Option<Turn>,
    due: Duration,
) -> std::io::Result<(Belt, JoinHandle<()>)> {
    let (ready, to_track) = HeapRb::new(FLIGHTS).split();
    let (mut spare, mut spares) = HeapRb::new(FLIGHTS).split();
    for _ in 0..FLIGHTS {
        let _ = spare.try_push(encoder.slot());
    }
    let pace = Arc::<Mutex<Pace>>::default();
    let belt = Belt { ready: to_track, spare, pace: Arc::clone(&pace) };
    let thread = std::thread::Builder::new().name("sightline-encode".into());
    let join = thread.spawn(move || {
        priority::give_way();
        let (mut encoder, mut ready) = (encoder, ready);
        let mut kept: Option<Encoded> = None;
        while let Some((stamp, job)) = hub.next_to_encode(|| lock(&pace).begin_at()) {
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
            let frame = match done {
                Ok(()) => Ok(encoded),
                Err(reason) => {
                    kept = Some(encoded);
                    Err(reason)
                }
            };
            expect(&mut lock(&pace).encoding, begun.elapsed());
            // As many fit as may be in flight.
            let _ = ready.try_push((stamp, job, frame));
            hub.wake();
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
        assert_eq!(pace.begin_at(), None, "nothing is known yet");
        let (now, ms) = (Instant::now(), Duration::from_millis);
        pace = Pace { encoding: Some(ms(100)), tracking: Some(ms(215)), tracking_since: Some(now) };
        assert_eq!(pace.begin_at(), Some(now + ms(100)));
        pace.encoding = Some(ms(200));
        assert_eq!(pace.begin_at(), Some(now + ms(215) - ms(215)), "the encoder is what takes time");
        pace.tracked();
        assert_eq!(pace.begin_at(), None, "the tracker waits");
    }
}
