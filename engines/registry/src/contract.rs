//! `engines/GRAPHS.md` as a table: which ports a graph may have, which it must have, and of what shape.

use sightline_core::DType;
use sightline_engine_api::{Dim, EngineError, GraphIo, GraphName, Kind, ModelSpec, Port};

use Dim::{Dynamic, Fixed};

/// What a graph may take and must give.
struct Rule {
    /// Any subset of these...
    inputs: Vec<Port>,
    /// ...but at least these.
    required: Vec<&'static str>,
    /// Exactly these.
    outputs: Vec<Port>,
}

pub(crate) fn check(spec: &ModelSpec) -> Result<(), EngineError> {
    sizes(spec)?;
    let features = features(spec)?;
    constants(spec, &features)?;
    graphs_present(spec)?;
    for (name, graph) in &spec.graphs {
        if *name != GraphName::ImageEncoder {
            check_graph(*name, &graph.io, &rule(spec, *name, &features))?;
        }
    }
    pix_feat(spec, &features)
}

fn refuse(
    subject: impl std::fmt::Display,
    expected: impl std::fmt::Display,
    got: impl std::fmt::Display,
) -> EngineError {
    EngineError::new(Kind::Model, subject, expected, got)
}

fn port(name: &str, dtype: DType, dims: &[Dim]) -> Port {
    Port { name: name.to_owned(), dtype, dims: dims.to_vec() }
}

fn f32(name: &str, dims: &[usize]) -> Port {
    Port { name: name.to_owned(), dtype: DType::F32, dims: dims.iter().copied().map(Fixed).collect() }
}

fn sizes(spec: &ModelSpec) -> Result<(), EngineError> {
    for (key, mask_px, image_px) in [
        ("masks.height", spec.masks.height_px, spec.image.height_px),
        ("masks.width", spec.masks.width_px, spec.image.width_px),
    ] {
        if mask_px * 4 != image_px {
            let expected = format!("a quarter of the image's {image_px}");
            return Err(refuse(key, expected, mask_px));
        }
    }
    let prompts = &spec.prompts;
    if !(prompts.points || prompts.boxes || prompts.masks) {
        return Err(refuse("prompts", "at least one of points, box and mask", "none"));
    }
    if prompts.mask_decoder && !prompts.masks {
        return Err(refuse("prompts.mask_decoder", "false, because prompts.mask is false", true));
    }
    Ok(())
}

/// The encoder's outputs are what later graphs may take.
fn features(spec: &ModelSpec) -> Result<Vec<Port>, EngineError> {
    let name = GraphName::ImageEncoder;
    let Some(graph) = spec.graphs.get(&name) else {
        return Err(missing(name));
    };
    let image = f32("image", &[1, 3, spec.image.height_px, spec.image.width_px]);
    check_ports(name, "input", &graph.io.inputs, &[image], &["image"])?;
    for output in &graph.io.outputs {
        let subject = || format!("{name} output {:?}", output.name);
        if !output.name.starts_with("feat_") {
            return Err(interface(subject(), "a name starting with \"feat_\"", output));
        }
        if output.dtype != DType::F32 || output.fixed_shape().is_none() || output.dims.is_empty() {
            return Err(interface(subject(), "f32 with fixed sizes", output));
        }
    }
    if graph.io.output(&spec.features.top).is_none() {
        let names: Vec<_> = graph.io.outputs.iter().map(|port| port.name.as_str()).collect();
        return Err(refuse(
            "features.top",
            format_args!("an output of image_encoder ({})", names.join(", ")),
            format_args!("{:?}", spec.features.top),
        ));
    }
    Ok(graph.io.outputs.clone())
}

fn top<'a>(spec: &ModelSpec, features: &'a [Port]) -> Option<&'a Port> {
    features.iter().find(|port| port.name == spec.features.top)
}

fn constants(spec: &ModelSpec, features: &[Port]) -> Result<(), EngineError> {
    let channels =
        top(spec, features).and_then(|port| port.fixed_shape()).and_then(|dims| dims.get(1).copied());
    let pointer_channels = spec.pointers.map_or(0, |pointers| pointers.channels);
    for (key, values, expected) in [
        ("constants.no_mem_embed", &spec.no_mem_embed, channels.unwrap_or(0)),
        ("constants.no_obj_ptr", &spec.no_obj_ptr, pointer_channels),
    ] {
        if !values.is_empty() && values.len() != expected {
            let expected =
                if expected == 0 { "none".to_owned() } else { format!("none or {expected} values") };
            return Err(refuse(key, expected, format_args!("{} values", values.len())));
        }
    }
    Ok(())
}

fn missing(name: GraphName) -> EngineError {
    interface("graphs", name, "no such graph")
}

