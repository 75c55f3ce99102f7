//! `libgstsightline.so` as others meet it: found on a plugin path, by GStreamer's own tools, in a process that is not
//! ours. And that it asks for nothing newer than GStreamer 1.20 has.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use sightline_tests::not_run;

const LIBRARY: &str = "libgstsightline.so";
/// Ubuntu 22.04: GStreamer 1.20, GLib 2.72.
const GSTREAMER_MINOR: u32 = 20;
const GLIB_MINOR: u32 = 72;

/// What cargo built for this very run: this crate depends on the plugin's.
fn library() -> Option<PathBuf> {
    let here = std::env::current_exe().unwrap();
    let deps = here.parent().unwrap();
    let found =
        [deps.join(LIBRARY), deps.parent().unwrap().join(LIBRARY)].into_iter().find(|path| path.is_file());
    if found.is_none() {
        not_run(format_args!("{LIBRARY}: expected it in {} or above, got none", deps.display()));
    }
    found
}

fn have(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        not_run(format_args!("{tool}: expected it on PATH, got none"));
    }
    found.is_ok()
}

/// The library alone in a folder, and a registry of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new(library: &Path) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.plugins()).unwrap();
        fs::copy(library, place.plugins().join(LIBRARY)).unwrap();
        place
    }

    fn plugins(&self) -> PathBuf {
        self.0.path().join("plugins")
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(tool);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GST_")) {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("GST_PLUGIN_PATH", self.plugins())
            .env("GST_REGISTRY", self.0.path().join("registry.bin"))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_library_works_with_gstreamers_own_tools() {
    let (Some(library), true) = (library(), have("gst-inspect-1.0") && have("gst-launch-1.0")) else {
        return;
    };
    let place = Place::new(&library);

    for (element, properties) in [
        ("sightlinetrack", ["prompts", "mode", "every-frame", "max-objects", "add-object"]),
        ("sightlineoverlay", ["alpha", "contour", "labels", "age", "NV12"]),
    ] {
        let output = place.run("gst-inspect-1.0", &[element]);
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&*place.plugins().join(LIBRARY).to_string_lossy()), "another library: {said}");
        for property in properties {
            assert!(said.contains(property), "{element}: expected {property:?} in {said}");
        }
    }
    // A plugin that crashes when it is looked at is put on the blacklist, and only this shows it.
    let blacklist = text(&place.run("gst-inspect-1.0", &["-b"]));
    assert!(!blacklist.contains("sightline"), "{blacklist}");

    // Numbers 1 to 20 of frames, each told of once.
    let line = "videotestsrc pattern=ball num-buffers=20 ! video/x-raw,format=NV12,width=320,height=240,framerate=25/1 \
                ! sightlinetrack model=fake mode=every-frame prompts=box=140,100,180,140 ! sightlineoverlay \
                ! videoconvert ! fakesink";
    let mut arguments = vec!["-m"];
    arguments.extend(line.split_whitespace());
    let output = place.run("gst-launch-1.0", &arguments);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("sightline-frame,").count(), 20, "{said}");
    assert!(!said.contains("CRITICAL") && !said.contains("WARNING"), "{said}");

    let output = place.run(
        "gst-launch-1.0",
        &["videotestsrc", "num-buffers=2", "!", "sightlinetrack", "model=no-such-model", "!", "fakesink"],
    );
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("no-such-model") && !said.contains("panicked"), "{said}");
}

