//! When to ask, when to wait and when not to ask: pure, the clock is passed in.

use std::time::Duration;

/// Capped exponential pauses between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub base: Duration,
    /// The longest.
    pub cap: Duration,
    /// Tries after the first.
    pub retries: u32,
}

impl Backoff {
    /// The pause after `failed` tries (1 for the first), or `None` to give up. `chance` in `[0, 1)` takes up to half of
    /// it off, so that clients that failed together do not come back together. The server's `Retry-After` is kept to;
    /// one beyond the cap is a reason to give up.
    pub fn pause(&self, failed: u32, chance: f64, retry_after: Option<Duration>) -> Option<Duration> {
        if failed > self.retries || retry_after.is_some_and(|wanted| wanted > self.cap) {
            return None;
        }
        let doubled = 2_u32.saturating_pow(failed.saturating_sub(1).min(31));
        let pause = self.base.saturating_mul(doubled).min(self.cap);
        let jittered = pause.mul_f64(1.0 - 0.5 * chance.clamp(0.0, 1.0));
        Some(jittered.max(retry_after.unwrap_or_default()))
    }
}

/// Leaves a server alone that failed too often in a row; after a pause, one query tries whether it is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    pause: Duration,
    state: BreakerState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    Closed {
        failed: u32,
    },
    Open {
        until: Duration,
    },
    /// One is trying; should it never report, the next may try from `until` on.
    Trying {
        until: Duration,
    },
}

impl Breaker {
    /// Opens after `failures` in a row, for `pause`.
    pub fn new(failures: u32, pause: Duration) -> Self {
        Self { failures, pause, state: BreakerState::Closed { failed: 0 } }
    }

    /// Whether to ask.
    ///
    /// # Errors
    /// The time to wait before asking has a point.
    pub fn admit(&mut self, now: Duration) -> Result<(), Duration> {
        match self.state {
            BreakerState::Closed { .. } => Ok(()),
            BreakerState::Open { until } | BreakerState::Trying { until } if now < until => Err(until - now),
            BreakerState::Open { .. } | BreakerState::Trying { .. } => {
                self.state = BreakerState::Trying { until: now.saturating_add(self.pause) };
                Ok(())
            }
        }
    }

    /// Takes note of how an admitted request ended. Ends that say nothing of the server's health (it was cancelled,
    /// the server refused) are `None`: whoever was trying makes room for the next.
    pub fn record(&mut self, healthy: Option<bool>, now: Duration) {
        self.state = match (self.state, healthy) {
            (_, Some(true)) => BreakerState::Closed { failed: 0 },
            (BreakerState::Closed { failed }, Some(false)) if failed + 1 < self.failures => {
                BreakerState::Closed { failed: failed + 1 }
            }
            (BreakerState::Closed { .. } | BreakerState::Trying { .. }, Some(false)) => {
                BreakerState::Open { until: now.saturating_add(self.pause) }
            }
            (BreakerState::Trying { .. }, None) => BreakerState::Open { until: now },
            // One that was under way when it opened says nothing new.
            (state, _) => state,
        };
    }

    /// Whether queries are being turned away at `now`.
    pub fn is_open(&self, now: Duration) -> bool {
        match self.state {
            BreakerState::Closed { .. } => false,
            BreakerState::Open { until } | BreakerState::Trying { until } => now < until,
        }
    }
}

/// So much a minute, saved up for at most a minute.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    per_minute: f64,
    level: f64,
    at: Duration,
}

impl Bucket {
    fn new(per_minute: u32) -> Self {
        Self { per_minute: f64::from(per_minute), level: f64::from(per_minute), at: Duration::ZERO }
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level + elapsed * self.per_minute / 60.0).min(self.per_minute);
        self.at = self.at.max(now);
    }

    /// The time until `amount` is there. More than a minute's worth waits for a full bucket.
    fn wait(&self, amount: f64) -> Duration {
        let missing = amount.min(self.per_minute) - self.level;
        if missing <= 1e-9 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing * 60.0 / self.per_minute).unwrap_or(Duration::MAX)
    }
}

/// How much may be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    left: Option<u64>,
}

impl Budget {
    /// Requests and tokens a minute, and tokens in all; `None` for any number.
    pub fn new(
        requests_per_minute: Option<u32>,
        tokens_per_minute: Option<u32>,
        tokens_in_all: Option<u64>,
    ) -> Self {
        Self {
            requests: requests_per_minute.map(Bucket::new),
            tokens: tokens_per_minute.map(Bucket::new),
            left: tokens_in_all,
        }
    }

