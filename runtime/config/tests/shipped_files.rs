//! Every TOML file under `configs/` that is a settings file loads and resolves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};

use sightline_config::{Layer, Settings};

fn toml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // configs/models describes models, not settings.
            if path.file_name().is_none_or(|name| name != "models") {
                toml_files(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
}

#[test]
fn all_shipped_settings_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut files = Vec::new();
    toml_files(&folder, &mut files);
    assert!(files.iter().any(|path| path.ends_with("default.toml")), "{files:?}");
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        let layer = Layer::from_file(&path).unwrap_or_else(|error| panic!("{error}"));
        Settings::resolve([layer]).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Layer::from_file(Path::new("no/such.toml")).expect_err("it is not there");
    assert!(error.to_string().contains("no/such.toml"), "{error}");
}

/// What `serve.toml` shows in comments is right too.
#[test]
fn the_feeds_shown_in_comments_load() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/serve.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let (shown, commented) = text.split_once("# [feeds.gate]").unwrap();
    let uncommented: String = format!("# [feeds.gate]{commented}")
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line.trim_start_matches('#')).to_owned() + "\n")
        .collect();
    let layer = Layer::from_toml("configs/serve.toml", &format!("{shown}{uncommented}")).unwrap();
    let settings = Settings::resolve([layer]).unwrap();
    assert_eq!(settings.feeds.keys().collect::<Vec<_>>(), ["ball", "film", "gate"]);
    assert!(settings.feeds["gate"].max_age.is_some() && settings.feeds["film"].repeat);
}
