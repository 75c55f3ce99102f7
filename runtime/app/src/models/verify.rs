//! `sightline models verify`: does a model load, does it give what its reference gave, how fast is it here.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Result, bail};
use sightline_engine_registry::{ModelSource, resolve};
use sightline_tracker::{Options, Output, Session};

use super::{
    golden, load,
    parity::{self, Parity},
    speed::{self, Speed},
};
use crate::{
    cli::{VerifyArgs, VerifyFlags},
    trace::Clip,
};

/// How far logits may be from the published implementation's, in full precision.
const TOLERANCE: f32 = 1e-3;

/// How far the mean over a mask may be for the embedded model, whose convolutions are computed in 8 bits: where one
/// processor's float order rounds to another step than the next one's, single logits jump. Inputs disturbed by 1e-6 of
/// themselves moved the mean by 0.11.
const TOLERANCE_OF_MEAN: f32 = 0.3;

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    /// For every logit.
    Logit(f32),
    /// For the mean over a mask.
    Mean(f32),
}

/// What was found.
#[derive(Debug)]
pub(super) struct Report {
    graphs: usize,
    provider: String,
    parity: Option<Parity>,
    /// None: differences are reported, not judged.
    limit: Option<Limit>,
    speed: Speed,
}

/// The command.
pub(super) fn run(args: &VerifyArgs) -> Result<()> {
    let source = resolve(&args.name)?;
    let folder = match &source {
        ModelSource::Folder(folder) => Some(folder.as_path()),
        _ => None,
    };
    let mut report = check(&args.name, folder, &args.flags)?;
    if matches!(source, ModelSource::Embedded) {
        report.parity = Some(golden::replay(&args.name, args.flags.threads)?);
        report.limit = Some(args.flags.tolerance.map_or(Limit::Mean(TOLERANCE_OF_MEAN), Limit::Logit));
    }
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
    let threads = match flags.threads {
        0 => sightline_engine_registry::default_threads(name_or_dir)?.get(),
        given => given,
    };
    let (graphs, provider) = (model.spec.graphs.len(), model.image_encoder.provider().to_owned());
    let objects = clip.as_ref().map_or(1, |(_, clip)| clip.objects());
    let options = Options { history: 8, max_objects: objects + 1, ..Options::default() };
    let mut session = Session::with(model, options, Output { low_res: true, ..Output::default() })?;
    let parity = clip.map(|(folder, clip)| parity::replay(&folder.join("logits.npz"), &clip, &mut session));
    let parity = parity.transpose()?;
    let speed = speed::measure(&mut session, threads)?;
    if let Some(folder) = folder {
        speed.write(folder);
    }
    let tolerance = flags.tolerance.or(folder.is_none_or(is_full_precision).then_some(TOLERANCE));
    Ok(Report { graphs, provider, parity, limit: tolerance.map(Limit::Logit), speed })
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
        let (Some(parity), Some(limit)) = (&self.parity, self.limit) else { return Ok(()) };
        let (what, most, got) = match limit {
            Limit::Logit(most) => ("logits", most, parity.worst_logit),
            Limit::Mean(most) => ("a mask's logits on average", most, parity.worst_mean),
        };
        // A NaN is as far as can be.
        if got <= most {
            return Ok(());
        }
        bail!("parity: expected {what} within {most:e} of the reference's, got {got:.1e}")
    }

    /// For people.
    pub(super) fn text(&self, name: &str) -> String {
        let mut text = format!("{name}\n  graphs   {} loaded, {}\n", self.graphs, self.provider);
        let _ = match &self.parity {
            None => writeln!(text, "  parity   this model brings no parity set, so nothing was compared"),
            Some(parity) => writeln!(
                text,
                "  parity   {}: max abs logit difference {:.1e}, mean over a mask at most {:.1e}, least mask IoU {:.4}, \
                 {} masks of {} frames",
                self.verdict(),
                parity.worst_logit,
                parity.worst_mean,
                parity.least_iou,
                parity.masks,
                parity.frames
            ),
        };
        let _ = writeln!(text, "  speed    {}", self.speed);
        text
    }

    fn verdict(&self) -> String {
        let Some(limit) = self.limit else { return "reported only, its precision is reduced".to_owned() };
        let (of, most) = match limit {
            Limit::Logit(most) => ("", most),
            Limit::Mean(most) => ("the mean ", most),
        };
        match self.passed() {
            Ok(()) => format!("pass, {of}at most {most:e}"),
            Err(_) => format!("FAIL, {of}above {most:e}"),
        }
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
        let parity = Parity { frames: 1, masks: 1, worst_logit: 0.01, worst_mean: 0.002, least_iou: 1.0 };
        let speed = Speed { step_p50_ms: 1.0, steps: 1, objects: 1, threads: 1, image_px: [8, 8] };
        let report = |limit| Report {
            graphs: 1,
            provider: String::new(),
            parity: Some(parity),
            limit,
            speed: speed.clone(),
        };
        assert!(report(None).passed().is_ok());
        assert!(report(Some(Limit::Logit(0.1))).passed().is_ok());
        let error = report(Some(Limit::Logit(TOLERANCE))).passed().unwrap_err().to_string();
        assert_eq!(error, "parity: expected logits within 1e-3 of the reference's, got 1.0e-2");
        assert!(report(Some(Limit::Mean(0.01))).passed().is_ok());
        let error = report(Some(Limit::Mean(0.001))).passed().unwrap_err().to_string();
        assert_eq!(
            error,
            "parity: expected a mask's logits on average within 1e-3 of the reference's, got 2.0e-3"
        );
        let mut broken = report(Some(Limit::Mean(0.1)));
        broken.parity = Some(Parity { worst_mean: f32::NAN, ..parity });
        assert!(broken.passed().is_err() && broken.text("m").contains("FAIL, the mean above 1e-1"));
    }
}
