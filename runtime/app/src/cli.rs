//! The command line: what can be asked for, and the help that teaches it.

mod bench;
mod engines;
mod models;
mod query;
mod serve;

use std::path::PathBuf;

use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::TypedValueParser as _,
};

pub(crate) use self::bench::{Bench, BenchArgs, Clock, LatencyArgs, StreamingArgs};
pub(crate) use self::engines::{
    BuildArgs, CleanArgs, EnginesArgs, EnginesCommand, PlanListArgs, PlanVerifyArgs,
};
pub(crate) use self::models::{
    ExportArgs, ExportFlags, LayoutArg, ListArgs, ModelsArgs, ModelsCommand, PullArgs, VerifyArgs,
    VerifyFlags,
};
pub(crate) use self::query::{LateArg, LlmFlags, QueryFlags};
pub(crate) use self::serve::{Form, ServeArgs};

/// Say what to watch; it finds it in the live picture and keeps a mask on it.
#[derive(Debug, Parser)]
#[command(
    name = "sightline",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  sightline doctor                                   is everything installed?
  sightline run --input clip.mp4 --box 300,180,420,360 --output out.mp4
  sightline run --input /dev/video0 --point 320,240 --display
  sightline run --help                               more of them

Logs go to stderr; SIGHTLINE_LOG=debug shows more of them."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Track objects in a file or a live picture, and write video, masks and pictures of it
    Run(Box<RunArgs>),
    /// Track in many feeds at once, for ever, with metrics and health over HTTP
    Serve(ServeArgs),
    /// Measure a model against annotated video
    Eval(EvalArgs),
    /// Measure accuracy and latency at a camera's pace
    Bench(BenchArgs),
    /// Write a model's raw outputs on a folder of frames into one .npz file
    Trace(TraceArgs),
    /// List, download, export, verify and remove models
    Models(ModelsArgs),
    /// Build, list, verify and remove TensorRT plans of a model's graphs
    Engines(EnginesArgs),
    /// Say what is installed, what is missing, and what to type
    Doctor(DoctorArgs),
}

#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("prompt").args(["box_px", "point_px", "mask", "query", "ask", "watch", "caption_every"]).multiple(true).required(true),
    after_help = "\
Every --box, --point and --mask is an object of its own; they get the ids 1, 2, ... in the order given.
Coordinates are pixels of the upright picture, 0,0 is its top left corner.

Examples:
  Follow what is in the box and write the video with the mask drawn on it:
    sightline run --input clip.mp4 --box 300,180,420,360 --output out.mp4
  Two objects, one line of JSON a frame, and one picture that shows how it went:
    sightline run --input clip.mp4 --box 300,180,420,360 --point 700,420 \\
                  --jsonl out.jsonl --contact-sheet sheet.png
  In words, with a language model's server; how it is asked stands in configs/default.toml under [llm]:
    sightline run --input /dev/video0 --query \"the red car on the left\" --display \\
                  --llm http://127.0.0.1:8000/v1 --llm-model qwen2.5-vl-7b
  The object appears four seconds into the film:
    sightline run --input clip.mp4 --box 300,180,420,360 --at 4 --output out.mp4
  A webcam, in a window, until Ctrl-C; the recording is finished properly:
    sightline run --input /dev/video0 --point 320,240 --display --output out.mp4
  A network camera for one minute:
    sightline run --input rtsp://camera.local/stream --box 10,10,200,150 --max-seconds 60 --jsonl out.jsonl
  No camera and no film at hand, a bouncing ball instead:
    sightline run --input test --point 160,120 --output ball.mp4 --max-seconds 5"
)]
pub(crate) struct RunArgs {
    /// Where the pictures come from: a file, rtsp://..., http://..., /dev/videoN, or "test"
    #[arg(long, short, value_name = "INPUT")]
    pub(crate) input: String,

    /// An installed model's name, or a folder with a model.toml [default: nano]
    #[arg(long, short, value_name = "NAME|DIR")]
    pub(crate) model: Option<String>,

