//! Mutual exclusion by deadline, and company for who is inside.

use std::{
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sightline_engine_api::Stream;

use super::{flight::Flight, turn::Who};

/// Nobody's deadline counts as further away than this: who has none, or a very late one, is overtaken only by those
/// who come within this time.
const PATIENCE: Duration = Duration::from_secs(1);
/// Whoever is next looks so often whether the device has room: a run takes some hundred microseconds at least.
const LOOK: Duration = Duration::from_micros(50);

/// Deadline and number of arrival.
pub(super) type Ticket = (Instant, u64);

/// Holds something that one at a time may use, and lets in first whose deadline comes first; of equal ones, who came
/// first. Whoever is inside is not interrupted, and may do for others what they wait to do, if they have offered it.
pub(super) struct Gate<T, P> {
    queue: Mutex<Queue<P>>,
    changed: Condvar,
    /// Only locked by whose turn it is.
    kept: Mutex<Kept<T, P>>,
}

struct Kept<T, P> {
    value: T,
    company: Vec<(Ticket, P)>,
}

struct Queue<P> {
    busy: bool,
    waiting: Vec<Waiting<P>>,
    arrivals: u64,
    /// What is in flight where this leads to a device.
    flight: Option<Flight>,
}

struct Waiting<P> {
    ticket: Ticket,
    offer: Offer<P>,
}

enum Offer<P> {
    /// None, or not yet.
    None,
    /// Whoever is inside may take it.
    Open(P),
    /// It was tried in company and failed: it is done alone now.
    Alone(P),
    Taken(Instant),
    Done(P, Instant),
}

impl<P> Offer<P> {
    fn held(self) -> Option<P> {
        match self {
            Self::Open(offer) | Self::Alone(offer) | Self::Done(offer, _) => Some(offer),
            Self::None | Self::Taken(_) => None,
        }
    }
}

impl<P> Queue<P> {
    /// Who is next of those that nobody does anything for.
    fn next(&mut self) -> Option<&mut Waiting<P>> {
        let free =
            self.waiting.iter_mut().filter(|one| !matches!(one.offer, Offer::Taken(_) | Offer::Done(..)));
        free.min_by_key(|one| one.ticket)
    }

    fn of(&mut self, ticket: Ticket) -> Option<&mut Waiting<P>> {
        self.waiting.iter_mut().find(|one| one.ticket == ticket)
    }

    fn leave(&mut self, ticket: Ticket) -> Offer<P> {
        let at = self.waiting.iter().position(|one| one.ticket == ticket);
        at.map_or(Offer::None, |at| self.waiting.swap_remove(at).offer)
    }

    fn is_full_with(&self, who: Who) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.is_full_with(who))
    }

    fn has_room(&mut self) -> bool {
        self.flight.as_mut().is_none_or(Flight::has_room)
    }
}

/// How waiting ended.
pub(super) enum Entered<'a, T, P> {
    /// It is one's turn; what was offered meanwhile comes back.
    Inside(Inside<'a, T, P>, Option<P>),
    /// Another has done what was offered.
    Done(P),
}