fn graphs_present(spec: &ModelSpec) -> Result<(), EngineError> {
    for name in GraphName::ALL {
        let wanted = name != GraphName::MaskDownsample || spec.prompts.mask_decoder;
        match (wanted, spec.graphs.contains_key(&name)) {
            (true, false) => return Err(missing(name)),
            (false, true) => {
                return Err(interface(
                    "graphs",
                    format_args!("no {name}, as prompts.mask_decoder is false"),
                    name,
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The graphs that may take several objects at once.
const BATCHED: [GraphName; 3] =
    [GraphName::MemoryAttention, GraphName::DecoderTrack, GraphName::MemoryEncoder];

/// `port` as the graph must have it: with an open leading size if it belongs to an object and objects are batched.
fn per_object(spec: &ModelSpec, graph: GraphName, mut port: Port) -> Port {
    if BATCHED.contains(&graph) && spec.batches_objects() {
        port.dims[0] = Dynamic;
    }
    port
}

/// Whether the objects of a run may bring a picture each: then all levels have open leading sizes.
fn brings_pictures(spec: &ModelSpec, graph: GraphName) -> bool {
    let ports = spec.graphs.get(&graph).map(|graph| graph.io.inputs.as_slice()).unwrap_or_default();
    ports.iter().any(|port| port.name.starts_with("feat_") && port.dims.first() == Some(&Dynamic))
}

fn rule(spec: &ModelSpec, name: GraphName, features: &[Port]) -> Rule {
    let memory = &spec.memory;
    let slots = memory.slots();
    let (mask_h, mask_w) = (spec.masks.height_px, spec.masks.width_px);
    let object = |port: Port| per_object(spec, name, port);
    let low_res = |name: &str| object(f32(name, &[1, 1, mask_h, mask_w]));
    // What is said of slots has a leading size only where there are several objects to say it of.
    let slot = |name: &str, dtype: DType, count: Dim| {
        let dims: &[Dim] = if spec.batches_objects() { &[Dynamic, count] } else { &[count] };
        port(name, dtype, dims)
    };
    let memories = if spec.has_open_slots() { Dynamic } else { Fixed(slots) };
    let pointer_slots = spec.pointers.map(|pointers| (memory.max_cond + pointers.recent, pointers.channels));
    // Its shape is the model's own; that both ends agree is checked apart.
    let pix_feat = || {
        let made = spec.graphs.get(&GraphName::MemoryAttention).and_then(|graph| {
            graph.io.outputs.iter().find(|port| port.name == "pix_feat").map(|port| port.dims.clone())
        });
        let mut dims = made.unwrap_or_default();
        if name == GraphName::DecoderPrompt && dims.first() == Some(&Dynamic) {
            dims[0] = Fixed(1);
        }
        Port { name: "pix_feat".to_owned(), dtype: DType::F32, dims }
    };
    let own_pictures = brings_pictures(spec, name);
    let mut inputs: Vec<Port> = features
        .iter()
        .map(|port| if own_pictures { per_object(spec, name, port.clone()) } else { port.clone() })
        .collect();
    let mut required = Vec::new();
    let mut decoder_outputs =
        vec![low_res("low_res_mask"), object(f32("iou", &[1, 1])), object(f32("object_score", &[1, 1]))];
    if let Some((_, channels)) = pointer_slots {
        decoder_outputs.push(object(f32("obj_ptr", &[1, channels])));
    }
    let outputs = match name {
        GraphName::ImageEncoder => Vec::new(),
        GraphName::MemoryAttention => {
            inputs.extend([
                object(port(
                    "mem",
                    DType::F32,
                    &[Fixed(1), memories, Fixed(memory.tokens), Fixed(memory.channels)],
                )),
                slot("tpos_idx", DType::I64, memories),
                slot("mem_mask", DType::F32, memories),
                low_res("prev_low_res_mask"),
            ]);
            if let Some((slots, channels)) = pointer_slots {
                inputs.extend([
                    object(f32("obj_ptrs", &[1, slots, channels])),
                    slot("ptr_tdiff", DType::F32, Fixed(slots)),
                    slot("ptr_mask", DType::F32, Fixed(slots)),
                ]);
            }
            required.push("mem");
            vec![pix_feat()]
        }
        GraphName::DecoderTrack => {
            inputs.extend([pix_feat(), low_res("prev_low_res_mask")]);
            required.push("pix_feat");
            decoder_outputs
        }
        GraphName::DecoderPrompt => {
            inputs.extend([
                pix_feat(),
                low_res("prev_low_res_mask"),
                port("point_coords", DType::F32, &[Fixed(1), Dynamic, Fixed(2)]),
                port("point_labels", DType::F32, &[Fixed(1), Dynamic]),
                low_res("mask_input"),
                f32("has_mask_input", &[1]),
                port("multimask", DType::I64, &[Fixed(1)]),
            ]);
            if spec.prompts.points || spec.prompts.boxes {
                required.extend(["point_coords", "point_labels"]);
            }
            if spec.prompts.mask_decoder {
                required.push("mask_input");
            }
            decoder_outputs
        }
        GraphName::MemoryEncoder => {
            let (score, binarize) = (f32("object_score", &[1, 1]), f32("binarize", &[1]));
            inputs.extend([low_res("low_res_mask"), object(score), object(binarize)]);
            required.push("low_res_mask");
            vec![object(f32("mem", &[1, memory.tokens, memory.channels]))]
        }
        GraphName::MaskDownsample => {
            inputs = vec![f32("mask", &[1, 1, spec.image.height_px, spec.image.width_px])];
            required.push("mask");
            vec![low_res("mask_prompt")]
        }
    };
    Rule { inputs, required, outputs }
}

fn check_graph(name: GraphName, io: &GraphIo, rule: &Rule) -> Result<(), EngineError> {
    check_ports(name, "input", &io.inputs, &rule.inputs, &rule.required)?;
    let required: Vec<&str> = rule.outputs.iter().map(|port| port.name.as_str()).collect();
    check_ports(name, "output", &io.outputs, &rule.outputs, &required)
}

fn check_ports(
    graph: GraphName,
    side: &str,
    declared: &[Port],
    allowed: &[Port],
    required: &[&str],
) -> Result<(), EngineError> {
    let subject = |name: &str| format!("{graph} {side} {name:?}");
    for port in declared {
        match allowed.iter().find(|other| other.name == port.name) {
            None => {
                let names: Vec<_> = allowed.iter().map(|port| port.name.as_str()).collect();
                return Err(interface(
                    subject(&port.name),
                    format_args!("one of {}", names.join(", ")),
                    port,
                ));
            }
            Some(rule) if rule != port => return Err(interface(subject(&port.name), rule, port)),
            Some(_) => {}
        }
    }
    match required.iter().find(|name| declared.iter().all(|port| port.name != **name)) {
        None => Ok(()),
        Some(name) => match allowed.iter().find(|port| port.name == **name) {
            Some(rule) => Err(interface(subject(name), rule, "none")),
            None => Err(interface(subject(name), "it", "none")),
        },
    }
}

/// `pix_feat` has any shape, but a fixed one; where the host makes it out of the top level, it has that one's.
fn pix_feat(spec: &ModelSpec, features: &[Port]) -> Result<(), EngineError> {
    let find = |graph: GraphName, side: fn(&GraphIo) -> &Vec<Port>| {
        spec.graphs.get(&graph).and_then(|graph| side(&graph.io).iter().find(|port| port.name == "pix_feat"))
    };
    if let Some(made) = find(GraphName::MemoryAttention, |io| &io.outputs) {
        let (open, sizes) = match made.dims.split_first() {
            Some((first, rest)) if spec.batches_objects() => (*first == Dynamic, rest),
            Some(_) => (true, made.dims.as_slice()),
            None => (false, made.dims.as_slice()),
        };
        if !open || sizes.contains(&Dynamic) {
            let but = if spec.batches_objects() { " but an open first" } else { "" };
            let expected = format!("f32 with fixed sizes{but}");
            return Err(interface("memory_attention output \"pix_feat\"", expected, made));
        }
    }
    match (find(GraphName::DecoderPrompt, |io| &io.inputs), top(spec, features)) {
        (Some(taken), Some(top)) if taken.dims != top.dims => Err(interface(
            "decoder_prompt input \"pix_feat\"",
            format_args!("{top}, as the top level {:?} has", top.name),
            taken,
        )),
        _ => Ok(()),
    }
}

fn interface(
    subject: impl std::fmt::Display,
    expected: impl std::fmt::Display,
    got: impl std::fmt::Display,
) -> EngineError {
    EngineError::new(Kind::Interface, subject, expected, got)
}

#[cfg(test)]
mod tests {
    use sightline_engine_fake::{FakeOptions, model};

    use super::*;

    #[test]
    fn the_fake_model_fulfils_the_contract() {
        for bits in 0..32_u32 {
            let on = |bit: u32| bits & (1 << bit) != 0;
            let options = FakeOptions {
                pointers: on(0),
                prev_mask: on(1),
                prompt_pix_feat: on(2),
                mask_decoder: on(3),
                batches: on(4),
                recent: 2,
                max_cond: 2,
                ..FakeOptions::default()
            };
            let model = model(options.clone());
            check(&model.spec).unwrap_or_else(|error| panic!("{options:?}: {error}"));
            for (name, engine) in [
                (GraphName::ImageEncoder, &model.image_encoder),
                (GraphName::MemoryAttention, &model.memory_attention),
                (GraphName::DecoderTrack, &model.decoder_track),
                (GraphName::DecoderPrompt, &model.decoder_prompt),
                (GraphName::MemoryEncoder, &model.memory_encoder),
            ] {
                assert_eq!(*engine.io(), model.spec.graphs[&name].io, "{name}");
            }
        }
    }
}
