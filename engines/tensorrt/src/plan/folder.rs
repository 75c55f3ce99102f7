use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{Machine, PlanError, PlanFault, Sidecar, key::short};

/// A plan that lies in a folder, and what its sidecar says.
#[derive(Debug, Clone)]
pub struct PlanEntry {
    /// The plan.
    pub path: PathBuf,
    /// Its sidecar, or why there is none.
    pub sidecar: Result<Sidecar, PlanError>,
}

/// Where plans of models that are not folders are kept: `$XDG_CACHE_HOME/sightline/engines`
/// (`~/.cache/sightline/engines`). `None` without either variable.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    cache.or_else(|| set("HOME").map(|home| home.join(".cache"))).map(|cache| cache.join("sightline/engines"))
}

/// Where the plans of a model's folder are kept: `MODEL/engines`.
pub fn model_folder(model: &Path) -> PathBuf {
    model.join("engines")
}

/// The plans of a folder, by name. A folder that is not there has none.
///
/// # Errors
/// [`PlanFault::Missing`] when the folder is there and cannot be listed.
pub fn plans_in(folder: &Path) -> Result<Vec<PlanEntry>, PlanError> {
    let refuse = |error: std::io::Error| {
        let subject = format!("plans in {:?}", folder.display().to_string());
        PlanError::new(PlanFault::Missing, subject, "a folder that can be listed", error)
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refuse(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(refuse)?.path();
        if path.extension().is_some_and(|suffix| suffix == "plan") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths.into_iter().map(|path| PlanEntry { sidecar: Sidecar::read(&path), path }).collect())
}

/// The plans of a graph that this machine may run: of those for the same sizes the newest, sorted by name. Only sidecars
/// are read.
///
/// # Errors
/// [`PlanFault::Missing`] when no folder has a plan of the graph; when there are some and none fits, what is wrong with
/// the first.
pub fn fitting(
    folders: &[PathBuf],
    component: &str,
    onnx_sha256: &str,
    machine: &Machine,
) -> Result<Vec<PathBuf>, PlanError> {
    let mut newest: Vec<(PathBuf, Sidecar)> = Vec::new();
    let mut unfit = None;
    for folder in folders {
        for PlanEntry { path, sidecar } in plans_in(folder)? {
            let of_this = path.file_name().is_some_and(|name| {
                name.to_string_lossy().starts_with(&format!("{component}-{}-", short(onnx_sha256)))
            });
            let checked = sidecar.and_then(|sidecar| {
                sidecar.check_source(&path, component, onnx_sha256)?;
                sidecar.check(&path, machine).map(|()| sidecar)
            });
            let sidecar = match checked {
                Ok(sidecar) => sidecar,
                // Plans of other graphs are nobody's business here.
                Err(error) if of_this => {
                    unfit = unfit.or(Some(error));
                    continue;
                }
                Err(_) => continue,
            };
            match newest.iter_mut().find(|(_, other)| other.key.profiles == sidecar.key.profiles) {
                Some(other) if other.1.built_unix_s >= sidecar.built_unix_s => {}
                Some(other) => *other = (path, sidecar),
                None => newest.push((path, sidecar)),
            }
        }
    }
    if !newest.is_empty() {
        let mut paths: Vec<_> = newest.into_iter().map(|(path, _)| path).collect();
        paths.sort();
        return Ok(paths);
    }
    Err(unfit.unwrap_or_else(|| {
        let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        PlanError::new(
            PlanFault::Missing,
            format_args!("plan of {component}"),
            format_args!(
                "one built from sha256 {}... (`sightline engines build` makes it)",
                short(onnx_sha256)
            ),
            format_args!("none in {}", folders.join(", ")),
        )
    }))
}

/// The plans of a folder, each with what is wrong with it on this machine, if anything. Reads every plan that is not
/// foreign.
///
/// # Errors
/// As [`plans_in`].
pub fn examine(folder: &Path, machine: &Machine) -> Result<Vec<(PathBuf, Option<PlanError>)>, PlanError> {
    let paths = plans_in(folder)?.into_iter().map(|entry| entry.path);
    Ok(paths.map(|path| (open(&path, machine).err(), path)).map(|(fault, path)| (path, fault)).collect())
}

/// Reads a plan after everything that its sidecar says has been checked against this machine.
///
/// # Errors
/// [`PlanFault::NoSidecar`], [`PlanFault::Unreadable`], [`PlanFault::Foreign`] before the plan is opened;
/// [`PlanFault::Missing`] when it cannot be, [`PlanFault::Corrupt`] when its bytes are not those that were written.
pub fn open(plan: &Path, machine: &Machine) -> Result<(Sidecar, Vec<u8>), PlanError> {
    if !plan.is_file() {
        let subject = format!("plan {:?}", plan.display().to_string());
        return Err(PlanError::new(PlanFault::Missing, subject, "a file", "none"));
    }
    let sidecar = Sidecar::read(plan)?;
    sidecar.check(plan, machine)?;
    let bytes = fs::read(plan).map_err(|error| {
        let subject = format!("plan {:?}", plan.display().to_string());
        PlanError::new(PlanFault::Missing, subject, "a readable file", error)
    })?;
    sidecar.check_bytes(plan, &bytes)?;
    Ok((sidecar, bytes))
}

#[cfg(test)]
mod tests {
    use sightline_core::DType;
    use sightline_engine_api::{Dim, EngineError, GraphIo, Kind, Port};

    use super::*;
    use crate::plan::{
        Flavor, VERSION_COMPATIBLE,
        key::tests::{key, orin},
    };

    const PLAN: &[u8] = b"not a plan, but nobody looks inside";

    fn machine() -> Machine {
        Machine { tensorrt: key().tensorrt, flavor: Flavor::Full, gpu: orin() }
    }

    fn io() -> GraphIo {
        let port = |name: &str, dtype, dims: &[Dim]| Port { name: name.into(), dtype, dims: dims.to_vec() };
        GraphIo {
            inputs: vec![
                port("mem", DType::F32, &[Dim::Dynamic, Dim::Fixed(64)]),
                port("tpos_idx", DType::I64, &[Dim::Fixed(7)]),
            ],
            outputs: vec![port("pix_feat", DType::F16, &[])],
        }
    }

    fn put(folder: &Path, change: impl FnOnce(&mut Sidecar)) -> PathBuf {
        let path = folder.join(key().file_name());
        fs::write(&path, PLAN).unwrap();
        let mut sidecar = Sidecar::new(key(), &io(), PLAN, 12.5);
        change(&mut sidecar);
        sidecar.write(&path).unwrap();
        path
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), |sidecar| sidecar.driver = Some("580.65.06".into()));
        let (sidecar, bytes) = open(&path, &machine()).unwrap();
        assert_eq!(bytes, PLAN);
        assert_eq!((sidecar.key.clone(), sidecar.io(&path).unwrap()), (key(), io()));
        assert_eq!(sidecar.driver.as_deref(), Some("580.65.06"));
        let listed = plans_in(folder.path()).unwrap();
        assert_eq!(listed.len(), 1, "the sidecar is no plan, and nothing half written is left");
        assert_eq!(listed[0].sidecar.as_ref().unwrap(), &sidecar);
        assert!(plans_in(&folder.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn each_thing_that_is_wrong_says_so() {
        use PlanFault::{Corrupt, Foreign, Missing, NoSidecar, Unreadable};
        type Break = fn(&Path, &mut Machine);
        let cases: [(&str, PlanFault, &[&str], Break); 11] = [
            ("no plan", Missing, &["expected a file, got none"], |path, _| fs::remove_file(path).unwrap()),
            ("no sidecar", NoSidecar, &["expected its sidecar", "engines build"], |path, _| {
                fs::remove_file(Sidecar::path_of(path)).unwrap();
            }),
            ("not JSON", Unreadable, &["sidecar", "JSON"], |path, _| {
                fs::write(Sidecar::path_of(path), "{").unwrap();
            }),
            ("of the future", Unreadable, &["expected schema 1, got schema 2"], |path, _| {
                fs::write(Sidecar::path_of(path), "{\"schema\": 2, \"new\": 1}").unwrap();
            }),
            ("huge", Unreadable, &["at most 1 MiB"], |path, _| {
                fs::write(Sidecar::path_of(path), vec![b' '; (1 << 20) + 1]).unwrap();
            }),
            (
                "another TensorRT",
                Foreign,
                &[
                    "one built for TensorRT 10.3.0.30 (`sightline engines build`",
                    "got one built for TensorRT 10.3.0.26",
                ],
                |_, machine| machine.tensorrt.build = 30,
            ),
            (
                "another GPU and library",
                Foreign,
                &["the rtx library and Orin (sm_87, 8 multi", "the full library and Orin (sm_87, 16 multi"],
                |_, machine| {
                    machine.flavor = Flavor::Rtx;
                    machine.gpu.multiprocessors = 8;
                },
            ),
            ("another capability", Foreign, &["sm_110", "sm_87"], |_, machine| machine.gpu.sm = 110),
            ("another name", Foreign, &["AGX"], |_, machine| machine.gpu.name = "AGX".into()),
            ("cut short", Corrupt, &["expected 35 bytes, got 3"], |path, _| fs::write(path, "not").unwrap()),
            ("one bit", Corrupt, &["sha256"], |path, _| {
                let mut bytes = PLAN.to_vec();
                bytes[7] ^= 1;
                fs::write(path, bytes).unwrap();
            }),
        ];
        for (case, fault, parts, spoil) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = put(folder.path(), |_| {});
            let mut machine = machine();
            spoil(&path, &mut machine);
            let error = open(&path, &machine).expect_err(case);
            assert_eq!(error.kind(), fault, "{case}: {error}");
            for part in parts {
                assert!(error.to_string().contains(part), "{case}: {part} in {error}");
            }
            let listed = examine(folder.path(), &machine).unwrap();
            let faults: Vec<_> = listed.iter().filter_map(|(_, fault)| fault.as_ref()).collect();
            assert!(
                fault == Missing || faults.iter().map(|other| other.kind()).eq([fault]),
                "{case}: {listed:?}"
            );
            assert_eq!(EngineError::from(error).kind(), Kind::Model, "{case}");
        }
    }

    #[test]
    fn a_version_compatible_plan_goes_up_and_not_down() {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), |sidecar| sidecar.key.builder_flags.push(VERSION_COMPATIBLE.into()));
        for (version, flavor, fits) in [
            ("10.3.0.26", Flavor::Full, true),
            ("10.16.1.2", Flavor::Lean, true),
            ("11.4.0.1", Flavor::Full, true),
            ("10.2.0.1", Flavor::Full, false),
            ("10.16.1.2", Flavor::Rtx, false),
        ] {
            let machine = Machine { tensorrt: version.parse().unwrap(), flavor, ..machine() };
            assert_eq!(open(&path, &machine).is_ok(), fits, "{version} {flavor}");
        }
    }

    #[test]
    fn a_plan_for_an_accelerator_is_foreign() {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), |sidecar| sidecar.key.dla_core = Some(1));
        let error = open(&path, &machine()).expect_err("DLA");
        assert_eq!(error.kind(), PlanFault::Foreign);
        assert!(error.to_string().ends_with("got one built for DLA core 1"), "{error}");
    }

    #[test]
    fn a_plan_of_another_graph_is_foreign() {
        let path = Path::new("x.plan");
        let sidecar = Sidecar::new(key(), &io(), PLAN, 1.0);
        assert!(sidecar.check_source(path, "memory_attention", &key().onnx_sha256).is_ok());
        for (component, sha) in [("image_encoder", key().onnx_sha256), ("memory_attention", "0".repeat(64))] {
            let error = sidecar.check_source(path, component, &sha).expect_err(component);
            assert_eq!(error.kind(), PlanFault::Foreign);
        }
    }

    #[test]
    fn the_newest_plan_of_each_size_is_taken_and_nothing_of_other_graphs() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let paths: Vec<_> = folders.iter().map(|folder| folder.path().to_owned()).collect();
        let (sha, machine) = (key().onnx_sha256, machine());
        let find = |component: &str| fitting(&paths, component, &sha, &machine);
        let error = find("memory_attention").expect_err("nothing yet");
        assert_eq!(error.kind(), PlanFault::Missing);
        assert!(
            error.to_string().contains("engines build") && error.to_string().contains("none in"),
            "{error}"
        );

        // One that does not fit, and a file of the same graph that nobody can say anything about.
        let foreign = put(folders[0].path(), |sidecar| sidecar.key.gpu.sm = 90);
        assert_eq!(find("memory_attention").expect_err("sm 90").kind(), PlanFault::Foreign);
        fs::remove_file(Sidecar::path_of(&foreign)).unwrap();
        assert_eq!(find("memory_attention").expect_err("no sidecar").kind(), PlanFault::NoSidecar);
        assert_eq!(find("image_encoder").expect_err("of another graph").kind(), PlanFault::Missing);

        let old = put(folders[0].path(), |sidecar| sidecar.built_unix_s = 1);
        assert_eq!(find("memory_attention").unwrap(), [old]);
        let new = put(folders[1].path(), |sidecar| sidecar.key.optimization_level = 5);
        assert_eq!(find("memory_attention").unwrap(), [new], "of the same sizes the newest");
        let wide = folders[1].path().join("wide.plan");
        fs::write(&wide, PLAN).unwrap();
        let mut sidecar = Sidecar::new(key(), &io(), PLAN, 1.0);
        sidecar.key.profiles.clear();
        sidecar.write(&wide).unwrap();
        assert_eq!(find("memory_attention").unwrap().len(), 2, "other sizes are another plan");
    }

    #[test]
    fn a_sidecar_that_cannot_be_written_says_so() {
        let error = Sidecar::new(key(), &io(), PLAN, 1.0)
            .write(Path::new("/nonexistent/x.plan"))
            .expect_err("no folder");
        assert_eq!(error.kind(), PlanFault::Write);
    }
}
