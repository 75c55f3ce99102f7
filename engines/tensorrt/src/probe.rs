use std::path::PathBuf;

use sightline_engine_api::EngineError;

use crate::plan::{Flavor, Version};

/// A TensorRT that this build can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What was opened: a path, or the name under which the loader found it.
    pub path: PathBuf,
    /// The library's version.
    pub version: Version,
    /// Which library.
    pub flavor: Flavor,
}

/// Looks for TensorRT's library, opens it and asks its version; makes nothing with it. Whoever asks has looked for a
/// driver and a device before: without them TensorRT is of no use, and is not safe to go on with.
///
/// # Errors
/// `Kind::Unavailable` in a build without the feature `tensorrt`; when there is no library, with the loader's reason
/// for each place; when the one there is neither 10.3 or later nor 11, or of a major this build has no shim for.
pub fn probe() -> Result<Found, EngineError> {
    #[cfg(feature = "tensorrt")]
    return crate::TensorRt::locate().map(|library| library.found());
    #[cfg(not(feature = "tensorrt"))]
    Err(EngineError::new(
        sightline_engine_api::Kind::Unavailable,
        "TensorRT",
        "a build with it (`cargo build --release --features tensorrt` on a machine that has TensorRT's headers)",
        "one without",
    ))
}

#[cfg(all(test, not(feature = "tensorrt")))]
mod tests {
    #[test]
    fn a_build_without_it_says_how_to_get_it() {
        let text = super::probe().expect_err("not built").to_string();
        assert!(text.contains("--features tensorrt") && text.ends_with("got one without"), "{text}");
    }
}