    /// A box around an object
    #[arg(long = "box", value_name = "X0,Y0,X1,Y1", value_parser = box_px, allow_hyphen_values = true)]
    pub(crate) box_px: Vec<[f32; 4]>,

    /// A point on an object
    #[arg(long = "point", value_name = "X,Y", value_parser = point_px, allow_hyphen_values = true)]
    pub(crate) point_px: Vec<[f32; 2]>,

    /// An object's pixels: a PNG as large as the picture, 0 (black) everywhere else
    #[arg(long, value_name = "FILE")]
    pub(crate) mask: Vec<PathBuf>,

    /// When the prompts are meant, in seconds from the start
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) at: f64,

    /// Whether frames may be passed over [default: every-frame for files, live for cameras]
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<Mode>,

    /// Write the video with masks drawn on it (.mp4 or .mkv)
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Write one line of JSON a frame
    #[arg(long, value_name = "FILE")]
    pub(crate) jsonl: Option<PathBuf>,

    /// Write one PNG with a dozen annotated frames
    #[arg(long, value_name = "FILE")]
    pub(crate) contact_sheet: Option<PathBuf>,

    /// Show the picture in a window
    #[arg(long)]
    pub(crate) display: bool,

    /// Threads the engines use on the processor; 0 means what `sightline doctor --tune` found best, else one for each core
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,

    /// Stop after so many seconds of video
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) max_seconds: Option<f64>,

    #[command(flatten)]
    pub(crate) queries: QueryFlags,

    #[command(flatten)]
    pub(crate) llm: LlmFlags,

    #[command(flatten)]
    pub(crate) clean_up: CleanUpFlags,

    /// A settings file; configs/default.toml lists every key
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The prompts in the order they were given; filled from where they stood on the command line
    #[arg(skip)]
    pub(crate) prompts: Vec<PromptArg>,
}

/// What is tidied in masks.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct CleanUpFlags {
    /// Fill holes of at most so many pixels of the model's low-res mask; 0 for none, 8 as the published predictor [default: 0]
    #[arg(long, value_name = "PX")]
    pub(crate) fill_hole_area: Option<usize>,

    /// Remove specks of at most so many pixels of the model's low-res mask; 0 for none [default: 0]
    #[arg(long, value_name = "PX")]
    pub(crate) sprinkle_area: Option<usize>,
}

