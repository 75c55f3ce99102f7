//! The figures of an evaluation as JSON and as a table.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// One sequence, in percent.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SequenceScore {
    pub(crate) name: String,
    /// Frames that count: all but the first and the last.
    pub(crate) frames: usize,
    pub(crate) j: f64,
    pub(crate) f: f64,
    pub(crate) jf: f64,
}

/// The mean over sequences, in percent.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct MeanScore {
    pub(crate) j: f64,
    pub(crate) f: f64,
    pub(crate) jf: f64,
}

/// What `--json` writes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) sequences: Vec<SequenceScore>,
    pub(crate) mean: MeanScore,
}

impl Report {
    /// Every sequence counts the same, as in DAVIS-2016.
    pub(crate) fn new(sequences: Vec<SequenceScore>) -> Self {
        let mean = |of: fn(&SequenceScore) -> f64| {
            sequences.iter().map(of).sum::<f64>() / sequences.len().max(1) as f64
        };
        let mean = MeanScore { j: mean(|s| s.j), f: mean(|s| s.f), jf: mean(|s| s.jf) };
        Self { sequences, mean }
    }

    /// Writes JSON.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {path:?}"))
    }

    /// A table for people.
    pub(crate) fn table(&self) -> String {
        let wide = self.sequences.iter().map(|s| s.name.len()).max().unwrap_or(0).max(8);
        let mut text = format!("{:wide$} {:>6} {:>6} {:>6} {:>6}\n", "sequence", "frames", "J", "F", "J&F");
        for s in &self.sequences {
            let _ =
                writeln!(text, "{:wide$} {:>6} {:>6.1} {:>6.1} {:>6.1}", s.name, s.frames, s.j, s.f, s.jf);
        }
        let frames: usize = self.sequences.iter().map(|s| s.frames).sum();
        let MeanScore { j, f, jf } = self.mean;
        let _ = writeln!(text, "{:wide$} {frames:>6} {j:>6.1} {f:>6.1} {jf:>6.1}", "mean");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_counts_sequences_not_frames() {
        let score =
            |name: &str, frames, j| SequenceScore { name: name.into(), frames, j, f: 0.0, jf: j / 2.0 };
        let report = Report::new(vec![score("a", 100, 80.0), score("b", 10, 40.0)]);
        assert_eq!(report.mean.j, 60.0);
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["sequences"][0]["name"], "a");
        assert_eq!(json["mean"]["jf"], 30.0);
        assert!(report.table().contains("mean        110   60.0"), "{}", report.table());
    }
}
