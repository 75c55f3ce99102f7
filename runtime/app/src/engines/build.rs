//! `sightline engines build`: every plan is built beside the others under a name of its own and put in place whole.

use std::{
    fmt::Write as _,
    fs::{self, File, TryLockError},
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use sightline_engine_api::{GraphIo, GraphName};
use sightline_engine_registry::{
    ModelSource,
    plan::{
        Flavor, Machine, PlanKey, Precision, Sidecar, VERSION_COMPATIBLE, Version, cache_folder, plans_in,
    },
};

use super::{
    Subject, fits,
    process::{Interrupt, run as run_tool},
    sizes::{Build, Steps},
    trtexec::{BuildCommand, Seen, Trtexec, plan_version},
};
use crate::{
    cli::BuildArgs,
    models::{megabytes, narrowing},
};

/// How the folders begin in which builds are at work.
pub(super) const STAGING: &str = ".building-";

/// The command.
pub(super) fn run(args: &BuildArgs) -> Result<()> {
    let interrupt = Interrupt::install();
    let mut subject = Subject::open(&args.model)?;
    if let Some(out) = &args.out {
        subject.plans = std::path::absolute(out)?;
    }
    let graphs = graphs(&subject, &args.component)?;
    let steps = Steps::new(&args.objects, &args.slots, subject.spec.memory.slots(), args.exact)?;
    let mut builds = Vec::new();
    for graph in graphs {
        check_precision(&subject, graph, args.precision)?;
        builds.extend(steps.of(graph, &subject.spec.graphs[&graph])?);
    }
    if args.dry_run {
        return crate::print_stdout(&commands(&subject, args, &builds, &interrupt)?);
    }
    let tool = Trtexec::find(args.tool.trtexec.as_deref(), &interrupt)?;
    let machine = tool.machine(&interrupt)?;
    tracing::info!(model = subject.name, plans = builds.len(), gpu = %machine.gpu, tensorrt = %tool.version, "building");
    let work = Work::new(subject, args, tool, machine, interrupt)?;
    let count = builds.len();
    for (index, build) in builds.iter().enumerate() {
        work.one(build, &format!("[{}/{count}] {build}", index + 1))?;
    }
    Ok(())
}

fn graphs(subject: &Subject, named: &[String]) -> Result<Vec<GraphName>> {
    let all: Vec<GraphName> =
        GraphName::ALL.into_iter().filter(|graph| subject.spec.graphs.contains_key(graph)).collect();
    if let Some(wrong) = named.iter().find(|name| all.iter().all(|graph| graph.as_str() != name.as_str())) {
        let known: Vec<_> = all.iter().map(|graph| graph.as_str()).collect();
        bail!("component: expected one of {}, got {wrong:?}", known.join(", "));
    }
    let is_wanted = |graph: &GraphName| named.is_empty() || named.iter().any(|name| name == graph.as_str());
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// A graph is built as it is or, from 32 bits, in less.
fn check_precision(subject: &Subject, graph: GraphName, wanted: Precision) -> Result<()> {
    let got = subject.precision(graph);
    let as_it_is = got == wanted.to_string() || (got == "int8" && wanted == Precision::Fp32);
    if as_it_is || got == "fp32" {
        return Ok(());
    }
    let other = if got == "int8" { "fp32".to_owned() } else { got.clone() };
    bail!(
        "{graph} of model {:?}: expected fp32 to make {wanted} of, got {got}; build it with --precision {other}, or \
         take a model that was exported in fp32",
        subject.name
    )
}

/// What `--dry-run` prints: a line for each plan, as a shell would take it.
fn commands(subject: &Subject, args: &BuildArgs, builds: &[Build], interrupt: &Interrupt) -> Result<String> {
    let tool = match Trtexec::find(args.tool.trtexec.as_deref(), interrupt) {
        Ok(tool) => tool,
        Err(error) if args.tool.trtexec.is_none() => {
            tracing::warn!("{error:#}; these are the lines for TensorRT 10.3");
            Trtexec { path: "trtexec".into(), version: "10.3".parse()? }
        }
        Err(error) => return Err(error),
    };
    let cache = timing_cache(args, &tool, &subject.plans);
    let mut text = String::new();
    for build in builds {
        let graph = &subject.spec.graphs[&build.graph];
        let is_narrowed = subject.precision(build.graph) == "fp32" && args.precision != Precision::Fp32;
        let file = if is_narrowed {
            PathBuf::from(format!("{}-{}.onnx", build.graph, args.precision))
        } else {
            match &subject.source {
                ModelSource::Folder(folder) => folder.join(&graph.file),
                _ => graph.file.clone(),
            }
        };
        // Its machine is not known before it is built, so its name is not.
        let plan = subject.plans.join(format!("{}.plan", build.graph));
        let command = tool.build(&settings(build, args, &file, &plan, Some(&cache)));
        let _ = writeln!(text, "# {build}");
        let _ = write!(text, "{}", quoted(&command.get_program().to_string_lossy()));
        for argument in command.get_args() {
            let _ = write!(text, " {}", quoted(&argument.to_string_lossy()));
        }
        text.push('\n');
    }
    Ok(text)
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn settings<'a>(
    build: &'a Build,
    args: &BuildArgs,
    onnx: &'a Path,
    plan: &'a Path,
    timing_cache: Option<&'a Path>,
) -> BuildCommand<'a> {
    BuildCommand {
        onnx,
        plan,
        profile: build.profile.as_ref(),
        timing_cache,
        optimization_level: args.optimization_level,
        workspace_mib: args.workspace_mib,
        version_compatible: args.version_compatible,
    }
}

/// One for each version of TensorRT: it refuses those of others.
fn timing_cache(args: &BuildArgs, tool: &Trtexec, plans: &Path) -> PathBuf {
    args.timing_cache.clone().unwrap_or_else(|| {
        let folder = cache_folder().unwrap_or_else(|| plans.to_owned());
        let version = tool.version;
        folder.join(format!("timing-trt{}.{}.{}.cache", version.major, version.minor, version.patch))
    })
}

/// Everything that the plans of one call share.
struct Work<'a> {
    subject: Subject,
    args: &'a BuildArgs,
    tool: Trtexec,
    machine: Machine,
    timing_cache: PathBuf,
    interrupt: Interrupt,
    staging: Staging,
}

