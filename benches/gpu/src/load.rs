use std::num::NonZeroUsize;

use anyhow::Result;
use clap::Args;
use sightline_engine_api::{EngineError, Model};
use sightline_engine_registry::{GpuLoad, LoadOptions, Provider, Turn, load, shared};

/// A model and what runs it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// A folder with a model.toml, or a built-in model
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// onnxruntime-cuda[:N], onnxruntime-tensorrt[:N], onnxruntime-cpu
    #[arg(long, default_value = "onnxruntime-cuda")]
    pub(crate) provider: Provider,
    /// Of the processor; 0: as many as were measured to be best, or as there are
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Objects of different feeds in one run at most; 1: never, 0: 4 on a GPU, 1 on the processor
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) feeds_together: usize,
    /// Products in TensorFloat-32
    #[arg(long)]
    pub(crate) tf32: bool,
    /// Capture graphs without open sizes as CUDA graphs
    #[arg(long)]
    pub(crate) cuda_graphs: bool,
    /// Any option of the provider, by ONNX Runtime's name for it
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) options: Vec<(String, String)>,
}

impl ModelArgs {
    pub(crate) fn options(&self, provider: Provider) -> LoadOptions {
        LoadOptions {
            provider,
            threads: NonZeroUsize::new(self.threads),
            batch: NonZeroUsize::new(self.feeds_together),
            gpu: GpuLoad {
                tf32: self.tf32,
                cuda_graphs: self.cuda_graphs,
                extra: self.options.clone(),
                ..GpuLoad::default()
            },
            ..LoadOptions::default()
        }
    }

    pub(crate) fn load(&self) -> Result<Model, EngineError> {
        load(&self.model, &self.options(self.provider))
    }

    /// One of several on the same engines.
    pub(crate) fn share(&self) -> Result<(Model, Turn), EngineError> {
        shared("gpu-bench", &self.model, &self.options(self.provider))
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("expected NAME=VALUE, got {text:?}")),
    }
}

/// `1280x720`.
pub(crate) fn size(text: &str) -> Result<(u32, u32), String> {
    let side = |text: &str| text.parse().ok().filter(|side| (16..=8192).contains(side));
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| format!("expected WIDTHxHEIGHT, 16 to 8192 each, got {text:?}"))
}
