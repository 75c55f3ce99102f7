//! All of this room on a GPU: a real one where there is one, and everywhere an imaginary one (`imaginary/driver.cpp`),
//! which runs our kernels' very source on the processor, as lazily as a driver may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;

mod device;
mod kernels;
mod lent;
mod tracker;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
    sync::Arc,
};

use sightline_engine_cuda::{CudaDevice, probe};

const CHILD: &str = "SIGHTLINE_IMAGINARY_CHILD";

type Check = fn(&Arc<CudaDevice>);

const CHECKS: &[(&str, Check)] = &[
    ("tensors", kernels::tensors),
    ("pictures", kernels::pictures),
    ("halves", kernels::halves),
    ("parts and padded rows", kernels::parts_and_padded_rows),
    ("masks", kernels::masks),
    ("masks of more changes than are kept", kernels::masks_of_more_changes_than_are_kept),
    ("masks left on the device", kernels::masks_left_on_the_device),
    ("overlay", kernels::overlay),
    ("uploads are read at once", device::uploads_are_read_at_once),
    ("order", device::order),
    ("marks", device::marks),
    ("graphs", device::graphs),
    ("ends", device::ends),
    ("memory outlives its work", device::memory_outlives_its_work),
    ("arena", device::arena),
    ("a copy that fails", device::a_copy_that_fails),
    ("refusals", device::refusals),
    ("pictures of several feeds", device::pictures_of_several_feeds),
    ("threads", device::threads),
    ("a lent picture is read behind its writer", lent::read_behind_its_writer),
    ("a lent picture is held until it is read", lent::held_until_read),
    ("tiled pictures", lent::tiled),
    ("lent pictures that are refused", lent::refusals),
    ("the tracker", tracker::same_masks),
    ("masks of many objects", tracker::masks_of_many_objects),
    ("feeds together", tracker::feeds_together),
];

fn run_all(on: &str) -> bool {
    let device = match CudaDevice::open(0, None) {
        Ok(device) => device,
        Err(error) => {
            println!("{on}: could not be opened: {error}");
            return false;
        }
    };
    println!("{on}: {}", device.info());
    let mut ok = true;
    for (name, check) in CHECKS {
        let passed = catch_unwind(AssertUnwindSafe(|| check(&device))).is_ok();
        println!("{on}: {name} ... {}", if passed { "ok" } else { "FAILED" });
        ok &= passed;
    }
    ok
}

/// Builds the imaginary driver; `None`, aloud, without a C++ compiler.
fn build() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("imaginary");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let compile = |source: PathBuf, library: PathBuf| {
        std::fs::create_dir_all(library.parent().expect("it is in a folder"))
            .expect("the target folder can be written");
        // Floats as the kernels': never contracted.
        Command::new(env::var_os("CXX").unwrap_or_else(|| "c++".into()))
            .args(["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Werror", "-shared", "-fPIC"])
            .arg("-I")
            .arg(here.join("kernels"))
            .arg(source)
            .args(["-Wl,-soname,libcuda.so", "-o"])
            .arg(library)
            .output()
    };
    // A library of that name which is no driver.
    let empty = folder.join("empty.cpp");
    std::fs::write(&empty, "").expect("the target folder can be written");
    let built = compile(empty, folder.join("foreign/libcuda.so")).and_then(|output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        compile(here.join("tests/imaginary/driver.cpp"), folder.join("libcuda.so"))
    });
    match built {
        Err(error) => {
            eprintln!("SKIPPED: no C++ compiler ({error}): kernels were not run on the processor");
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(folder)
        }
    }
}

fn child(task: &str, driver: Option<&Path>, settings: &[(&str, &str)]) -> Output {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(env::current_exe().expect("this program has a name"));
    command.env(CHILD, task).env("XDG_CACHE_HOME", scratch.path()).envs(settings.iter().copied());
    if let Some(folder) = driver {
        command.env("LD_LIBRARY_PATH", folder).env("SIGHTLINE_NVRTC", folder.join("libcuda.so"));
    }
    command.output().expect("this program starts")
}

/// Each way in which a machine may lack a GPU, told in its own words.
fn probes(driver: &Path, real: bool) -> bool {
    let foreign = driver.join("foreign");
    let mut cases = vec![
        ("foreign", Some(foreign.as_path()), vec![], "undefined symbol: cuDriverGetVersion"),
        ("too old", Some(driver), vec![("SIGHTLINE_IMAGINARY_VERSION", "11040")], "got CUDA 11.4"),
        ("no device", Some(driver), vec![("SIGHTLINE_IMAGINARY_DEVICES", "0")], "at least one, got none"),
        ("asleep", Some(driver), vec![("SIGHTLINE_IMAGINARY_DEVICES", "-1")], "CUDA_ERROR_NO_DEVICE"),
        ("there", Some(driver), vec![], "driver for CUDA 13.0, Imaginary (sm_90, 8.0 GiB)"),
    ];
    if !real {
        cases.push(("no driver", None, vec![], "NVIDIA driver: expected libcuda.so"));
    }
    let mut ok = true;
    for (case, driver, settings, expected) in cases {
        let output = child("probe", driver, &settings);
        let text = String::from_utf8_lossy(&output.stdout);
        let passed = output.status.success() && text.contains(expected);
        println!("probe, {case} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            println!("expected {expected:?} in {text:?}, {}", String::from_utf8_lossy(&output.stderr));
        }
        ok &= passed;
    }
    ok
}

fn main() -> ExitCode {
    let verdict = |ok| if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match env::var(CHILD).as_deref() {
        Ok("probe") => {
            match probe() {
                Ok(found) => println!("{found}"),
                Err(error) => println!("{error}"),
            }
            return ExitCode::SUCCESS;
        }
        Ok(_) => return verdict(run_all("imaginary GPU")),
        Err(_) => {}
    }
    let mut ok = true;
    let real = probe();
    if let Some(driver) = build() {
        let output = child("checks", Some(&driver), &[]);
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        ok &= output.status.success() && probes(&driver, real.is_ok());
    }
    match real {
        Ok(_) => ok &= run_all("GPU"),
        Err(error) => eprintln!("SKIPPED: kernels were not run on a GPU: {error}"),
    }
    verdict(ok)
}
