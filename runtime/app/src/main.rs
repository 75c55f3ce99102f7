//! Say what to watch; it finds it in the live picture and keeps a mask on it.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod doctor;
mod elements;
mod engines;
mod eval;
mod feed;
mod gstreamer;
mod heap;
mod models;
mod observe;
mod pictures;
mod run;
mod serve;
mod talk;
mod trace;

use std::{io::Write as _, process::ExitCode};

use anyhow::Result;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::read();
    let filter =
        EnvFilter::try_from_env("SIGHTLINE_LOG").unwrap_or_else(|_| EnvFilter::new("warn,sightline=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .init();
    if matches!(cli.command, Command::Run(_) | Command::Serve(_)) {
        heap::settle();
    }
    let result = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Models(args) => models::run(args),
        Command::Engines(args) => match engines::run(args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Doctor(args) => match doctor::run(args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody to tell when stderr is gone.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to stdout, where the answers go; a reader that has gone is no failure.
fn print_stdout(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
