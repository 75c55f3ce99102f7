//! The naive tracker: it keeps every frame and every prompt, and works out everything anew each time, frame by
//! frame from the first, with every prompt given when its frame came. No ring, no window, no replay.

use std::collections::BTreeMap;

use half::bf16;
use sightline_core::{PointLabel, Prompt};
use sightline_engine_api::GraphName;
use sightline_vision::{downscale, resize_mask};

use super::hashing::{Family, LOW, SIDE, Values};

/// A prompt on a frame. `cond` if the object had not been tracked there when it came.
#[derive(Debug, Clone)]
pub struct Event {
    pub tick: usize,
    pub prompt: Prompt,
    pub cond: bool,
}

/// What an object's frame left behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub low_res: Vec<f32>,
    pub score: f32,
    pub iou: f32,
    pointer: Vec<f32>,
    memory: Option<Vec<f32>>,
}

pub struct Reference {
    family: Family,
    features: Vec<Values>,
    pub objects: BTreeMap<u32, Vec<Event>>,
}

fn one(value: f32) -> Vec<f32> {
    vec![value]
}

fn clamped(logits: &[f32]) -> Vec<f32> {
    logits.iter().map(|logit| logit.clamp(-32.0, 32.0)).collect()
}

impl Reference {
    pub fn new(family: Family) -> Self {
        Self { family, features: Vec::new(), objects: BTreeMap::new() }
    }

    pub fn frame(&mut self, image: &[f32]) {
        let given = Values::from([("image".into(), image.to_vec())]);
        self.features.push(self.family.evaluate(GraphName::ImageEncoder, &given));
    }

    pub fn frames(&self) -> usize {
        self.features.len()
    }

    /// Gives a late prompt: a correction if the object was tracked on that frame, else a conditioning frame.
    pub fn prompt(&mut self, object: u32, tick: usize, prompt: Prompt) {
        let events = self.objects.entry(object).or_default();
        let born = events.iter().map(|event| event.tick).min();
        let on_cond = events.iter().any(|event| event.tick == tick && event.cond);
        let cond = on_cond || born.is_none_or(|born| tick < born);
        events.push(Event { tick, prompt, cond });
    }

    /// Gives a prompt when its frame comes, before any tracking.
    pub fn prompt_in_time(&mut self, object: u32, prompt: Prompt) {
        let tick = self.frames() - 1;
        self.objects.entry(object).or_default().push(Event { tick, prompt, cond: true });
    }

    /// The object on the newest frame.
    pub fn result(&self, object: u32) -> Kept {
        let events = &self.objects[&object];
        let born = events.iter().map(|event| event.tick).min().unwrap();
        let mut past: BTreeMap<usize, Kept> = BTreeMap::new();
        let conds: Vec<usize> = (0..self.frames())
            .filter(|tick| events.iter().any(|event| event.tick == *tick && event.cond))
            .collect();
        for tick in born..self.frames() {
            let here: Vec<&Event> = events.iter().filter(|event| event.tick == tick).collect();
            let cond = conds.contains(&tick);
            let mut kept = None;
            if !cond {
                kept = Some(self.track(tick, &past, &conds));
            }
            for event in here {
                kept = Some(self.prompted(tick, &past, &conds, cond, kept, &event.prompt));
            }
            past.insert(tick, kept.unwrap());
        }
        past.remove(&(self.frames() - 1)).unwrap()
    }

    fn given(&self, tick: usize, past: &BTreeMap<usize, Kept>) -> Values {
        let mut given = self.features[tick].clone();
        let before = tick.checked_sub(1).and_then(|before| past.get(&before));
        given
            .insert("prev_low_res_mask".into(), before.map_or(vec![0.0; LOW * LOW], |k| clamped(&k.low_res)));
        given
    }

    fn track(&self, tick: usize, past: &BTreeMap<usize, Kept>, conds: &[usize]) -> Kept {
        let mut given = self.given(tick, past);
        let pix_feat = self.attend(tick, past, conds, &given);
        given.insert("pix_feat".into(), pix_feat);
        let decoded = self.family.evaluate(GraphName::DecoderTrack, &given);
        self.keep(given, decoded, false)
    }

    /// The contract's "Slots", read literally.
    fn attend(&self, tick: usize, past: &BTreeMap<usize, Kept>, conds: &[usize], given: &Values) -> Vec<f32> {
        let family = &self.family;
        let before: Vec<usize> = conds.iter().copied().filter(|cond| *cond <= tick).collect();
        let mut chosen = before.clone();
        if before.len() > family.max_cond {
            let newest = &before[before.len() - (family.max_cond - 1).max(1)..];
            chosen = if family.max_cond == 1 { vec![] } else { vec![before[0]] };
            chosen.extend(newest);
        }
        let (mut mem, mut tpos, mut mem_mask) = (vec![], vec![], vec![]);
        let (mut ptrs, mut tdiff, mut ptr_mask) = (vec![], vec![], vec![]);
        let mut slot = |kept: &Kept, row: usize| {
            if let Some(memory) = &kept.memory {
                mem.extend(memory);
                tpos.push(row as f32);
                mem_mask.push(1.0);
            }
        };
        let mut pointer = |kept: &Kept, age: usize| {
            ptrs.extend(&kept.pointer);
            tdiff.push(age as f32);
            ptr_mask.push(1.0);
        };
        for cond in &chosen {
            slot(&past[cond], family.recent);
            pointer(&past[cond], tick - cond);
        }
        let recent = |frame: i64| {
            let frame = usize::try_from(frame).ok()?;
            past.get(&frame).filter(|_| !chosen.contains(&frame))
        };
        let (now, stride) = (tick as i64, family.stride as i64);
        for k in 1..=family.recent as i64 {
            let nearest = (now - 2).div_euclid(stride) * stride;
            let frame = if k == 1 { now - 1 } else { nearest - (k - 2) * stride };
            if let Some(kept) = recent(frame) {
                slot(kept, k as usize - 1);
            }
        }
        for age in 1..=family.pointers.unwrap_or(0) {
            if let Some(kept) = recent(now - age as i64) {
                pointer(kept, age);
            }
        }
        let mut given = given.clone();
        for (name, values) in [
            ("mem", mem),
            ("tpos_idx", tpos),
            ("mem_mask", mem_mask),
            ("obj_ptrs", ptrs),
            ("ptr_tdiff", tdiff),
            ("ptr_mask", ptr_mask),
        ] {
            given.insert(name.into(), values);
        }
        self.family.evaluate(GraphName::MemoryAttention, &given).remove("pix_feat").unwrap()
    }

