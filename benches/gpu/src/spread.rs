use std::time::Duration;

use serde::Serialize;

/// Milliseconds, of the nearest rank: every one of them was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    samples: usize,
    pub(crate) p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn new(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort_unstable();
        let rank = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).map(|time| ms(*time))
        };
        Some(Self { samples: times.len(), p50: rank(50)?, p95: rank(95)?, p99: rank(99)?, max: rank(100)? })
    }
}

/// To a ten-thousandth of a millisecond.
pub(crate) fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_what_was_measured() {
        assert_eq!(Spread::new([]), None);
        let spread = Spread::new((1..=200).rev().map(Duration::from_millis)).unwrap();
        assert_eq!(
            (spread.samples, spread.p50, spread.p95, spread.p99, spread.max),
            (200, 100.0, 190.0, 198.0, 200.0)
        );
        let one = Spread::new([Duration::from_micros(1500)]).unwrap();
        assert_eq!((one.p50, one.max), (1.5, 1.5));
    }
}
