//! Metric names, histograms and their export as text.
//!
//! Every name is a [`Metric`], with its help, unit and labels; the table is in this room's README. A [`Telemetry`] holds
//! the values and writes them in Prometheus' text format; [`FeedMetrics`] and [`ProcessMetrics`] are what is measured.
//! Memory is constant: buckets are fixed, labels come from bounded sets, and samples are folded into their buckets by
//! [`Telemetry::upkeep`], which somebody must call every few seconds where nobody scrapes.
#![forbid(unsafe_code)]

mod export;
mod feed;
mod names;
mod process;

pub use export::{Telemetry, TelemetryError};
pub use feed::{FeedMetrics, Masks};
pub use names::{Metric, MetricKind, MetricUnit};
pub use process::ProcessMetrics;