    fn no_memory(&self, tick: usize, embed: bool) -> Vec<f32> {
        let spec = self.family.spec();
        let top = &self.features[tick]["feat_top"];
        if !embed || spec.no_mem_embed.is_empty() {
            return top.clone();
        }
        let plane = top.len() / spec.no_mem_embed.len();
        top.iter().enumerate().map(|(at, value)| value + spec.no_mem_embed[at / plane]).collect()
    }

    fn prompted(
        &self,
        tick: usize,
        past: &BTreeMap<usize, Kept>,
        conds: &[usize],
        cond: bool,
        earlier: Option<Kept>,
        prompt: &Prompt,
    ) -> Kept {
        let mut given = self.given(tick, past);
        let (mut coords, mut labels) = (vec![], vec![]);
        let side = SIDE as f32;
        let mut set = |name: &str, values: Vec<f32>| given.insert(name.into(), values);
        if let Prompt::Mask(mask) = prompt {
            let full = resize_mask(mask, SIDE, SIDE);
            let present = full.contains(&1.0);
            let spec = self.family.spec();
            let mut pointer = vec![0.0; 2 * usize::from(spec.pointers.is_some())];
            if self.family.mask_decoder {
                set("mask", full.clone());
                set("pix_feat", self.no_memory(tick, false));
                set("multimask", one(0.0));
                set("has_mask_input", one(1.0));
                let count = self.family.fixed_points.unwrap_or(2);
                set("point_coords", vec![0.0; 2 * count]);
                set("point_labels", vec![-1.0; count]);
                let mask_input = self.family.evaluate(GraphName::MaskDownsample, &given);
                given.insert("mask_input".into(), mask_input["mask_prompt"].clone());
                let decoded = self.family.evaluate(GraphName::DecoderPrompt, &given);
                pointer = decoded.get("obj_ptr").cloned().unwrap_or_default();
            }
            if !present && !spec.no_obj_ptr.is_empty() {
                pointer = spec.no_obj_ptr;
            }
            let logits: Vec<f32> = full.iter().map(|v| if *v > 0.0 { 10.0 } else { -10.0 }).collect();
            let decoded = Values::from([
                ("low_res_mask".into(), downscale(&logits, SIDE, SIDE, LOW, LOW)),
                ("object_score".into(), one(if present { 10.0 } else { -10.0 })),
                ("iou".into(), one(1.0)),
                ("obj_ptr".into(), pointer),
            ]);
            return self.keep(given, decoded, true);
        }
        let (points, corners) = match prompt {
            Prompt::Points { points, within } => (points.clone(), *within),
            Prompt::Box(corners) => (vec![], Some(*corners)),
            _ => panic!("not given"),
        };
        if let Some(c) = corners {
            coords.extend([c.x0 * side, c.y0 * side, c.x1 * side, c.y1 * side]);
            labels.extend([2.0, 3.0]);
        }
        for point in points {
            coords.extend([point.at.x * side, point.at.y * side]);
            labels.push(if point.label == PointLabel::Positive { 1.0 } else { 0.0 });
        }
        set("multimask", one(if labels.len() <= 1 { 1.0 } else { 0.0 }));
        let count = self.family.fixed_points.unwrap_or(labels.len() + 1);
        coords.resize(2 * count, 0.0);
        labels.resize(count, -1.0);
        set("point_coords", coords);
        set("point_labels", labels);
        set("has_mask_input", one(if earlier.is_some() { 1.0 } else { 0.0 }));
        set("mask_input", earlier.map_or(vec![0.0; LOW * LOW], |kept| clamped(&kept.low_res)));
        let pix_feat = if cond { self.no_memory(tick, true) } else { self.attend(tick, past, conds, &given) };
        given.insert("pix_feat".into(), pix_feat);
        let decoded = self.family.evaluate(GraphName::DecoderPrompt, &given);
        self.keep(given, decoded, true)
    }

    fn keep(&self, mut given: Values, decoded: Values, prompted: bool) -> Kept {
        let gate = self.family.min_object_score.filter(|_| !prompted);
        let score = decoded["object_score"][0];
        given.insert("low_res_mask".into(), decoded["low_res_mask"].clone());
        given.insert("object_score".into(), one(score));
        given.insert("binarize".into(), one(if prompted { 1.0 } else { 0.0 }));
        let mut memory = self.family.evaluate(GraphName::MemoryEncoder, &given).remove("mem").unwrap();
        if self.family.round_to_bf16 {
            memory.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
        }
        Kept {
            low_res: decoded["low_res_mask"].clone(),
            score,
            iou: decoded["iou"][0],
            pointer: decoded.get("obj_ptr").cloned().unwrap_or_default(),
            memory: gate.is_none_or(|gate| score > gate).then_some(memory),
        }
    }
}
