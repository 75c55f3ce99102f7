//! Every refusal of a manifest, one row each: what was changed in a sound one, and what the error says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sightline_engine_api::{Dim, GraphName, Kind};
use sightline_engine_registry::manifest::parse;

const SOUND: &str = include_str!("data/tiny/model.toml");

/// Replaces text; after `[table]` only, where the text has it (`"[memory]|recent = 2"`).
fn edited(from: &str, to: &str) -> String {
    let (table, from) = from.split_once('|').unwrap_or(("", from));
    let start = SOUND.find(table).unwrap_or_else(|| panic!("{table:?} is in the manifest"));
    let (head, tail) = SOUND.split_at(start);
    assert!(tail.contains(from), "{from:?} is in the manifest");
    format!("{head}{}", tail.replacen(from, to, 1))
}

#[test]
fn a_sound_manifest_is_read_whole() {
    let spec = parse(SOUND).expect("sound");
    assert_eq!((spec.name.as_str(), spec.family.as_str()), ("tiny", "test"));
    assert_eq!((spec.image.height_px, spec.masks.width_px), (16, 4));
    assert_eq!((spec.memory.slots(), spec.memory.min_object_score), (3, Some(0.0)));
    assert_eq!(spec.pointers.map(|pointers| pointers.recent), Some(4));
    assert_eq!(spec.graphs.len(), 6);
    let prompt = &spec.graphs[&GraphName::DecoderPrompt].io;
    assert_eq!(prompt.inputs[1].dims, [Dim::Fixed(1), Dim::Dynamic, Dim::Fixed(2)]);
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    for (from, to, part) in [
        ("schema = 1", "schema = 2", "schema: expected 1, got 2"),
        ("name = \"tiny\"", "name = \"../tiny\"", "name: expected letters"),
        ("family = \"test\"", "family = \" \"", "family: expected a word"),
        ("licence =", "license =", "model.toml line 6: expected the keys of engines/GRAPHS.md"),
        ("opset = 17", "", "missing field `opset`"),
        ("height = 16", "height = -16", "model.toml line 9"),
        ("height = 16", "height = 0", "image.height: expected 1 to 65536, got 0"),
        ("height = 16", "height = 20", "masks.height: expected a quarter of the image's 20, got 4"),
        ("mean = [0.5,", "mean = [nan,", "image.mean[0]: expected a finite number"),
        ("std = [0.5,", "std = [0.0,", "image.std: expected finite numbers above 0, got 0"),
        (
            "\"bilinear\"",
            "\"nearest\"",
            "image.filter: expected \"bicubic\" or \"bilinear\", got \"nearest\"",
        ),
        (
            "top = \"feat_top\"",
            "top = \"feat_s2\"",
            "features.top: expected an output of image_encoder (feat_top)",
        ),
        ("[memory]|recent = 2", "recent = 0", "memory.recent: expected 1 to 65536, got 0"),
        ("max_cond = 1", "max_cond = 0", "memory.max_cond"),
        ("stride = 1", "stride = 0", "memory.stride"),
        ("tokens = 16", "tokens = 18446744073709551615", "memory.tokens: expected 1 to 65536"),
        ("dtype = \"f32\"", "dtype = \"f16\"", "memory.dtype: expected \"bf16\" or \"f32\", got \"f16\""),
        ("min_object_score = 0.0", "min_object_score = inf", "memory.min_object_score"),
        ("stride = 1", "stride = 1\nslots = 3", "unknown field `slots`"),
        ("[pointers]|recent = 4", "recent = 0", "pointers.recent"),
        ("mask = true", "mask = false", "prompts.mask_decoder: expected false"),
        (
            "no_mem_embed = [0.0, 0.0, 0.0]",
            "no_mem_embed = [0.0]",
            "constants.no_mem_embed: expected none or 3 values, got 1 values",
        ),
        ("no_obj_ptr = [0.0, 0.0, 0.0]", "no_obj_ptr = [0.0, inf, 0.0]", "constants.no_obj_ptr[1]"),
        (
            "file = \"image_encoder.onnx\"",
            "file = \"../image_encoder.onnx\"",
            "graphs.image_encoder.file: expected the name of a file beside model.toml",
        ),
        ("file = \"image_encoder.onnx\"", "file = \"/etc/passwd\"", "graphs.image_encoder.file"),
        ("sha256 = \"", "sha256 = \"X", "graphs.image_encoder.sha256: expected 64 lower-case"),
        (
            "[graphs.image_encoder]",
            "[graphs.extra]\nfile = \"x\"\nsha256 = \"\"\ninputs = []\noutputs = []\n\n[graphs.image_encoder]",
            "graphs: expected only image_encoder, memory_attention",
        ),
    ] {
        let error = parse(&edited(from, to)).expect_err(to);
        assert_eq!(error.kind(), Kind::Model, "{to}: {error}");
        assert!(error.to_string().contains(part), "{to}: {error}");
    }
}

