//! `sightline serve` as a user starts it, with the fake model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use common::{ball_clip, command, failed_with, sightline, stdout};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

struct Served {
    child: Child,
    address: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the settings and gives their path.
fn settings(folder: &Path, feeds: &str) -> PathBuf {
    let path = folder.join("serve.toml");
    let text = format!("[model]\nname = \"fake\"\n[serve]\nlisten = \"127.0.0.1:0\"\n{feeds}");
    std::fs::write(&path, text).unwrap();
    path
}

fn serve(folder: &Path, feeds: &str) -> Served {
    let path = settings(folder, feeds);
    let mut command = command(&["serve", "--config", path.to_str().unwrap(), "--status-every", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it said nothing of an address");
        if let Some((_, rest)) = line.split_once("http://") {
            break rest.trim().trim_end_matches('/').to_owned();
        }
    };
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    Served { child, address }
}

/// Serves, for 20 s at most: what should be refused might run for ever.
fn briefly(path: &Path) -> Output {
    let mut command = command(&["serve", "--config", path.to_str().unwrap()]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (done, over) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if over.recv_timeout(Duration::from_secs(20)).is_err_and(|error| error == RecvTimeoutError::Timeout) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    guard.join().unwrap();
    output
}

impl Served {
    /// Status and body.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path);
        (status, serde_json::from_str(&body).unwrap())
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").1;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    fn wait(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "{what}: {:?}", self.get("/readyz"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What its C library's allocator was told.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn tunables(&self) -> String {
        let environment = std::fs::read(format!("/proc/{}/environ", self.child.id())).unwrap();
        let text = String::from_utf8_lossy(&environment).into_owned();
        text.split('\0').find_map(|pair| pair.strip_prefix("GLIBC_TUNABLES=")).unwrap_or_default().to_owned()
    }

    /// SIGTERM; how long the end took, and stdout.
    fn stop(mut self) -> (Duration, String) {
        let begun = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        (begun.elapsed(), said)
    }
}

#[test]
fn a_feed_that_fails_fails_alone_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (late, lines, late_lines) = (at("late.mp4"), at("ball.jsonl"), at("late.jsonl"));
    let feeds = format!(
        "[feeds.ball]\ninput = \"test\"\nprompts = \"point=320,180\"\njsonl = {lines:?}\n\
         [feeds.full]\ninput = \"test\"\nprompts = \"point=320,180\"\njsonl = \"/dev/full\"\n\
         [feeds.late]\ninput = {late:?}\nprompts = \"box=60,40,100,80\"\nrepeat = true\n\
         jsonl = {late_lines:?}\n"
    );
    let served = serve(folder.path(), &feeds);
    // What keeps its memory flat; a caller who has settings of his own keeps them.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if !std::env::vars().any(|(name, _)| name.starts_with("MALLOC_") || name == "GLIBC_TUNABLES") {
        assert!(served.tunables().contains("glibc.malloc."), "{:?}", served.tunables());
    }
    served.wait("the ball is followed", |served| {
        served.metric("sightline_frames_total{feed=\"ball\",outcome=\"masks\",reason=\"\"}") > 20.0
    });
    let (status, verdict) = served.json("/readyz");
    assert_eq!((status, &verdict["ok"]), (503, &Value::Bool(false)), "{verdict}");
    assert_eq!(verdict["complaints"][0]["feed"], "late", "{verdict}");
    assert!(verdict["complaints"][0]["why"].as_str().unwrap().contains("late.mp4"), "{verdict}");
    assert_eq!(verdict["complaints"].as_array().unwrap().len(), 1, "{verdict}");
    assert_eq!(served.json("/healthz").0, 200, "a feed that waits is alive");
    assert!(served.metric("sightline_feed_restarts_total{feed=\"late\"}") >= 1.0);
    assert_eq!(served.metric("sightline_feed_restarts_total{feed=\"ball\"}"), 0.0);
    // Into place at once: a file that is still written is another failure.
    std::fs::rename(ball_clip(folder.path(), 30), &late).unwrap();
    served.wait("all are ready", |served| served.json("/readyz").0 == 200);
    served.wait("late is followed", |served| {
        served.metric("sightline_frames_total{feed=\"late\",outcome=\"masks\",reason=\"\"}") > 5.0
    });
    for (series, least) in [
        ("sightline_feed_up{feed=\"ball\"}", 1.0),
        ("sightline_camera_connects_total{feed=\"ball\"}", 1.0),
        ("sightline_camera_frames_total{feed=\"ball\"}", 20.0),
        ("sightline_frame_to_mask_seconds_count{feed=\"ball\"}", 20.0),
        ("sightline_mask_age_seconds_count{feed=\"ball\"}", 20.0),
        ("sightline_objects{feed=\"ball\",state=\"tracking\"}", 1.0),
        ("sightline_model_info{feed=\"ball\",model=\"fake\",engine=\"fake/cpu\"}", 1.0),
        ("sightline_process_resident_bytes", 1e6),
    ] {
        served.wait(series, |served| served.metric(series) >= least);
    }
    assert_eq!(served.get("/nothing").0, 404);
    // A disk that is full costs lines, and is no trouble of the feed's.
    assert!(served.metric("sightline_output_errors_total{feed=\"full\"}") >= 1.0);
    assert_eq!(served.metric("sightline_output_lines_total{feed=\"full\"}"), 0.0);
    assert!(served.metric("sightline_frames_total{feed=\"full\",outcome=\"masks\",reason=\"\"}") > 20.0);
    let (took, said) = served.stop();
    assert!(took < Duration::from_secs(3), "{took:?}");
    for part in ["feed", "ball  stopped", "late  stopped"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    let text = std::fs::read_to_string(&lines).unwrap();
    let frames: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|line| line["frame"].as_u64())
        .collect();
    let mut whole = frames.clone();
    whole.sort_unstable();
    assert!(whole.iter().copied().eq(0..frames.len() as u64), "every frame has one line: {frames:?}");
    let text = std::fs::read_to_string(&late_lines).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(first["restarted"].as_str().is_some_and(|reason| reason.contains("late.mp4")), "{first}");
}

