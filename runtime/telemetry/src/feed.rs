use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use sightline_core::{Degrade, Outcome, SkipReason, StageTimes, TrackState};

use crate::{Metric, Telemetry};

const STATES: [TrackState; 3] = [TrackState::Tracking, TrackState::Lost, TrackState::Coasted];
const QUERY_STATES: [&str; 9] =
    ["waiting", "asked", "streaming", "answered", "failed", "cancelled", "superseded", "refused", "alert"];

/// Which masks a buffer left with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masks {
    /// Its own.
    Fresh,
    /// Of an earlier frame.
    Coasted,
    /// There were none yet.
    None,
}

/// The metrics of one feed. Taking a sample waits for nobody.
#[derive(Debug)]
pub struct FeedMetrics {
    telemetry: Telemetry,
    feed: String,
    up: Gauge,
    restarts: Counter,
    camera_frames: Counter,
    camera_rate: Gauge,
    door_drops: Counter,
    connects: Counter,
    left_behind: Counter,
    retries: Counter,
    frames: Vec<(Outcome, Counter)>,
    buffers: [Counter; 3],
    stages: [Histogram; 7],
    frame_to_mask: Histogram,
    joined_runs: Counter,
    mask_age: Histogram,
    looked_age: Histogram,
    objects: [Gauge; 3],
    degrade_level: Gauge,
    output_lines: Counter,
    output_full: Counter,
    output_lost: Counter,
    output_errors: Counter,
}

impl FeedMetrics {
    pub(crate) fn new(telemetry: Telemetry, feed: &str) -> Self {
        let counter = |metric| telemetry.counter(metric, &[("feed", feed)]);
        let gauge = |metric| telemetry.gauge(metric, &[("feed", feed)]);
        let histogram = |metric| telemetry.histogram(metric, &[("feed", feed)]);
        let outcomes = [Outcome::Masks, Outcome::NoObject].into_iter();
        let outcomes = outcomes.chain(SkipReason::ALL.map(Outcome::Skipped));
        let stage = |(name, _)| telemetry.histogram(Metric::Stage, &[("feed", feed), ("stage", name)]);
        let buffers = |masks| telemetry.counter(Metric::Buffers, &[("feed", feed), ("masks", masks)]);
        let dropped =
            |reason| telemetry.counter(Metric::OutputDropped, &[("feed", feed), ("reason", reason)]);
        let objects = |state: TrackState| {
            telemetry.gauge(Metric::Objects, &[("feed", feed), ("state", state.as_str())])
        };
        Self {
            up: gauge(Metric::FeedUp),
            restarts: counter(Metric::FeedRestarts),
            camera_frames: counter(Metric::CameraFrames),
            camera_rate: gauge(Metric::CameraRate),
            door_drops: counter(Metric::CameraDoorDrops),
            connects: counter(Metric::CameraConnects),
            left_behind: counter(Metric::CameraLeftBehind),
            retries: counter(Metric::CameraRetries),
            frames: outcomes.map(|outcome| (outcome, frames(&telemetry, feed, outcome))).collect(),
            buffers: ["fresh", "coasted", "none"].map(buffers),
            stages: StageTimes::default().named().map(stage),
            joined_runs: counter(Metric::JoinedRuns),
            frame_to_mask: histogram(Metric::FrameToMask),
            mask_age: histogram(Metric::MaskAge),
            looked_age: histogram(Metric::LookedAge),
            objects: STATES.map(objects),
            degrade_level: gauge(Metric::DegradeLevel),
            output_lines: counter(Metric::OutputLines),
            output_full: dropped("full"),
            output_lost: dropped("lost"),
            output_errors: counter(Metric::OutputErrors),
            feed: feed.to_owned(),
            telemetry,
        }
    }

    /// Whether the model is loaded and frames come.
    pub fn up(&self, up: bool) {
        self.up.set(f64::from(u8::from(up)));
    }

    /// The pipeline is built anew.
    pub fn restarted(&self) {
        self.restarts.increment(1);
    }

    /// So many more frames went into the corridor, and so many found no room there.
    pub fn camera_frames(&self, frames: u64, door_drops: u64) {
        self.camera_frames.increment(frames);
        self.door_drops.increment(door_drops);
    }

    /// So many more runs of shared engines were done together with other feeds'.
    pub fn joined_runs(&self, runs: u64) {
        self.joined_runs.increment(runs);
    }

    /// Frames a second from the source.
    pub fn camera_rate(&self, frames_per_second: f64) {
        self.camera_rate.set(frames_per_second);
    }

    /// The source came so many times more, and so many of its connections would not let go when they were closed.
    pub fn camera_connects(&self, connects: u64, left_behind: u64) {
        self.connects.increment(connects);
        self.left_behind.increment(left_behind);
    }

    /// The source is tried again.
    pub fn retrying(&self) {
        self.retries.increment(1);
    }

    /// The source went so many times more.
    pub fn lost(&self, cause: &'static str, times: u64) {
        let labels = [("feed", self.feed.as_str()), ("cause", cause)];
        self.telemetry.counter(Metric::CameraLosses, &labels).increment(times);
    }

