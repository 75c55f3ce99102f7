//! How long to wait before the next try: doubled each time, capped, and not the same for every camera on a switch.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    time::Duration,
};

/// Pauses between tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    tries: u32,
    random: u64,
}

impl Backoff {
    /// The first pause is at most `base`. `seed` decides on the jitter.
    pub(crate) fn new(base: Duration, seed: u64) -> Self {
        Self { base, tries: 0, random: seed | 1 }
    }

    /// As [`Backoff::new`], every one with its own jitter.
    pub(crate) fn jittered(base: Duration) -> Self {
        Self::new(base, RandomState::new().build_hasher().finish())
    }

    /// The next pause: between half and all of `base * 2^tries`, or of `cap` if that is less.
    pub(crate) fn next(&mut self, cap: Duration) -> Duration {
        let full = self.base.saturating_mul(1 << self.tries.min(20)).min(cap);
        self.tries = self.tries.saturating_add(1);
        // xorshift64; its high bits are the good ones.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let share = (self.random >> 40) as f64 / (1_u64 << 24) as f64;
        full.mul_f64(0.5 + share / 2.0)
    }

    /// It worked for a while: begin again.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(1));
        for seed in [0, 1, 99, u64::MAX] {
            let mut backoff = Backoff::new(base, seed);
            for full_ms in [100, 200, 400, 800, 1000, 1000, 1000] {
                let pause = backoff.next(cap);
                let full = Duration::from_millis(full_ms);
                assert!((full / 2..=full).contains(&pause), "seed {seed}: {pause:?} of {full:?}");
            }
            assert!((0..100).all(|_| backoff.next(cap) <= cap), "never overflows");
            backoff.reset();
            assert!(backoff.next(cap) <= base);
        }
    }

    #[test]
    fn cameras_do_not_come_back_in_step() {
        let pauses: std::collections::BTreeSet<Duration> =
            (0..32).map(|_| Backoff::jittered(Duration::from_secs(1)).next(Duration::from_secs(1))).collect();
        assert!(pauses.len() > 24, "{pauses:?}");
    }
}
