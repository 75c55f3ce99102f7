//! `sightline models verify`: does a model load, does it give what its reference gave, how fast is it here.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Result, bail};
use sightline_engine_registry::{ModelSource, resolve};
use sightline_tracker::{Options, Session};

use super::{
    load,
    parity::{self, Parity},
    speed::{self, Speed},
};
use crate::{
    cli::{VerifyArgs, VerifyFlags},
    trace::Clip,
};

/// How far logits may be from the published implementation's, in full precision.
const TOLERANCE: f32 = 1e-3;

/// What was found.
#[derive(Debug)]
pub(super) struct Report {
    graphs: usize,
    provider: String,
    parity: Option<Parity>,
    /// None: differences are reported, not judged.
    tolerance: Option<f32>,
    speed: Speed,
}

/// The command.
pub(super) fn run(args: &VerifyArgs) -> Result<()> {
    let source = resolve(&args.name)?;
    let folder = match &source {
        ModelSource::Folder(folder) => Some(folder.as_path()),
        _ => None,
    };
    let report = check(&args.name, folder, &args.flags)?;
    crate::print_stdout(&report.text(&args.name))?;
    report.passed()
}

/// Loads a model, replays the parity set of its folder, measures it; the measurement is written into the folder.
pub(super) fn check(name_or_dir: &str, folder: Option<&Path>, flags: &VerifyFlags) -> Result<Report> {
    let clip = folder.map(|folder| folder.join("parity")).filter(|parity| parity.is_dir());
    let clip = clip
        .map(|parity| Clip::open(&parity.join("frames"), &parity.join("prompts.json")).map(|c| (parity, c)));
    let clip = clip.transpose()?;
    let model = load(name_or_dir, flags.threads)?;
    let (graphs, provider) = (model.spec.graphs.len(), model.image_encoder.provider().to_owned());
    let objects = clip.as_ref().map_or(1, |(_, clip)| clip.objects());
    let mut session = Session::new(model, Options { history: 8, max_objects: objects + 1 })?;
    let parity = clip.map(|(folder, clip)| parity::replay(&folder.join("logits.npz"), &clip, &mut session));
    let parity = parity.transpose()?;
    let speed = speed::measure(&mut session, flags.threads)?;
    if let Some(folder) = folder {
        speed.write(folder);
    }
    let tolerance = flags.tolerance.or(folder.is_none_or(is_full_precision).then_some(TOLERANCE));
    Ok(Report { graphs, provider, parity, tolerance, speed })
}

/// Whether the exporter wrote all graphs in f32, by the record it leaves in a model's folder (`verify.json`, where
/// `precision` names each graph's). A folder without one is judged in full.
fn is_full_precision(folder: &Path) -> bool {
    let record = || -> Option<BTreeMap<String, String>> {
        let record: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(folder.join("verify.json")).ok()?).ok()?;
        serde_json::from_value(record.get("precision")?.clone()).ok()
    };
    record().is_none_or(|graphs| graphs.values().all(|precision| precision == "fp32"))
}

impl Report {
    /// Says so if it did not pass.
    pub(super) fn passed(&self) -> Result<()> {
        let (Some(parity), Some(tolerance)) = (&self.parity, self.tolerance) else { return Ok(()) };
        if parity.worst_logit > tolerance {
            bail!(
                "parity: expected logits within {tolerance:e} of the published implementation's, got {:.1e}",
                parity.worst_logit
            );
        }
        Ok(())
    }

    /// For people.
    pub(super) fn text(&self, name: &str) -> String {
        let mut text = format!("{name}\n  graphs   {} loaded, {}\n", self.graphs, self.provider);
        let _ = match &self.parity {
            None => writeln!(text, "  parity   this model brings no parity set, so nothing was compared"),
            Some(parity) => {
                let verdict = match self.tolerance {
                    None => "reported only, its precision is reduced".to_owned(),
                    Some(tolerance) if self.passed().is_ok() => format!("pass, at most {tolerance:e}"),
                    Some(tolerance) => format!("FAIL, above {tolerance:e}"),
                };
                writeln!(
                    text,
                    "  parity   {verdict}: max abs logit difference {:.1e}, least mask IoU {:.4}, {} masks of {} frames",
                    parity.worst_logit, parity.least_iou, parity.masks, parity.frames
                )
            }
        };
        let _ = writeln!(text, "  speed    {}", self.speed);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduced_precision_is_reported_not_judged() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_full_precision(folder.path()), "no record");
        for (case, text, full) in [
            ("an older exporter", r#"{"tolerance": 0.001}"#, true),
            ("full", r#"{"precision": {"a": "fp32", "b": "fp32"}}"#, true),
            ("one graph is not", r#"{"precision": {"a": "fp32", "b": "fp16"}}"#, false),
        ] {
            fs::write(folder.path().join("verify.json"), text).unwrap();
            assert_eq!(is_full_precision(folder.path()), full, "{case}");
        }
        let parity = Parity { frames: 1, masks: 1, worst_logit: 0.01, least_iou: 1.0 };
        let speed = Speed { step_p50_ms: 1.0, steps: 1, objects: 1, threads: 1, image_px: [8, 8] };
        let report = |tolerance| Report {
            graphs: 1,
            provider: String::new(),
            parity: Some(parity),
            tolerance,
            speed: speed.clone(),
        };
        assert!(report(None).passed().is_ok());
        assert!(report(Some(0.1)).passed().is_ok());
        let error = report(Some(TOLERANCE)).passed().unwrap_err().to_string();
        assert_eq!(
            error,
            "parity: expected logits within 1e-3 of the published implementation's, got 1.0e-2"
        );
    }
}
