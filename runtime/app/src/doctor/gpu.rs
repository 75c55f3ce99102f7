//! What of a GPU's chain is there: TensorRT, and the plans it would run.

use std::{fmt::Display, path::PathBuf};

use sightline_engine_registry::{examine_plans, plan::PlanError, probe_tensorrt};

use super::Check;

/// Nothing of it is needed: models run on the processor too.
pub(super) fn checks() -> Vec<Check> {
    let library = probe_tensorrt();
    // Without a library there is nothing that a plan could fit.
    let plans = library.is_ok().then(|| plans(examine_plans(0)));
    std::iter::once(check("TensorRT", library)).chain(plans.into_iter().flatten()).collect()
}

/// One line for those that fit, and one for each that does not.
fn plans<E: Display>(examined: Result<Vec<(PathBuf, Option<PlanError>)>, E>) -> Vec<Check> {
    let examined = match examined {
        Ok(examined) => examined,
        Err(error) => return vec![check::<E>("TensorRT plans", Err(error))],
    };
    let fit = examined.iter().filter(|(_, fault)| fault.is_none()).count();
    let all = match fit {
        0 => Err("none that fits this machine: `sightline engines build --model NAME`".to_owned()),
        fit => Ok(format!("{fit} fit this machine")),
    };
    let faults = examined.into_iter().filter_map(|(_, fault)| fault);
    std::iter::once(check("TensorRT plans", all))
        .chain(faults.map(|fault| check("a TensorRT plan", Err(fault))))
        .collect()
}

fn check<E: Display>(name: &'static str, result: Result<String, E>) -> Check {
    let fix = result.as_ref().err().map(ToString::to_string);
    Check { name, needed: false, found: result.ok(), fix }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sightline_engine_registry::plan::{Flavor, Gpu, Machine, PlanKey, Precision, Sidecar, examine};

    use super::*;

    #[test]
    fn a_foreign_and_a_corrupt_plan_have_a_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine {
            tensorrt: "10.3.0.26".parse().unwrap(),
            flavor: Flavor::Full,
            gpu: Gpu { sm: 87, name: "Orin".into(), multiprocessors: 16 },
        };
        let put = |component: &str, build: u32| {
            let mut tensorrt = machine.tensorrt;
            tensorrt.build = build;
            let key = PlanKey {
                component: component.into(),
                onnx_sha256: "0".repeat(64),
                tensorrt,
                flavor: machine.flavor,
                gpu: machine.gpu.clone(),
                dla_core: None,
                precision: Precision::Fp16,
                profiles: vec![],
                builder_flags: vec![],
                optimization_level: 3,
            };
            let path = folder.path().join(key.file_name());
            fs::write(&path, component).unwrap();
            Sidecar::new(key, &Default::default(), component.as_bytes(), 1.0).write(&path).unwrap();
            path
        };
        put("good", 26);
        put("foreign", 30);
        fs::write(put("corrupt", 26), "cut").unwrap();
        let checks = plans::<String>(Ok(examine(folder.path(), &machine).unwrap()));
        let lines: Vec<_> =
            checks.iter().map(|check| check.found.as_deref().or(check.fix.as_deref()).unwrap()).collect();
        assert_eq!(lines[0], "1 fit this machine");
        assert!(lines[1].contains("corrupt-") && lines[1].contains("expected 7 bytes, got 3"), "{lines:?}");
        assert!(
            lines[2].contains("foreign-") && lines[2].contains("got one built for TensorRT 10.3.0.30"),
            "{lines:?}"
        );
        assert_eq!(checks.len(), 3);

        let none = plans::<String>(Ok(vec![]));
        assert!(none[0].fix.as_deref().unwrap().contains("engines build"));
        let no_device = plans(Err("NVIDIA GPU: expected at least one, got none"));
        assert_eq!(no_device[0].fix.as_deref(), Some("NVIDIA GPU: expected at least one, got none"));
    }
}