#[test]
fn graphs_outside_the_contract_are_refused_by_port() {
    let all =
        [("[graphs.memory_attention]", "memory_attention"), ("[graphs.decoder_track]", "decoder_track")];
    for (table, name) in all {
        let start = SOUND.find(table).unwrap();
        let end = SOUND[start + 1..].find("\n[").map_or(SOUND.len(), |at| start + 1 + at);
        let text = format!("{}{}", &SOUND[..start], &SOUND[end..]);
        let error = parse(&text).expect_err(name);
        assert_eq!(error.to_string(), format!("graphs: expected {name}, got no such graph"));
    }
    for (from, to, part) in [
        (
            "[graphs.image_encoder]|[1, 3, 16, 16]",
            "[1, 3, 16, 8]",
            "image_encoder input \"image\": expected f32 [1,3,16,16], got f32 [1,3,16,8]",
        ),
        (
            "[graphs.image_encoder]|\"feat_top\"",
            "\"top\"",
            "image_encoder output \"top\": expected a name starting with \"feat_\"",
        ),
        (
            "[graphs.image_encoder]|[1, 3, 4, 4]",
            "[1, 3, -1, 4]",
            "image_encoder output \"feat_top\": expected f32 with fixed sizes",
        ),
        (
            "[graphs.memory_attention]|\"feat_top\"",
            "\"feat_s0\"",
            "memory_attention input \"feat_s0\": expected one of feat_top, mem, tpos_idx",
        ),
        (
            "[graphs.memory_attention]|[1, 3, 16, 3]",
            "[1, 2, 16, 3]",
            "memory_attention input \"mem\": expected f32 [1,3,16,3], got f32 [1,2,16,3]",
        ),
        (
            "[graphs.memory_attention]|\"pix_feat\"",
            "\"pix\"",
            "memory_attention output \"pix\": expected one of pix_feat",
        ),
        (
            "[graphs.decoder_track]|[1, 3, 4, 4]",
            "[1, 3, 2, 2]",
            "decoder_track input \"pix_feat\": expected f32 [1,3,4,4]",
        ),
        (
            "[graphs.decoder_track]|\"iou\"",
            "\"score\"",
            "decoder_track output \"score\": expected one of low_res_mask, iou, object_score, obj_ptr",
        ),
        (
            "[graphs.decoder_track]|  { name = \"obj_ptr\", dtype = \"f32\", shape = [1, 3] },\n",
            "",
            "decoder_track output \"obj_ptr\": expected f32 [1,3], got none",
        ),
        (
            "[graphs.decoder_prompt]|[1, -1, 2]",
            "[1, 3, 2]",
            "decoder_prompt input \"point_coords\": expected f32 [1,?,2], got f32 [1,3,2]",
        ),
        (
            "[graphs.decoder_prompt]|dtype = \"i64\"",
            "dtype = \"f32\"",
            "decoder_prompt input \"multimask\": expected i64 [1]",
        ),
        (
            "[graphs.decoder_prompt]|\"point_labels\"",
            "\"point_coords\"",
            "decoder_prompt input \"point_coords\": expected each name once",
        ),
        (
            "[graphs.memory_encoder]|[1, 16, 3]",
            "[1, 16, 4]",
            "memory_encoder output \"mem\": expected f32 [1,16,3]",
        ),
        (
            "[graphs.memory_encoder]|dtype = \"f32\"",
            "dtype = \"u8\"",
            "expected dtype \"f32\" or \"i64\", got \"u8\"",
        ),
        (
            "[graphs.mask_downsample]|[1, 1, 16, 16]",
            "[1, 1, 0, 16]",
            "expected dimensions of 1 to 65536, or -1, got 0",
        ),
        (
            "mask_decoder = true",
            "mask_decoder = false",
            "graphs: expected no mask_downsample, as prompts.mask_decoder is false",
        ),
    ] {
        let error = parse(&edited(from, to)).expect_err(to);
        assert!(error.to_string().contains(part), "{to}: {error}");
    }
}

/// The sound manifest with the leading size of everything that belongs to an object left open.
fn batched() -> String {
    let mut graph = "";
    let lines = SOUND.lines().map(|line| {
        if line.starts_with('[') {
            graph = line;
        }
        let batches = ["memory_attention", "decoder_track", "memory_encoder"];
        let own = batches.iter().any(|name| graph == format!("[graphs.{name}]")) && !line.contains("feat_");
        if own { line.replace("shape = [1", "shape = [-1") } else { line.to_owned() }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn leading_sizes_are_open_together_and_slots_by_themselves() {
    let spec = parse(&batched()).expect("batched");
    assert!(spec.batches_objects() && !spec.has_open_slots());
    assert!(!parse(SOUND).expect("sound").batches_objects());

    let slots = SOUND.replace("shape = [1, 3, 16, 3]", "shape = [1, -1, 16, 3]");
    let spec = parse(&slots).expect("open slots");
    assert!(spec.has_open_slots() && !spec.batches_objects());

    let table = batched();
    let half = table.replacen(
        "name = \"iou\", dtype = \"f32\", shape = [-1, 1]",
        "name = \"iou\", dtype = \"f32\", shape = [1, 1]",
        1,
    );
    assert_ne!(half, table, "there is an iou to close");
    let error = parse(&half).expect_err("one closed port").to_string();
    assert!(error.contains("iou") && error.contains("[?,1]"), "{error}");
}
