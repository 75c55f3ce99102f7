//! The thread "sightline-encode": the image encoder, a frame ahead of the tracker.
//!
//! Two frames are in flight, one in the tracker and one here; a third waits in the mailbox for one of them to end. What
//! is encoded early only waits, and grows old, until the tracker is through: so the newest frame is taken as late as
//! still keeps the tracker busy.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sightline_core::FrameStamp;
use sightline_tracker::{Encoded, Encoder};

use super::{
    hub::{Hub, Job},
    priority,
};

/// Encoding is begun earlier than it must by this part of its time: times vary.
const MARGIN: f64 = 0.15;
/// Weight of the newest time in what is expected.
const NEWEST: f64 = 0.2;

/// A frame that was encoded; or why it was not, and whether the next one may be.
pub(crate) type Ready = Result<Encoded, (String, bool)>;

#[derive(Debug, Default)]
struct Inner {
    /// Two at most, as no more are in flight: the second only until the worker has come to take the first.
    ready: VecDeque<(FrameStamp, Job, Ready)>,
    spare: Vec<Encoded>,
    encoding: Option<Duration>,
    tracking: Option<Duration>,
    tracking_since: Option<Instant>,
}

/// What the encoder and the worker share besides the hub.
#[derive(Debug, Default)]
pub(crate) struct Belt {
    inner: Mutex<Inner>,
}

fn expect(time: &mut Option<Duration>, newest: Duration) {
    *time = Some(time.map_or(newest, |time| time.mul_f64(1.0 - NEWEST) + newest.mul_f64(NEWEST)));
}

impl Belt {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When encoding is to begin, so as to be ready as the tracker is; `None` for now.
    pub(crate) fn begin_at(&self) -> Option<Instant> {
        let inner = self.lock();
        let (encoding, tracking) = inner.encoding.zip(inner.tracking)?;
        Some(inner.tracking_since? + tracking.saturating_sub(encoding.mul_f64(1.0 + MARGIN)))
    }

    fn put(&self, stamp: FrameStamp, job: Job, ready: Ready, took: Duration) {
        let mut inner = self.lock();
        expect(&mut inner.encoding, took);
        inner.ready.push_back((stamp, job, ready));
    }

    /// Whether a frame waits for the tracker.
    pub(crate) fn has_work(&self) -> bool {
        !self.lock().ready.is_empty()
    }

    /// The next frame for the tracker, which begins with it.
    pub(crate) fn take(&self) -> Option<(FrameStamp, Job, Ready)> {
        let mut inner = self.lock();
        let taken = inner.ready.pop_front()?;
        inner.tracking_since = Some(Instant::now());
        Some(taken)
    }

    /// The tracker is through with a frame.
    pub(crate) fn give_back(&self, encoded: Option<Encoded>) {
        let mut inner = self.lock();
        if let Some(since) = inner.tracking_since.take() {
            expect(&mut inner.tracking, since.elapsed());
        }
        inner.spare.extend(encoded);
    }
}

/// Starts the thread; it ends when the hub is closed.
///
/// # Errors
/// When the system has no thread to give.
pub(crate) fn spawn(hub: Arc<Hub>, belt: Arc<Belt>, mut encoder: Encoder) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("sightline-encode".into()).spawn(move || {
        priority::give_way();
        while let Some((stamp, job)) = hub.next_to_encode(|| belt.begin_at()) {
            let begun = Instant::now();
            let spare = belt.lock().spare.pop();
            let mut encoded = spare.unwrap_or_else(|| encoder.slot());
            let done = match job.copy.picture() {
                Ok(picture) => encoder
                    .run(&picture, &mut encoded)
                    .map_err(|error| (error.to_string(), error.is_transient())),
                Err(error) => Err((error.to_string(), true)),
            };
            let ready = match done {
                Ok(()) => Ok(encoded),
                Err(reason) => {
                    belt.lock().spare.push(encoded);
                    Err(reason)
                }
            };
            belt.put(stamp, job, ready, begun.elapsed());
            hub.wake();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_begins_as_late_as_it_may() {
        let belt = Belt::default();
        assert_eq!(belt.begin_at(), None, "nothing is known yet");
        let now = Instant::now();
        let ms = Duration::from_millis;
        let set = |encoding, tracking| {
            let mut inner = belt.lock();
            (inner.encoding, inner.tracking) = (Some(ms(encoding)), Some(ms(tracking)));
            inner.tracking_since = Some(now);
        };
        set(100, 215);
        assert_eq!(belt.begin_at(), Some(now + ms(100)));
        set(200, 100);
        assert_eq!(belt.begin_at(), Some(now), "the encoder is what takes time");
        belt.give_back(None);
        assert_eq!(belt.begin_at(), None, "the tracker waits");
    }
}
