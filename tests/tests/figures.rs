//! The README's performance section is what its folder of raw figures gives: `benches/figures.py --check`.
#![allow(clippy::expect_used)] // a test file: its helpers may stop the test

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn check(readme: &Path) -> Output {
    let mut command = Command::new("python3");
    command.arg(root().join("benches/figures.py")).arg("--check").arg("--readme").arg(readme);
    command.output().expect("python3 runs")
}

#[test]
fn the_readme_says_what_was_measured() {
    let readme = root().join("README.md");
    let output = check(&readme);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    // A figure that nobody measured is seen.
    let text = std::fs::read_to_string(&readme).expect("a README");
    let changed =
        text.replacen("<!-- /performance -->", "A thousand frames a second.\n<!-- /performance -->", 1);
    assert_ne!(text, changed);
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("README.md");
    std::fs::write(&copy, changed).expect("a copy");
    assert!(!check(&copy).status.success());
}
