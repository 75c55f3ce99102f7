use std::time::Instant;

use metrics::Gauge;

use crate::{Metric, Telemetry};

/// What the operating system says of this process.
#[derive(Debug)]
pub struct ProcessMetrics {
    since: Instant,
    resident: Gauge,
    threads: Gauge,
    open_files: Gauge,
    uptime: Gauge,
}

impl ProcessMetrics {
    pub(crate) fn new(telemetry: &Telemetry, version: &str) -> Self {
        telemetry.gauge(Metric::Build, &[("version", version)]).set(1.0);
        let gauge = |metric| telemetry.gauge(metric, &[]);
        Self {
            since: Instant::now(),
            resident: gauge(Metric::Resident),
            threads: gauge(Metric::Threads),
            open_files: gauge(Metric::OpenFiles),
            uptime: gauge(Metric::Uptime),
        }
    }

    /// Reads `/proc`. Where there is none the values stay 0.
    pub fn update(&self) {
        self.uptime.set(self.since.elapsed().as_secs_f64());
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            if let Some(kib) = field(&status, "VmRSS:") {
                self.resident.set(kib * 1024.0);
            }
            if let Some(threads) = field(&status, "Threads:") {
                self.threads.set(threads);
            }
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // Less the one that is reading.
            self.open_files.set(open.count().saturating_sub(1) as f64);
        }
    }
}

/// The number after `name` in the text of `/proc/PID/status` (proc_pid_status(5)).
fn field(status: &str, name: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        line.parse().unwrap()
    }

    #[test]
    fn what_the_system_says_is_told() {
        let telemetry = Telemetry::new().unwrap();
        let process = telemetry.process("1.2.3");
        process.update();
        let before = telemetry.render();
        assert!(before.contains("sightline_build_info{version=\"1.2.3\"} 1\n"), "{before}");
        assert!(value(&before, "sightline_process_resident_bytes") > 1e5, "{before}");
        let files: Vec<_> = (0..20).map(|_| std::fs::File::open("/proc/self/status").unwrap()).collect();
        process.update();
        let name = "sightline_process_open_files";
        // Other tests of this binary open files too.
        assert!(value(&telemetry.render(), name) >= value(&before, name) + 15.0);
        drop(files);
        assert!(value(&before, "sightline_process_threads") >= 1.0);
    }
}
