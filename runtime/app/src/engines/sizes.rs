//! For which sizes a graph is built: one plan for each step of what its manifest leaves open.

use std::fmt;

use anyhow::{Result, bail};
use sightline_engine_api::{Dim, GraphName, GraphSpec, Port};
use sightline_engine_registry::plan::{Profile, Range};

/// More would not fit any device with a model of ours.
const MAX_OBJECTS: usize = 64;
/// A box and its padding point; a prompt of more than a few dozen points is no prompt.
const POINTS: Span = Span { min: 1, opt: 3, max: 32 };

/// Sizes that one plan takes, and the one that it is fastest for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) min: usize,
    pub(super) opt: usize,
    pub(super) max: usize,
}

/// Steps of the open sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Steps {
    objects: Vec<Span>,
    slots: Vec<Span>,
}

/// One plan to build: a graph and what it is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Build {
    pub(super) graph: GraphName,
    objects: Option<Span>,
    /// None where there is nothing to choose: an object has one.
    pictures: Option<Pictures>,
    slots: Option<Span>,
    /// None for a graph without open sizes.
    pub(super) profile: Option<Profile>,
}

/// On what several objects are looked at: those of one frame, or of several feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pictures {
    One,
    Each,
}

/// What an open size counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Objects,
    Pictures,
    Slots,
    Points,
}

impl Steps {
    /// `objects` and `slots` in any order; no slots are one step with all `most_slots`. `exact`: only these sizes.
    pub(super) fn new(objects: &[usize], slots: &[usize], most_slots: usize, exact: bool) -> Result<Self> {
        let slots = if slots.is_empty() { &[most_slots][..] } else { slots };
        Ok(Self {
            objects: steps("objects", objects, MAX_OBJECTS, exact)?,
            slots: steps("slots", slots, most_slots, exact)?,
        })
    }

    /// The plans of one graph.
    pub(super) fn of(&self, graph: GraphName, spec: &GraphSpec) -> Result<Vec<Build>> {
        let mut open = Vec::new();
        for port in &spec.io.inputs {
            for (axis, _) in port.dims.iter().enumerate().filter(|(_, dim)| **dim == Dim::Dynamic) {
                match counted(graph, port, axis) {
                    Some(counts) => open.push(counts),
                    None => bail!(
                        "{graph} input {:?}: expected open numbers of objects, pictures, slots or points, got size {axis} of {port}",
                        port.name
                    ),
                }
            }
        }
        let each = |counts: Open, steps: &[Span]| -> Vec<Option<Span>> {
            if open.contains(&counts) { steps.iter().copied().map(Some).collect() } else { vec![None] }
        };
        let mut builds = Vec::new();
        for objects in each(Open::Objects, &self.objects) {
            // A plan each: either is made for what it is told.
            let several = open.contains(&Open::Pictures) && objects.is_some_and(|span| span.max > 1);
            let pictures = if several { &[Some(Pictures::One), Some(Pictures::Each)][..] } else { &[None] };
            for pictures in pictures.iter().copied() {
                for slots in each(Open::Slots, &self.slots) {
                    let profile =
                        (!open.is_empty()).then(|| profile(graph, spec, (objects, pictures), slots));
                    builds.push(Build { graph, objects, pictures, slots, profile });
                }
            }
        }
        Ok(builds)
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.graph)?;
        for (what, span) in [("object", self.objects), ("slot", self.slots)] {
            match span {
                None => {}
                Some(Span { min: 1, max: 1, .. }) => write!(f, ", 1 {what}")?,
                Some(Span { min, max, .. }) if min == max => write!(f, ", {max} {what}s")?,
                Some(Span { min, max, .. }) => write!(f, ", {min} to {max} {what}s")?,
            }
        }
        match self.pictures {
            None => Ok(()),
            Some(Pictures::One) => f.write_str(", of one picture"),
            Some(Pictures::Each) => f.write_str(", a picture each"),
        }
    }
}

