use std::fmt;

use cudarc::driver::DriverError;
use sightline_engine_api::EngineError;

/// What went wrong, for callers that branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No driver library could be opened.
    NoDriver,
    /// The driver speaks an older CUDA than this build.
    DriverTooOld,
    /// The driver is there and names no device that can be used.
    NoDevice,
    /// No NVRTC library that this driver's device can use.
    NoCompiler,
    /// A kernel did not compile or load.
    Kernel,
    /// Device or pinned memory is spent, or an arena is sealed.
    Memory,
    /// A tensor, a size or a stream that does not fit.
    Argument,
    /// The driver refused or failed.
    Driver,
}

/// A failure of this room: the subject, what was expected, what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: expected {expected}, got {got}")]
pub struct CudaError {
    kind: Kind,
    subject: String,
    expected: String,
    got: String,
}

impl CudaError {
    /// Builds an error from its three parts.
    pub fn new(
        kind: Kind,
        subject: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self { kind, subject: subject.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    /// The category to branch on; the wording may change.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What came.
    pub(crate) fn got(&self) -> &str {
        &self.got
    }

    /// What the driver said of a call.
    pub(crate) fn driver(call: &str, error: DriverError) -> Self {
        let kind = match error.0 {
            cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Kind::Memory,
            cudarc::driver::sys::CUresult::CUDA_ERROR_NO_DEVICE => Kind::NoDevice,
            _ => Kind::Driver,
        };
        Self::new(kind, format_args!("CUDA driver: {call}"), "success", format_args!("{:?}", error.0))
    }
}

/// Names the call when a driver's result is passed on.
pub(crate) trait During<T> {
    fn during(self, call: &str) -> Result<T, CudaError>;
}

impl<T> During<T> for Result<T, DriverError> {
    fn during(self, call: &str) -> Result<T, CudaError> {
        self.map_err(|error| CudaError::driver(call, error))
    }
}

impl From<CudaError> for EngineError {
    fn from(error: CudaError) -> Self {
        use sightline_engine_api::Kind as Api;
        let kind = match error.kind {
            Kind::NoDriver
            | Kind::DriverTooOld
            | Kind::NoDevice
            | Kind::NoCompiler
            | Kind::Kernel
            | Kind::Memory => Api::Unavailable,
            Kind::Driver => Api::Run,
            Kind::Argument => Api::Interface,
        };
        Self::new(kind, error.subject, error.expected, error.got)
    }
}