/// One `--box`, `--point` or `--mask`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PromptArg {
    Box([f32; 4]),
    Point([f32; 2]),
    Mask(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// The newest frame is looked at; frames in between carry the last masks on
    Live,
    /// Every frame is looked at; the input waits
    EveryFrame,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) dataset: Dataset,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dataset {
    /// DAVIS: region similarity J, contour accuracy F and their mean, in percent
    Davis(DavisArgs),
    /// The built-in grounder: objects among the proposals, and phrases that find their own
    Grounder(GrounderArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
DIR is laid out as for `eval davis`. FILE holds phrases by sequence; an object is named as there (1 in a grey annotation):
  {\"dog\": [{\"expression\": \"the brown thing\", \"object\": 1, \"frame\": 0}]}

Example:
  sightline eval grounder --data DAVIS --expressions tests/scenes/expressions.json")]
pub(crate) struct GrounderArgs {
    /// The data set's folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// The phrases, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) expressions: PathBuf,

    /// Only these [default: every folder in Annotations/480p]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) sequences: Vec<String>,

    /// An installed model's name, or a folder with a model.toml
    #[arg(long, short, value_name = "NAME|DIR", default_value = "nano")]
    pub(crate) model: String,

    /// Look for the objects on every so many frames, beside those with phrases
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub(crate) every: usize,

    /// Frames (24 a second) from the picture asked about to the one that motion is judged by; 0 for none
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) apart: usize,

    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Threads the engines use on the processor; 0 means what `sightline doctor --tune` found best, else one for each core
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threads: usize,
}

#[derive(Debug, Args)]
#[command(after_help = "\
DIR holds JPEGImages/480p/<sequence>/NNNNN.jpg and Annotations/480p/<sequence>/NNNNN.png. Grey annotations (0 and
one other value) are one object; palette annotations are one object for every entry that the first frame shows.
The first and the last frame are left out of the measures, as the benchmark does.

Example:
  sightline eval davis --data DAVIS --sequences blackswan,dog --model nano --prompt mask --json result.json")]
pub(crate) struct DavisArgs {
    /// The data set's folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// Only these [default: every folder in Annotations/480p]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) sequences: Vec<String>,

    /// An installed model's name, or a folder with a model.toml
    #[arg(long, short, value_name = "NAME|DIR", default_value = "nano")]
    pub(crate) model: String,

    /// What is taken from the first frame's annotation to prompt with
    #[arg(long, default_value = "mask")]
    pub(crate) prompt: PromptKind,

    #[command(flatten)]
    pub(crate) clean_up: CleanUpFlags,

    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Threads the engines use on the processor; 0 means what `sightline doctor --tune` found best, else one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PromptKind {
    /// The mask itself
    Mask,
    /// The tight box around it
    Box,
    /// The pixel deepest inside it
    Point,
    /// Words, with --expressions; of `bench streaming` only
    Text,
}

#[derive(Debug, Args)]
#[command(after_help = "\
PROMPTS is a JSON list; frames count from 0, coordinates are pixels of the frame:
  [{\"frame\": 0, \"object\": 1, \"box\": [300, 180, 420, 360]},
   {\"frame\": 0, \"object\": 2, \"mask\": \"m.png\"},
   {\"frame\": 4, \"object\": 1, \"points\": [[350, 200], [10, 10]], \"labels\": [1, 0]}]
A box, a mask, or an object's first prompt makes its frame a conditioning frame before it is tracked; points for an
object that has a prompt on an earlier frame correct that frame after it was tracked. \"correct\": true or false says
so outright. Mask files are looked for beside PROMPTS.

FILE.npz then holds, for every frame and object, logits_<frame>_<object> [h,w], score_<frame>_<object> [1] (the object
score logit) and iou_<frame>_<object> [1], all f32:
  python3 -c 'import numpy; print(numpy.load(\"out.npz\")[\"logits_0_1\"].shape)'")]
pub(crate) struct TraceArgs {
    /// An installed model's name, or a folder with a model.toml
    #[arg(long, short, value_name = "NAME|DIR")]
    pub(crate) model: String,

    /// A folder of .png and .jpg pictures, in the order of their names
    #[arg(long, value_name = "DIR")]
    pub(crate) frames: PathBuf,

    /// The prompts, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: PathBuf,

    /// Where to write
    #[arg(long, value_name = "FILE.npz")]
    pub(crate) out: PathBuf,

    /// Frames the tracker keeps the features of
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) history: usize,

    /// Threads the engines use on the processor; 0 means what `sightline doctor --tune` found best, else one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Measure how many threads, and encoding a frame ahead or not, keep a model's masks freshest here, and remember it
    #[arg(long)]
    pub(crate) tune: bool,

    #[command(flatten)]
    pub(crate) tuning: TuneFlags,
}

#[derive(Debug, Args)]
pub(crate) struct TuneFlags {
    /// With --tune: an installed model's name, or a folder with a model.toml
    #[arg(long, short, value_name = "NAME|DIR", default_value = "nano", requires = "tune")]
    pub(crate) model: String,

    /// With --tune: how long to measure, about; slow models take longer
    #[arg(long, value_name = "S", default_value = "25", value_parser = seconds, requires = "tune")]
    pub(crate) seconds: f64,
}

impl Cli {
    /// Reads the command line, or leaves with a message and code 2.
    pub(crate) fn read() -> Self {
        Self::try_read_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn try_read_from(
        arguments: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let (Command::Run(run), Some(("run", given))) = (&mut cli.command, matches.subcommand()) {
            run.prompts = prompts_in_order(run, given);
        }
        Ok(cli)
    }
}

/// Clap keeps a list per flag; ids follow the order across flags.
fn prompts_in_order(run: &RunArgs, matches: &ArgMatches) -> Vec<PromptArg> {
    let places = |name: &str| matches.indices_of(name).into_iter().flatten();
    let mut prompts: Vec<(usize, PromptArg)> = Vec::new();
    prompts.extend(places("box_px").zip(run.box_px.iter().map(|value| PromptArg::Box(*value))));
    prompts.extend(places("point_px").zip(run.point_px.iter().map(|value| PromptArg::Point(*value))));
    prompts.extend(places("mask").zip(run.mask.iter().map(|value| PromptArg::Mask(value.clone()))));
    prompts.sort_by_key(|(place, _)| *place);
    prompts.into_iter().map(|(_, prompt)| prompt).collect()
}

fn numbers<const N: usize>(text: &str, form: &str) -> Result<[f32; N], String> {
    let parsed: Result<Vec<f32>, _> = text.split(',').map(|part| part.trim().parse::<f32>()).collect();
    parsed
        .ok()
        .filter(|values| values.iter().all(|value| value.is_finite()))
        .and_then(|values| values.try_into().ok())
        .ok_or_else(|| format!("expected {N} numbers {form}, got {text:?}"))
}

fn box_px(text: &str) -> Result<[f32; 4], String> {
    let [x0, y0, x1, y1] = numbers(text, "X0,Y0,X1,Y1")?;
    if x0 >= x1 || y0 >= y1 {
        return Err(format!("expected X0 < X1 and Y0 < Y1, got {text:?}"));
    }
    Ok([x0, y0, x1, y1])
}

fn point_px(text: &str) -> Result<[f32; 2], String> {
    numbers(text, "X,Y")
}

fn fps(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.1..=1000.0).contains(&value) => Ok(value),
        _ => Err(format!("expected 0.1 to 1000 pictures a second, got {text:?}")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e9).contains(&value) => Ok(value),
        _ => Err(format!("expected a number of seconds, 0 or more, got {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_read_from(std::iter::once("sightline").chain(arguments.iter().copied()))
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn prompts_keep_their_order_across_flags() {
        let line =
            ["run", "--input", "a", "--point", "1,2", "--box", "1,2,3,4", "--mask", "m", "--point=5,6"];
        let Command::Run(run) = read(&line).unwrap().command else { panic!("run") };
        let mask = PromptArg::Mask("m".into());
        let expected = [
            PromptArg::Point([1.0, 2.0]),
            PromptArg::Box([1.0, 2.0, 3.0, 4.0]),
            mask,
            PromptArg::Point([5.0, 6.0]),
        ];
        assert_eq!(run.prompts, expected);
    }

    #[test]
    fn malformed_values_are_usage_errors() {
        for (case, flag, value, part) in [
            ("three numbers", "--box", "1,2,3", "expected 4 numbers X0,Y0,X1,Y1"),
            ("words", "--box", "a,b,c,d", "expected 4 numbers"),
            ("unordered", "--box", "3,2,1,4", "X0 < X1"),
            ("not finite", "--point", "NaN,1", "expected 2 numbers X,Y"),
            ("negative time", "--max-seconds", "-1", "0 or more"),
            ("mode", "--mode", "fast", "every-frame"),
        ] {
            let error =
                read(&["run", "--input", "a", "--point=1,1", &format!("{flag}={value}")]).expect_err(case);
            assert_eq!(error.exit_code(), 2, "{case}");
            assert!(error.to_string().contains(part), "{case}: {error}");
        }
        for incomplete in [&["run", "--point", "1,1"][..], &["run", "--input", "a"], &["eval"], &[]] {
            assert_eq!(read(incomplete).expect_err("incomplete").exit_code(), 2, "{incomplete:?}");
        }
    }
}