/// What a size stands for, by the contract (`engines/GRAPHS.md`).
fn counted(graph: GraphName, port: &Port, axis: usize) -> Option<Open> {
    let slot_axis = match port.name.as_str() {
        "mem" => Some(1),
        "tpos_idx" | "mem_mask" => Some(port.dims.len() - 1),
        _ => None,
    };
    let is_points = graph == GraphName::DecoderPrompt && port.name.starts_with("point_");
    match axis {
        _ if slot_axis == Some(axis) => Some(Open::Slots),
        1 if is_points => Some(Open::Points),
        0 if port.name.starts_with("feat_") => Some(Open::Pictures),
        0 if !is_points => Some(Open::Objects),
        _ => None,
    }
}

fn profile(
    graph: GraphName,
    spec: &GraphSpec,
    (objects, pictures): (Option<Span>, Option<Pictures>),
    slots: Option<Span>,
) -> Profile {
    let is_open = |port: &&Port| port.dims.contains(&Dim::Dynamic);
    let range = |port: &Port| {
        let sizes = |pick: fn(&Span) -> usize| -> Vec<usize> {
            let size = |(axis, dim): (usize, &Dim)| match dim {
                Dim::Fixed(size) => *size,
                Dim::Dynamic => match counted(graph, port, axis) {
                    Some(Open::Pictures) if pictures != Some(Pictures::Each) => 1,
                    Some(Open::Objects | Open::Pictures) => objects.as_ref().map_or(1, pick),
                    Some(Open::Slots) => slots.as_ref().map_or(1, pick),
                    Some(Open::Points) | None => pick(&POINTS),
                },
            };
            port.dims.iter().enumerate().map(size).collect()
        };
        Range { min: sizes(|span| span.min), opt: sizes(|span| span.opt), max: sizes(|span| span.max) }
    };
    spec.io.inputs.iter().filter(is_open).map(|port| (port.name.clone(), range(port))).collect()
}

