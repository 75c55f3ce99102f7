//! The one list of metric names.

/// What sort of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// Only grows; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of samples up to each of these bounds, in the metric's unit.
    Histogram(&'static [f64]),
}

/// What a metric is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricUnit {
    /// Things.
    Count,
    /// 0 or 1.
    Truth,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Things a second.
    PerSecond,
}

/// Parts of a frame's way, in seconds.
const STAGE: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0];
/// A frame's whole way and the age of masks, in seconds: fine where a camera's frames are.
const LATENCY: &[f64] =
    &[0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0];
/// What people wait for, in seconds.
const WAIT: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 300.0, 1800.0];

macro_rules! metrics {
    ($($variant:ident $name:literal $kind:expr, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        /// A metric's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Metric {
            $(#[doc = $help] $variant,)*
        }

        impl Metric {
            /// All of them, in the order of the README.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As it is written: `sightline_<thing>_<unit>`, counters end in `_total`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// One sentence.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help),* }
            }

            /// What sort of number.
            pub fn kind(self) -> MetricKind {
                match self { $(Self::$variant => $kind),* }
            }

            /// Counted in what.
            pub fn unit(self) -> MetricUnit {
                match self { $(Self::$variant => MetricUnit::$unit),* }
            }

            /// Its labels' names.
            pub fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*]),* }
            }
        }
    };
}

use MetricKind::{Counter, Gauge, Histogram};

