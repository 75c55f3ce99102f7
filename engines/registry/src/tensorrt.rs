//! Models on TensorRT: the plans that lie beside a model, or in the cache, and what there is to run them.

use std::path::PathBuf;

use sightline_engine_api::EngineError;
use sightline_engine_tensorrt::plan::{self, Gpu, Machine};

use crate::files::{ModelSource, installed};

/// Where the plans of a model may be: `engines` in its folder, then the cache, where those of the embedded model are.
pub(crate) fn folders(source: &ModelSource) -> Vec<PathBuf> {
    let beside = match source {
        ModelSource::Folder(folder) => Some(plan::model_folder(folder)),
        ModelSource::Embedded | ModelSource::Fake => None,
    };
    beside.into_iter().chain(plan::cache_folder()).collect()
}

/// TensorRT's library where the registry itself would find it, for `doctor`: `10.3.0.26 (full) at /usr/lib/...`.
///
/// # Errors
/// `Kind::Unavailable`: not built in, no library with the reason for each place, or one of another version.
pub fn probe_tensorrt() -> Result<String, EngineError> {
    let found = sightline_engine_tensorrt::probe()?;
    Ok(format!("{} ({}) at {}", found.version, found.flavor, found.path.display()))
}

/// All plans of installed models, each with what is wrong with it on this machine, for `doctor`. Reads every plan.
///
/// # Errors
/// `Kind::Unavailable` when there is no TensorRT or no GPU to compare them with, `Kind::Model` for a folder that cannot
/// be listed.
pub fn examine_plans(ordinal: u32) -> Result<Vec<(PathBuf, Option<plan::PlanError>)>, EngineError> {
    let gpu = gpu(ordinal)?;
    let found = sightline_engine_tensorrt::probe()?;
    let machine = Machine { tensorrt: found.version, flavor: found.flavor, gpu };
    let mut places: Vec<_> = installed().iter().flat_map(|entry| folders(&entry.source)).collect();
    places.sort();
    places.dedup();
    let mut examined = Vec::new();
    for place in places {
        examined.extend(plan::examine(&place, &machine)?);
    }
    Ok(examined)
}

/// The GPU of a number, as plans know it; it is not opened.
#[cfg(feature = "cuda")]
fn gpu(ordinal: u32) -> Result<Gpu, EngineError> {
    let devices = sightline_engine_cuda::probe()?.devices;
    let there = devices.len();
    let device = devices.into_iter().find(|device| device.ordinal == ordinal).ok_or_else(|| {
        let subject = format!("device cuda:{ordinal}");
        EngineError::new(
            sightline_engine_api::Kind::Unavailable,
            subject,
            "one of the GPUs",
            format_args!("{there} there"),
        )
    })?;
    let (major, minor) = device.capability;
    Ok(Gpu { sm: 10 * major + minor, name: device.name, multiprocessors: device.multiprocessors })
}

#[cfg(not(feature = "cuda"))]
fn gpu(ordinal: u32) -> Result<Gpu, EngineError> {
    let subject = format!("device cuda:{ordinal}");
    let expected = "a build with the feature `cuda`";
    Err(EngineError::new(sightline_engine_api::Kind::Unavailable, subject, expected, "one without"))
}

#[cfg(feature = "tensorrt")]
pub(crate) use backend::Plans;
#[cfg(not(feature = "tensorrt"))]
pub(crate) use stub::Plans;

#[cfg(feature = "tensorrt")]
mod backend {
    use std::sync::Arc;

    use sightline_engine_api::{DeviceOps, Engine, GraphName, GraphSpec};
    use sightline_engine_tensorrt::{DeviceAccess, Runtime, TensorRt, TensorRtEngine};

    use super::{EngineError, Gpu, ModelSource, PathBuf, folders, gpu};

    /// Each graph runs on one stream only, where its runs are one after the other.
    const CONTEXTS: usize = 1;

    /// TensorRT on a device, and where a model's plans may be.
    pub(crate) struct Plans {
        runtime: Runtime,
        gpu: Gpu,
        folders: Vec<PathBuf>,
        device: Arc<dyn DeviceOps>,
    }

    impl Plans {
        /// Driver and device first: without them TensorRT is not safe to touch.
        pub(crate) fn open(source: &ModelSource, ordinal: u32) -> Result<Self, EngineError> {
            let gpu = gpu(ordinal)?;
            let access = access(ordinal)?;
            let device = Arc::clone(&access.ops);
            let runtime = Runtime::new(&TensorRt::locate()?, access)?;
            Ok(Self { runtime, gpu, folders: folders(source), device })
        }

        pub(crate) fn device(&self) -> Arc<dyn DeviceOps> {
            Arc::clone(&self.device)
        }

        pub(crate) fn engine(
            &self,
            name: GraphName,
            graph: &GraphSpec,
        ) -> Result<Box<dyn Engine>, EngineError> {
            let Self { runtime, gpu, folders, .. } = self;
            Ok(Box::new(TensorRtEngine::find(runtime, gpu, folders, name, graph, CONTEXTS)?))
        }
    }

    /// The device, lent to TensorRT.
    fn access(ordinal: u32) -> Result<DeviceAccess, EngineError> {
        let device = crate::gpu::device(ordinal)?;
        let ops = Arc::clone(&device) as Arc<dyn DeviceOps>;
        Ok(DeviceAccess { ops, enter: Arc::new(move |stream| Ok(device.enter(stream)?)) })
    }
}

#[cfg(not(feature = "tensorrt"))]
mod stub {
    use std::sync::Arc;

    use sightline_engine_api::{DeviceOps, Engine, GraphName, GraphSpec, Kind};

    use super::{EngineError, ModelSource};

    /// Nothing, ever: this build has no TensorRT.
    pub(crate) enum Plans {}

    impl Plans {
        pub(crate) fn open(_: &ModelSource, _: u32) -> Result<Self, EngineError> {
            let found = sightline_engine_tensorrt::probe()?;
            let expected = "a build with the feature `tensorrt`";
            Err(EngineError::new(Kind::Unavailable, "TensorRT", expected, found.version))
        }

        pub(crate) fn device(&self) -> Arc<dyn DeviceOps> {
            match *self {}
        }

        pub(crate) fn engine(&self, _: GraphName, _: &GraphSpec) -> Result<Box<dyn Engine>, EngineError> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_lie_beside_the_model_then_in_the_cache() {
        let of = |source| folders(&source);
        let beside = of(ModelSource::Folder("/models/x".into()));
        assert_eq!(beside.first(), Some(&PathBuf::from("/models/x/engines")));
        assert_eq!(beside[1..], of(ModelSource::Embedded), "whose plans have no folder of its own");
    }
}
