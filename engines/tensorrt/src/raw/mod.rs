//! Raw symbols: the shim's tables of functions and what is taken from TensorRT's library by name. Nothing is checked
//! here but that it is there.
#![allow(unsafe_code)]

mod library;
mod table;

pub(crate) use library::Library;
pub(crate) use table::{CreateFn, MAX_RANK, ShimDims, Table, tables};
