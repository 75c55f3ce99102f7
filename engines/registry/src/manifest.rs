//! `model.toml`: text in, a checked [`ModelSpec`] out.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;
use sightline_core::{DType, Filter, ImageSpec, Shape};
use sightline_engine_api::{
    Dim, EngineError, FeatureSpec, GraphIo, GraphName, GraphSpec, Kind, MaskSpec, MemorySpec, ModelSpec,
    PointerSpec, Port, PromptSpec, ViewSpec,
};

use crate::contract;

/// The one version of the format there is.
const SCHEMA: u64 = 1;
/// No size of a model is near it; it keeps products of a few sizes within a `usize`.
const MAX_SIZE: u64 = 1 << 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema: u64,
    name: String,
    family: String,
    #[serde(rename = "exporter")]
    _exporter: String,
    #[serde(rename = "opset")]
    _opset: u64,
    licence: String,
    image: Image,
    features: Features,
    masks: Masks,
    memory: Memory,
    pointers: Option<Pointers>,
    prompts: Prompts,
    view: Option<View>,
    #[serde(default)]
    constants: Constants,
    graphs: BTreeMap<String, Graph>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    height: u64,
    width: u64,
    mean: [f32; 3],
    std: [f32; 3],
    filter: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Features {
    top: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Masks {
    height: u64,
    width: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    tokens: u64,
    channels: u64,
    recent: u64,
    stride: u64,
    max_cond: u64,
    dtype: String,
    min_object_score: Option<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pointers {
    channels: u64,
    recent: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompts {
    points: bool,
    #[serde(rename = "box")]
    boxes: bool,
    mask: bool,
    mask_decoder: bool,
    pad_point: bool,
    multimask_max_points: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct View {
    margin: f32,
    min_side: f32,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Constants {
    no_mem_embed: Vec<f32>,
    no_obj_ptr: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    file: String,
    sha256: String,
    inputs: Vec<RawPort>,
    outputs: Vec<RawPort>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPort {
    name: String,
    dtype: String,
    shape: Vec<i64>,
}

/// Reads a manifest and checks every value, and every graph it declares, against the graph contract
/// (`engines/GRAPHS.md`).
///
/// # Errors
/// `Kind::Model` for text that is not a manifest or a value out of range, `Kind::Interface` for a graph that does
/// not fulfil the contract; both name the key.
pub fn parse(text: &str) -> Result<ModelSpec, EngineError> {
    let raw: Document = toml::from_str(text).map_err(|error| {
        let line =
            error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        refuse(format_args!("model.toml line {line}"), "the keys of engines/GRAPHS.md", error.message())
    })?;
    if raw.schema != SCHEMA {
        return Err(refuse("schema", SCHEMA, raw.schema));
    }
    let spec = ModelSpec {
        name: name(raw.name)?,
        family: word("family", raw.family)?,
        licence: word("licence", raw.licence)?,
        image: image(&raw.image)?,
        features: FeatureSpec { top: word("features.top", raw.features.top)? },
        masks: MaskSpec {
            height_px: size("masks.height", raw.masks.height)?,
            width_px: size("masks.width", raw.masks.width)?,
        },
        memory: memory(&raw.memory)?,
        pointers: raw.pointers.as_ref().map(pointers).transpose()?,
        prompts: PromptSpec {
            points: raw.prompts.points,
            boxes: raw.prompts.boxes,
            masks: raw.prompts.mask,
            mask_decoder: raw.prompts.mask_decoder,
            pad_point: raw.prompts.pad_point,
            multimask_max_points: raw.prompts.multimask_max_points,
        },
        view: raw.view.as_ref().map(view).transpose()?,
        no_mem_embed: finite("constants.no_mem_embed", raw.constants.no_mem_embed)?,
        no_obj_ptr: finite("constants.no_obj_ptr", raw.constants.no_obj_ptr)?,
        graphs: raw
            .graphs
            .into_iter()
            .map(|(name, raw)| graph(&name, raw))
            .collect::<Result<BTreeMap<_, _>, _>>()?,
    };
    contract::check(&spec)?;
    Ok(spec)
}

fn refuse(subject: impl Display, expected: impl Display, got: impl Display) -> EngineError {
    EngineError::new(Kind::Model, subject, expected, got)
}

fn view(raw: &View) -> Result<ViewSpec, EngineError> {
    if !(1.0..=100.0).contains(&raw.margin) {
        return Err(refuse("view.margin", "1 to 100", raw.margin));
    }
    if !(raw.min_side > 0.0 && raw.min_side <= 1.0) {
        return Err(refuse("view.min_side", "above 0, at most 1", raw.min_side));
    }
    Ok(ViewSpec { margin: raw.margin, min_side: raw.min_side })
}

fn size(key: &str, value: u64) -> Result<usize, EngineError> {
    match usize::try_from(value) {
        Ok(size) if (1..=MAX_SIZE).contains(&value) => Ok(size),
        _ => Err(refuse(key, format_args!("1 to {MAX_SIZE}"), value)),
    }
}

/// A model's name is a folder's name and a word on the command line.
fn name(name: String) -> Result<String, EngineError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(refuse(
            "name",
            "letters, digits, \".\", \"_\", \"-\" and \"+\"",
            format_args!("{name:?}"),
        ));
    }
    Ok(name)
}

fn word(key: &str, text: String) -> Result<String, EngineError> {
    if text.trim().is_empty() {
        return Err(refuse(key, "a word", format_args!("{text:?}")));
    }
    Ok(text)
}

fn finite(key: &str, values: Vec<f32>) -> Result<Vec<f32>, EngineError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(at) => Err(refuse(format_args!("{key}[{at}]"), "a finite number", values[at])),
    }
}

fn image(raw: &Image) -> Result<ImageSpec, EngineError> {
    finite("image.mean", raw.mean.to_vec())?;
    if let Some(wrong) = raw.std.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
        return Err(refuse("image.std", "finite numbers above 0", wrong));
    }
    Ok(ImageSpec {
        height_px: size("image.height", raw.height)?,
        width_px: size("image.width", raw.width)?,
        mean: raw.mean,
        std: raw.std,
        filter: match raw.filter.as_str() {
            "bicubic" => Filter::Bicubic,
            "bilinear" => Filter::Bilinear,
            other => {
                return Err(refuse("image.filter", "\"bicubic\" or \"bilinear\"", format_args!("{other:?}")));
            }
        },
    })
}

fn memory(raw: &Memory) -> Result<MemorySpec, EngineError> {
    if let Some(score) = raw.min_object_score.filter(|score| !score.is_finite()) {
        return Err(refuse("memory.min_object_score", "a finite number", score));
    }
    Ok(MemorySpec {
        tokens: size("memory.tokens", raw.tokens)?,
        channels: size("memory.channels", raw.channels)?,
        recent: size("memory.recent", raw.recent)?,
        max_cond: size("memory.max_cond", raw.max_cond)?,
        stride: size("memory.stride", raw.stride)?,
        round_to_bf16: match raw.dtype.as_str() {
            "bf16" => true,
            "f32" => false,
            other => return Err(refuse("memory.dtype", "\"bf16\" or \"f32\"", format_args!("{other:?}"))),
        },
        min_object_score: raw.min_object_score,
    })
}

fn pointers(raw: &Pointers) -> Result<PointerSpec, EngineError> {
    Ok(PointerSpec {
        channels: size("pointers.channels", raw.channels)?,
        recent: size("pointers.recent", raw.recent)?,
    })
}

fn graph(key: &str, raw: Graph) -> Result<(GraphName, GraphSpec), EngineError> {
    let Some(name) = GraphName::ALL.into_iter().find(|name| name.as_str() == key) else {
        let known = GraphName::ALL.map(GraphName::as_str).join(", ");
        return Err(refuse("graphs", format_args!("only {known}"), format_args!("{key:?}")));
    };
    // A manifest names files beside it and none anywhere else.
    let mut parts = Path::new(&raw.file).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
        return Err(refuse(
            format_args!("graphs.{key}.file"),
            "the name of a file beside model.toml",
            format_args!("{:?}", raw.file),
        ));
    }
    if raw.sha256.len() != 64 || !raw.sha256.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(refuse(
            format_args!("graphs.{key}.sha256"),
            "64 lower-case hexadecimal digits",
            format_args!("{:?}", raw.sha256),
        ));
    }
    let io =
        GraphIo { inputs: ports(key, "input", raw.inputs)?, outputs: ports(key, "output", raw.outputs)? };
    Ok((name, GraphSpec { file: PathBuf::from(raw.file), sha256: raw.sha256, io }))
}

