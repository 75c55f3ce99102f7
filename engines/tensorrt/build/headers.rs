//! Which TensorRT a folder of headers is of. Shared by `build.rs` and a test.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where NVIDIA's packages put `NvInferVersion.h`.
pub(crate) const SYSTEM: [&str; 6] = [
    "/usr/include/aarch64-linux-gnu",
    "/usr/include/x86_64-linux-gnu",
    "/usr/include",
    "/usr/local/tensorrt/include",
    "/usr/local/TensorRT/include",
    "/opt/tensorrt/include",
];

/// Major and minor of the headers in a folder; `None` when there are none.
pub(crate) fn version(folder: &Path) -> Result<Option<(u32, u32)>, String> {
    let path = folder.join("NvInferVersion.h");
    let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
    let number = |name| value(&text, name, 4);
    match (number("NV_TENSORRT_MAJOR"), number("NV_TENSORRT_MINOR")) {
        (Some(major), Some(minor)) => Ok(Some((major, minor))),
        _ => {
            Err(format!("{}: expected NV_TENSORRT_MAJOR and NV_TENSORRT_MINOR, got neither", path.display()))
        }
    }
}

/// The number a macro stands for; from TensorRT 10.9 on it stands for another macro.
fn value(text: &str, name: &str, depth: u32) -> Option<u32> {
    let word = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "#define" && words.next()? == name).then(|| words.next()).flatten()
    })?;
    word.parse().ok().or_else(|| value(text, word, depth.checked_sub(1)?))
}

/// The folders to compile against, a major each. `named` are variables and what they say.
pub(crate) fn choose(
    named: &[(&str, Option<PathBuf>)],
    system: &[PathBuf],
) -> Result<Vec<(u32, PathBuf)>, String> {
    let mut chosen: Vec<(u32, PathBuf)> = Vec::new();
    for (variable, folder) in named {
        let Some(folder) = folder else { continue };
        let Some((major, minor)) = version(folder)? else {
            return Err(format!(
                "${variable}: expected a folder with NvInferVersion.h, got {:?}",
                folder.display().to_string()
            ));
        };
        let wanted = variable.rsplit('_').next().and_then(|end| end.parse().ok());
        let fits = match (major, wanted) {
            (_, Some(wanted)) if wanted != major => false,
            (10, _) => minor >= 3,
            (11, _) => true,
            _ => false,
        };
        if !fits {
            let wanted = wanted.map_or("10.3 or later, or 11".to_owned(), |major: u32| {
                format!("{major}{}", if major == 10 { ".3 or later" } else { "" })
            });
            return Err(format!("${variable}: expected headers of TensorRT {wanted}, got {major}.{minor}"));
        }
        if chosen.iter().all(|(other, _)| *other != major) {
            chosen.push((major, folder.clone()));
        }
    }
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let mut seen = Vec::new();
    for folder in system {
        match version(folder)? {
            Some((major, minor)) if major == 11 || (major == 10 && minor >= 3) => {
                return Ok(vec![(major, folder.clone())]);
            }
            Some((major, minor)) => seen.push(format!("{} ({major}.{minor})", folder.display())),
            None => seen.push(folder.display().to_string()),
        }
    }
    Err(format!(
        "feature `tensorrt`: expected the headers of TensorRT 10.3 or later, or 11 (on Ubuntu and JetPack: \
         `apt install libnvinfer-headers-dev`; or set TENSORRT_INCLUDE_DIR), got none in {}",
        seen.join(", ")
    ))
}
