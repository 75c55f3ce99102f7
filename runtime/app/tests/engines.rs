//! `sightline engines` with a script in the place of `trtexec`: it keeps what it was told, says what the real one says
//! of its version and device, and writes a file that begins as a plan does. Whether TensorRT takes the graphs is
//! checked by `make check-tensorrt`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::{command, failed_with, stderr, stdout, succeeded};

/// A plan's first 28 bytes as TensorRT 10.3.0.26 writes them, in printf's octal.
const PLAN: &str = r"ftrt\0\0\0\0................\012\003\000\032 and kernels";

/// A copy of the committed model, and the stand-in.
struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { root: tempfile::tempdir().unwrap() };
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sam2-tiny/model");
        fs::create_dir(bench.path("model")).unwrap();
        for file in fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
            fs::copy(&file, bench.path("model").join(file.file_name().unwrap())).unwrap();
        }
        bench.tool("100300", 16, &format!("printf '{PLAN}' > \"$plan\""));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The stand-in: `body` runs for a build, with `$plan`; for a run, `$outputs` is where its outputs go.
    fn tool(&self, version: &str, multiprocessors: u32, body: &str) {
        let script = format!(
            "#!/bin/sh\n\
             echo \"&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # $*\"\n\
             [ \"$1\" = --help ] && exit 0\n\
             said() {{ echo \"[11/21/2026-23:30:00] $*\"; }}\n\
             said '[I] Selected Device: Orin'; said '[I] Compute Capability: 8.7'; said '[I] SMs: {multiprocessors}'\n\
             for a in \"$@\"; do case $a in\n\
             --saveEngine=*) plan=${{a#*=}};; --exportOutput=*) outputs=${{a#*=}};;\n\
             --loadEngine=/nonexistent/*) said '[E] Error opening engine file'; exit 1;; esac; done\n\
             echo \"$*\" >> {log}\n\
             {body}\n",
            log = self.path("log").display()
        );
        self.script("trtexec", &script);
    }

    fn script(&self, name: &str, text: &str) {
        // By a rename: a file open for writing cannot be run, and another test may be forking just now.
        let (part, path) = (self.path("part"), self.path(name));
        fs::write(&part, text).unwrap();
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&part, &path).unwrap();
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let model = self.path("model").display().to_string();
        let mut all = vec!["engines", verb, "--model", &model];
        all.extend(arguments);
        let mut command = command(&all);
        command.env("SIGHTLINE_TRTEXEC", self.path("trtexec")).env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    fn run(&self, verb: &str, arguments: &[&str]) -> Output {
        self.command(verb, arguments).output().unwrap()
    }

    /// What the stand-in was told since the last call, a line for each start that was for a plan.
    fn told(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("log"));
        log.lines().map(str::to_owned).collect()
    }

    /// Everything beside the model but the lock.
    fn plans(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("model/engines")).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        names
    }

    fn build_one(&self) -> PathBuf {
        succeeded(&self.run("build", &["--component", "mask_downsample", "--precision", "fp32"]));
        self.told();
        let name = self.plans().into_iter().find(|name| name.ends_with(".plan")).unwrap();
        self.path("model/engines").join(name)
    }
}