impl<'a> Work<'a> {
    fn new(
        subject: Subject,
        args: &'a BuildArgs,
        tool: Trtexec,
        machine: Machine,
        interrupt: Interrupt,
    ) -> Result<Self> {
        let staging = Staging::new(&subject.plans)?;
        let timing_cache = timing_cache(args, &tool, &subject.plans);
        if let Some(folder) = timing_cache.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make folder {folder:?}"))?;
        }
        Ok(Self { subject, args, tool, machine, timing_cache, interrupt, staging })
    }

    /// One plan, unless it is here.
    fn one(&self, build: &Build, label: &str) -> Result<()> {
        let mut key = self.key(build);
        if !self.args.force
            && let Some(here) = self.find(&key)?
        {
            return crate::print_stdout(&format!("{label}: {} is here\n", name_of(&here)));
        }
        tracing::info!("{label}: building");
        let started = Instant::now();
        let onnx = self.onnx(build.graph)?;
        let part = self.staging.path.join("plan");
        // What a failed one before left is not this one's.
        let _ = fs::remove_file(&part);
        let settings = settings(build, self.args, &onnx, &part, Some(&self.timing_cache));
        let mut seen = Seen::default();
        let status = run_tool(self.tool.build(&settings), &self.interrupt, |line| {
            seen.read(line);
            pass_on(line);
        });
        let status = status.with_context(|| label.to_owned())?;
        if !status.success() {
            bail!("{label}: expected trtexec to build it, got {status}: {}", seen.reason());
        }
        let plan = fs::read(&part).unwrap_or_default();
        if plan.is_empty() {
            bail!("{label}: expected trtexec to write a plan, got none: {}", seen.reason());
        }
        key.gpu = seen.machine(&self.tool).map_or(key.gpu, |machine| machine.gpu);
        key.tensorrt = built_by(&plan, key.tensorrt);
        let seconds = started.elapsed().as_secs_f64();
        let name = self.put(&part, Sidecar::new(key, self.io(build), &plan, seconds))?;
        crate::print_stdout(&format!("{label}: {name}, {} in {seconds:.1} s\n", megabytes(plan.len() as u64)))
    }

    fn io(&self, build: &Build) -> &GraphIo {
        &self.subject.spec.graphs[&build.graph].io
    }

    /// Everything but what only the finished plan knows.
    fn key(&self, build: &Build) -> PlanKey {
        let mut builder_flags = vec![format!("workspace_mib={}", self.args.workspace_mib)];
        if self.args.version_compatible {
            builder_flags.push(VERSION_COMPATIBLE.to_owned());
        }
        PlanKey {
            component: build.graph.as_str().to_owned(),
            onnx_sha256: self.subject.spec.graphs[&build.graph].sha256.clone(),
            tensorrt: self.tool.version,
            flavor: Flavor::Full,
            gpu: self.machine.gpu.clone(),
            dla_core: None,
            precision: self.args.precision,
            profiles: build.profile.iter().cloned().collect(),
            builder_flags,
            optimization_level: self.args.optimization_level,
        }
    }

    /// A plan of this key that fits this machine and has not lost its end.
    fn find(&self, key: &PlanKey) -> Result<Option<PathBuf>> {
        let here = plans_in(&self.subject.plans)?.into_iter().find(|entry| {
            entry.sidecar.as_ref().is_ok_and(|sidecar| {
                let same = PlanKey { tensorrt: key.tensorrt, ..sidecar.key.clone() };
                same.digest() == key.digest()
                    && fits(sidecar, &entry.path, &self.machine).is_ok()
                    && fs::metadata(&entry.path).is_ok_and(|file| file.len() == sidecar.plan_bytes)
            })
        });
        Ok(here.map(|entry| entry.path))
    }

    /// The graph's file in the precision asked for, made when it is first needed.
    fn onnx(&self, graph: GraphName) -> Result<PathBuf> {
        let spec = &self.subject.spec.graphs[&graph];
        // Also proves that it is the file that the manifest, and with it the plan's key, names.
        let bytes = self.subject.source.graph(spec)?;
        let source = match &self.subject.source {
            ModelSource::Folder(folder) => folder.join(&spec.file),
            _ => {
                let path = self.staging.path.join(&spec.file);
                fs::write(&path, &bytes).with_context(|| format!("cannot write {path:?}"))?;
                path
            }
        };
        if self.args.precision.to_string() == self.subject.precision(graph)
            || self.args.precision == Precision::Fp32
        {
            return Ok(source);
        }
        let target = self.staging.path.join(format!("{graph}-{}.onnx", self.args.precision));
        if !target.is_file() {
            let command = narrowing(&self.args.precision.to_string(), &source, &target)?;
            let mut last = String::new();
            let status = run_tool(command, &self.interrupt, |line| {
                pass_on(line);
                line.clone_into(&mut last);
            })?;
            if !status.success() {
                bail!("{graph}: expected it to be made {}, got {status}: {last}", self.args.precision);
            }
        }
        Ok(target)
    }

    /// Puts a plan where it is looked for, its sidecar first: no plan is ever without one.
    fn put(&self, part: &Path, sidecar: Sidecar) -> Result<String> {
        let target = self.subject.plans.join(sidecar.key.file_name());
        sidecar.write(&target)?;
        let placed =
            File::open(part).and_then(|file| file.sync_all()).and_then(|()| fs::rename(part, &target));
        if let Err(error) = placed {
            // Best effort: the error that matters is the first one.
            let _ = fs::remove_file(Sidecar::path_of(&target));
            return Err(error).with_context(|| format!("cannot put {target:?} in place"));
        }
        Ok(name_of(&target))
    }
}

