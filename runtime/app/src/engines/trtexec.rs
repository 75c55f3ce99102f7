//! TensorRT's `trtexec`: where it is, which version, what it is told and what it says.
//!
//! Its flags and lines are those of samples/common/sampleOptions.cpp, logging.h and sampleDevice.cpp of the
//! repository NVIDIA/TensorRT at v10.3.0 and 11.1.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};
use sightline_engine_registry::plan::{Flavor, Gpu, Machine, Profile, Range, Version};

use super::process::{Interrupt, run};

/// Where NVIDIA's packages put it, outside of PATH.
const PLACES: [&str; 3] =
    ["/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec"];

/// The tool and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trtexec {
    pub(super) path: PathBuf,
    /// Its build is 0 where the tool does not say it.
    pub(super) version: Version,
}

/// What one plan is built from and how.
#[derive(Debug)]
pub(super) struct BuildCommand<'a> {
    pub(super) onnx: &'a Path,
    pub(super) plan: &'a Path,
    pub(super) profile: Option<&'a Profile>,
    pub(super) timing_cache: Option<&'a Path>,
    pub(super) optimization_level: u8,
    pub(super) workspace_mib: u32,
    pub(super) version_compatible: bool,
}

impl Trtexec {
    /// By flag, by `SIGHTLINE_TRTEXEC`, on PATH, or where the packages put it; asks it for its version.
    pub(super) fn find(named: Option<&Path>, interrupt: &Interrupt) -> Result<Self> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let named = named.map(Path::to_owned).or_else(|| set("SIGHTLINE_TRTEXEC").map(PathBuf::from));
        let path = match named {
            Some(path) if path.is_file() => path,
            Some(path) => bail!("trtexec: expected a file, got none at {path:?}"),
            None => {
                let on_path = set("PATH").unwrap_or_default();
                let folders = env::split_paths(&on_path).map(|folder| folder.join("trtexec"));
                match folders.chain(PLACES.map(PathBuf::from)).find(|path| path.is_file()) {
                    Some(path) => path,
                    None => bail!(
                        "trtexec: expected TensorRT's builder on PATH or at {}, got none; install TensorRT \
                         (JetPack: sudo apt-get install tensorrt), or name it with --trtexec or SIGHTLINE_TRTEXEC",
                        PLACES.join(" or ")
                    ),
                }
            }
        };
        let mut command = Command::new(&path);
        command.arg("--help");
        let mut version = None;
        // Every start of it begins with its version, whatever it is asked for.
        run(command, interrupt, |line| version = version.or_else(|| banner(line)))?;
        let Some(version) = version else {
            bail!(
                "{}: expected it to say \"[TensorRT v...]\" at its start, got no such line",
                path.display()
            );
        };
        if (version.major == 10 && version.minor < 3) || !matches!(version.major, 10 | 11) {
            let Version { major, minor, patch, .. } = version;
            bail!("{}: expected TensorRT 10.3 or later, or 11, got {major}.{minor}.{patch}", path.display());
        }
        Ok(Self { path, version })
    }

    /// The machine as the tool sees it: asked to load a plan that is not there, it says so first.
    pub(super) fn machine(&self, interrupt: &Interrupt) -> Result<Machine> {
        let mut command = Command::new(&self.path);
        command.args(["--loadEngine=/nonexistent/sightline.plan", "--skipInference"]);
        let mut seen = Seen::default();
        run(command, interrupt, |line| seen.read(line))?;
        seen.machine(self)
    }

    /// The line that builds one plan.
    pub(super) fn build(&self, what: &BuildCommand<'_>) -> Command {
        let mut command = Command::new(&self.path);
        command.arg(flag("--onnx=", what.onnx));
        if self.version.major == 10 {
            // 11 has nothing else, and says so each time.
            command.arg("--stronglyTyped");
        }
        if let Some(profile) = what.profile {
            let spec = |pick: fn(&Range) -> &[usize]| {
                let shape = |(name, range): (&String, &Range)| format!("{name}:{}", times(pick(range)));
                profile.iter().map(shape).collect::<Vec<_>>().join(",")
            };
            command.arg(format!("--minShapes={}", spec(|range| &range.min)));
            command.arg(format!("--optShapes={}", spec(|range| &range.opt)));
            command.arg(format!("--maxShapes={}", spec(|range| &range.max)));
        }
        command.arg(flag("--saveEngine=", what.plan));
        if let Some(cache) = what.timing_cache {
            command.arg(flag("--timingCacheFile=", cache));
        }
        command.arg(format!("--builderOptimizationLevel={}", what.optimization_level));
        command.arg(format!("--memPoolSize=workspace:{}", what.workspace_mib));
        command.args(["--profilingVerbosity=detailed", "--skipInference"]);
        if what.version_compatible {
            command.arg("--versionCompatible");
        }
        command
    }

    /// The line that runs a plan once, from files of raw numbers into one of JSON. An input comes with the sizes that
    /// the plan leaves open.
    pub(super) fn run_once(
        &self,
        plan: &Path,
        inputs: &[(&str, Option<&[usize]>, PathBuf)],
        output: &Path,
    ) -> Command {
        let mut command = Command::new(&self.path);
        command.arg(flag("--loadEngine=", plan));
        let shape = |(name, dims, _): &(&str, Option<&[usize]>, PathBuf)| {
            dims.map(|dims| format!("{name}:{}", times(dims)))
        };
        let shapes: Vec<_> = inputs.iter().filter_map(shape).collect();
        if !shapes.is_empty() {
            command.arg(format!("--shapes={}", shapes.join(",")));
        }
        let mut files = OsString::from("--loadInputs=");
        for (index, (name, _, file)) in inputs.iter().enumerate() {
            files.push(format!("{}{name}:", if index > 0 { "," } else { "" }));
            files.push(file);
        }
        command.arg(files).arg(flag("--exportOutput=", output));
        command.args(["--iterations=1", "--duration=0", "--warmUp=0"]);
        if self.version.major >= 11 {
            // From then on it leaves inputs and outputs where they are unless told otherwise.
            command.arg("--includeDataTransfers");
        }
        command
    }
}