fn steps(what: &str, sizes: &[usize], most: usize, exact: bool) -> Result<Vec<Span>> {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes.dedup();
    if let Some(wrong) = sizes.iter().find(|size| !(1..=most).contains(*size)) {
        bail!("{what}: expected 1 to {most}, got {wrong}");
    }
    let before = std::iter::once(0).chain(sizes.iter().copied());
    let span = |(size, before): (&usize, usize)| Span {
        min: if exact { *size } else { before + 1 },
        opt: *size,
        max: *size,
    };
    Ok(sizes.iter().zip(before).map(span).collect())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use sightline_core::DType;
    use sightline_engine_api::GraphIo;

    use super::*;

    fn graph(inputs: &[(&str, &[i64])]) -> GraphSpec {
        let dim = |size: &i64| usize::try_from(*size).map_or(Dim::Dynamic, Dim::Fixed);
        let port = |(name, dims): &(&str, &[i64])| Port {
            name: (*name).to_owned(),
            dtype: DType::F32,
            dims: dims.iter().map(dim).collect(),
        };
        let io = GraphIo { inputs: inputs.iter().map(port).collect(), outputs: vec![] };
        GraphSpec { file: PathBuf::new(), sha256: String::new(), io }
    }

    fn attention() -> GraphSpec {
        graph(&[("feat_s2", &[1, 256, 8, 8]), ("mem", &[-1, -1, 64, 64]), ("mem_mask", &[-1, -1])])
    }

    #[test]
    fn steps_cover_every_size_once() {
        let steps = Steps::new(&[16, 1, 4], &[3, 7], 7, false).unwrap();
        let builds = steps.of(GraphName::MemoryAttention, &attention()).unwrap();
        let names: Vec<_> = builds.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "memory_attention, 1 object, 1 to 3 slots",
                "memory_attention, 1 object, 4 to 7 slots",
                "memory_attention, 2 to 4 objects, 1 to 3 slots",
                "memory_attention, 2 to 4 objects, 4 to 7 slots",
                "memory_attention, 5 to 16 objects, 1 to 3 slots",
                "memory_attention, 5 to 16 objects, 4 to 7 slots",
            ]
        );
        let profile = builds[3].profile.as_ref().unwrap();
        assert_eq!(profile.keys().collect::<Vec<_>>(), ["mem", "mem_mask"], "feat_s2 is not open");
        assert_eq!(
            profile["mem"],
            Range { min: vec![2, 4, 64, 64], opt: vec![4, 7, 64, 64], max: vec![4, 7, 64, 64] }
        );
        let exact = Steps::new(&[1, 4], &[], 7, true).unwrap();
        let builds = exact.of(GraphName::MemoryAttention, &attention()).unwrap();
        assert_eq!(builds[1].to_string(), "memory_attention, 4 objects, 7 slots");
        assert_eq!(builds[1].profile.as_ref().unwrap()["mem_mask"], Range::exactly(&[4, 7]));
    }

    #[test]
    fn objects_of_one_picture_and_of_one_each_have_plans_of_their_own() {
        let steps = Steps::new(&[1, 4], &[7], 7, false).unwrap();
        let attention =
            graph(&[("feat_s2", &[-1, 256, 8, 8]), ("mem", &[-1, -1, 64, 64]), ("mem_mask", &[-1, -1])]);
        let builds = steps.of(GraphName::MemoryAttention, &attention).unwrap();
        let told: Vec<_> = builds.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "memory_attention, 1 object, 1 to 7 slots",
                "memory_attention, 2 to 4 objects, 1 to 7 slots, of one picture",
                "memory_attention, 2 to 4 objects, 1 to 7 slots, a picture each",
            ]
        );
        let pictures =
            |at: usize| builds[at].profile.as_ref().map(|profile| profile["feat_s2"].clone()).unwrap();
        let sizes = |least: usize, most: usize| Range {
            min: vec![least, 256, 8, 8],
            opt: vec![most, 256, 8, 8],
            max: vec![most, 256, 8, 8],
        };
        assert_eq!([pictures(0), pictures(1), pictures(2)], [sizes(1, 1), sizes(1, 1), sizes(2, 4)]);
    }

    #[test]
    fn graphs_with_other_open_sizes() {
        let steps = Steps::new(&[1, 4], &[], 7, false).unwrap();
        let closed = graph(&[("mem", &[1, 7, 64, 64]), ("mem_mask", &[7])]);
        let builds = steps.of(GraphName::MemoryAttention, &closed).unwrap();
        assert_eq!((builds.len(), &builds[0].profile), (1, &None));
        let slots_alone = graph(&[("mem", &[1, -1, 64, 64]), ("mem_mask", &[-1])]);
        let builds = steps.of(GraphName::MemoryAttention, &slots_alone).unwrap();
        assert_eq!(builds[0].profile.as_ref().unwrap()["mem_mask"].max, [7]);
        let prompt = graph(&[("point_coords", &[1, -1, 2]), ("multimask", &[1])]);
        let builds = steps.of(GraphName::DecoderPrompt, &prompt).unwrap();
        assert_eq!(builds.len(), 1);
        assert_eq!(builds[0].profile.as_ref().unwrap()["point_coords"].opt, [1, 3, 2]);
        let strange = graph(&[("image", &[1, 3, -1, 512])]);
        let error = steps.of(GraphName::ImageEncoder, &strange).unwrap_err().to_string();
        assert_eq!(
            error,
            "image_encoder input \"image\": expected open numbers of objects, pictures, slots or points, got size 2 of f32 [1,3,?,512]"
        );
    }

    #[test]
    fn sizes_that_cannot_be() {
        for (objects, slots, message) in [
            (&[0][..], &[7][..], "objects: expected 1 to 64, got 0"),
            (&[65], &[7], "objects: expected 1 to 64, got 65"),
            (&[1], &[8], "slots: expected 1 to 7, got 8"),
        ] {
            assert_eq!(Steps::new(objects, slots, 7, false).unwrap_err().to_string(), message);
        }
    }
}