#[test]
fn a_line_for_each_major() {
    let bench = Bench::new();
    let root = bench.root.path().display().to_string();
    let attention = |typed: &str, cache: &str, more: &str| {
        format!(
            "--onnx={root}/model/memory_attention.onnx{typed} \
             --minShapes=feat_s2:2x16x8x8,mem:2x4x64x8,mem_mask:2x4,obj_ptrs:2x17x16,ptr_mask:2x17,ptr_tdiff:2x17,tpos_idx:2x4 \
             --optShapes=feat_s2:4x16x8x8,mem:4x8x64x8,mem_mask:4x8,obj_ptrs:4x17x16,ptr_mask:4x17,ptr_tdiff:4x17,tpos_idx:4x8 \
             --maxShapes=feat_s2:4x16x8x8,mem:4x8x64x8,mem_mask:4x8,obj_ptrs:4x17x16,ptr_mask:4x17,ptr_tdiff:4x17,tpos_idx:4x8 \
             --saveEngine={root}/model/engines/.building-PID/plan --timingCacheFile={cache} \
             --builderOptimizationLevel=4 --memPoolSize=workspace:2048 --profilingVerbosity=detailed --skipInference{more}"
        )
    };
    let without_pid = |line: &str| -> String {
        let (before, after) = line.split_once(".building-").unwrap();
        format!("{before}.building-PID{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
    };
    let sizes =
        ["--precision", "fp32", "--objects", "1,4", "--slots", "3,8", "--component", "memory_attention"];
    let output = bench.run("build", &sizes);
    succeeded(&output);
    let told = bench.told();
    assert_eq!(told.len(), 6, "{told:?}");
    let cache = format!("{root}/cache/sightline/engines/timing-trt10.3.0.cache");
    assert_eq!(without_pid(&told[5]), attention(" --stronglyTyped", &cache, ""));
    assert!(
        stdout(&output).contains(
            "[6/6] memory_attention, 2 to 4 objects, 4 to 8 slots, a picture each: memory_attention-"
        )
    );
    assert!(stderr(&output).contains("[I] SMs: 16"), "progress is passed on: {}", stderr(&output));
    bench.tool("110400", 16, &format!("printf '{PLAN}' > \"$plan\""));
    let mine = bench.path("mine.cache").display().to_string();
    let more = ["--version-compatible", "--timing-cache", &mine];
    succeeded(&bench.run("build", &[&sizes[..], &more[..]].concat()));
    assert_eq!(without_pid(&bench.told()[5]), attention("", &mine, " --versionCompatible"));
}

#[test]
fn plans_are_kept_with_what_they_are_for() {
    let bench = Bench::new();
    let output = bench.run("build", &["--precision", "fp32", "--objects", "1,4"]);
    succeeded(&output);
    // Three graphs for one object, for several of one picture and for several with one each; three others once.
    assert_eq!(bench.told().len(), 12, "{}", stdout(&output));
    let plans = bench.plans();
    assert_eq!(plans.len(), 24, "{plans:?}");
    let plan =
        plans.iter().find(|name| name.starts_with("decoder_prompt") && name.ends_with(".plan")).unwrap();
    assert!(plan.contains("-trt10.3.0-sm87-fp32-"), "{plan}");
    let sidecar = fs::read_to_string(bench.path("model/engines").join(format!("{plan}.json"))).unwrap();
    let sidecar: serde_json::Value = serde_json::from_str(&sidecar).unwrap();
    // The build is in the plan alone: this tool does not say it.
    assert_eq!(sidecar["key"]["tensorrt"], "10.3.0.26");
    assert_eq!(sidecar["key"]["gpu"]["multiprocessors"], 16);
    assert_eq!(sidecar["key"]["profiles"][0]["point_coords"]["opt"], serde_json::json!([1, 3, 2]));
    // What is here is not built again, what was cut short is.
    let again = bench.run("build", &["--precision", "fp32", "--objects", "1,4"]);
    succeeded(&again);
    assert!(stdout(&again).contains(&format!("{plan} is here")), "{}", stdout(&again));
    assert!(bench.told().is_empty());
    fs::write(bench.path("model/engines").join(plan), "ftrt").unwrap();
    succeeded(&bench.run("build", &["--precision", "fp32", "--objects", "1,4"]));
    assert_eq!(bench.told().len(), 1);
    succeeded(&bench.run("build", &["--precision", "fp32", "--component", "decoder_prompt", "--force"]));
    assert_eq!(bench.told().len(), 1);
    // Another GPU needs others.
    bench.tool("100300", 8, &format!("printf '{PLAN}' > \"$plan\""));
    succeeded(&bench.run("build", &["--precision", "fp32", "--component", "decoder_prompt"]));
    assert_eq!(bench.told().len(), 1);
}

#[test]
fn less_than_32_bits_is_made_of_them() {
    let bench = Bench::new();
    bench.script(
        "exporter",
        &format!("#!/bin/sh\necho \"$*\" >> {}\ncp \"$4\" \"$5\"\n", bench.path("narrowed").display()),
    );
    let arguments = ["--component", "decoder_track", "--objects", "1,4"];
    let output =
        bench.command("build", &arguments).env("SIGHTLINE_EXPORTER", bench.path("exporter")).output();
    succeeded(&output.unwrap());
    let narrowed = fs::read_to_string(bench.path("narrowed")).unwrap();
    assert_eq!(narrowed.lines().count(), 1, "once for both plans: {narrowed}");
    let source = format!("--narrow --precision fp16 {}/decoder_track.onnx ", bench.path("model").display());
    assert!(narrowed.starts_with(&source) && narrowed.ends_with("decoder_track-fp16.onnx\n"), "{narrowed}");
    assert!(bench.told().iter().all(|line| line.contains("decoder_track-fp16.onnx")));
    assert!(bench.plans().iter().all(|name| name.contains("-fp16-")), "{:?}", bench.plans());
    // Only from 32 bits.
    fs::write(bench.path("model/verify.json"), r#"{"precision": {"decoder_track": "fp16"}}"#).unwrap();
    failed_with(
        &bench.run("build", &["--component", "decoder_track", "--precision", "bf16"]),
        "expected fp32 to make bf16 of, got fp16; build it with --precision fp16",
    );
    succeeded(&bench.run("build", &["--component", "decoder_track", "--force"]));
    assert!(bench.told()[0].contains("model/decoder_track.onnx"), "taken as it is");
}

#[test]
fn a_tool_that_cannot_be_used_says_why() {
    let bench = Bench::new();
    for (version, expected) in [
        ("8601", "expected TensorRT 10.3 or later, or 11, got 8.6.1"),
        ("100200", "expected TensorRT 10.3 or later, or 11, got 10.2.0"),
        ("120000", "expected TensorRT 10.3 or later, or 11, got 12.0.0"),
    ] {
        bench.tool(version, 16, "");
        failed_with(&bench.run("build", &[]), expected);
    }
    bench.script("trtexec", "#!/bin/sh\necho hello\n");
    failed_with(&bench.run("build", &[]), "expected it to say \"[TensorRT v...]\" at its start");
    bench.script(
        "trtexec",
        "#!/bin/sh\necho '[TensorRT v100300]'\n[ \"$1\" = --help ] && exit 0\n\
         echo '[11/21/2026-23:30:00] [E] Cuda failure: no CUDA-capable device is detected' >&2\nexit 1\n",
    );
    failed_with(&bench.run("build", &[]), "got: Cuda failure: no CUDA-capable device is detected");
    let missing =
        bench.command("build", &[]).env("SIGHTLINE_TRTEXEC", "").env("PATH", "/nonexistent").output();
    failed_with(&missing.unwrap(), "got none; install TensorRT (JetPack: sudo apt-get install tensorrt)");
    failed_with(&bench.run("build", &["--trtexec", "/nonexistent/t"]), "got none at \"/nonexistent/t\"");
    failed_with(
        &bench.run("build", &["--component", "encoder"]),
        "expected one of image_encoder, memory_att",
    );
    failed_with(&bench.run("build", &["--slots", "9"]), "slots: expected 1 to 8, got 9");
    assert!(bench.plans().is_empty(), "{:?}", bench.plans());
}

#[test]
fn a_build_that_fails_leaves_nothing() {
    let bench = Bench::new();
    let arguments = ["--precision", "fp32", "--component", "mask_downsample"];
    for (case, body, expected) in [
        (
            "refused",
            "printf half > \"$plan\"; said '[E] Error[9]: no kernel'; said '[E] Engine could not be created'; exit 1",
            "got exit status: 1: Error[9]: no kernel",
        ),
        ("disk full", "cat \"$0\" > /dev/full || exit 1", "No space left on device"),
        ("nothing written", "said '[I] done'", "expected trtexec to write a plan, got none: done"),
        ("an empty file", ": > \"$plan\"", "expected trtexec to write a plan, got none"),
        ("crashed", "printf half > \"$plan\"; kill -SEGV $$", "signal: 11"),
    ] {
        bench.tool("100300", 16, body);
        let output = bench.run("build", &arguments);
        failed_with(&output, expected);
        assert!(bench.plans().is_empty(), "{case}: {:?}", bench.plans());
    }
    // A folder where the plan should go stands for a disk that takes no more.
    bench.tool("100300", 16, &format!("printf '{PLAN}' > \"$plan\""));
    let plan = bench.build_one();
    fs::remove_file(&plan).unwrap();
    fs::create_dir(&plan).unwrap();
    failed_with(&bench.run("build", &[&arguments[..], &["--force"]].concat()), "in place");
    assert_eq!(bench.plans(), [plan.file_name().unwrap().to_str().unwrap()], "no sidecar without its plan");
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let bench = Bench::new();
    let pid = bench.path("pid");
    bench.tool(
        "100300",
        16,
        &format!("printf half > \"$plan\"; echo $$ > {}; exec sleep 600", pid.display()),
    );
    let child = bench
        .command("build", &["--precision", "fp32", "--component", "mask_downsample"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !pid.is_file() {
        assert!(started.elapsed() < Duration::from_secs(60), "it did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(bench.plans()[0].starts_with(".building-"), "{:?}", bench.plans());
    // Another one does not get in its way.
    failed_with(
        &bench.run("build", &["--precision", "fp32", "--component", "mask_downsample"]),
        "expected to be alone at them, got another process",
    );
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    failed_with(&child.wait_with_output().unwrap(), "interrupted");
    assert!(bench.plans().is_empty(), "{:?}", bench.plans());
    let tool = fs::read_to_string(&pid).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", tool.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "the tool outlived it: {stat}");
}

#[test]
fn dry_runs_say_the_lines() {
    let bench = Bench::new();
    let arguments = ["--dry-run", "--exact", "--objects", "4", "--component", "decoder_track"];
    let none =
        bench.command("build", &arguments).env("SIGHTLINE_TRTEXEC", "").env("PATH", "/nonexistent").output();
    let none = none.unwrap();
    succeeded(&none);
    assert!(stderr(&none).contains("these are the lines for TensorRT 10.3"), "{}", stderr(&none));
    let text = stdout(&none);
    assert!(text.starts_with(
        "# decoder_track, 4 objects, of one picture\ntrtexec --onnx=decoder_track-fp16.onnx --stronglyTyped"
    ));
    assert!(text.contains("--minShapes=feat_s0:1x2x32x32,feat_s1:1x4x16x16,pix_feat:4x16x8x8 --optShapes="));
    assert!(text.contains("--minShapes=feat_s0:4x2x32x32,feat_s1:4x4x16x16,pix_feat:4x16x8x8 --optShapes="));
    assert!(bench.told().is_empty() && bench.plans().is_empty());
}

#[test]
fn the_list_says_what_fits() {
    let bench = Bench::new();
    let empty = bench.run("list", &[]);
    succeeded(&empty);
    assert_eq!(stdout(&empty), "no plans; `sightline engines build --model NAME` makes them\n");
    let plan = bench.build_one();
    let row = |output: &Output| -> serde_json::Value {
        succeeded(output);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()[0].clone()
    };
    let here = row(&bench.run("list", &["--json"]));
    assert_eq!((&here["fits"], &here["key"]["component"]), (&true.into(), &"mask_downsample".into()));
    let table = stdout(&bench.run("list", &[]));
    assert!(table.contains("sam2-tiny      mask_downsample   fp32  fixed"), "{table}");
    assert!(table.lines().nth(1).unwrap().ends_with("  yes"), "{table}");
    let unknown =
        bench.command("list", &["--json"]).env("SIGHTLINE_TRTEXEC", "/nonexistent").output().unwrap();
    assert_eq!(row(&unknown)["fits"], serde_json::Value::Null);
    bench.tool("100300", 8, "");
    let foreign = row(&bench.run("list", &["--json"]));
    assert_eq!(foreign["fits"], false);
    assert!(foreign["note"].as_str().unwrap().contains("got one built for Orin (sm_87, 16 multiprocessors)"));
    fs::remove_file(format!("{}.json", plan.display())).unwrap();
    let bare = row(&bench.run("list", &["--json"]));
    assert!(bare["note"].as_str().unwrap().contains("expected its sidecar"), "{bare}");
    let table = stdout(&bench.run("list", &[]));
    assert!(table.contains(".plan: NO"), "{table}");
}

#[test]
fn verified_files_and_numbers() {
    let bench = Bench::new();
    failed_with(&bench.run("verify", &[]), "got none; `sightline engines build --model");
    let plan = bench.build_one();
    let name = plan.file_name().unwrap().to_str().unwrap();
    // Without a tool: whole, and a code of its own.
    let unrun = bench.command("verify", &[]).env("SIGHTLINE_TRTEXEC", "/nonexistent").output().unwrap();
    assert_eq!(unrun.status.code(), Some(3), "{}", stderr(&unrun));
    assert!(stdout(&unrun).contains(&format!("{name}: whole\n")), "{}", stdout(&unrun));
    assert!(stdout(&unrun).contains("not run, so their numbers were not compared: trtexec: expected a file"));

    if std::env::var_os("SIGHTLINE_ONNXRUNTIME").is_none_or(|path| !Path::new(&path).is_file()) {
        writeln!(std::io::stderr(), "SKIPPED: SIGHTLINE_ONNXRUNTIME names no library").unwrap();
    } else {
        // Nothing but zeros is as far from the graph as its outputs are large.
        let exported = |count: usize| {
            let values = vec!["0"; count].join(", ");
            format!(
                "printf '[ {{ \"name\" : \"mask_prompt\"\\n, \"dimensions\" : \"1x1x32x32\"\\n, \
                 \"values\" : [ {values} ]\\n }} ]' > \"$outputs\""
            )
        };
        bench.tool("110400", 16, &exported(1024));
        failed_with(&bench.run("verify", &[]), "expected all of 1 plans to pass");
        bench.tool("100300", 16, &exported(1024));
        let far = bench.run("verify", &[]);
        failed_with(&far, "expected all of 1 plans to pass, got 1 that did not");
        assert!(stdout(&far).contains("output \"mask_prompt\": expected at most 1e-2"), "{}", stdout(&far));
        let told = bench.told();
        let shown = told[0].replace(bench.root.path().to_str().unwrap(), "");
        assert!(
            shown.starts_with(&format!(
                "--loadEngine=/model/engines/{name} --loadInputs=mask:/model/engines/.building-"
            )),
            "{shown}"
        );
        assert!(shown.ends_with("outputs.json --iterations=1 --duration=0 --warmUp=0"), "{shown}");
        let near = bench.run("verify", &["--tolerance", "1.1"]);
        succeeded(&near);
        assert!(stdout(&near).contains("whole, "), "{}", stdout(&near));
        bench.tool("100300", 16, &exported(7));
        assert!(stdout(&bench.run("verify", &[])).contains("expected 1024 numbers, got 7"));
        bench.tool("100300", 16, "said '[E] out of memory'; exit 1");
        assert!(stdout(&bench.run("verify", &[])).contains("to run it, got exit status: 1: out of memory"));
    }
    bench.tool("100300", 16, "");
    let mut bytes = fs::read(&plan).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&plan, &bytes).unwrap();
    let corrupt = bench.run("verify", &[]);
    failed_with(&corrupt, "expected all of 1 plans to pass");
    assert!(stdout(&corrupt).contains("expected sha256"), "{}", stdout(&corrupt));
    assert_eq!(bench.plans().len(), 2, "nothing of it is left");
}

#[test]
fn what_is_of_no_use_goes() {
    let bench = Bench::new();
    let removed = |arguments: &[&str]| {
        let output = bench.run("clean", arguments);
        succeeded(&output);
        stdout(&output)
    };
    assert_eq!(removed(&[]), "removed: 0, 0.0 MB\n");
    let plan = bench.build_one();
    fs::create_dir(bench.path("model/engines/.building-1")).unwrap();
    fs::write(bench.path("model/engines/.building-1/plan"), "half").unwrap();
    let text = removed(&["--dry-run"]);
    assert!(
        text.contains("left by an interrupted build") && text.ends_with("to remove: 1, 0.0 MB\n"),
        "{text}"
    );
    assert_eq!(bench.plans().len(), 3);
    removed(&[]);
    assert_eq!(bench.plans().len(), 2, "what fits stays");
    bench.tool("100300", 8, "");
    assert!(removed(&[]).starts_with("removed: 0"), "the plans of others stay unless asked for");
    let text = removed(&["--foreign"]);
    assert!(
        text.contains("one built for Orin (sm_87, 16") && text.ends_with("removed: 1, 0.0 MB\n"),
        "{text}"
    );
    assert!(bench.plans().is_empty(), "{:?}", bench.plans());
    let missing = bench.command("clean", &["--foreign"]).env("SIGHTLINE_TRTEXEC", "/nonexistent").output();
    failed_with(&missing.unwrap(), "trtexec: expected a file");
    bench.tool("100300", 16, &format!("printf '{PLAN}' > \"$plan\""));
    for (case, spoil, reason) in [
        ("no sidecar", "rm \"$1.json\"", "expected its sidecar"),
        ("cut short", "printf x > \"$1\"", "bytes, got 1"),
        (
            "another graph",
            "sed -i 's/\"onnx_sha256\": \"..../\"onnx_sha256\": \"0000/' \"$1.json\"",
            "no longer has",
        ),
    ] {
        assert_eq!(bench.build_one(), plan, "{case}");
        let status = Command::new("sh").args(["-c", spoil, "sh"]).arg(&plan).status().unwrap();
        assert!(status.success(), "{case}");
        let text = removed(&[]);
        assert!(text.contains(reason), "{case}: {text}");
        assert!(bench.plans().is_empty(), "{case}: {:?}", bench.plans());
    }
    bench.build_one();
    assert!(removed(&["--all"]).contains("all were asked for"));
    assert!(bench.plans().is_empty());
}

#[test]
fn the_model_inside_the_binary_has_plans_in_the_cache() {
    let bench = Bench::new();
    let mut command = command(&["engines", "build", "--model", "nano", "--precision", "fp32"]);
    command.args(["--component", "image_encoder", "--objects", "1"]);
    command.env("SIGHTLINE_TRTEXEC", bench.path("trtexec")).env("XDG_CACHE_HOME", bench.path("cache"));
    let output = command.output().unwrap();
    succeeded(&output);
    let told = bench.told();
    assert!(told[0].contains("/cache/sightline/engines/.building-"), "{told:?}");
    let plans = fs::read_dir(bench.path("cache/sightline/engines")).unwrap();
    assert_eq!(plans.filter(|entry| entry.as_ref().unwrap().path().extension().is_some()).count(), 2);
}
