use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, builder::TypedValueParser as _};

use super::{LlmFlags, PromptKind};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) what: Bench,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// DAVIS at a camera's pace: how right the newest masks are at every instant, beside every frame at leisure
    Streaming(Box<StreamingArgs>),
    /// Feeds at a camera's pace: from a frame to its masks, stage by stage, and what it costs
    Latency(Box<LatencyArgs>),
}

#[derive(Debug, Args)]
#[command(after_help = "\
DIR is laid out as for `eval davis`. The first and the last picture of a sequence are left out of the measures.

Examples:
  sightline bench streaming --data DAVIS --json wall.json
  The same without a clock, from the times of that run; the same figures every time:
    sightline bench streaming --data DAVIS --clock virtual --costs wall.json --json virtual.json
  With properties of sightlinetrack:
    sightline bench streaming --data DAVIS --set history=4")]
pub(crate) struct StreamingArgs {
    /// The data set's folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// Only these [default: every folder in Annotations/480p]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) sequences: Vec<String>,

    /// An installed model's name, or a folder with a model.toml
    #[arg(long, short, value_name = "NAME|DIR", default_value = "nano")]
    pub(crate) model: String,

    /// Pictures a second
    #[arg(long, value_name = "N", default_value_t = 24.0, value_parser = super::fps)]
    pub(crate) fps: f64,

    /// What is taken from the first frame's annotation to prompt with, or words
    #[arg(long, default_value = "mask")]
    pub(crate) prompt: PromptKind,

    /// With --prompt text: a JSON file, {"sequence": ["words for its first object", ..]}
    #[arg(long, value_name = "FILE")]
    pub(crate) expressions: Option<PathBuf>,

    /// Play forward and back so many times; 0: forward, every picture once
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1000).map(usize::from))]
    pub(crate) pingpong: usize,

    /// Real time through the element, or steps of stated cost through the tracker
    #[arg(long, default_value = "wall")]
    pub(crate) clock: Clock,

    /// With --clock virtual: what steps cost, a wall run's JSON; used over and over
    #[arg(long, value_name = "FILE", conflicts_with = "cost_ms")]
    pub(crate) costs: Option<PathBuf>,

    /// With --clock virtual: what every step costs
    #[arg(long, value_name = "MS", value_parser = cost_ms)]
    pub(crate) cost_ms: Option<f64>,

    /// Leave out every frame at leisure, and with it the ratio
    #[arg(long)]
    pub(crate) no_offline: bool,

    /// Any property of sightlinetrack
    #[arg(long, value_name = "PROPERTY=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) llm: LlmFlags,

    /// A settings file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Threads the engines use on the processor; 0 means one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clock {
    /// The wall's
    Wall,
    /// Nobody waits: the same input gives the same figures
    Virtual,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The clip is decoded once into memory (its first 150 pictures, 512 MB at most) and played in a loop by every feed, the
feeds' pictures spread over a picture's time. Everything runs in this process.

Example:
  sightline bench latency --input clip.mp4 --objects 4 --feeds 4 --fps 10 --seconds 20 --json latency.json")]
pub(crate) struct LatencyArgs {
    /// A video, or "test" for a drawn one of 1280x720
    #[arg(long, short, value_name = "FILE")]
    pub(crate) input: String,

    /// An installed model's name, or a folder with a model.toml
    #[arg(long, short, value_name = "NAME|DIR", default_value = "nano")]
    pub(crate) model: String,

    /// Objects in every feed, in boxes spread over the picture where --box gives none [default: 1, or one for every --box]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64).map(usize::from))]
    pub(crate) objects: Option<usize>,

    /// A box around an object on the first picture
    #[arg(long = "box", value_name = "X0,Y0,X1,Y1", value_parser = super::box_px, allow_hyphen_values = true)]
    pub(crate) box_px: Vec<[f32; 4]>,

    /// Feeds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64).map(usize::from))]
    pub(crate) feeds: usize,

    /// How long to measure, after the warm-up
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = positive_seconds)]
    pub(crate) seconds: f64,

    /// How long to play before that; thrown away
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = super::seconds)]
    pub(crate) warmup: f64,

    /// Pictures a second of every feed [default: the file's]
    #[arg(long, value_name = "N", value_parser = super::fps)]
    pub(crate) fps: Option<f64>,

    /// Any property of sightlinetrack
    #[arg(long, value_name = "PROPERTY=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,

    /// A settings file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Threads the engines use on the processor; 0 means one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().into(), value.trim().into())),
        _ => Err(format!("expected PROPERTY=VALUE, got {text:?}")),
    }
}

fn cost_ms(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e6 => Ok(value),
        _ => Err(format!("expected more than 0 and at most 1e6 ms, got {text:?}")),
    }
}

fn positive_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.1..=86400.0).contains(&value) => Ok(value),
        _ => Err(format!("expected 0.1 to 86400 seconds, got {text:?}")),
    }
}
