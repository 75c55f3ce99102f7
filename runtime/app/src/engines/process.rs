//! Runs a tool to its end or until Ctrl-C, line by line; nothing it started outlives it.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use gst::glib;

/// Between looks for a signal.
const POLL: Duration = Duration::from_millis(50);
/// For what a dead process left in its pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// SIGINT and SIGTERM, once asked for, stop the tool that runs and everything after it.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(super) fn install() -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [2, 15] {
            let asked = Arc::clone(&asked);
            // The handler goes after the first signal, so the second one has its usual effect.
            glib_unix::unix_signal_add(signal, move || {
                asked.store(true, Ordering::Release);
                glib::ControlFlow::Break
            });
        }
        Self(asked)
    }

    /// An error once a signal has come.
    pub(super) fn check(&self) -> Result<()> {
        while glib::MainContext::default().iteration(false) {}
        if self.0.load(Ordering::Acquire) {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// Runs `command`, giving every line it writes, to stdout or stderr, to `line`.
pub(super) fn run(
    mut command: Command,
    interrupt: &Interrupt,
    mut line: impl FnMut(&str),
) -> Result<ExitStatus> {
    let (reader, writer) = std::io::pipe()?;
    let program = command.get_program().display().to_string();
    let child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // Of its own, so that whatever it starts can be ended with it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    // It holds the writing ends; the pipe would never end.
    drop(command);
    let mut group = Group(child);
    let (give, take) = mpsc::channel();
    thread::Builder::new().name("tool-output".to_owned()).spawn(move || {
        for bytes in BufReader::new(reader).split(b'\n') {
            let Ok(bytes) = bytes else { break };
            if give.send(String::from_utf8_lossy(&bytes).trim_end().to_owned()).is_err() {
                break;
            }
        }
    })?;
    loop {
        interrupt.check()?;
        match take.recv_timeout(POLL) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if group.0.try_wait()?.is_some() {
                    // A grandchild may keep the pipe open for ever.
                    while let Ok(text) = take.recv_timeout(DRAIN) {
                        line(&text);
                    }
                    break;
                }
            }
        }
    }
    loop {
        interrupt.check()?;
        if let Some(status) = group.0.try_wait()? {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

/// A process and all it started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // Both fail only for what is gone already.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_and_the_status() {
        let quiet = Interrupt(Arc::default());
        let mut lines = Vec::new();
        let status = run(sh("echo out; echo err >&2; exit 3"), &quiet, |line| lines.push(line.to_owned()));
        assert_eq!(status.unwrap().code(), Some(3));
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
        let error = run(Command::new("/nonexistent/tool"), &quiet, |_| {}).unwrap_err().to_string();
        assert_eq!(error, "cannot start /nonexistent/tool");
    }

    #[test]
    fn an_interrupt_ends_what_was_started() {
        let interrupt = Interrupt(Arc::default());
        let mut pid = String::new();
        let error = run(sh("sleep 600 & echo $!; wait"), &interrupt, |line| {
            pid = line.to_owned();
            interrupt.0.store(true, Ordering::Release);
        });
        assert_eq!(error.unwrap_err().to_string(), "interrupted");
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            // Nobody may be there to take the status of an orphan.
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        let ended = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(20));
            gone()
        });
        assert!(ended, "the grandchild {pid} outlived it");
    }
}
