use serde::Serialize;

/// Samples from which on a p99.9 says something.
const FOR_P999: usize = 1000;

/// Of the nearest rank: every one of them was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) samples: usize,
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    /// Only of 1000 samples and more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p999: Option<f64>,
    pub(super) max: f64,
}

impl Percentiles {
    /// `None` of nothing.
    pub(super) fn new(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            values.get(rank.max(1) - 1).copied().map(rounded)
        };
        Some(Self {
            samples: values.len(),
            p50: rank(0.5)?,
            p95: rank(0.95)?,
            p99: rank(0.99)?,
            p999: rank(0.999).filter(|_| values.len() >= FOR_P999),
            max: rank(1.0)?,
        })
    }
}

/// To a thousandth: a microsecond of what is given in ms.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// In milliseconds.
pub(super) fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Mean; 0 of nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let many = Percentiles::new((1..=200).map(f64::from)).unwrap();
        assert_eq!((many.p50, many.p95, many.p99, many.max), (100.0, 190.0, 198.0, 200.0));
        assert_eq!(many.p999, None, "200 samples have no p99.9");
        assert_eq!(Percentiles::new((1..=1000).map(f64::from)).unwrap().p999, Some(999.0));
        assert_eq!(Percentiles::new([7.0]).unwrap().p95, 7.0);
        assert_eq!(Percentiles::new([]), None);
    }
}
