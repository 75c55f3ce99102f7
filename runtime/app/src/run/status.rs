//! What a run tells the person who watches it: a line that changes on a terminal, now and then a line elsewhere.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    time::{Duration, Instant},
};

use gstsightline::record::FrameRecord;
use sightline_core::{Outcome, SkipReason};

/// Counts of frames by what became of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) masks: u64,
    pub(crate) no_object: u64,
    pub(crate) skipped: Vec<(SkipReason, u64)>,
}

impl Counts {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Masks => self.masks += 1,
            Outcome::NoObject => self.no_object += 1,
            Outcome::Skipped(reason) => match self.skipped.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => self.skipped.push((reason, 1)),
            },
        }
    }

    pub(crate) fn skipped_total(&self) -> u64 {
        self.skipped.iter().map(|(_, count)| count).sum()
    }

    pub(crate) fn total(&self) -> u64 {
        self.masks + self.no_object + self.skipped_total()
    }
}

/// Follows a run by its messages.
pub(crate) struct Status {
    pub(crate) counts: Counts,
    started: Instant,
    first_frame: Option<Instant>,
    last_frame: Instant,
    position: Duration,
    duration: Option<Duration>,
    recent: Recent,
    shown: Instant,
    terminal: bool,
    dirty: bool,
    away: Option<Instant>,
}

/// Frames a second over the last seconds.
#[derive(Debug)]
struct Recent {
    since: Instant,
    frames: u32,
    fps: f64,
}

impl Status {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            counts: Counts::default(),
            started: now,
            first_frame: None,
            last_frame: now,
            position: Duration::ZERO,
            duration: None,
            recent: Recent { since: now, frames: 0, fps: 0.0 },
            shown: now,
            terminal: std::io::stderr().is_terminal(),
            dirty: false,
            away: None,
        }
    }

    /// The length of the input, once it is known.
    pub(crate) fn set_duration(&mut self, duration: Duration) {
        self.duration = Some(duration);
    }

    /// A frame's outcome.
    pub(crate) fn frame(&mut self, record: &FrameRecord) {
        let now = Instant::now();
        self.counts.add(record.outcome);
        self.first_frame.get_or_insert(now);
        self.last_frame = now;
        if let Some(time) = record.frame.running_time.or(record.frame.pts) {
            self.position = self.position.max(time);
        }
        self.recent.frames += 1;
        let window = now - self.recent.since;
        if window >= Duration::from_secs(1) {
            self.recent.fps = f64::from(self.recent.frames) / window.as_secs_f64();
            self.recent = Recent { since: now, frames: 0, fps: self.recent.fps };
        }
    }

    /// Since when there has been no camera.
    pub(crate) fn set_away(&mut self, since: Option<Instant>) {
        self.away = since;
    }

    /// Frames a second over the whole run.
    pub(crate) fn mean_fps(&self) -> f64 {
        let Some(first) = self.first_frame else { return 0.0 };
        let seconds = (self.last_frame - first).as_secs_f64();
        if seconds > 0.0 { self.counts.total().saturating_sub(1) as f64 / seconds } else { 0.0 }
    }

    /// Wall time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows the state if it is time to: five times a second on a terminal, else every ten seconds.
    pub(crate) fn show(&mut self, age: Option<Duration>) {
        let pause = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.shown.elapsed() < pause || self.counts.total() == 0 {
            return;
        }
        self.shown = Instant::now();
        let line = self.line(age);
        let mut stderr = std::io::stderr().lock();
        // Nobody to tell when stderr is gone.
        let _ = if self.terminal {
            self.dirty = true;
            write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{line}")
        };
    }

    /// Leaves the line that changes, so that others can print.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.dirty) {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[2K").and_then(|()| stderr.flush());
        }
    }

    fn line(&self, age: Option<Duration>) -> String {
        let mut line = String::new();
        let fps = if self.recent.fps > 0.0 { self.recent.fps } else { self.mean_fps() };
        if let Some(duration) = self.duration.filter(|duration| !duration.is_zero()) {
            let share = (self.position.as_secs_f64() / duration.as_secs_f64()).clamp(0.0, 1.0);
            let _ = write!(line, "{:3.0} %  ", share * 100.0);
            let spent = self.first_frame.map_or(0.0, |first| first.elapsed().as_secs_f64());
            if share > 0.01 {
                let _ = write!(line, "{} left  ", clock(Duration::from_secs_f64(spent / share - spent)));
            }
        } else {
            let _ = write!(line, "{}  ", clock(self.position));
        }
        if let Some(away) = self.away {
            let _ = write!(line, "camera lost {} ago  ", clock(away.elapsed()));
        } else {
            let _ = write!(line, "{fps:.1} fps  ");
        }
        if let Some(age) = age {
            let _ = write!(line, "masks {} ms old  ", age.as_millis());
        }
        let Counts { masks, no_object, .. } = &self.counts;
        let _ = write!(line, "masks {masks}, no object {no_object}, skipped {}", self.counts.skipped_total());
        line
    }
}

/// `m:ss`, or `h:mm:ss`.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") }
}

#[cfg(test)]
mod tests {
    use sightline_core::FrameStamp;

    use super::*;

    #[test]
    fn the_line_tells_share_and_outcomes() {
        let mut status = Status::new();
        status.set_duration(Duration::from_secs(10));
        let stamp = FrameStamp { index: 0, pts: None, running_time: Some(Duration::from_secs(5)) };
        status.frame(&FrameRecord::skipped(stamp, SkipReason::NoPrompt, Duration::ZERO));
        let line = status.line(None);
        assert!(line.starts_with(" 50 %"), "{line}");
        assert!(line.ends_with("masks 0, no object 0, skipped 1"), "{line}");
        assert_eq!(status.counts.skipped, [(SkipReason::NoPrompt, 1)]);
    }

    #[test]
    fn clocks() {
        assert_eq!(clock(Duration::from_secs(61)), "1:01");
        assert_eq!(clock(Duration::from_secs(3661)), "1:01:01");
    }
}
