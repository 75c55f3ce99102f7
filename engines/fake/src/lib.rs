//! Engines without a runtime: [`model`] follows a colour through all the graphs of the contract, [`FnEngine`] is
//! one graph made of a closure. Both are deterministic, and a [`FakeHandle`] counts, fails and holds their runs.
//! [`FakeDevice`] is a device in host memory that runs them in the worst order it is allowed.
#![forbid(unsafe_code)]

mod anywhere;
mod arithmetic;
mod device;
mod device_engine;
mod fn_engine;
mod handle;
mod masks;
mod model;

pub use anywhere::on_device;
pub use device::{DeviceCounts, FakeDevice, Schedule};
pub use fn_engine::FnEngine;
pub use handle::{FakeHandle, Fault, Recorded};
pub use model::{FakeOptions, SIDE_PX, model};
