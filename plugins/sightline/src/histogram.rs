//! Percentiles of a stream of durations in constant memory.

use std::time::Duration;

const STEPS: u64 = 16;
const BUCKETS: usize = 48 * STEPS as usize;

/// Durations counted in buckets that grow by a sixteenth of their octave: a percentile is at most 6 % too high.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0, max: Duration::ZERO }
    }
}

fn bucket_of(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let octave = u64::from(ns.ilog2()) - 4;
    let step = (ns >> octave) - STEPS;
    (((octave + 1) * STEPS + step) as usize).min(BUCKETS - 1)
}

/// The largest value that falls into a bucket.
fn top_of(bucket: usize) -> u64 {
    let (octave, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if octave == 0 { step } else { ((STEPS + step + 1) << (octave - 1)) - 1 }
}

impl Histogram {
    pub(crate) fn record(&mut self, time: Duration) {
        self.buckets[bucket_of(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))] += 1;
        self.count += 1;
        self.max = self.max.max(time);
    }

    /// The time within which `share` of all records lie; zero when there are none.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return Duration::from_nanos(top_of(bucket)).min(self.max);
            }
        }
        self.max
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_without_gaps() {
        for ns in (0..5000).chain([1 << 20, (1 << 30) + 12345, 1 << 45]) {
            let bucket = bucket_of(ns);
            assert!(ns <= top_of(bucket), "{ns}");
            assert!(bucket == 0 || ns > top_of(bucket - 1), "{ns}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_within_a_sixteenth() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), Duration::ZERO);
        (1..=1000).for_each(|us| histogram.record(Duration::from_micros(us)));
        for (share, us) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = histogram.percentile(share).as_secs_f64() * 1e6;
            assert!((us..us * 1.0625).contains(&got) || got == us, "{share}: {got} us");
        }
        assert_eq!(histogram.max(), Duration::from_millis(1));
    }
}
