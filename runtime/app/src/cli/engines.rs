//! The command line of `sightline engines`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sightline_engine_registry::plan::Precision;

#[derive(Debug, Args)]
#[command(after_help = "\
A plan is a model's graph compiled by TensorRT for one GPU and one version of TensorRT, so plans are built on the
machine that runs them. They are kept in the model's folder, under engines/, each with a .json beside it that says what
it was built from and for. Building needs TensorRT's trtexec; graphs of less than 32 bits are made of the model's own by
the Python packages of engines/export.

Examples:
  sightline engines build --model sam2.1-tiny                          half precision, 1, 4 and 16 objects
  sightline engines build --model edgetam --objects 1,2,4 --slots 3,7  finer steps: faster, more files
  sightline engines build --model edgetam --component memory_attention --dry-run   the command, not run
  sightline engines list                                               what is here, and whether it fits this machine
  sightline engines verify --model edgetam                             whole, of this model, and as exact as said
  sightline engines clean --foreign                                    take away what other machines left")]
pub(crate) struct EnginesArgs {
    #[command(subcommand)]
    pub(crate) command: EnginesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnginesCommand {
    /// Compile a model's graphs into TensorRT plans for this machine
    Build(BuildArgs),
    /// Say which plans there are, what they were built for, and whether they fit this machine
    List(PlanListArgs),
    /// Check plans: whole, of this model, for this machine, and giving what ONNX Runtime gives
    Verify(PlanVerifyArgs),
    /// Remove plans that nothing can use any more
    Clean(CleanArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Sizes. Graphs with an open number of objects or memory slots are built once for each step: --objects 1,4,16 gives plans
for 1, for 2 to 4 and for 5 to 16 objects, each fastest at its largest. --exact gives plans for exactly 1, 4 and 16.
Memory attention is built for each pair of a number of objects and a number of slots. Graphs that let objects bring a
picture each, which feeds that are run together need, are built for that and for one picture.")]
pub(crate) struct BuildArgs {
    /// An installed model's name, or a folder with a model.toml
    #[arg(long, short, value_name = "NAME|DIR")]
    pub(crate) model: String,

    /// Only these graphs [default: all of them]
    #[arg(long, value_name = "GRAPH", num_args = 1.., value_delimiter = ',')]
    pub(crate) component: Vec<String>,

    /// What the graphs compute in: fp32, fp16 or bf16; softmax, normalisation and heads stay in 32 bits
    #[arg(long, value_name = "PRECISION", default_value = "fp16", value_parser = precision)]
    pub(crate) precision: Precision,

    /// Steps of the number of objects tracked at once
    #[arg(long, value_name = "N,N", default_value = "1,4,16", value_delimiter = ',')]
    pub(crate) objects: Vec<usize>,

    /// Steps of the number of memory slots in use [default: all slots, one step]
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub(crate) slots: Vec<usize>,

    /// Plans for exactly these sizes, not for those in between
    #[arg(long)]
    pub(crate) exact: bool,

    /// How long the builder searches, 0 to 5
    #[arg(long, value_name = "LEVEL", default_value_t = 4, value_parser = clap::value_parser!(u8).range(0..=5))]
    pub(crate) optimization_level: u8,

    /// GPU memory the builder may use for scratch
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub(crate) workspace_mib: u32,

    /// Plans that later versions of TensorRT take too; slower
    #[arg(long)]
    pub(crate) version_compatible: bool,

    #[command(flatten)]
    pub(crate) tool: TrtexecFlag,

    /// Where measured timings are kept from build to build [default: a file for each version of TensorRT in the cache folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) timing_cache: Option<PathBuf>,

    /// Where the plans go [default: engines/ in the model's folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Build those that are here already, too
    #[arg(long)]
    pub(crate) force: bool,

    /// Print the commands and run none of them
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The builder.
#[derive(Debug, Args)]
pub(crate) struct TrtexecFlag {
    /// TensorRT's command line tool [default: on PATH, else where its packages put it] [env: SIGHTLINE_TRTEXEC]
    #[arg(long, value_name = "PATH")]
    pub(crate) trtexec: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanListArgs {
    /// Only those of this model: an installed one's name, or a folder with a model.toml
    #[arg(long, short, value_name = "NAME|DIR")]
    pub(crate) model: Option<String>,

    #[command(flatten)]
    pub(crate) tool: TrtexecFlag,

    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is 0 when all plans passed, 1 when one did not, 3 when the files are as they should be and could not be
run here (no GPU, or no trtexec), so that their numbers were not compared.")]
pub(crate) struct PlanVerifyArgs {
    /// An installed model's name, or a folder with a model.toml
    #[arg(long, short, value_name = "NAME|DIR")]
    pub(crate) model: String,

    #[command(flatten)]
    pub(crate) tool: TrtexecFlag,

    /// The largest difference from ONNX Runtime that passes, of the root mean square of an output
    /// [default: 0.01 for fp32 (TF32), 0.02 for fp16, 0.1 for bf16]
    #[arg(long, value_name = "SHARE")]
    pub(crate) tolerance: Option<f64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without --foreign or --all these go: plans without a readable .json, of graphs that the model no longer has, with other
bytes than were written, and what interrupted builds left.")]
pub(crate) struct CleanArgs {
    /// Only those of this model [default: of all models]
    #[arg(long, short, value_name = "NAME|DIR")]
    pub(crate) model: Option<String>,

    /// Those built for another GPU or another TensorRT than this machine's, too
    #[arg(long)]
    pub(crate) foreign: bool,

    /// Every plan, and the timings of all builds
    #[arg(long, conflicts_with = "foreign")]
    pub(crate) all: bool,

    /// Say what would go and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) tool: TrtexecFlag,
}

fn precision(text: &str) -> Result<Precision, String> {
    text.parse().map_err(|_| format!("expected fp32, fp16 or bf16, got {text:?}"))
}
