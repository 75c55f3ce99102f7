use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use ort::{LoadDynamicError, environment::Environment, logging::LogLevel};
use sightline_engine_api::{EngineError, Kind};

use crate::OrtProvider;

static RUNTIME: OnceLock<OrtRuntime> = OnceLock::new();
/// The library that this process has opened, even if no environment came of it: it cannot be exchanged any more.
static OPENED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The ONNX Runtime library and its environment: one a process, kept until the process ends.
pub struct OrtRuntime {
    environment: Environment,
    path: PathBuf,
    version: String,
}

impl OrtRuntime {
    /// Opens the library, or returns the one that is open if it is the same file. Versions from 1.17 on are taken;
    /// we test with 1.31.1. Telemetry is off, and ONNX Runtime's own log goes to `tracing`.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the file is not an ONNX Runtime, is older than 1.17, or another one is open.
    pub fn load(path: &Path) -> Result<&'static Self, EngineError> {
        let subject = || format!("ONNX Runtime {:?}", path.display().to_string());
        let unavailable =
            |expected: &str, got: String| EngineError::new(Kind::Unavailable, subject(), expected, got);
        let path = fs::canonicalize(path)
            .map_err(|error| unavailable("the path of libonnxruntime.so", error.to_string()))?;
        // Held throughout: of two first calls, the second waits for the environment of the first.
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = opened.as_ref().filter(|open| **open != path) {
            return Err(unavailable(
                "the library this process has open, as there is one a process",
                format!("another one; {:?} is open", open.display().to_string()),
            ));
        }
        if let Some(runtime) = RUNTIME.get() {
            return Ok(runtime);
        }
        // Never ort's own lazy loading, which panics when the library is not there.
        let builder = ort::init_from(&path).map_err(|error| match error {
            LoadDynamicError::BadVersion { version_str, .. } => {
                unavailable("version 1.17 or later", version_str)
            }
            other => unavailable("an ONNX Runtime library", other.to_string()),
        })?;
        *opened = Some(path.clone());
        let environment = builder
            .with_name("sightline")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|error| unavailable("an environment", error.to_string()))?;
        environment.set_log_level(LogLevel::Warning);
        let version = version(&path, ort::info());
        tracing::info!(path = %path.display(), version, "onnxruntime loaded");
        Ok(RUNTIME.get_or_init(|| Self { environment, path, version }))
    }

    /// The library's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version, `1.31.1`, or `unknown` for a build that does not say.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The providers it was built with, of those this crate knows: `cpu`, `cuda`, `tensorrt`. What they need may still
    /// be missing. A build without the feature `cuda` knows of the processor alone.
    pub fn providers(&self) -> Vec<&'static str> {
        #[cfg(feature = "cuda")]
        return crate::provider::gpu::built_in();
        #[cfg(not(feature = "cuda"))]
        vec!["cpu"]
    }

    /// Refuses a provider that this build or the library does not have; what it needs may still be missing.
    ///
    /// # Errors
    /// `Kind::Unavailable`, saying what has it.
    pub fn require(&self, provider: OrtProvider) -> Result<(), EngineError> {
        crate::provider::require(self, provider)
    }

    /// Whether it is known to be `minor` of `major`, or later.
    pub(crate) fn is_at_least(&self, since: (u32, u32)) -> bool {
        at_least(&self.version, since)
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }
}

impl fmt::Debug for OrtRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrtRuntime")
            .field("path", &self.path)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(category, location, message, "onnxruntime"),
        LogLevel::Warning => tracing::warn!(category, location, message, "onnxruntime"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(category, location, message, "onnxruntime"),
    }
}

/// ort has no safe way to ask the library for its version: the file's name has it, and release builds name their
/// branch `rel-1.31.1`.
fn version(path: &Path, build_info: &str) -> String {
    let named = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("libonnxruntime.so."))
        .filter(|version| version.contains('.'));
    let built = || {
        let branch = build_info.split("git-branch=").nth(1)?.split(',').next()?;
        branch.strip_prefix("rel-").or_else(|| branch.strip_prefix('v'))
    };
    named.or_else(built).unwrap_or("unknown").to_owned()
}

fn at_least(version: &str, since: (u32, u32)) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let known = parts.next().flatten().zip(parts.next().flatten());
    known.is_some_and(|known: (u32, u32)| known >= since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        for (version, expected) in [
            ("1.31.1", true),
            ("1.27", true),
            ("2.0.0", true),
            ("1.9.0", false),
            ("1.26.4", false),
            ("unknown", false),
        ] {
            assert_eq!(at_least(version, (1, 27)), expected, "{version}");
        }
    }

    #[test]
    fn the_version_comes_from_the_name_or_the_branch() {
        for (path, info, expected) in [
            ("/lib/libonnxruntime.so.1.31.1", "", "1.31.1"),
            ("/lib/libonnxruntime.so", "ORT Build Info: git-branch=rel-1.20.0, git-commit-id=1", "1.20.0"),
            ("/lib/libonnxruntime.so.1", "ORT Build Info: git-branch=main, git-commit-id=1", "unknown"),
        ] {
            assert_eq!(version(Path::new(path), info), expected, "{path}");
        }
    }
}