    /// So many more frames were put right.
    pub fn mended(&self, what: &'static str, frames: u64) {
        let labels = [("feed", self.feed.as_str()), ("what", what)];
        self.telemetry.counter(Metric::CameraMended, &labels).increment(frames);
    }

    /// A frame's outcome. `latency` is from its arrival to the outcome; it and `stages` are of use only where the frame
    /// was looked at.
    pub fn frame(&self, outcome: Outcome, latency: Duration, stages: &StageTimes) {
        match self.frames.iter().find(|(known, _)| *known == outcome) {
            Some((_, counter)) => counter.increment(1),
            None => frames(&self.telemetry, &self.feed, outcome).increment(1),
        }
        if outcome.skip_reason().is_none() {
            self.frame_to_mask.record(latency);
            for (histogram, (_, time)) in self.stages.iter().zip(stages.named()) {
                histogram.record(time);
            }
        }
    }

    /// The objects on the newest frame that was looked at.
    pub fn objects(&self, states: impl Iterator<Item = TrackState> + Clone) {
        for (gauge, state) in self.objects.iter().zip(STATES) {
            gauge.set(states.clone().filter(|of| *of == state).count() as f64);
        }
    }

    /// So many objects that were seen, or carried over, are in this state until frames come again; the lost stay lost.
    pub fn objects_now(&self, state: TrackState, count: usize) {
        for (gauge, of) in self.objects.iter().zip(STATES).filter(|(_, of)| *of != TrackState::Lost) {
            gauge.set(if of == state { count as f64 } else { 0.0 });
        }
        if state == TrackState::Lost
            && let Some((lost, _)) = self.objects.iter().zip(STATES).find(|(_, of)| *of == TrackState::Lost)
        {
            lost.increment(count as f64);
        }
    }

    /// A buffer left. `age` is how much older than it the frame is that its masks are of, `looked_age` the one that the
    /// engines looked at for them.
    pub fn buffer(&self, masks: Masks, age: Option<Duration>, looked_age: Option<Duration>) {
        let [fresh, coasted, none] = &self.buffers;
        match masks {
            Masks::Fresh => fresh,
            Masks::Coasted => coasted,
            Masks::None => none,
        }
        .increment(1);
        for (histogram, age) in [(&self.mask_age, age), (&self.looked_age, looked_age)] {
            if let Some(age) = age {
                histogram.record(age);
            }
        }
    }

    /// An object was found again after its feed was away for `gap`.
    pub fn reacquired(&self, gap: Duration) {
        let labels = [("feed", self.feed.as_str())];
        self.telemetry.counter(Metric::Reacquired, &labels).increment(1);
        self.telemetry.histogram(Metric::ReacquiredGap, &labels).record(gap);
    }

    /// Everything begins anew: nothing is given up, and no object is followed yet.
    pub fn began(&self) {
        self.degrade_level.set(0.0);
        self.objects(std::iter::empty());
    }

    /// A step on the degrade ladder.
    pub fn degraded(&self, from: Degrade, to: Degrade) {
        self.degrade_level.set(f64::from(to.level()));
        let labels = [("feed", self.feed.as_str()), ("from", from.as_str()), ("to", to.as_str())];
        self.telemetry.counter(Metric::DegradeSteps, &labels).increment(1);
    }

    /// A prompt was applied, or refused.
    pub fn prompt(&self, applied: bool) {
        let state = if applied { "applied" } else { "refused" };
        self.telemetry.counter(Metric::Prompts, &[("feed", &self.feed), ("state", state)]).increment(1);
    }

    /// A late prompt's object is live, `took` after the prompt.
    pub fn caught_up(&self, took: Duration) {
        let labels = [("feed", self.feed.as_str())];
        self.telemetry.counter(Metric::CaughtUp, &labels).increment(1);
        self.telemetry.histogram(Metric::CaughtUpTime, &labels).record(took);
    }

    /// A step of a question, `delay` after it was asked. `server` is whether a language model is asked.
    pub fn query(&self, state: &str, delay: Duration, server: bool) {
        let state = QUERY_STATES.into_iter().find(|known| *known == state).unwrap_or("other");
        let labels = [("feed", self.feed.as_str())];
        self.telemetry.counter(Metric::Queries, &[("feed", &self.feed), ("state", state)]).increment(1);
        let answered = matches!(state, "answered" | "alert");
        if answered {
            self.telemetry.histogram(Metric::QueryDelay, &labels).record(delay);
        }
        if server && (answered || state == "failed") {
            self.telemetry.gauge(Metric::LlmUp, &labels).set(f64::from(u8::from(answered)));
        }
    }

    /// What tracks, and what really runs it.
    pub fn model(&self, model: &str, engine: &str) {
        let labels = [("feed", self.feed.as_str()), ("model", model), ("engine", engine)];
        self.telemetry.gauge(Metric::Model, &labels).set(1.0);
    }

    /// A line was written.
    pub fn output_line(&self) {
        self.output_lines.increment(1);
    }

