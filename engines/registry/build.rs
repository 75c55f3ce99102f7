//! Embeds `engines/nano/model` (its manifest and its graphs, nothing else) if the feature `nano` is on. An empty
//! folder embeds nothing; asking for the model is then an error at run time.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../nano/model");
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-changed=build.rs");

    let mut files = Vec::new();
    if env::var_os("CARGO_FEATURE_NANO").is_some() && folder.join("model.toml").is_file() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let kept = path.extension().is_some_and(|suffix| suffix == "onnx")
                || path.file_name().is_some_and(|name| name == "model.toml");
            if kept && path.is_file() {
                files.push(fs::canonicalize(path)?);
            }
        }
    }
    files.sort();

    let mut code = String::from("pub(crate) static NANO: &[(&str, &[u8])] = &[\n");
    for path in files {
        println!("cargo::rerun-if-changed={}", path.display());
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("file name: expected UTF-8")?;
        writeln!(code, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())?;
    }
    code.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("nano.rs"), code)?;
    Ok(())
}