#[test]
fn when_every_input_is_over_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let clip = ball_clip(folder.path(), 20);
    let lines = folder.path().join("out.jsonl");
    let path = settings(
        folder.path(),
        &format!("[feeds.clip]\ninput = {clip:?}\nprompts = \"box=60,40,100,80\"\njsonl = {lines:?}\n"),
    );
    let output = sightline(&["serve", "--config", path.to_str().unwrap()]);
    common::succeeded(&output);
    assert!(stdout(&output).contains("clip  over"), "{}", stdout(&output));
    let text = std::fs::read_to_string(&lines).unwrap();
    let frames = text.lines().filter(|line| line.starts_with("{\"frame\"")).count();
    assert!((15..=20).contains(&frames), "{frames}");
}

#[test]
fn a_config_that_cannot_work_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let feed = |rest: &str| format!("[feeds.a]\ninput = \"test\"\n{rest}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("listen = \"{}\"", taken.local_addr().unwrap());
    for (case, feeds, part) in [
        ("no feed", String::new(), "expected a table [feeds.NAME]"),
        ("nothing to do", feed(""), "feeds.a: expected prompts or queries"),
        ("prompts", feed("prompts = \"circle=1,2\"\n"), "feeds.a"),
        ("queries", feed("queries = \"guess=a car\"\n"), "find, describe, ask or watch"),
        ("model", feed("prompts = \"point=1,1\"\nmodel = \"nonesuch\"\n"), "nonesuch"),
        (
            "folder",
            feed("prompts = \"point=1,1\"\njsonl = \"/no/such/out.jsonl\"\n"),
            "feeds.a.jsonl: expected a folder",
        ),
        ("key", feed("prompts = \"point=1,1\"\nfps = 3\n"), "fps"),
        ("mask", feed("prompts = \"mask=/no/such.png\"\n"), "no/such.png"),
    ] {
        let path = settings(folder.path(), &feeds);
        let output = briefly(&path);
        let text = common::stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{case}: {text}");
        assert!(text.contains(part) && !text.contains("http://"), "{case}: {text}");
    }
    let path = settings(folder.path(), &feed("prompts = \"point=1,1\"\n"));
    let text = std::fs::read_to_string(&path).unwrap().replace("listen = \"127.0.0.1:0\"", &listen);
    std::fs::write(&path, text).unwrap();
    failed_with(
        &sightline(&["serve", "--config", path.to_str().unwrap()]),
        "expected an address that is free",
    );
}

#[test]
fn manifests_go_to_stdout() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/serve.toml");
    let shipped = shipped.to_str().unwrap();
    for (form, part) in
        [("kubernetes", "kind: Deployment"), ("compose", "services:"), ("systemd", "[Service]")]
    {
        let output = sightline(&["serve", "--config", shipped, "--render", form]);
        common::succeeded(&output);
        assert!(stdout(&output).contains(part), "{form}");
    }
    let output = sightline(&["serve", "--config", shipped, "--machines", "2"]);
    assert_eq!(output.status.code(), Some(2), "--machines without --render");
}
