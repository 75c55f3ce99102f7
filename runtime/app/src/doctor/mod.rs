//! `sightline doctor`: what is installed, what is missing, and what to type; with `--tune`, how a model runs best here.

mod pace;
mod tune;

use std::{fmt::Write as _, path::Path};

use anyhow::Result;
use serde::Serialize;
use sightline_engine_registry::{ModelSource, Tuned, installed, locate_onnxruntime, probe_gpu, tuned};

use crate::{
    cli::DoctorArgs,
    elements::{self, H264_DECODERS, H264_ENCODERS, Source},
};

/// One thing looked for.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    /// Without it `doctor` fails.
    needed: bool,
    found: Option<String>,
    /// What to do when it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// A model that can be asked for.
#[derive(Debug, Serialize)]
struct ModelLine {
    name: String,
    source: String,
    family: String,
    licence: Option<String>,
    input_px: Option<[usize; 2]>,
    /// What `--tune` found.
    #[serde(skip_serializing_if = "Option::is_none")]
    tuned: Option<Tuned>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
    models: Vec<ModelLine>,
    /// Cores that this process may use, and threads an engine gets unless told otherwise.
    cores: usize,
}

/// Prints the findings; whether nothing needed is missing.
pub(crate) fn run(args: &DoctorArgs) -> Result<bool> {
    if args.tune {
        tune::run(&args.tuning, args.json)?;
        return Ok(true);
    }
    let report = examine();
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { table(&report) };
    crate::print_stdout(&text)?;
    Ok(report.ok)
}

fn examine() -> Report {
    let mut checks = Vec::new();
    let started = crate::gstreamer::init();
    let version = gst::version();
    checks.push(Check {
        name: "GStreamer",
        needed: true,
        found: started.is_ok().then(|| format!("{}.{}.{}", version.0, version.1, version.2)),
        fix: started.as_ref().err().map(|error| format!("{error:#}")),
    });
    if started.is_ok() {
        checks.extend([
            element("tracking", &["sightlinetrack"], "a build with the plugin linked in"),
            element("drawing masks", &["sightlineoverlay"], "a build with the plugin linked in"),
            element("decoding", &["uridecodebin", "videoconvert"], &apt("gstreamer1.0-plugins-base")),
            element("turning pictures upright", &["videoflip"], &apt("gstreamer1.0-plugins-good")),
            element("reading .mp4", &["qtdemux"], &apt("gstreamer1.0-plugins-good")),
            one_of("H.264 decoder", &H264_DECODERS),
            one_of("H.264 encoder (--output)", &H264_ENCODERS),
            element("H.264 parser", &["h264parse"], &apt("gstreamer1.0-plugins-bad")),
            element("writing .mp4 (--output)", &["mp4mux"], &apt("gstreamer1.0-plugins-good")),
            element(
                "network cameras (rtsp://)",
                &["rtspsrc", "rtph264depay"],
                &apt("gstreamer1.0-plugins-good"),
            ),
            element("cameras (/dev/videoN)", &["v4l2src", "jpegdec"], &apt("gstreamer1.0-plugins-good")),
            Check {
                needed: false,
                ..element("a window (--display)", &["autovideosink"], &apt("gstreamer1.0-plugins-good"))
            },
        ]);
    }
    let library = locate_onnxruntime();
    checks.push(Check {
        name: "ONNX Runtime",
        needed: true,
        found: library.as_ref().ok().map(|path| format!("{} at {}", version_of(path), path.display())),
        fix: library.err().map(|error| error.to_string()),
    });
    let gpu = probe_gpu();
    checks.push(Check {
        name: "NVIDIA GPU",
        needed: false,
        found: gpu.as_ref().ok().cloned(),
        fix: gpu.err().map(|error| error.to_string()),
    });
    let models: Vec<ModelLine> = installed().into_iter().map(model).collect();
    let sound: Vec<_> = models
        .iter()
        .filter(|model| model.error.is_none() && model.name != "fake")
        .map(|model| model.name.as_str())
        .collect();
    checks.push(Check {
        name: "a model",
        needed: true,
        found: (!sound.is_empty()).then(|| sound.join(", ")),
        fix: Some("a build with nano in it, or `sightline models pull NAME`".into()),
    });
    for check in &mut checks {
        if check.found.is_some() {
            check.fix = None;
        }
    }
    let ok = checks.iter().all(|check| !check.needed || check.found.is_some());
    Report { ok, checks, models, cores: std::thread::available_parallelism().map_or(1, usize::from) }
}

