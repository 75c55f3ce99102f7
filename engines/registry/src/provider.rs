use std::{fmt, str::FromStr};

use sightline_engine_api::{EngineError, Kind};

/// What shall run a model's graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Provider {
    /// The best that this build and this machine have; today always [`Provider::OnnxRuntimeCpu`].
    #[default]
    Auto,
    /// ONNX Runtime on the processor: `onnxruntime-cpu`.
    OnnxRuntimeCpu,
    /// ONNX Runtime on an NVIDIA GPU: `onnxruntime-cuda`, `onnxruntime-cuda:1`. An error where it is not there.
    OnnxRuntimeCuda {
        /// The driver's number for it.
        ordinal: u32,
    },
    /// ONNX Runtime on an NVIDIA GPU, by TensorRT where it can: `onnxruntime-tensorrt[:ORDINAL]`. An error where it is
    /// not there.
    OnnxRuntimeTensorRt {
        /// The driver's number for it.
        ordinal: u32,
    },
    /// TensorRT with plans that were built here: `tensorrt`, `tensorrt:1`. An error where it is not there.
    TensorRt {
        /// The driver's number for it.
        ordinal: u32,
    },
}

const CUDA: &str = "onnxruntime-cuda";
const ORT_TENSORRT: &str = "onnxruntime-tensorrt";
const TENSORRT: &str = "tensorrt";

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::OnnxRuntimeCpu => f.write_str("onnxruntime-cpu"),
            Self::OnnxRuntimeCuda { ordinal } => write!(f, "{CUDA}:{ordinal}"),
            Self::OnnxRuntimeTensorRt { ordinal } => write!(f, "{ORT_TENSORRT}:{ordinal}"),
            Self::TensorRt { ordinal } => write!(f, "{TENSORRT}:{ordinal}"),
        }
    }
}

impl FromStr for Provider {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        let (name, ordinal) = match text.split_once(':') {
            None => (text, Some(0)),
            Some((name, number)) => (name, number.parse().ok()),
        };
        match (text, name, ordinal) {
            ("auto", ..) => Ok(Self::Auto),
            ("onnxruntime-cpu", ..) => Ok(Self::OnnxRuntimeCpu),
            (_, CUDA, Some(ordinal)) => Ok(Self::OnnxRuntimeCuda { ordinal }),
            (_, ORT_TENSORRT, Some(ordinal)) => Ok(Self::OnnxRuntimeTensorRt { ordinal }),
            (_, TENSORRT, Some(ordinal)) => Ok(Self::TensorRt { ordinal }),
            _ => Err(EngineError::new(
                Kind::Unavailable,
                "provider",
                "auto, onnxruntime-cpu, onnxruntime-cuda[:ORDINAL], onnxruntime-tensorrt[:ORDINAL] or tensorrt[:ORDINAL]",
                format_args!("{text:?}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_provider_reads_back() {
        for provider in [
            Provider::Auto,
            Provider::OnnxRuntimeCpu,
            Provider::OnnxRuntimeCuda { ordinal: 3 },
            Provider::TensorRt { ordinal: 1 },
            Provider::OnnxRuntimeTensorRt { ordinal: 1 },
        ] {
            assert_eq!(provider.to_string().parse::<Provider>().unwrap(), provider);
        }
        assert_eq!("onnxruntime-cuda".parse::<Provider>().unwrap(), Provider::OnnxRuntimeCuda { ordinal: 0 });
        for wrong in [
            "",
            "gpu",
            "onnxruntime",
            "tensorrt:",
            "tensorrt:x",
            "tensorrt1",
            "onnxruntime-cpu:0",
            "onnxruntime-cuda:",
            "onnxruntime-cuda1",
            "onnxruntime-cuda:-1",
        ] {
            assert!(wrong.parse::<Provider>().is_err(), "{wrong:?}");
        }
    }
}