fn ports(graph: &str, side: &str, raw: Vec<RawPort>) -> Result<Vec<Port>, EngineError> {
    let mut ports: Vec<Port> = Vec::with_capacity(raw.len());
    for port in raw {
        let subject = Subject { graph, side, port: &port.name };
        if ports.iter().any(|other| other.name == port.name) {
            return Err(refuse(subject, "each name once", "it twice"));
        }
        let dtype = match port.dtype.as_str() {
            "f32" => DType::F32,
            "i64" => DType::I64,
            other => return Err(refuse(subject, "dtype \"f32\" or \"i64\"", format_args!("{other:?}"))),
        };
        if port.shape.len() > Shape::MAX_RANK {
            return Err(refuse(
                subject,
                format_args!("at most {} dimensions", Shape::MAX_RANK),
                port.shape.len(),
            ));
        }
        let dims = port
            .shape
            .iter()
            .map(|dim| match *dim {
                -1 => Ok(Dim::Dynamic),
                dim => match u64::try_from(dim) {
                    Ok(fixed) if (1..=MAX_SIZE).contains(&fixed) => Ok(Dim::Fixed(fixed as usize)),
                    _ => Err(refuse(&subject, format_args!("dimensions of 1 to {MAX_SIZE}, or -1"), dim)),
                },
            })
            .collect::<Result<Vec<_>, _>>()?;
        ports.push(Port { name: port.name, dtype, dims });
    }
    Ok(ports)
}

struct Subject<'a> {
    graph: &'a str,
    side: &'a str,
    port: &'a str,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.graph, self.side, self.port)
    }
}