fn apt(package: &str) -> String {
    format!("sudo apt install {package}")
}

/// All of them are needed.
fn element(name: &'static str, elements: &[&str], fix: &str) -> Check {
    let missing: Vec<_> = elements.iter().filter(|element| !elements::exists(element)).copied().collect();
    let found = missing.is_empty().then(|| elements.join(", "));
    Check { name, needed: true, found, fix: Some(format!("{} (for {})", fix, missing.join(", "))) }
}

/// Any of them will do.
fn one_of(name: &'static str, sources: &[Source]) -> Check {
    let found: Vec<_> =
        sources.iter().map(|source| source.element).filter(|element| elements::exists(element)).collect();
    let fix = sources.first().map(|source| apt(source.package));
    Check { name, needed: true, found: (!found.is_empty()).then(|| found.join(", ")), fix }
}

/// The version in the name that the library's links lead to.
fn version_of(library: &Path) -> String {
    let real = std::fs::canonicalize(library).unwrap_or_else(|_| library.to_owned());
    real.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("libonnxruntime.so."))
        .map_or_else(|| "unknown version".to_owned(), str::to_owned)
}

fn model(entry: sightline_engine_registry::ModelEntry) -> ModelLine {
    let family = entry.family().to_owned();
    let source = match &entry.source {
        ModelSource::Fake => "built in, for tests".to_owned(),
        other => other.to_string(),
    };
    let (spec, error) = match entry.spec {
        Ok(spec) => (Some(spec), None),
        Err(error) => (None, Some(error.to_string())),
    };
    ModelLine {
        tuned: tuned(&entry.name),
        name: entry.name,
        source,
        family,
        licence: spec.as_ref().map(|spec| spec.licence.clone()),
        input_px: spec.map(|spec| [spec.image.width_px, spec.image.height_px]),
        error,
    }
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    let wide = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for Check { name, needed, found, fix } in &report.checks {
        let _ = match found {
            Some(found) => writeln!(text, "ok       {name:wide$}  {found}"),
            None => {
                let word = if *needed { "MISSING" } else { "missing" };
                writeln!(text, "{word}  {name:wide$}  {}", fix.as_deref().unwrap_or(""))
            }
        };
    }
    let _ = writeln!(text, "\nmodels");
    for model in &report.models {
        let size = model.input_px.map_or_else(String::new, |[w, h]| format!(", {w}x{h}"));
        let licence = model.licence.as_deref().map_or_else(String::new, |licence| format!(", {licence}"));
        let _ = match &model.error {
            None => {
                let tuned = model.tuned.map_or_else(String::new, |best| format!(", {}", tune::words(best)));
                let ModelLine { name, family, source, .. } = model;
                writeln!(text, "  {name:16} {family}{size}{licence}, {source}{tuned}")
            }
            Some(error) => writeln!(text, "  {:16} broken: {error}", model.name),
        };
    }
    let _ = writeln!(
        text,
        "\ncores    {} (engines use as many threads unless tuned by --tune; --threads N changes that)",
        report.cores
    );
    let _ = writeln!(
        text,
        "{}",
        if report.ok { "everything needed is there" } else { "something needed is missing" }
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_real_name() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("libonnxruntime.so.1.20.1");
        std::fs::write(&real, "").unwrap();
        let link = folder.path().join("libonnxruntime.so");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(version_of(&link), "1.20.1");
        assert_eq!(version_of(Path::new("/x/onnx.so")), "unknown version");
    }

    #[test]
    fn what_is_missing_says_what_to_type() {
        let check = Check { name: "x", needed: true, found: None, fix: Some("sudo apt install y".into()) };
        let report = Report { ok: false, checks: vec![check], models: vec![], cores: 2 };
        let text = table(&report);
        assert!(text.starts_with("MISSING  x  sudo apt install y\n"), "{text}");
        assert!(text.ends_with("something needed is missing\n"), "{text}");
    }
}
