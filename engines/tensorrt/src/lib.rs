//! TensorRT 10 and 11, loaded at run time through a shim of our own.
//!
//! [`plan`] is there in every build: what a plan was built from and for, beside the plan, so that one that was built
//! for another machine is refused before TensorRT sees it.

pub mod plan;
