//! What a number is worth nothing without: the machine, what else it was doing, the commit, the command.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Result;
use serde::Serialize;

/// Above this share of its processors in other hands a machine is not the one that a number speaks of.
const BUSY: f64 = 0.1;

/// The machine before and after.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    memory: String,
    kernel: String,
    gstreamer: String,
    /// The engine's own words.
    runtime: String,
    build: &'static str,
    load_before: String,
    load_after: String,
    /// Share of all processors' time that others used in the second before the first pipeline.
    pub(crate) busy_before: Option<f64>,
    pub(crate) commit: String,
    /// Files that differ from the commit.
    pub(crate) changed: Vec<String>,
    pub(crate) command: String,
}

impl Machine {
    pub(crate) fn before(runtime: String) -> Result<Self> {
        let lines = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let unknown = || "unknown".to_owned();
        Ok(Self {
            cpu: field(&lines("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            memory: field(&lines("/proc/meminfo"), "MemTotal").unwrap_or_else(unknown),
            kernel: lines("/proc/sys/kernel/osrelease").trim().to_owned(),
            gstreamer: gst::version_string().to_string(),
            runtime,
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            load_before: load(),
            load_after: String::new(),
            busy_before: busy(Duration::from_secs(1)),
            commit: git(&["rev-parse", "HEAD"]).unwrap_or_else(unknown),
            changed: git(&["status", "--porcelain"])
                .map(|text| text.lines().map(str::to_owned).collect())
                .unwrap_or_default(),
            command: command(),
        })
    }

    pub(crate) fn after(self) -> Self {
        Self { load_after: load(), ..self }
    }

    /// Whether somebody else wanted the machine too.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy_before.is_none_or(|share| share > BUSY)
    }

    /// machine.txt.
    pub(crate) fn text(&self) -> String {
        let busy = self.busy_before.map_or("unknown".to_owned(), |share| format!("{:.0} %", share * 100.0));
        let rows = [
            ("cpu", self.cpu.clone()),
            ("cores", self.cores.to_string()),
            ("memory", self.memory.clone()),
            ("kernel", self.kernel.clone()),
            ("GStreamer", self.gstreamer.clone()),
            ("runtime", self.runtime.clone()),
            ("build", self.build.to_owned()),
            ("load at start", self.load_before.clone()),
            ("load at end", self.load_after.clone()),
            ("busy with others", format!("{busy} of all cores in the second before the start")),
        ];
        rows.iter().map(|(name, value)| format!("{name:17} {value}\n")).collect()
    }

    /// commit.txt.
    pub(crate) fn commit_text(&self) -> String {
        let mut text = format!("{}\n", self.commit);
        if !self.changed.is_empty() {
            text.push_str("with these files changed:\n");
            self.changed.iter().for_each(|line| {
                text.push_str(line);
                text.push('\n');
            });
        }
        text
    }
}

fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

/// Share of all processors' time that is not idle.
fn busy(over: Duration) -> Option<f64> {
    let ticks = || {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let ticks: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
        // Guest time is in user time already.
        let total: u64 = ticks.iter().take(8).sum();
        Some((total, ticks.get(3)? + ticks.get(4)?))
    };
    let (total, idle) = ticks()?;
    std::thread::sleep(over);
    let (later, later_idle) = ticks()?;
    let all = later.checked_sub(total).filter(|all| *all > 0)?;
    Some(1.0 - later_idle.saturating_sub(idle) as f64 / all as f64)
}

fn git(arguments: &[&str]) -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}

/// What to type to do this again.
fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p sightline-benches --bin corridor -- {}", arguments.join(" "))
}
