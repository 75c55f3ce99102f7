//! What an engine is: a static graph with named, typed, shaped inputs and outputs, and what a model is: the
//! handful of engines that [the graph contract](../../GRAPHS.md) names.
//!
//! Backends implement [`Engine`]; the tracker drives a [`Model`]. Neither knows the other.
#![forbid(unsafe_code)]

mod device;
mod engine;
mod error;
mod masks;
mod model;
mod ops;
mod picture;

pub use device::{Device, DeviceBuffer, DeviceTensor, Event, Pending, Stream, TensorMut, TensorRef};
pub use engine::{Dim, Engine, GraphIo, Port, check_bindings};
pub use error::{EngineError, Kind};
pub use masks::{DeviceMasks, MaskHead, MaskRoom};
pub use model::{
    FeatureSpec, GraphName, GraphSpec, MaskSpec, MemorySpec, Model, ModelSpec, PointerSpec, PromptSpec,
    ViewSpec,
};
pub use ops::{DeviceMark, DeviceOps};
pub use picture::{DevicePicture, DevicePlane, PictureRef, PictureSource};
