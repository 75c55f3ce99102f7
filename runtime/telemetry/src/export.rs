use std::{fmt, sync::Arc};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{FeedMetrics, Metric, MetricKind, MetricUnit, ProcessMetrics};

const METADATA: Metadata<'static> = Metadata::new("sightline", Level::INFO, None);

/// Metrics that cannot be exported: a name or its buckets.
#[derive(Debug, thiserror::Error)]
#[error("metric {name}: expected increasing bounds, got {got}")]
pub struct TelemetryError {
    name: &'static str,
    got: String,
}

/// Every value there is. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Telemetry {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Nothing measured yet.
    ///
    /// # Errors
    /// When a histogram has no bounds, which a test rules out.
    pub fn new() -> Result<Self, TelemetryError> {
        let mut builder = PrometheusBuilder::new();
        for metric in Metric::ALL {
            if let MetricKind::Histogram(bounds) = metric.kind() {
                let name = Matcher::Full(metric.name().to_owned());
                builder = builder
                    .set_buckets_for_metric(name, bounds)
                    .map_err(|error| TelemetryError { name: metric.name(), got: error.to_string() })?;
            }
        }
        let recorder = builder.build_recorder();
        for metric in Metric::ALL {
            let (name, help) = (metric.name().into(), metric.help().into());
            let unit = Some(match metric.unit() {
                MetricUnit::Count | MetricUnit::Truth => Unit::Count,
                MetricUnit::Seconds => Unit::Seconds,
                MetricUnit::Bytes => Unit::Bytes,
                MetricUnit::PerSecond => Unit::CountPerSecond,
            });
            match metric.kind() {
                MetricKind::Counter => recorder.describe_counter(name, unit, help),
                MetricKind::Gauge => recorder.describe_gauge(name, unit, help),
                MetricKind::Histogram(_) => recorder.describe_histogram(name, unit, help),
            }
        }
        Ok(Self { handle: recorder.handle(), recorder: Arc::new(recorder) })
    }

    /// The metrics of a feed. Asked for twice, they are the same ones.
    pub fn feed(&self, name: &str) -> FeedMetrics {
        FeedMetrics::new(self.clone(), name)
    }

    /// The metrics of this process.
    pub fn process(&self, version: &str) -> ProcessMetrics {
        ProcessMetrics::new(self, version)
    }

    /// Everything in Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds samples into their buckets. Until then each takes a few bytes, so call it every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    pub(crate) fn counter(&self, metric: Metric, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&key(metric, labels), &METADATA)
    }

    pub(crate) fn gauge(&self, metric: Metric, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&key(metric, labels), &METADATA)
    }

    pub(crate) fn histogram(&self, metric: Metric, labels: &[(&'static str, &str)]) -> Histogram {
        self.recorder.register_histogram(&key(metric, labels), &METADATA)
    }
}

fn key(metric: Metric, labels: &[(&'static str, &str)]) -> Key {
    debug_assert!(labels.iter().map(|(name, _)| name).eq(metric.labels()), "{metric:?}: {labels:?}");
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(metric.name(), labels)
}
