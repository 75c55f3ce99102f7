//! Plans (serialised TensorRT engines) as files: their names, what they were built from and for, and whether they
//! may be loaded here. Needs neither TensorRT nor a GPU.
//!
//! A plan runs on the version of TensorRT and on the kind of GPU it was built for. Giving TensorRT another one costs
//! seconds and yields a null pointer and a line of log; so everything that decides is kept in a JSON file beside the
//! plan (`NAME.plan.json`) and compared first.

mod error;
mod folder;
mod key;
mod sidecar;

pub use error::{PlanError, PlanFault};
pub use folder::{PlanEntry, cache_folder, examine, fitting, model_folder, open, plans_in};
pub use key::{Flavor, Gpu, Machine, PlanKey, Precision, Profile, Range, VERSION_COMPATIBLE, Version};
pub use sidecar::{PortRow, Sidecar, sha256_hex};