impl<T, P> Gate<T, P> {
    pub(super) fn new(value: T, flight: Option<Flight>) -> Self {
        let queue = Queue { busy: false, waiting: Vec::with_capacity(64), arrivals: 0, flight };
        let kept = Kept { value, company: Vec::with_capacity(16) };
        Self { queue: Mutex::new(queue), changed: Condvar::new(), kept: Mutex::new(kept) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<P>> {
        // What may panic under this lock is a device that is asked, and who is between two states then leaves (`Place`,
        // `Inside`).
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn, or for another to do what is offered; `offer` is asked once, if there is any waiting. Gives
    /// the time it took until either began, but for that which the device spent on runs of one's own.
    pub(super) fn enter(
        &self,
        who: Who,
        deadline: Option<Instant>,
        offer: impl FnOnce() -> Option<P>,
    ) -> (Entered<'_, T, P>, Duration) {
        let came = Instant::now();
        let latest = came + PATIENCE;
        let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
        let mut offer = Some(offer);
        let (mut own, mut own_since) = (Duration::ZERO, None::<Instant>);
        // Before the lock, so that it goes after it.
        let mut place = Place { gate: self, ticket: None };
        let mut queue = self.queue();
        queue.arrivals += 1;
        let ticket = (deadline, queue.arrivals);
        queue.waiting.push(Waiting { ticket, offer: Offer::None });
        place.ticket = Some(ticket);
        loop {
            own += own_since.take().map_or(Duration::ZERO, |since| since.elapsed());
            if let Some(Waiting { offer: Offer::Done(..), .. }) = queue.of(ticket)
                && let Offer::Done(done, taken) = queue.leave(ticket)
            {
                place.ticket = None;
                return (Entered::Done(done), (taken - came).saturating_sub(own));
            }
            let next = !queue.busy && queue.next().is_some_and(|next| next.ticket == ticket);
            own_since = (next && queue.is_full_with(who)).then(Instant::now);
            if next && queue.has_room() {
                own += own_since.map_or(Duration::ZERO, |since| since.elapsed());
                break;
            }
            if let Some(offer) = offer.take() {
                // What it takes to make one is nobody else's time.
                drop(queue);
                let made = offer();
                queue = self.queue();
                if let (Some(own), Some(made)) = (queue.of(ticket), made) {
                    own.offer = Offer::Open(made);
                }
            } else if next {
                queue = self.changed.wait_timeout(queue, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            } else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
        queue.busy = true;
        let offer = queue.leave(ticket);
        place.ticket = None;
        drop(queue);
        let waited = came.elapsed().saturating_sub(own);
        let alone = matches!(offer, Offer::Alone(_));
        // Who was here before may have panicked: that is between it and the engine.
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (Entered::Inside(Inside { gate: self, kept, who, alone }, offer.held()), waited)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queue().waiting.iter().filter(|one| !matches!(one.offer, Offer::Taken(_))).count()
    }

    /// How many wait with an offer.
    #[cfg(test)]
    pub(super) fn offered(&self) -> usize {
        self.queue().waiting.iter().filter(|one| matches!(one.offer, Offer::Open(_))).count()
    }
}

/// Somebody's place among those who wait. Dropped by a panic, it is given up: nobody waits behind it for ever.
struct Place<'a, T, P> {
    gate: &'a Gate<T, P>,
    ticket: Option<Ticket>,
}

impl<T, P> Drop for Place<'_, T, P> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.gate.queue().leave(ticket);
            self.gate.changed.notify_all();
        }
    }
}

/// The right to use what the gate keeps. Dropped, be it by a panic, it lets the next one in.
pub(super) struct Inside<'a, T, P> {
    gate: &'a Gate<T, P>,
    kept: MutexGuard<'a, Kept<T, P>>,
    who: Who,
    /// What it offered has failed in company.
    alone: bool,
}

impl<T, P> Inside<'_, T, P> {
    /// Takes the offers of those who are next, one after the other, for as long as they fit: nobody is overtaken. None,
    /// if one's own has failed in company.
    pub(super) fn invite(&mut self, mut fits: impl FnMut(&P) -> bool) -> usize {
        if self.alone {
            return 0;
        }
        let mut queue = self.gate.queue();
        let now = Instant::now();
        while let Some(next) = queue.next() {
            match &next.offer {
                Offer::Open(offer) if fits(offer) => {}
                _ => break,
            }
            if let Offer::Open(offer) = std::mem::replace(&mut next.offer, Offer::Taken(now)) {
                self.kept.company.push((next.ticket, offer));
            }
        }
        self.kept.company.len()
    }

    /// What is kept, and the offers that were taken.
    pub(super) fn with_company(&mut self) -> (&mut T, &mut [(Ticket, P)]) {
        let Kept { value, company } = &mut *self.kept;
        (value, company)
    }

    /// What was taken has been done.
    pub(super) fn done(&mut self) {
        self.give_back(|offer, taken| Offer::Done(offer, taken));
        self.gate.changed.notify_all();
    }

    /// A run was given to the device.
    pub(super) fn begun(&self, stream: Stream) {
        if let Some(flight) = &mut self.gate.queue().flight {
            flight.begun(stream, self.who);
        }
    }

    fn give_back(&mut self, mut to: impl FnMut(P, Instant) -> Offer<P>) {
        if self.kept.company.is_empty() {
            return;
        }
        let mut queue = self.gate.queue();
        for (ticket, offer) in self.kept.company.drain(..) {
            if let Some(Waiting { offer: place @ Offer::Taken(_), .. }) = queue.of(ticket)
                && let Offer::Taken(at) = *place
            {
                *place = to(offer, at);
            }
        }
    }
}

impl<T, P> Drop for Inside<'_, T, P> {
    fn drop(&mut self) {
        // What was taken and not done is not given up.
        self.give_back(|offer, _| Offer::Alone(offer));
        self.gate.queue().busy = false;
        self.gate.changed.notify_all();
    }
}

impl<T, P> Deref for Inside<'_, T, P> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.kept.value
    }
}

impl<T, P> DerefMut for Inside<'_, T, P> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.kept.value
    }
}
