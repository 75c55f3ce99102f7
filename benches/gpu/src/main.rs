//! What runs on a machine with an NVIDIA GPU and hardly anything else: no GStreamer, no files but a model's. Each command
//! prints one JSON object; `benches/gpu/run.py` calls them and writes the results folder.
//!
//!     gpu-bench latency --model DIR --provider onnxruntime-cuda --objects 4
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

mod about;
mod graphs;
mod kernels;
mod late;
mod latency;
mod load;
mod scene;
mod spread;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;

#[derive(Debug, Parser)]
#[command(about = "Figures of a machine with an NVIDIA GPU, as JSON", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is there: driver, devices, ONNX Runtime and its providers
    About,
    /// From a picture to its masks, stage by stage
    Latency(latency::LatencyArgs),
    /// From a late answer to its object live
    Late(late::LateArgs),
    /// Each graph against ONNX Runtime on the processor, on the same noise
    Graphs(graphs::GraphsArgs),
    /// The device's small kernels against the processor, and beside a plain copy of as many bytes
    Kernels(kernels::KernelsArgs),
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gpu-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::About => print(&about::run()),
        Command::Latency(args) => print(&latency::run(&args)?),
        Command::Late(args) => print(&late::run(&args)?),
        Command::Graphs(args) => print(&graphs::run(&args)?),
        Command::Kernels(args) => print(&kernels::run(&args)?),
    }
}

fn print(report: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}
