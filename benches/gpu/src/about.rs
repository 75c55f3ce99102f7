use serde::Serialize;
use sightline_engine_registry::{locate_onnxruntime, onnxruntime_providers};

/// What this machine has.
#[derive(Debug, Serialize)]
pub(crate) struct About {
    version: &'static str,
    build: &'static str,
    onnxruntime: String,
    providers: Vec<&'static str>,
    /// The driver and its devices, or why there are none.
    cuda: String,
    /// Whether there is a device to measure.
    gpu: bool,
}

pub(crate) fn run() -> About {
    let library = locate_onnxruntime();
    let providers = library.as_deref().ok().and_then(|path| onnxruntime_providers(path).ok());
    let (cuda, gpu) = match sightline_engine_cuda::probe() {
        Ok(found) => (found.to_string(), true),
        Err(error) => (error.to_string(), false),
    };
    About {
        version: env!("CARGO_PKG_VERSION"),
        build: if cfg!(debug_assertions) { "debug" } else { "release" },
        // Not the way to it: a report says nothing of somebody's folders.
        onnxruntime: library.map_or_else(
            |error| error.to_string(),
            |path| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        ),
        providers: providers.unwrap_or_default(),
        cuda,
        gpu,
    }
}
