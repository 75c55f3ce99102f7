//! How the feeds do, as a table.

use std::fmt::Write as _;

use super::measure::Tally;

const COLUMNS: [&str; 11] = [
    "feed",
    "state",
    "camera",
    "fps",
    "masks",
    "no object",
    "skipped",
    "p50 ms",
    "p99 ms",
    "losses",
    "restarts",
];

/// A line for each feed: its name, one word on how it is, and its counts.
pub(crate) fn table(feeds: &[(&str, &str, Tally)]) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    for (name, state, tally) in feeds {
        let ms = |at: usize| {
            let time = tally.latency.map(|latency| latency[at].as_secs_f64() * 1e3);
            time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"))
        };
        let skipped: u64 = tally.skipped.values().sum();
        rows.push([
            (*name).to_owned(),
            (*state).to_owned(),
            tally.camera_frames.to_string(),
            format!("{:.1}", tally.camera_rate),
            tally.masks.to_string(),
            tally.no_object.to_string(),
            skipped.to_string(),
            ms(0),
            ms(1),
            tally.losses.to_string(),
            tally.restarts.to_string(),
        ]);
    }
    let widths: Vec<usize> =
        (0..COLUMNS.len()).map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Words to the left, numbers to the right.
            let _ = if at < 2 { write!(line, "{cell:<width$}  ") } else { write!(line, "{cell:>width$}  ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for (name, _, tally) in feeds.iter().filter(|(.., tally)| !tally.skipped.is_empty()) {
        let reasons: Vec<_> =
            tally.skipped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let _ = writeln!(text, "skipped of {name}: {}", reasons.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn feeds_stand_in_columns() {
        let ms = Duration::from_millis;
        let busy = Tally {
            camera_frames: 1200,
            camera_rate: 29.97,
            masks: 900,
            skipped: [("superseded", 300)].into(),
            latency: Some([ms(31), ms(58)]),
            ..Tally::default()
        };
        let text = table(&[("gate", "live", busy), ("a-long-name", "failed", Tally::default())]);
        let expected = "\
feed         state   camera   fps  masks  no object  skipped  p50 ms  p99 ms  losses  restarts
gate         live      1200  30.0    900          0      300      31      58       0         0
a-long-name  failed       0   0.0      0          0        0       -       -       0         0
skipped of gate: superseded 300
";
        assert_eq!(text, expected);
    }
}