fn flag(name: &str, value: &Path) -> OsString {
    let mut text = OsString::from(name);
    text.push(value);
    text
}

fn times(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// `&&&& RUNNING TensorRT.trtexec [TensorRT v101600] [b11] # trtexec ...`
fn banner(line: &str) -> Option<Version> {
    let between = |before: &str, after: char| -> Option<u32> {
        line.split_once(before)?.1.split_once(after)?.0.parse().ok()
    };
    let number = between("[TensorRT v", ']')?;
    let build = between("] [b", ']').unwrap_or(0);
    // 8.6.1 was 8601; 10.3.0 is 100300.
    let step = if number < 100_000 { 1000 } else { 10_000 };
    Some(Version { major: number / step, minor: number % step / 100, patch: number % 100, build })
}

/// What the tool has said of the device and of failures.
#[derive(Debug, Default)]
pub(super) struct Seen {
    name: Option<String>,
    sm: Option<u32>,
    multiprocessors: Option<u32>,
    /// The first error: later ones follow from it.
    pub(super) error: Option<String>,
    last: String,
}

impl Seen {
    /// Takes a line, `[11/21/2026-23:30:00] [I] SMs: 16`.
    pub(super) fn read(&mut self, line: &str) {
        let severity = line.split_once("] [").and_then(|(_, rest)| rest.split_once("] "));
        let (severity, text) = severity.unwrap_or(("", line));
        let text = text.trim();
        if let Some(name) = text.strip_prefix("Selected Device: ") {
            self.name = Some(name.to_owned());
        } else if let Some((major, minor)) =
            text.strip_prefix("Compute Capability: ").and_then(|of| of.split_once('.'))
        {
            self.sm = major.parse::<u32>().ok().zip(minor.parse::<u32>().ok()).map(|(a, b)| a * 10 + b);
        } else if let Some(count) = text.strip_prefix("SMs: ") {
            self.multiprocessors = count.parse().ok();
        }
        if severity == "E" && self.error.is_none() {
            self.error = Some(text.to_owned());
        }
        if !text.is_empty() && !text.starts_with("&&&&") {
            text.clone_into(&mut self.last);
        }
    }

    /// Why it failed, as far as it has said.
    pub(super) fn reason(&self) -> &str {
        self.error.as_deref().unwrap_or(&self.last)
    }

    /// The device it used.
    pub(super) fn machine(&self, tool: &Trtexec) -> Result<Machine> {
        match (&self.name, self.sm, self.multiprocessors) {
            (Some(name), Some(sm), Some(multiprocessors)) => Ok(Machine {
                tensorrt: tool.version,
                flavor: Flavor::Full,
                gpu: Gpu { sm, name: name.clone(), multiprocessors },
            }),
            _ => bail!(
                "{}: expected it to name its GPU, compute capability and multiprocessors, got: {}",
                tool.path.display(),
                self.reason()
            ),
        }
    }
}

/// The version that a plan says it was built by, all four numbers. None for bytes that are no plan, or one laid out
/// otherwise than those of versions 10 and 11: 28 bytes, of which the first four and the last four are looked at.
pub(super) fn plan_version(plan: &[u8]) -> Option<Version> {
    let header = plan.get(..28)?;
    if header[..4] != 0x7472_7466_u32.to_le_bytes() || header[4..8] != [0; 4] {
        return None;
    }
    let [major, minor, patch, build] = [header[24], header[25], header[26], header[27]].map(u32::from);
    Some(Version { major, minor, patch, build })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_banners() {
        for (line, version) in [
            ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --help", Some("10.3.0")),
            ("&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b11] # /a/trtexec", Some("10.16.1.11")),
            ("&&&& RUNNING TensorRT.trtexec [TensorRT v110400] [b106] # trtexec", Some("11.4.0.106")),
            ("&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec", Some("8.6.1")),
            ("=== Model Options ===", None),
        ] {
            assert_eq!(banner(line), version.map(|text| text.parse().unwrap()), "{line}");
        }
    }

    #[test]
    fn what_it_says_of_the_device() {
        let tool = Trtexec { path: "trtexec".into(), version: "10.3".parse().unwrap() };
        let mut seen = Seen::default();
        for line in [
            "[11/21/2026-23:30:00] [I] === Device Information ===",
            "[11/21/2026-23:30:00] [I]   Device 0: \"Orin\" UUID: GPU-0",
            "[11/21/2026-23:30:00] [I] Selected Device: Orin",
            "[11/21/2026-23:30:00] [I] Compute Capability: 8.7",
            "[11/21/2026-23:30:00] [E] Error[1]: first",
            "[11/21/2026-23:30:00] [E] Engine could not be created from network",
        ] {
            seen.read(line);
        }
        let error = seen.machine(&tool).unwrap_err().to_string();
        assert!(error.ends_with("and multiprocessors, got: Error[1]: first"), "{error}");
        seen.read("[11/21/2026-23:30:00] [I] SMs: 16");
        let gpu = seen.machine(&tool).unwrap().gpu;
        assert_eq!(gpu, Gpu { sm: 87, name: "Orin".into(), multiprocessors: 16 });
    }

    #[test]
    fn versions_of_plans() {
        let mut plan = *b"ftrt\0\0\0\0................\x0a\x03\x00\x1a and so on";
        assert_eq!(plan_version(&plan), Some("10.3.0.26".parse().unwrap()));
        assert_eq!(plan_version(&plan[..27]), None);
        plan[4] = 1;
        assert_eq!(plan_version(&plan), None, "another layout");
        assert_eq!(plan_version(b"no plan, but as long as one that begins"), None);
    }
}