/// The library's version. A tool may be older than its library, or not say which build it is; the plan says both, the
/// build in one byte.
fn built_by(plan: &[u8], tool: Version) -> Version {
    let release = |version: &Version| (version.major, version.minor, version.patch);
    plan_version(plan).filter(|plan| tool.build == 0 || release(plan) != release(&tool)).unwrap_or(tool)
}

/// Progress is the tool's own.
fn pass_on(line: &str) {
    // Nobody to tell when stderr is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A folder beside the plans, gone with this value; one process at a time has one.
pub(super) struct Staging {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Staging {
    pub(super) fn new(plans: &Path) -> Result<Self> {
        fs::create_dir_all(plans).with_context(|| format!("cannot make folder {plans:?}"))?;
        let lock = lock(plans)?;
        clear_staging(plans)?;
        let path = plans.join(format!("{STAGING}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make folder {path:?}"))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("cannot remove {:?}: {error}", self.path);
        }
    }
}

/// Keeps other processes from building into or clearing the same folder for as long as it lives.
pub(super) fn lock(plans: &Path) -> Result<File> {
    let path = plans.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot write {path:?}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "plans in {plans:?}: expected to be alone at them, got another process that builds or cleans"
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {path:?}")),
    }
}

/// What builds left that were killed. Hold the lock.
pub(super) fn staging_left(plans: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(plans).into_iter().flatten().flatten();
    let is_staging = |path: &PathBuf| name_of(path).starts_with(STAGING);
    entries.map(|entry| entry.path()).filter(is_staging).collect()
}

fn clear_staging(plans: &Path) -> Result<()> {
    for path in staging_left(plans) {
        fs::remove_dir_all(&path).with_context(|| format!("cannot clear {path:?}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_a_plan_is_kept_under() {
        let plan = b"ftrt\0\0\0\0................\x0a\x03\x00\x1a";
        for (case, plan, tool, kept) in [
            ("the tool does not say its build", &plan[..], "10.3.0", "10.3.0.26"),
            ("it does", plan, "10.3.0.300", "10.3.0.300"),
            ("a tool of another release", plan, "10.2.1.5", "10.3.0.26"),
            ("bytes laid out otherwise", b"new", "10.9.0", "10.9.0.0"),
        ] {
            assert_eq!(built_by(plan, tool.parse().unwrap()).to_string(), kept, "{case}");
        }
    }
}