metrics! {
    FeedUp "sightline_feed_up" Gauge, Truth, ["feed"], "1 while the model is loaded and frames come";
    FeedRestarts "sightline_feed_restarts_total" Counter, Count, ["feed"], "Times a feed's pipeline was built anew after a failure";
    CameraFrames "sightline_camera_frames_total" Counter, Count, ["feed"], "Frames that went from the source into the corridor";
    CameraRate "sightline_camera_frames_per_second" Gauge, PerSecond, ["feed"], "Frames that went from the source into the corridor, over the last seconds";
    CameraDoorDrops "sightline_camera_door_drops_total" Counter, Count, ["feed"], "Frames dropped before the corridor, which had no room";
    CameraConnects "sightline_camera_connects_total" Counter, Count, ["feed"], "Times the source came, the first one included";
    CameraRetries "sightline_camera_retries_total" Counter, Count, ["feed"], "Tries to connect again";
    CameraLosses "sightline_camera_losses_total" Counter, Count, ["feed", "cause"], "Times the source went: eos, error, silence; never-came counts tries that brought no frame";
    CameraLeftBehind "sightline_camera_left_behind_total" Counter, Count, ["feed"], "Connections that would not let go when they were closed";
    CameraMended "sightline_camera_mended_total" Counter, Count, ["feed", "what"], "Frames whose stamps or content were put right: jump, missing, negative, duplicate, drift, corrupt";
    Frames "sightline_frames_total" Counter, Count, ["feed", "outcome", "reason"], "Frames by their one outcome; reason says why one was skipped";
    Buffers "sightline_buffers_total" Counter, Count, ["feed", "masks"], "Buffers that left, with masks of their own (fresh), of an earlier frame (coasted), or none";
    Stage "sightline_stage_seconds" Histogram(STAGE), Seconds, ["feed", "stage"], "Time of a stage on one frame, over its objects";
    JoinedRuns "sightline_engine_joined_runs_total" Counter, Count, ["feed"], "Runs of shared engines that were done together with other feeds'";
    FrameToMask "sightline_frame_to_mask_seconds" Histogram(LATENCY), Seconds, ["feed"], "From a frame's arrival to its masks, of frames that were looked at";
    MaskAge "sightline_mask_age_seconds" Histogram(LATENCY), Seconds, ["feed"], "How much older than its buffer the frame is that a buffer's masks are of";
    LookedAge "sightline_looked_age_seconds" Histogram(LATENCY), Seconds, ["feed"], "The same of the frame the engines looked at, which masks that are carried on leave behind";
    Objects "sightline_objects" Gauge, Count, ["feed", "state"], "Objects by state, on the newest frame that was looked at";
    Reacquired "sightline_reacquired_total" Counter, Count, ["feed"], "Objects found again after their feed was away";
    ReacquiredGap "sightline_reacquired_gap_seconds" Histogram(WAIT), Seconds, ["feed"], "How long they were away";
    DegradeLevel "sightline_degrade_level" Gauge, Count, ["feed"], "Rung of the degrade ladder, 0 for none";
    DegradeSteps "sightline_degrade_steps_total" Counter, Count, ["feed", "from", "to"], "Steps on the degrade ladder";
    Prompts "sightline_prompts_total" Counter, Count, ["feed", "state"], "Prompts that were applied or refused";
    CaughtUp "sightline_caught_up_total" Counter, Count, ["feed"], "Late prompts whose object became live";
    CaughtUpTime "sightline_caught_up_seconds" Histogram(WAIT), Seconds, ["feed"], "From a late prompt to its object being live";
    Queries "sightline_queries_total" Counter, Count, ["feed", "state"], "Steps of questions by what they came to";
    QueryDelay "sightline_query_delay_seconds" Histogram(WAIT), Seconds, ["feed"], "From a question to its answer";
    LlmUp "sightline_llm_up" Gauge, Truth, ["feed"], "1 when the language model answered the last question that ended, 0 when it did not; absent without a server";
    Model "sightline_model_info" Gauge, Truth, ["feed", "model", "engine"], "1; the model in use, and what really runs it";
    OutputLines "sightline_output_lines_total" Counter, Count, ["feed"], "JSON lines written";
    OutputDropped "sightline_output_dropped_total" Counter, Count, ["feed", "reason"], "JSON lines dropped: full (the writer's queue, newest first), lost (cut off by a reader that went, or by the end)";
    OutputErrors "sightline_output_errors_total" Counter, Count, ["feed"], "Failed tries to write";
    Resident "sightline_process_resident_bytes" Gauge, Bytes, [], "Memory of the process that is in RAM";
    Threads "sightline_process_threads" Gauge, Count, [], "Threads of the process";
    OpenFiles "sightline_process_open_files" Gauge, Count, [], "File descriptors in use";
    Uptime "sightline_process_uptime_seconds" Gauge, Seconds, [], "Since the start";
    Build "sightline_build_info" Gauge, Truth, ["version"], "1; what is running";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_house() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in Metric::ALL {
            let (name, unit) = (metric.name(), metric.unit());
            assert!(seen.insert(name), "{name} twice");
            let plain = |c: char| matches!(c, 'a'..='z' | '_');
            assert!(name.starts_with("sightline_") && name.chars().all(plain), "{name}");
            assert_eq!(metric.kind() == Counter, name.ends_with("_total"), "{name}");
            let said = match unit {
                MetricUnit::Seconds => name.ends_with("_seconds"),
                MetricUnit::Bytes => name.ends_with("_bytes"),
                MetricUnit::PerSecond => name.ends_with("_per_second"),
                MetricUnit::Truth => name.ends_with("_info") || name.ends_with("_up"),
                MetricUnit::Count => true,
            };
            assert!(said, "{name}: {unit:?}");
            assert!(!metric.help().is_empty() && !metric.help().ends_with('.'), "{name}");
            if let Histogram(bounds) = metric.kind() {
                assert!(bounds.is_sorted() && bounds.first().is_some_and(|least| *least > 0.0), "{name}");
            }
        }
    }

    #[test]
    fn the_readme_lists_every_metric_and_no_other() {
        let readme = include_str!("../README.md");
        let listed: Vec<&str> =
            readme.lines().filter_map(|line| line.strip_prefix("| `sightline_")?.split('`').next()).collect();
        let named: Vec<&str> =
            Metric::ALL.iter().filter_map(|metric| metric.name().strip_prefix("sightline_")).collect();
        assert_eq!(listed, named);
    }
}
