//! `sightline engines verify`: are plans whole, of this model, for this machine, and do they give what the graph gives.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use sightline_engine_registry::plan::{Machine, PlanEntry, Precision, Sidecar, plans_in};

use super::{
    Subject,
    build::{Staging, name_of},
    compare::Comparison,
    fits,
    process::Interrupt,
    trtexec::Trtexec,
};
use crate::cli::PlanVerifyArgs;

/// The files are right and their numbers were not compared.
const NOT_COMPARED: u8 = 3;

/// The command.
pub(super) fn run(args: &PlanVerifyArgs) -> Result<ExitCode> {
    let interrupt = Interrupt::install();
    let subject = Subject::open(&args.model)?;
    let plans = plans_in(&subject.plans)?;
    if plans.is_empty() {
        bail!(
            "plans of model {:?}: expected some in {:?}, got none; `sightline engines build --model {}` makes them",
            subject.name,
            subject.plans,
            args.model
        );
    }
    let tool = Trtexec::find(args.tool.trtexec.as_deref(), &interrupt);
    let here = tool.and_then(|tool| tool.machine(&interrupt).map(|machine| (tool, machine)));
    let staging = Staging::new(&subject.plans)?;
    let mut comparison = match &here {
        Ok((tool, _)) => Some(Comparison::new(&args.model, &subject, tool, &staging.path)),
        Err(_) => None,
    };
    let mut failed = 0;
    for entry in &plans {
        let name = name_of(&entry.path);
        let found = files(&subject, entry, here.as_ref().ok().map(|(_, machine)| machine));
        let verdict = found.and_then(|sidecar| match &mut comparison {
            None => Ok("whole".to_owned()),
            Some(comparison) => {
                let most = args.tolerance.unwrap_or_else(|| tolerance(sidecar.key.precision));
                let far = comparison.run(&entry.path, sidecar, &interrupt)?;
                if far.share <= most {
                    return Ok(format!("whole, {:.1e} of at most {most:e} in {:?}", far.share, far.output));
                }
                bail!(
                    "output {:?}: expected at most {most:e} from ONNX Runtime, got {:.1e}",
                    far.output,
                    far.share
                )
            }
        });
        interrupt.check()?;
        let line = match verdict {
            Ok(text) => format!("{name}: {text}\n"),
            Err(error) => {
                failed += 1;
                format!("{name}: FAIL, {error:#}\n")
            }
        };
        crate::print_stdout(&line)?;
    }
    if failed > 0 {
        bail!("expected all of {} plans to pass, got {failed} that did not", plans.len());
    }
    match here {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(reason) => {
            crate::print_stdout(&format!("not run, so their numbers were not compared: {reason:#}\n"))?;
            Ok(ExitCode::from(NOT_COMPARED))
        }
    }
}

/// What can be said without running it.
fn files<'a>(subject: &Subject, entry: &'a PlanEntry, machine: Option<&Machine>) -> Result<&'a Sidecar> {
    let sidecar = entry.sidecar.as_ref().map_err(Clone::clone)?;
    let sha256 = subject.sha256(&sidecar.key.component).unwrap_or("none");
    sidecar.check_source(&entry.path, &sidecar.key.component, sha256)?;
    if let Some(machine) = machine {
        fits(sidecar, &entry.path, machine)?;
    }
    let bytes = fs::read(&entry.path).with_context(|| format!("cannot read {:?}", entry.path))?;
    sidecar.check_bytes(&entry.path, &bytes)?;
    Ok(sidecar)
}

/// Of the root mean square of an output. Beside the graph's own rounding (measured on drawn weights, in 32 bits of
/// accumulation: fp16 at most 3e-3, bf16 4e-2) TensorRT adds orders of summation, and TF32 where the file says fp32.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 1e-2,
        Precision::Fp16 => 2e-2,
        Precision::Bf16 => 1e-1,
    }
}