    /// A line found the writer's queue full.
    pub fn output_full(&self) {
        self.output_full.increment(1);
    }

    /// So many lines were taken and could not be written to the end.
    pub fn output_lost(&self, lines: u64) {
        self.output_lost.increment(lines);
    }

    /// A try to write failed.
    pub fn output_error(&self) {
        self.output_errors.increment(1);
    }
}

fn frames(telemetry: &Telemetry, feed: &str, outcome: Outcome) -> Counter {
    let reason = outcome.skip_reason().map_or("", |reason| reason.as_str());
    let labels = [("feed", feed), ("outcome", outcome.as_str()), ("reason", reason)];
    telemetry.counter(Metric::Frames, &labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[track_caller]
    fn has(telemetry: &Telemetry, lines: &[&str]) {
        let text = telemetry.render();
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn a_frame_is_counted_once_and_timed_if_it_was_looked_at() {
        let telemetry = Telemetry::new().unwrap();
        let feed = telemetry.feed("gate");
        let stages = StageTimes { decoder: MS * 7, ..StageTimes::default() };
        feed.frame(Outcome::Masks, MS * 45, &stages);
        feed.frame(Outcome::Skipped(SkipReason::Superseded), MS * 500, &StageTimes::default());
        feed.buffer(Masks::Coasted, Some(MS * 130), Some(MS * 480));
        feed.buffer(Masks::None, None, None);
        feed.objects([TrackState::Tracking, TrackState::Lost, TrackState::Tracking].into_iter());
        has(
            &telemetry,
            &[
                r#"sightline_frames_total{feed="gate",outcome="masks",reason=""} 1"#,
                r#"sightline_frames_total{feed="gate",outcome="skipped",reason="superseded"} 1"#,
                r#"sightline_frames_total{feed="gate",outcome="skipped",reason="error"} 0"#,
                r#"sightline_frame_to_mask_seconds_bucket{feed="gate",le="0.04"} 0"#,
                r#"sightline_frame_to_mask_seconds_bucket{feed="gate",le="0.05"} 1"#,
                r#"sightline_frame_to_mask_seconds_count{feed="gate"} 1"#,
                r#"sightline_stage_seconds_bucket{feed="gate",stage="decoder",le="0.005"} 0"#,
                r#"sightline_stage_seconds_bucket{feed="gate",stage="decoder",le="0.01"} 1"#,
                r#"sightline_mask_age_seconds_bucket{feed="gate",le="0.15"} 1"#,
                r#"sightline_buffers_total{feed="gate",masks="none"} 1"#,
                r#"sightline_objects{feed="gate",state="tracking"} 2"#,
                "# TYPE sightline_mask_age_seconds histogram",
            ],
        );
    }

    #[test]
    fn the_server_is_judged_by_the_last_question_that_ended() {
        let telemetry = Telemetry::new().unwrap();
        let feed = telemetry.feed("a");
        feed.query("answered", MS * 10, false);
        assert!(!telemetry.render().contains("sightline_llm_up{"), "there is no server");
        feed.query("failed", MS, true);
        has(&telemetry, &[r#"sightline_llm_up{feed="a"} 0"#]);
        feed.query("asked", MS, true);
        feed.query("alert", MS, true);
        has(&telemetry, &[r#"sightline_llm_up{feed="a"} 1"#]);
        has(&telemetry, &[r#"sightline_query_delay_seconds_count{feed="a"} 2"#]);
    }

    #[test]
    fn series_are_bounded_whatever_comes() {
        let telemetry = Telemetry::new().unwrap();
        let feed = telemetry.feed("a");
        let lines = |at: u32| {
            for i in 0..at {
                feed.query(&format!("state {i}"), MS, true);
            }
            telemetry.render().lines().count()
        };
        let few = lines(100);
        assert_eq!(lines(2_000), few);
        feed.degraded(Degrade::Full, Degrade::Coast);
        has(
            &telemetry,
            &[
                r#"sightline_degrade_level{feed="a"} 2"#,
                r#"sightline_degrade_steps_total{feed="a",from="full",to="coast"} 1"#,
            ],
        );
        // Asked for again, for instance after a restart, the metrics are the same ones.
        telemetry.feed("a").restarted();
        feed.restarted();
        has(&telemetry, &[r#"sightline_feed_restarts_total{feed="a"} 2"#]);
    }

    /// Samples wait in blocks until they are folded; without upkeep a year of them would.
    #[test]
    fn upkeep_keeps_the_memory_of_samples_constant() {
        let telemetry = Telemetry::new().unwrap();
        let feed = telemetry.feed("a");
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
        };
        let run = |frames: u32| {
            for i in 0..frames {
                feed.frame(Outcome::Masks, MS * (i % 90), &StageTimes::default());
                if i % 500 == 0 {
                    telemetry.upkeep();
                }
            }
            telemetry.upkeep();
            resident()
        };
        let warm = run(20_000);
        // 9 samples a frame, 16 bytes each: 29 MB if they were kept.
        let after = run(200_000);
        assert!(after < warm + (8 << 20), "{warm} {after}");
    }
}
