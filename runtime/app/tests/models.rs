//! `sightline models` against a real HTTP server on this machine; the exporter is a script that hands out the
//! committed SAM2 graphs, everything behind it is the real thing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;
#[path = "common/server.rs"]
mod server;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::{command, failed_with, stderr, stdout, succeeded};
use server::{Manner, Server};

/// Not a multiple of anything that is read or written at once.
const CHECKPOINT_BYTES: usize = 700_001;

fn golden() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sam2-tiny")).unwrap()
}

fn checkpoint() -> Vec<u8> {
    (0..CHECKPOINT_BYTES).map(|at| (at * 31 % 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A house of its own for models, a catalogue with one model, and the stand-in exporter.
struct House {
    root: tempfile::TempDir,
    server: Server,
}

impl House {
    fn new() -> Self {
        let house = Self { root: tempfile::tempdir().unwrap(), server: Server::new(checkpoint()) };
        house.catalogue("");
        house.exporter(&format!(
            "cp {golden}/model/*.onnx {golden}/model/model.toml \"$out\"\n\
             mkdir \"$out/parity\"\n\
             cp -r {golden}/frames \"$out/parity/frames\"\n\
             cp {golden}/prompts/correction.json \"$out/parity/prompts.json\"\n\
             cp {golden}/logits/correction.npz \"$out/parity/logits.npz\"\n",
            golden = golden().display()
        ));
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// `more` is added to the checkpoint's table.
    fn catalogue(&self, more: &str) {
        fs::create_dir_all(self.path("catalogue")).unwrap();
        let text = format!(
            "name = \"toy\"\nfamily = \"sam2.1\"\nconfig = \"tiny\"\nlicence = \"MIT\"\n\
             page = \"https://example.org\"\nimage_sizes_px = [128]\ndefault_image_size_px = 128\n\
             [[checkpoints]]\naddress = \"{}\"\nlayout = \"pt\"\n{more}\n",
            self.server.address
        );
        fs::write(self.path("catalogue/toy.toml"), text).unwrap();
    }

    /// A shell script that takes the exporter's flags: `$out`, `$checkpoint`, and all of them in `$all`.
    fn exporter(&self, body: &str) {
        let script = format!(
            "#!/bin/sh\nset -e\nall=\"$*\"\n\
             while [ $# -gt 0 ]; do case $1 in --out) out=$2;; --checkpoint) checkpoint=$2;; esac; shift 2; done\n\
             {body}"
        );
        fs::write(self.path("exporter"), script).unwrap();
        fs::set_permissions(self.path("exporter"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&[&["models"], arguments].concat());
        command
            .env("SIGHTLINE_MODELS", self.path("models"))
            .env("SIGHTLINE_CATALOGUE", self.path("catalogue"))
            .env("SIGHTLINE_EXPORTER", self.path("exporter"))
            // A proxy of the machine has no business here.
            .env("NO_PROXY", "*");
        command
    }

    fn models(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn pull(&self) -> Output {
        self.models(&["pull", "toy", "--stall-timeout", "1", "--threads", "1"])
    }

    fn part(&self) -> PathBuf {
        self.path("models/.downloads/toy.pt.part")
    }

    fn part_bytes(&self) -> Option<u64> {
        fs::metadata(self.part()).ok().map(|found| found.len())
    }

    /// After a failure: no model, no half of one.
    fn nothing_is_installed(&self) {
        let found = fs::read_dir(self.path("models")).into_iter().flatten().flatten();
        let found: Vec<_> =
            found.map(|entry| entry.file_name()).filter(|name| name != ".downloads").collect();
        assert!(found.is_empty(), "{found:?}");
    }

    /// The folder a model is being built in, if there is one.
    fn staged(&self) -> Option<PathBuf> {
        let mut found =
            fs::read_dir(self.path("models")).into_iter().flatten().flatten().map(|entry| entry.path());
        found.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".new-"))
    }

    /// Pulls, and kills the process as soon as `reached`.
    fn pull_and_kill(&self, reached: impl Fn() -> bool) {
        let mut child =
            self.command(&["pull", "toy", "--threads", "1"]).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while !reached() {
            assert!(began.elapsed() < Duration::from_secs(20), "never reached");
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let list = self.models(&["list", "--json"]);
        let rows: serde_json::Value = serde_json::from_str(&stdout(&list)).unwrap();
        let toys: Vec<_> = rows.as_array().unwrap().iter().filter(|row| row["family"] == "sam2.1").collect();
        assert!(toys.iter().all(|row| row["installed"].is_null()), "{toys:?}");
    }

    fn is_installed(&self) {
        let out = self.models(&["list", "--json"]);
        succeeded(&out);
        let rows: serde_json::Value = serde_json::from_str(&stdout(&out)).unwrap();
        let toy = rows.as_array().unwrap().iter().find(|row| row["name"] == "toy").unwrap().clone();
        assert_eq!(toy["installed"], self.path("models/toy").to_str().unwrap(), "{toy}");
        assert!(toy["speed"]["step_p50_ms"].as_f64().unwrap() > 0.0, "{toy}");
        assert_eq!(toy["speed"]["threads"], 1);
        assert_eq!(self.staged(), None);
        assert_eq!(self.part_bytes(), None);
    }
}

#[test]
fn a_model_is_pulled_verified_used_and_removed() {
    let house = House::new();
    let out = house.pull();
    succeeded(&out);
    let text = stdout(&out);
    assert!(text.contains("6 loaded") && text.contains("parity   pass"), "{text}");
    assert!(stderr(&out).contains(&sha256(&checkpoint())), "the hash is said: {}", stderr(&out));
    house.is_installed();
    // The checkpoint has done its work; its hash is kept in the form of sha256sum.
    assert!(!house.path("models/.downloads/toy.pt").exists());
    let recorded = fs::read_to_string(house.path("models/.downloads/toy.pt.sha256")).unwrap();
    assert_eq!(recorded, format!("{}  toy.pt\n", sha256(&checkpoint())));
    let origin = fs::read_to_string(house.path("models/toy/origin.json")).unwrap();
    assert!(origin.contains(&house.server.address) && origin.contains(&sha256(&checkpoint())), "{origin}");

    // The registry finds it by its name, so that the plugin does.
    let trace = command(&["trace", "--model", "toy", "--frames"])
        .arg(golden().join("frames"))
        .arg("--prompts")
        .arg(golden().join("prompts/box.json"))
        .arg("--out")
        .arg(house.path("out.npz"))
        .env("SIGHTLINE_MODELS", house.path("models"))
        .output()
        .unwrap();
    succeeded(&trace);

    failed_with(&house.pull(), "sightline models remove toy");
    let again = house.models(&["verify", "toy", "--threads", "1"]);
    succeeded(&again);
    assert!(stdout(&again).contains("parity   pass"), "{}", stdout(&again));
    let table = stdout(&house.models(&["list"]));
    assert!(table.contains("sam2.1-large") && table.contains("sam3: ") && table.contains("toy"), "{table}");

    succeeded(&house.models(&["remove", "toy"]));
    house.nothing_is_installed();
    failed_with(&house.models(&["remove", "toy"]), "expected an installed one");
    failed_with(&house.models(&["remove", "nano"]), "built in");
    failed_with(&house.models(&["remove", "../models"]), "model name: expected");

    // A publisher who has changed the file is found out by the hash that was written down.
    house.server.replace(vec![7; CHECKPOINT_BYTES], "\"two\"");
    failed_with(&house.pull(), "as when it was first seen");
    house.nothing_is_installed();
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let house = House::new();
    house.server.behave(Manner::CutAfter(300_000));
    failed_with(&house.pull(), "expected 700001 bytes, got 300000");
    house.nothing_is_installed();
    assert_eq!(house.part_bytes(), Some(300_000));
    // Cut once more, then whole.
    failed_with(&house.pull(), "expected 700001 bytes, got 600000");
    assert_eq!(house.part_bytes(), Some(600_000));
    house.server.behave(Manner::Sound);
    house.server.ranges();
    succeeded(&house.pull());
    assert_eq!(house.server.ranges(), [Some("bytes=600000-".to_owned())]);
    house.is_installed();
    let recorded = fs::read_to_string(house.path("models/.downloads/toy.pt.sha256")).unwrap();
    assert!(recorded.starts_with(&sha256(&checkpoint())), "{recorded}");
}

#[test]
fn the_proxy_of_the_environment_is_asked_unless_it_is_told_not_to() {
    let house = House::new();
    // Resolves nowhere: who answers is the proxy.
    let pull = |spared: &str| {
        house
            .command(&["pull", "toy", "--threads", "1", "--from", "http://models.invalid/model.pt"])
            .env("HTTP_PROXY", &house.server.address)
            .env("http_proxy", &house.server.address)
            .env("NO_PROXY", spared)
            .env("no_proxy", spared)
            .output()
            .unwrap()
    };
    failed_with(&pull("models.invalid"), "models.invalid");
    house.nothing_is_installed();
    house.server.behave(Manner::Status(503));
    failed_with(&pull("elsewhere.invalid"), "got 503");
    assert_eq!(house.server.ranges(), [None]);
}

#[test]
fn a_publisher_who_redirects_is_followed() {
    let house = House::new();
    let moved = house.server.address.replace("/model.pt", "/moved.pt");
    house.server.behave(Manner::CutAfter(300_000));
    let pull = || house.models(&["pull", "toy", "--threads", "1", "--from", &moved]);
    failed_with(&pull(), "got 300000");
    house.server.behave(Manner::Sound);
    house.server.ranges();
    succeeded(&pull());
    assert_eq!(house.server.ranges(), [Some("bytes=300000-".to_owned())], "the range survives the redirect");
    house.is_installed();
}

#[test]
fn a_download_starts_over_when_it_cannot_go_on() {
    for (case, tag, manner) in
        [("the file has changed", "\"two\"", Manner::Sound), ("no ranges", "\"one\"", Manner::NoRanges)]
    {
        let house = House::new();
        house.catalogue(&format!("sha256 = \"{}\"", sha256(&checkpoint())));
        house.server.replace(vec![9; CHECKPOINT_BYTES], "\"one\"");
        house.server.behave(Manner::CutAfter(300_000));
        failed_with(&house.pull(), "got 300000");
        house.server.replace(checkpoint(), tag);
        house.server.behave(manner);
        let out = house.pull();
        assert!(out.status.success(), "{case}: {}", stderr(&out));
        house.is_installed();
    }
}

#[test]
fn wrong_bytes_are_refused_and_not_kept() {
    let house = House::new();
    house.catalogue(&format!("sha256 = \"{}\"", "0".repeat(64)));
    failed_with(&house.pull(), "expected SHA-256 000000");
    assert_eq!(house.part_bytes(), None, "going on with wrong bytes cannot make them right");
    house.nothing_is_installed();
    house.catalogue("bytes = 5");
    failed_with(&house.pull(), "expected 5 bytes as the catalogue says, got 700001");
    house.nothing_is_installed();
}

#[test]
fn a_server_that_fails_is_quoted() {
    let house = House::new();
    for (manner, part) in [
        (Manner::Status(404), "expected status 200, got 404"),
        (Manner::Status(503), "expected status 200, got 503"),
        (Manner::StallAfter(100_000), "expected the server to go on within 1 s, got silence"),
        (Manner::Boasting, "free for the download"),
    ] {
        house.server.behave(manner);
        failed_with(&house.pull(), part);
        house.nothing_is_installed();
    }
    // What came before the silence was kept.
    assert_eq!(house.part_bytes(), Some(100_000));
    house.server.behave(Manner::Sound);
    succeeded(&house.pull());
    house.is_installed();
    // Nobody listens there.
    let gone = house.models(&["pull", "toy", "--as", "other", "--from", "http://127.0.0.1:1/x.pt"]);
    failed_with(&gone, "127.0.0.1:1");
}

#[test]
fn a_killed_pull_leaves_nothing_half_installed() {
    let house = House::new();
    house.server.behave(Manner::StallAfter(100_000));
    house.pull_and_kill(|| house.part_bytes() == Some(100_000));
    house.nothing_is_installed();

    let sound = fs::read_to_string(house.path("exporter")).unwrap();
    house.server.behave(Manner::Sound);
    house.server.ranges();
    house.exporter(&format!("cp {}/model/model.toml \"$out\"\nsleep 2\n", golden().display()));
    house.pull_and_kill(|| house.staged().is_some_and(|staged| staged.join("model.toml").exists()));
    assert_eq!(house.server.ranges(), [Some("bytes=100000-".to_owned())]);

    fs::write(house.path("exporter"), sound).unwrap();
    succeeded(&house.pull());
    house.is_installed();
    assert!(house.server.ranges().is_empty(), "downloaded once");
}

#[test]
fn a_file_that_is_here_needs_no_network() {
    let house = House::new();
    house.server.behave(Manner::Status(500));
    let file = house.path("mine.pt");
    fs::write(&file, checkpoint()).unwrap();
    let from = ["pull", "toy", "--threads", "1", "--from", file.to_str().unwrap()];
    succeeded(&house.models(&from));
    house.is_installed();
    assert!(house.server.ranges().is_empty(), "nothing was asked of the server");
    assert!(file.exists(), "a file of the user's is not ours to remove");
    // It must be the same as the one before.
    fs::write(&file, "another").unwrap();
    failed_with(&house.models(&[&from[..], &["--as", "toy-2"]].concat()), "as when it was first seen");
    failed_with(&house.models(&["pull", "toy", "--as", "x", "--from", "no/such.pt"]), "no/such.pt");
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_half_done() {
    let house = House::new();
    // A limit on what a file may hold, which fails the write as a full disk does. 600 blocks are 300 kB or 600 kB.
    let line = format!(
        "trap '' XFSZ; ulimit -f 600; exec {:?} models pull toy --threads 1",
        env!("CARGO_BIN_EXE_sightline")
    );
    let mut limited = Command::new("sh");
    limited.args(["-c", &line]);
    for (name, value) in house.command(&[]).get_envs() {
        value.map(|value| limited.env(name, value));
    }
    let out = limited.output().unwrap();
    failed_with(&out, "is the disk full?");
    house.nothing_is_installed();
    assert!(house.part_bytes().unwrap() < CHECKPOINT_BYTES as u64);
    // Once there is room, the rest is fetched.
    house.server.ranges();
    succeeded(&house.pull());
    assert!(house.server.ranges()[0].is_some());
    house.is_installed();
}

#[test]
fn what_the_exporter_gets_wrong_is_not_installed() {
    let house = House::new();
    let golden = golden();
    let golden = golden.display();
    let sound = format!("cp {golden}/model/*.onnx {golden}/model/model.toml \"$out\"\n");
    for (case, body, part) in [
        (
            "fails",
            "echo 'sightline_export: no such thing' >&2; exit 2\n".to_owned(),
            "sightline_export: no such",
        ),
        ("makes nothing", String::new(), "model.toml"),
        ("a broken graph", format!("{sound}echo >> \"$out/decoder_track.onnx\"\n"), "decoder_track.onnx"),
        (
            "another model's parity set",
            format!(
                "{sound}mkdir \"$out/parity\"\ncp -r {golden}/frames \"$out/parity/frames\"\n\
                 cp {golden}/prompts/box.json \"$out/parity/prompts.json\"\n\
                 cp {golden}/logits/absent.npz \"$out/parity/logits.npz\"\n"
            ),
            "parity: expected logits within",
        ),
    ] {
        house.exporter(&body);
        let out = house.pull();
        assert!(!out.status.success(), "{case}");
        failed_with(&out, part);
        house.nothing_is_installed();
        assert!(house.path("models/.downloads/toy.pt").exists(), "{case}: not downloaded a second time");
        let recorded = house.path("models/.downloads/toy.pt.sha256");
        assert!(!recorded.exists(), "{case}: what proved to be nothing is not the measure of what comes");
    }
    // Of no known hash, it is only the file that its address gave: another address is asked again.
    house.server.ranges();
    let elsewhere = house.server.address.replace("/model.pt", "/elsewhere.pt");
    failed_with(&house.models(&["pull", "toy", "--from", &elsewhere]), "parity: expected");
    assert_eq!(house.server.ranges().len(), 1);
    failed_with(&house.pull(), "parity: expected");
    assert_eq!(house.server.ranges().len(), 1);
    house.exporter(&format!("echo \"$all\" > \"$out/flags\"\n{sound}"));
    let flags =
        ["pull", "toy", "--threads", "1", "--image-size", "96", "--precision", "fp16", "--max-cond", "3"];
    let out = house.models(&flags);
    succeeded(&out);
    assert!(house.server.ranges().is_empty(), "it was here already");
    assert!(stdout(&out).contains("no parity set"), "{}", stdout(&out));
    let given = fs::read_to_string(house.path("models/toy/flags")).unwrap();
    for part in ["--family sam2.1", "--config tiny", "--image-size 96", "--precision fp16", "--max-cond 3"] {
        assert!(given.contains(part), "{part}: {given}");
    }
    assert!(!given.contains("--int8-encoder"), "{given}");
}

#[test]
fn clips_for_calibration_reach_the_exporter() {
    let house = House::new();
    let golden = golden();
    let golden = golden.display();
    house.exporter(&format!(
        "echo \"$all\" > \"$out/flags\"\ncp {golden}/model/*.onnx {golden}/model/model.toml \"$out\"\n"
    ));
    // The stand-in takes its flags in pairs.
    let clips = [house.path("a.mp4"), house.path("clips")];
    fs::write(&clips[0], "").unwrap();
    let pull = |clips: &[&str]| {
        house.models(&[&["pull", "toy", "--threads", "1", "--int8-encoder"], clips].concat())
    };
    house.server.ranges();
    failed_with(&pull(&[clips[0].to_str().unwrap(), clips[1].to_str().unwrap()]), "--int8-encoder");
    assert!(house.server.ranges().is_empty(), "what is missing is said before anything is downloaded");
    fs::create_dir(&clips[1]).unwrap();
    let third = house.path("b.mp4");
    fs::write(&third, "").unwrap();
    let names = [&clips[0], &clips[1], &third].map(|clip| clip.to_str().unwrap());
    succeeded(&pull(&names));
    let given = fs::read_to_string(house.path("models/toy/flags")).unwrap();
    assert!(given.contains(&format!("--int8-encoder {}", names.join(" "))), "{given}");
    let origin = fs::read_to_string(house.path("models/toy/origin.json")).unwrap();
    assert!(origin.contains("b.mp4"), "{origin}");
}

#[test]
fn an_export_needs_no_download_and_unknown_names_are_refused() {
    let house = House::new();
    house.server.behave(Manner::Status(500));
    let export = |rest: &[&str]| house.models(&[&["export", "toy", "--threads", "1"], rest].concat());
    failed_with(&export(&["--checkpoint", "no.pt"]), "no.pt");
    succeeded(&export(&["--checkpoint", "random:1", "--as", "made-up"]));
    assert!(house.path("models/made-up/model.toml").is_file());
    failed_with(&export(&["--checkpoint", "random:1", "--as", "../x"]), "model name: expected");
    failed_with(&export(&["--checkpoint", "random:1", "--as", "fake"]), "built in");
    failed_with(&house.models(&["pull", "sam9"]), "sam2.1-tiny");
    failed_with(&house.models(&["pull", "sam3"]), "cannot yet");
    failed_with(&house.models(&["verify", "sam2.1-tiny"]), "sam2.1-tiny");

    let missing = house.command(&["pull", "toy"]).env("SIGHTLINE_EXPORTER", "/no/such").output().unwrap();
    failed_with(&missing, "export SIGHTLINE_EXPORTER=");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engines/export");
    let pythonless = house
        .command(&["pull", "toy"])
        .env("SIGHTLINE_EXPORTER", &repository)
        .env("SIGHTLINE_PYTHON", "/no/such/python")
        .output()
        .unwrap();
    assert_eq!(pythonless.status.code(), Some(1));
    house.server.behave(Manner::Sound);
    let pythonless = house
        .command(&["pull", "toy"])
        .env("SIGHTLINE_EXPORTER", &repository)
        .env("SIGHTLINE_PYTHON", "/no/such/python")
        .output()
        .unwrap();
    failed_with(&pythonless, "cannot start /no/such/python");
    house.server.behave(Manner::Status(500));
}

#[test]
fn the_built_in_models_can_be_verified() {
    let house = House::new();
    let out = house.models(&["verify", "nano", "--threads", "1"]);
    succeeded(&out);
    let text = stdout(&out);
    assert!(text.contains("ms a frame") && text.contains("36 masks of 12 frames"), "{text}");
    assert!(text.contains("pass, the mean at most 3e-1: max abs logit difference"), "{text}");
    let row = stdout(&house.models(&["list"]));
    assert!(row.lines().any(|line| line.starts_with("nano") && line.contains("built in")), "{row}");
}
