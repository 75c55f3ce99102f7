#[cfg(feature = "onnxruntime")]
pub mod onnxruntime;
