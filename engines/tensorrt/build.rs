//! With the feature `tensorrt`: compiles the shim against the headers of this machine's TensorRT, once for each major
//! whose headers there are. `TENSORRT_INCLUDE_DIR` names a folder of either major; `TENSORRT_INCLUDE_DIR_10` and
//! `TENSORRT_INCLUDE_DIR_11` give one binary both.

#[cfg(feature = "tensorrt")]
#[path = "build/headers.rs"]
mod headers;

#[cfg(not(feature = "tensorrt"))]
fn main() {
    declare();
}

fn declare() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(shim_10, shim_11)");
}

#[cfg(feature = "tensorrt")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::{env, path::PathBuf};

    declare();
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=shim");
    let named = ["TENSORRT_INCLUDE_DIR_10", "TENSORRT_INCLUDE_DIR_11", "TENSORRT_INCLUDE_DIR"].map(|name| {
        println!("cargo::rerun-if-env-changed={name}");
        (name, env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    });
    let system = headers::SYSTEM.map(PathBuf::from);
    for (major, folder) in headers::choose(&named, &system)? {
        println!("cargo::rerun-if-changed={}", folder.join("NvInferVersion.h").display());
        println!("cargo::rustc-cfg=shim_{major}");
        // The mock of the tests is built from the same headers.
        println!("cargo::rustc-env=SIGHTLINE_TENSORRT_HEADERS_{major}={}", folder.display());
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .file(format!("shim/shim{major}.cpp"))
            .warnings(true)
            // System headers, so that our warnings are about our lines. The stub comes before any toolkit.
            .flag("-isystem")
            .flag("shim/stub")
            .flag("-isystem")
            .flag(&folder)
            .flag("-Wno-deprecated-declarations")
            .try_compile(&format!("sightline_tensorrt_{major}"))?;
    }
    Ok(())
}
