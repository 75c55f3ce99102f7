//! The thread "sightline-coast": carries masks on by motion to frames the engines had no time for.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use sightline_core::{FrameResult, FrameStamp, ObjectId, ObjectResult, Outcome, StageTimes, TrackState};

use sightline_engine_api::PictureSource;
use sightline_vision::{Coaster, Ride};

use super::{
    hub::Hub,
    notice::{Notice, Notify, Seldom},
};
use crate::{frame::FramePicture, meta::Published};

/// Frames a mask may be old when it is told, and still be carried on: three seconds at 30 a second, a large model's on a
/// CPU. 7 MiB in all, taken with the first frame.
const FRAMES: usize = 96;
/// One that is worked on, one that waits, one that is being filled.
const SLOTS: usize = 3;
/// Buffers that are held of frames in device memory: all but the last.
pub(crate) const HELD: u32 = 2;

#[derive(Debug, Default)]
struct Inner {
    /// Full-policy `DropOldest`: these frames have their outcome elsewhere.
    waiting: Option<(FrameStamp, FramePicture)>,
    spare: Vec<FramePicture>,
    closed: bool,
}

/// Where the streaming thread leaves frames for it.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    inner: Mutex<Inner>,
    to_coaster: Condvar,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a frame.
    pub(crate) fn slot(&self) -> FramePicture {
        self.lock().spare.pop().unwrap_or_default()
    }

    /// Leaves a frame.
    pub(crate) fn offer(&self, stamp: FrameStamp, copy: FramePicture) {
        let mut inner = self.lock();
        let old = inner.waiting.replace((stamp, copy));
        drop(inner);
        self.to_coaster.notify_one();
        old.into_iter().for_each(|(_, copy)| _ = self.give_back(copy));
    }

    /// Gives a slot back; whether its picture was fetched.
    pub(crate) fn give_back(&self, mut copy: FramePicture) -> bool {
        let fetched = copy.clear();
        let mut inner = self.lock();
        if inner.spare.len() < SLOTS {
            inner.spare.push(copy);
        }
        fetched
    }

    /// Ends the thread.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.to_coaster.notify_one();
    }

    fn next(&self) -> Option<(FrameStamp, FramePicture)> {
        let empty = |inner: &mut Inner| inner.waiting.is_none() && !inner.closed;
        let mut inner =
            self.to_coaster.wait_while(self.lock(), empty).unwrap_or_else(PoisonError::into_inner);
        inner.waiting.take().filter(|_| !inner.closed)
    }
}

/// Starts the thread.
///
/// # Errors
/// When the system has no thread to give.
pub(crate) fn spawn(hub: Arc<Hub>, desk: Arc<Desk>, notify: Notify) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("sightline-coast".into()).spawn(move || {
        // No giving way: it is what keeps masks young while the engines have all there is.
        let (mut coaster, mut rides, mut warned) = (Coaster::new(FRAMES), Vec::new(), Seldom::default());
        while let Some((stamp, copy)) = desk.next() {
            carry_on(&hub, &mut coaster, &mut rides, stamp, &copy);
            // The engines may well read in place what cannot be fetched.
            if let Some(failure) = copy.untold_failure().filter(|_| warned.may()) {
                notify(Notice::Unfetched(failure.text.clone()));
            }
            if desk.give_back(copy) {
                hub.count_fetched();
            }
        }
    })
}

/// Sees a frame, and where masks are to be carried on carries them to it. What cannot be followed stays where it was.
fn carry_on(
    hub: &Hub,
    coaster: &mut Coaster,
    rides: &mut Vec<(ObjectId, Ride)>,
    stamp: FrameStamp,
    copy: &FramePicture,
) {
    let arrival = Instant::now();
    if !copy.on_host().is_ok_and(|picture| coaster.see(stamp.index, &picture).is_ok()) {
        return;
    }
    let Some(looked) = hub.to_carry() else { return };
    let from = looked.result();
    if from.frame.index >= stamp.index {
        return;
    }
    // Each new frame is one step on for those that ride already.
    rides.retain(|(id, ride)| {
        ride.from() == from.frame.index && from.objects.iter().any(|object| object.id == *id)
    });
    let mut followed = false;
    let mut carry = |object: &ObjectResult| {
        let mut object = object.clone();
        if object.state == TrackState::Tracking {
            object.state = TrackState::Coasted;
            let known = rides.iter().position(|(id, _)| *id == object.id).unwrap_or_else(|| {
                rides.push((object.id, Ride::new(Arc::clone(&object.mask), from.frame.index)));
                rides.len() - 1
            });
            if let Some(carried) = coaster.carry(&mut rides[known].1, stamp.index) {
                followed = true;
                (object.bounds, object.mask) = (carried.bounds, Arc::new(carried.mask));
            }
        }
        object
    };
    let objects: Vec<ObjectResult> = from.objects.iter().map(&mut carry).collect();
    // What is lost is news, without anything to follow.
    if !followed && from.objects.iter().any(|object| object.state == TrackState::Tracking) {
        return;
    }
    let outcome =
        if objects.iter().any(|object| object.bounds.is_some()) { Outcome::Masks } else { Outcome::NoObject };
    let result = FrameResult {
        frame: stamp,
        outcome,
        latency: arrival.elapsed(),
        stages: StageTimes::default(),
        objects,
    };
    hub.carried(Published::carried(result, from.frame, looked.degrade()));
}