/// The whole resolved graph; what `cargo build` links here.
fn metadata() -> Value {
    let version = Command::new(env!("CARGO")).arg("-vV").output().expect("cargo runs");
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let output = Command::new(env!("CARGO"))
        // Other systems' packages need not have been fetched.
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// `v1_22` of a GStreamer binding, `v2_74` of a GLib one: whether that is more than the oldest has.
fn too_new(feature: &str) -> bool {
    let minor = |prefix| feature.strip_prefix(prefix).and_then(|minor: &str| minor.parse::<u32>().ok());
    minor("v1_").is_some_and(|minor| minor > GSTREAMER_MINOR)
        || minor("v2_").is_some_and(|minor| minor > GLIB_MINOR)
}

fn is_binding(name: &str) -> bool {
    ["gstreamer", "glib", "gobject-sys", "gio"].iter().any(|start| name.starts_with(start))
}

fn packages(metadata: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.map(|package| (package["name"].as_str().unwrap(), package)).filter(|(name, _)| is_binding(name))
}

/// The bindings put every newer function behind a feature, so a feature that is off is a function that cannot be
/// called.
#[test]
fn no_binding_is_built_for_more_than_gstreamer_1_20() {
    let metadata = metadata();
    let (mut seen, mut broken) = (0, Vec::new());
    for (name, package) in packages(&metadata) {
        let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["id"] == package["id"]).expect("every package is a node");
        for feature in node["features"].as_array().unwrap().iter().filter_map(Value::as_str) {
            seen += 1;
            if too_new(feature) {
                broken.push(format!("{name}: {feature}"));
            }
        }
    }
    assert!(seen > 0, "expected bindings with features, got none");
    assert!(broken.is_empty(), "newer than GStreamer 1.{GSTREAMER_MINOR}, GLib 2.{GLIB_MINOR}: {broken:?}");
}

/// The same from the other end: what the library imports, against the functions that the bindings say are newer.
#[test]
fn the_library_imports_nothing_newer_than_gstreamer_1_20() {
    let (Some(library), true) = (library(), have("nm")) else { return };
    let metadata = metadata();
    let mut newer = BTreeSet::new();
    for (_, package) in packages(&metadata).filter(|(name, _)| name.ends_with("-sys")) {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let source = fs::read_to_string(manifest.with_file_name("src").join("lib.rs")).unwrap();
        newer.extend(functions_behind_newer_features(&source));
    }
    assert!(newer.len() > 100, "expected the bindings' newer functions, got {}", newer.len());
    let output = Command::new("nm").args(["-D", "--undefined-only"]).arg(&library).output().unwrap();
    let listed = text(&output);
    assert!(output.status.success(), "{listed}");
    let imported: BTreeSet<&str> = listed.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert!(
        imported.iter().any(|name| name.starts_with("gst_element_")),
        "expected GStreamer's, got {imported:?}"
    );
    let broken: Vec<_> = newer.iter().filter(|name| imported.contains(name.as_str())).collect();
    assert!(broken.is_empty(), "newer than GStreamer 1.{GSTREAMER_MINOR}: {broken:?}");
}

/// In a `-sys` crate: `#[cfg(feature = "v1_22")]`, perhaps other attributes, `pub fn gst_…(`.
fn functions_behind_newer_features(source: &str) -> Vec<String> {
    let (mut functions, mut behind) = (Vec::new(), false);
    for line in source.lines().map(str::trim) {
        if let Some(feature) = line.strip_prefix("#[cfg(feature = \"").and_then(|rest| rest.split('"').next())
        {
            behind |= too_new(feature);
        } else if !line.starts_with("#[") {
            let name = line.strip_prefix("pub fn ").and_then(|rest| rest.split('(').next());
            functions.extend(name.filter(|_| behind).map(str::to_owned));
            behind = false;
        }
    }
    functions
}

#[test]
fn newer_functions_are_told_from_older_ones() {
    let source = "#[cfg(feature = \"v1_20\")]\npub fn old();\n#[cfg(feature = \"v1_22\")]\n#[cfg_attr(docsrs, doc)]\n\
                  pub fn new(x: c_int);\npub fn plain();\n#[cfg(feature = \"v1_24\")]\npub const X: c_int = 1;\n\
                  pub fn after();\n";
    assert_eq!(functions_behind_newer_features(source), ["new"]);
}