    /// Takes one request of about `tokens` out of it.
    ///
    /// # Errors
    /// The time until it is there, `Duration::MAX` when it never will be; nothing is taken.
    pub fn take(&mut self, tokens: u64, now: Duration) -> Result<(), Duration> {
        if self.left.is_some_and(|left| left < tokens) {
            return Err(Duration::MAX);
        }
        let mut wait = Duration::ZERO;
        for (bucket, amount) in [(&mut self.requests, 1.0), (&mut self.tokens, tokens as f64)] {
            if let Some(bucket) = bucket {
                bucket.refill(now);
                wait = wait.max(bucket.wait(amount));
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        if let Some(bucket) = &mut self.requests {
            bucket.level -= 1.0;
        }
        self.spend(tokens as f64);
        Ok(())
    }

    /// Puts right what was taken, once the server has said what it was.
    pub fn settle(&mut self, taken: u64, used: u64) {
        self.spend(used as f64 - taken as f64);
    }

    fn spend(&mut self, tokens: f64) {
        if let Some(bucket) = &mut self.tokens {
            bucket.level = (bucket.level - tokens).min(bucket.per_minute);
        }
        if let Some(left) = &mut self.left {
            *left = (*left as f64 - tokens).max(0.0) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_a_cap() {
        let backoff = Backoff { base: S, cap: 5 * S, retries: 4 };
        let after = |s: u32| Some(s * S);
        for (name, failed, chance, retry_after, expected) in [
            ("first", 1, 0.0, None, after(1)),
            ("second", 2, 0.0, None, after(2)),
            ("third", 3, 0.0, None, after(4)),
            ("capped", 4, 0.0, None, after(5)),
            ("half off", 2, 1.0, None, after(1)),
            ("given up", 5, 0.0, None, None),
            ("the server's word", 1, 0.0, after(3), after(3)),
            ("ours is longer", 3, 0.0, after(3), after(4)),
            ("the server wants too much", 1, 0.0, after(6), None),
        ] {
            assert_eq!(backoff.pause(failed, chance, retry_after), expected, "{name}");
        }
        assert_eq!(Backoff { base: S, cap: S, retries: u32::MAX }.pause(4_000_000, 0.0, None), Some(S));
    }

    #[test]
    fn the_breaker_opens_tries_and_closes() {
        let mut breaker = Breaker::new(2, 10 * S);
        let fail = Some(false);
        breaker.record(fail, S);
        breaker.record(Some(true), S);
        breaker.record(fail, S);
        assert!(breaker.admit(S).is_ok(), "one in a row");
        breaker.record(None, S);
        breaker.record(fail, 2 * S);
        assert_eq!(breaker.admit(2 * S), Err(10 * S), "two in a row");
        breaker.record(fail, 5 * S);
        assert_eq!(breaker.admit(11 * S), Err(S), "one that was under way does not prolong it");
        assert!(breaker.admit(12 * S).is_ok(), "one tries");
        assert!(breaker.admit(12 * S).is_err(), "only one");
        breaker.record(None, 13 * S);
        assert!(breaker.admit(13 * S).is_ok(), "it was cancelled: the next tries");
        breaker.record(fail, 14 * S);
        assert_eq!(breaker.admit(14 * S), Err(10 * S));
        assert!(breaker.admit(24 * S).is_ok());
        assert!(breaker.admit(34 * S).is_ok(), "the one that tried was never heard of again");
        breaker.record(Some(true), 35 * S);
        assert!(!breaker.is_open(35 * S));
        assert!(breaker.admit(35 * S).is_ok());
    }

    #[test]
    fn budgets_fill_up_again() {
        let mut budget = Budget::new(Some(2), None, None);
        assert!(budget.take(1, S).is_ok());
        assert!(budget.take(1, S).is_ok());
        assert_eq!(budget.take(1, S), Err(30 * S));
        assert!(budget.take(1, 31 * S).is_ok());

        let mut budget = Budget::new(None, Some(600), Some(1000));
        assert!(budget.take(600, S).is_ok());
        assert_eq!(budget.take(100, S), Err(10 * S));
        budget.settle(600, 500);
        assert!(budget.take(100, S).is_ok(), "100 were not used");
        assert_eq!(budget.take(500, 100 * S), Err(Duration::MAX), "400 are left in all");
        assert!(budget.take(400, 100 * S).is_ok());

        let mut budget = Budget::new(None, Some(60), None);
        assert!(budget.take(600, S).is_ok(), "more than a minute's worth waits for a full bucket");
        assert_eq!(budget.take(60, S), Err(600 * S));
        budget.settle(0, u64::MAX);
        assert_eq!(budget.take(1, S), Err(Duration::MAX), "whatever a server says it counted");
    }
}
