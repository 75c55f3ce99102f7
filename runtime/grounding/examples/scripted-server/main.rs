//! A chat-completions server that answers from a file, after a delay, or fails as told. For tests and evaluations.
//!
//! ```text
//! cargo run -p sightline-grounding --example scripted-server -- --answers FILE.json --delay-ms 2000
//! ```
//!
//! `FILE.json` is `{"words of the query": answer, ..}`. The longest key that the user's text contains (in any case) is
//! the one; an answer is a string, or JSON that is sent as text. `"*"` answers everything else.
#![allow(clippy::print_stdout)]

#[path = "../../tests/support/scripted.rs"]
mod scripted;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use scripted::{Seen, Server, Step};
use serde_json::Value;

const USAGE: &str = "scripted-server [--address 127.0.0.1:8000] [--answers FILE.json] [--delay-ms N] [--chunks N] \
[--pause-ms N] [--fault none|status-N|refuse|hang|hang-after-head|hang-mid-stream|hang-up|end-early|garbage|whole|unstructured] \
[--fault-every N] [--quiet true]";

#[derive(Default)]
struct Options {
    answers: BTreeMap<String, String>,
    delay: Duration,
    chunks: usize,
    pause: Duration,
    fault: String,
    fault_every: usize,
    quiet: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut address = "127.0.0.1:8000".to_owned();
    let mut options = Options { chunks: 8, fault: "none".into(), fault_every: 1, ..Options::default() };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name}: expected a value, got none"))?;
        let number = || value.parse().map_err(|_| format!("{name}: expected a number, got {value:?}"));
        match name.as_str() {
            "--address" => address = value,
            "--answers" => options.answers = answers(&value)?,
            "--delay-ms" => options.delay = Duration::from_millis(number()?),
            "--chunks" => options.chunks = number()? as usize,
            "--pause-ms" => options.pause = Duration::from_millis(number()?),
            "--fault-every" => options.fault_every = (number()? as usize).max(1),
            "--quiet" => options.quiet = value == "true",
            "--fault" => {
                fault(&value, String::new())
                    .ok_or(format!("--fault: expected one of those below, got {value:?}"))?;
                options.fault = value;
            }
            _ => return Err(format!("argument: expected one of those below, got {name:?}")),
        }
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let server = Server::start(&address, move |seen, number| step(&options, seen, number))
            .await
            .map_err(|error| format!("address {address}: expected one that is free, got {error}"))?;
        println!("{}", server.url());
        std::future::pending::<()>().await;
        Ok(())
    })
}

fn answers(path: &str) -> Result<BTreeMap<String, String>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{path}: expected a readable file, got {error}"))?;
    let map: BTreeMap<String, Value> = serde_json::from_str(&text)
        .map_err(|error| format!("{path}: expected {{words: answer}}, got {error}"))?;
    let plain = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(map.into_iter().map(|(words, answer)| (words.to_lowercase(), plain(answer))).collect())
}

fn step(options: &Options, seen: &Seen, number: usize) -> Step {
    let asked = seen.text();
    let lower = asked.to_lowercase();
    let hit = options.answers.iter().filter(|(words, _)| lower.contains(words.as_str()));
    let answer = hit.max_by_key(|(words, _)| words.len()).or_else(|| options.answers.get_key_value("*"));
    if !options.quiet {
        let words = answer.map_or("nothing", |(words, _)| words);
        println!("{number}: {} pictures, {asked:?}: answer of {words:?}", seen.images().len());
    }
    let text = answer.map(|(_, answer)| answer.clone()).unwrap_or_default();
    if (number + 1).is_multiple_of(options.fault_every)
        && let Some(Some(fault)) = fault(&options.fault, text.clone())
    {
        return fault;
    }
    Step::Answer { text, delay: options.delay, chunks: options.chunks, pause: options.pause }
}

/// `None` for an unknown fault, `Some(None)` for no fault.
fn fault(name: &str, text: String) -> Option<Option<Step>> {
    Some(Some(match name {
        "none" => return Some(None),
        "refuse" => Step::Refuse,
        "hang" => Step::Hang,
        "hang-after-head" => Step::HangAfterHead,
        "hang-mid-stream" => Step::HangMidStream { text },
        "hang-up" => Step::HangUp { text },
        "end-early" => Step::EndEarly { text },
        "garbage" => Step::Garbage,
        "whole" => Step::Whole { text, delay: Duration::ZERO },
        "unstructured" => Step::Unstructured { text },
        status => {
            let code = status.strip_prefix("status-")?.parse().ok()?;
            Step::Status { code, retry_after: None, body: "as told".into() }
        }
    }))
}
