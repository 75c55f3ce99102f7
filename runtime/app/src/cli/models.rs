//! The command line of `sightline models`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sightline models list
  sightline models pull sam2.1-tiny                       download, export, verify, install
  sightline models pull sam2.1-tiny --image-size 256 --as tiny-256
  sightline models pull edgetam --as edgetam-int8 --int8-encoder my-camera.mp4   8 bits, faster on a CPU
  sightline models pull sam2.1-tiny --from /mnt/sam2.1_hiera_tiny.pt      no network needed
  sightline run --model sam2.1-tiny --input clip.mp4 --point 640,360 --output masks.mp4

Models are kept in the first folder of SIGHTLINE_MODELS, else in ~/.local/share/sightline/models. HTTPS_PROXY,
HTTP_PROXY and NO_PROXY are followed. Exporting needs the Python packages of engines/export; running does not.")]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) command: ModelsCommand,

    /// A folder of catalogue files (configs/models), laid over those built in [env: SIGHTLINE_CATALOGUE]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) catalogue: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Say which models there are, which are installed, and how fast they are here
    List(ListArgs),
    /// Download a published checkpoint, export it, verify the result and install it
    Pull(PullArgs),
    /// Export a checkpoint that is here already, verify the result and install it
    Export(ExportArgs),
    /// Load every graph of a model, replay its parity set through the tracker, measure its speed here
    Verify(VerifyArgs),
    /// Remove an installed model
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// A name that `sightline models list` shows
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Take the checkpoint from there instead of its publisher: a file or an address
    #[arg(long, value_name = "FILE|URL")]
    pub(crate) from: Option<String>,

    /// Which of the publisher's layouts to take [default: the first one of the catalogue's entry]
    #[arg(long, value_name = "LAYOUT")]
    pub(crate) layout: Option<LayoutArg>,

    /// Keep the downloaded checkpoint once the model is installed
    #[arg(long)]
    pub(crate) keep_checkpoint: bool,

    /// How long a server may take to be reached
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = super::seconds)]
    pub(crate) connect_timeout: f64,

    /// How long a server may be silent
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = super::seconds)]
    pub(crate) stall_timeout: f64,

    #[command(flatten)]
    pub(crate) export: ExportFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutArg {
    /// The publisher's own PyTorch file
    Pt,
    /// That of the transformers package
    Safetensors,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// What the checkpoint is of: a name that `sightline models list` shows
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// The checkpoint; random:SEED makes one up, for trying things out
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: String,

    #[command(flatten)]
    pub(crate) export: ExportFlags,
}

/// What becomes of a checkpoint.
#[derive(Debug, Args)]
pub(crate) struct ExportFlags {
    /// The side of the square picture the model looks at [default: the catalogue's]
    #[arg(long, value_name = "PX")]
    pub(crate) image_size: Option<u32>,

    /// What the graphs compute in, as the exporter has it (fp32, fp16; bf16 for TensorRT alone) [default: the exporter's]
    #[arg(long, value_name = "PRECISION")]
    pub(crate) precision: Option<String>,

    /// Compute the image encoder in 8 bits, calibrated on these videos or folders of pictures: some like those that will be tracked on
    #[arg(long, value_name = "CLIP", num_args = 1..)]
    pub(crate) int8_encoder: Vec<PathBuf>,

    /// Conditioning frames that are remembered, 1 to 8 [default: the exporter's]
    #[arg(long, value_name = "N")]
    pub(crate) max_cond: Option<u32>,

    /// The name to install it under [default: NAME]
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) install_as: Option<String>,

    /// The exporter: the folder engines/export, or a program with its flags [env: SIGHTLINE_EXPORTER]
    #[arg(long, value_name = "DIR|PROGRAM")]
    pub(crate) exporter: Option<PathBuf>,

    /// The Python that has the exporter's packages [env: SIGHTLINE_PYTHON]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) python: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) verify: VerifyFlags,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// An installed model's name, or a folder with a model.toml
    #[arg(value_name = "NAME|DIR")]
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) flags: VerifyFlags,
}

/// How a model is verified.
#[derive(Debug, Args)]
pub(crate) struct VerifyFlags {
    /// The largest difference of a logit that passes; other precisions than fp32 are only reported unless it is given
    #[arg(long, value_name = "LOGITS", value_parser = tolerance)]
    pub(crate) tolerance: Option<f32>,

    /// Threads the engines use on the processor; 0 means what `sightline doctor --tune` found best, else one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// An installed model's name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

fn tolerance(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err(format!("expected a number above 0, got {text:?}")),
    }
}
