//! What a run costs beside its arithmetic, and what spinning costs the rest of the pipeline:
//! `SIGHTLINE_ONNXRUNTIME=... cargo run --release -p sightline-engine-ort --example overhead`.
#![allow(clippy::print_stdout)]

use std::{
    error::Error,
    fs,
    num::NonZeroUsize,
    path::Path,
    time::{Duration, Instant},
};

use sightline_core::{Shape, TensorView, TensorViewMut};
use sightline_engine_api::{Engine, TensorMut};
use sightline_engine_ort::{OrtEngine, OrtOptions, OrtRuntime, locate};

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> Fallible<()> {
    let runtime = OrtRuntime::load(&locate()?)?;
    println!("onnxruntime {}, {} cores", runtime.version(), std::thread::available_parallelism()?);
    ports(runtime)?;
    for graph in ["convs_small", "convs"] {
        for (threads, spinning) in [(1, false), (1, true), (2, false), (2, true)] {
            convs(runtime, graph, threads, spinning)?;
        }
    }
    Ok(())
}

fn load(runtime: &OrtRuntime, name: &str, threads: usize, spinning: bool) -> Fallible<OrtEngine> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.onnx"));
    let threads = NonZeroUsize::new(threads).ok_or("at least one thread")?;
    let options = OrtOptions { threads, spinning, ..OrtOptions::default() };
    Ok(OrtEngine::from_file(runtime, name, &path, None, &options)?)
}

/// Three inputs and two outputs of a few numbers: nothing but overhead.
fn ports(runtime: &OrtRuntime) -> Fallible<()> {
    let mut engine = load(runtime, "ports", 1, false)?;
    let (mut sum, mut twice) = ([0.0; 3], [0; 2]);
    let mut run = || -> Fallible<()> {
        engine.run(
            &[
                TensorView::f32(&[1, 3], &[1.0, 2.0, 3.0])?.into(),
                TensorView::f32(&[1, 3], &[0.5; 3])?.into(),
                TensorView::i64(&[2], &[20, -3])?.into(),
            ],
            &mut [
                TensorViewMut::f32(&[1, 3], &mut sum)?.into(),
                TensorMut::Host(TensorViewMut::I64(Shape::new(&[2])?, &mut twice)),
            ],
        )?;
        Ok(())
    };
    measure(1000, Duration::ZERO, &mut run)?;
    let before = resident_kib()?;
    let cost = measure(100_000, Duration::ZERO, &mut run)?;
    println!("3 inputs, 2 outputs, no work: {cost}, resident {before} KiB, then {} KiB", resident_kib()?);
    Ok(())
}

fn convs(runtime: &OrtRuntime, name: &str, threads: usize, spinning: bool) -> Fallible<()> {
    let mut engine = load(runtime, name, threads, spinning)?;
    let dims = engine.io().inputs[0].fixed_shape().ok_or("a fixed shape")?;
    let elements = dims.iter().product();
    let (x, mut y) = (vec![0.5; elements], vec![0.0; elements]);
    let mut run = || -> Fallible<()> {
        let output = TensorViewMut::f32(&dims, &mut y)?;
        engine.run(&[TensorView::f32(&dims, &x)?.into()], &mut [output.into()])?;
        Ok(())
    };
    measure(20, Duration::ZERO, &mut run)?;
    let busy = measure(200, Duration::ZERO, &mut run)?;
    let paced = measure(100, Duration::from_millis(33), &mut run)?;
    println!("{name}, {threads} threads, spinning {spinning}: back to back {busy}; every 33 ms {paced}");
    let mut copy = vec![0.0; elements];
    let cost = measure(200, Duration::ZERO, &mut || {
        copy.copy_from_slice(&y);
        std::hint::black_box(&mut copy);
        Ok(())
    });
    if let (Ok(cost), 1, false) = (cost, threads, spinning) {
        println!("  of which copying its {} KiB out: {cost}", elements * 4 / 1024);
    }
    Ok(())
}

/// Median and 95th percentile of a run, and the processor time of the whole process a run.
fn measure(runs: u32, pace: Duration, run: &mut dyn FnMut() -> Fallible<()>) -> Fallible<String> {
    let mut times = Vec::new();
    let before = processor_time()?;
    let start = Instant::now();
    for index in 0..runs {
        let begun = Instant::now();
        run()?;
        times.push(begun.elapsed());
        if let Some(left) = (start + pace * (index + 1)).checked_duration_since(Instant::now()) {
            std::thread::sleep(left);
        }
    }
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    let processor = (processor_time()? - before).as_secs_f64() * 1e3 / f64::from(runs);
    Ok(format!("p50 {:.4} ms, p95 {:.4} ms, processor {processor:.3} ms", at(50), at(95)))
}

fn processor_time() -> Fallible<Duration> {
    // Nanoseconds on the processor, of every thread.
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().ok_or("schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

fn resident_kib() -> Fallible<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("VmRSS")?.parse()?)
}
