//! JSON lines of a feed on their way to a file or a pipe, on a thread of their own.
//!
//! The queue holds [`DEPTH`] lines and drops the newest: a disk that is full, or a pipe whose reader is slow or away,
//! costs lines and never a frame. A line that was begun is finished once there is room again.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{fs::OFlags, io::Errno};
use sightline_telemetry::FeedMetrics;

/// Lines on their way. Full: `DropNewest`.
const DEPTH: usize = 256;
/// How long lines that are on their way have when the feed stops.
const FINISHING: Duration = Duration::from_secs(1);
/// Between two tries to write to a disk that is full.
const AGAIN: Duration = Duration::from_millis(500);
/// Between two looks at a pipe.
const LOOK: Duration = Duration::from_millis(10);

/// Takes lines and never waits.
pub(crate) struct Lines {
    sender: SyncSender<Vec<u8>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    metrics: Arc<FeedMetrics>,
}

impl Lines {
    /// Begins to append to `path`, which need not be there, or be writable, yet.
    pub(crate) fn start(feed: &str, path: &Path, metrics: &Arc<FeedMetrics>) -> Result<Self> {
        let (sender, receiver) = sync_channel(DEPTH);
        let stop = Arc::new(AtomicBool::new(false));
        let mut writer = Writer {
            feed: feed.to_owned(),
            path: path.to_owned(),
            file: None,
            metrics: Arc::clone(metrics),
            stop: Arc::clone(&stop),
            stopping: None,
            troubled: false,
        };
        let thread = std::thread::Builder::new()
            .name(format!("jsonl-{feed}"))
            .spawn(move || writer.run(&receiver))
            .with_context(|| format!("cannot start the thread that writes {path:?}"))?;
        Ok(Self { sender, stop, thread, metrics: Arc::clone(metrics) })
    }

    /// Hands a line over, its end included, or counts it as dropped.
    pub(crate) fn put(&self, line: Vec<u8>) {
        match self.sender.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.metrics.output_full(),
            Err(TrySendError::Disconnected(_)) => self.metrics.output_lost(1),
        }
    }

    /// Writes what is on its way, for a second at most.
    pub(crate) fn finish(self) {
        drop(self.sender);
        self.stop.store(true, Ordering::Release);
        let begun = Instant::now();
        while !self.thread.is_finished() {
            if begun.elapsed() > FINISHING * 2 {
                // Held by the operating system: a network disk that is away.
                return tracing::warn!("an output did not take its last lines");
            }
            std::thread::sleep(LOOK);
        }
        if self.thread.join().is_err() {
            tracing::error!("an output's thread panicked");
        }
    }
}

struct Writer {
    feed: String,
    path: PathBuf,
    file: Option<File>,
    metrics: Arc<FeedMetrics>,
    stop: Arc<AtomicBool>,
    /// When the stop was seen.
    stopping: Option<Instant>,
    /// Something is wrong, and was said.
    troubled: bool,
}

impl Writer {
    fn run(&mut self, lines: &Receiver<Vec<u8>>) {
        loop {
            let line = match lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.write(&line) { self.metrics.output_line() } else { self.metrics.output_lost(1) }
        }
    }

    /// Whether it was written to its end.
    fn write(&mut self, line: &[u8]) -> bool {
        let mut at = 0;
        while at < line.len() {
            if self.given_up() {
                return false;
            }
            let written = match &mut self.file {
                Some(file) => file.write(&line[at..]),
                None => match self.open() {
                    Ok(file) => {
                        self.file = Some(file);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match written.map_err(|error| (Errno::from_io_error(&error), error)) {
                Ok(bytes) if bytes > 0 => {
                    at += bytes;
                    if std::mem::take(&mut self.troubled) {
                        tracing::info!(feed = self.feed, path = ?self.path, "lines are written again");
                    }
                }
                // A pipe that is full.
                Err((Some(Errno::AGAIN), _)) => std::thread::sleep(LOOK),
                Err((Some(Errno::INTR), _)) => {}
                // A pipe that nobody reads. The next reader begins with a whole line.
                Err((Some(errno @ (Errno::PIPE | Errno::NXIO)), error)) => {
                    if self.file.take().is_some() && errno == Errno::PIPE {
                        self.metrics.output_error();
                    }
                    self.say(&error);
                    if at > 0 {
                        return false;
                    }
                    std::thread::sleep(LOOK);
                }
                other => {
                    let error = other.err().map_or_else(
                        || std::io::Error::from(std::io::ErrorKind::WriteZero),
                        |(_, error)| error,
                    );
                    self.metrics.output_error();
                    self.say(&error);
                    self.pause();
                    // Emptied from outside (copytruncate): what there was of the line is gone.
                    let metadata = self.file.as_ref().and_then(|file| file.metadata().ok());
                    if metadata.is_some_and(|data| data.is_file() && data.len() == 0) {
                        at = 0;
                    }
                }
            }
        }
        true
    }

    fn open(&self) -> std::io::Result<File> {
        let cut_off = ends_within_a_line(&self.path);
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut file = OpenOptions::new().append(true).create(true).custom_flags(flags).open(&self.path)?;
        if cut_off {
            file.write_all(b"\n")?;
        }
        Ok(file)
    }

    fn say(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.troubled, true) {
            let Self { feed, path, .. } = &*self;
            tracing::warn!(
                feed,
                ?path,
                "lines cannot be written, and are kept or dropped until they can: {error}"
            );
        }
    }

    fn given_up(&mut self) -> bool {
        if !self.stop.load(Ordering::Acquire) {
            return false;
        }
        self.stopping.get_or_insert_with(Instant::now).elapsed() > FINISHING
    }

    fn pause(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < AGAIN && !self.given_up() {
            std::thread::sleep(LOOK);
        }
    }
}

/// Whoever wrote this file before was killed within a line.
fn ends_within_a_line(path: &Path) -> bool {
    let last = || -> std::io::Result<u8> {
        if !path.metadata()?.is_file() {
            return Ok(b'\n');
        }
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    last().is_ok_and(|byte| byte != b'\n')
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;

    use sightline_telemetry::Telemetry;

    use super::*;

    struct Rig {
        telemetry: Telemetry,
        lines: Option<Lines>,
        put: u64,
    }

    impl Rig {
        fn new(path: &Path) -> Self {
            let telemetry = Telemetry::new().unwrap();
            let metrics = Arc::new(telemetry.feed("a"));
            Self { lines: Some(Lines::start("a", path, &metrics).unwrap()), telemetry, put: 0 }
        }

        /// Puts so many lines and gives the time that took.
        fn put(&mut self, count: u64) -> Duration {
            let begun = Instant::now();
            for _ in 0..count {
                self.lines
                    .as_ref()
                    .unwrap()
                    .put(format!("{{\"n\":{}}}{}\n", self.put, " ".repeat(900)).into_bytes());
                self.put += 1;
            }
            begun.elapsed()
        }

        fn errors(&self) -> u64 {
            self.value("sightline_output_errors_total{feed=\"a\"} ")
        }

        fn value(&self, name: &str) -> u64 {
            let text = self.telemetry.render();
            text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
        }

        /// Written, dropped at the queue, lost, errors; after the end.
        fn finish(mut self) -> [u64; 4] {
            self.lines.take().unwrap().finish();
            [
                "sightline_output_lines_total{feed=\"a\"} ",
                "sightline_output_dropped_total{feed=\"a\",reason=\"full\"} ",
                "sightline_output_dropped_total{feed=\"a\",reason=\"lost\"} ",
                "sightline_output_errors_total{feed=\"a\"} ",
            ]
            .map(|name| self.value(name))
        }
    }

    fn number(line: &str) -> u64 {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["n"].as_u64().unwrap()
    }

    fn fifo(folder: &Path) -> PathBuf {
        let path = folder.join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    }

    #[test]
    fn lines_are_appended_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        std::fs::write(&path, "{\"n\":100}\n{\"n\":").unwrap();
        let mut rig = Rig::new(&path);
        rig.put(200);
        assert_eq!(rig.finish(), [200, 0, 0, 0]);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 202);
        assert!(lines[2..].iter().map(|line| number(line)).eq(0..200));
    }

    #[test]
    fn a_full_disk_is_counted_and_stalls_nobody() {
        let mut rig = Rig::new(Path::new("/dev/full"));
        assert!(rig.put(5_000) < Duration::from_secs(1));
        let begun = Instant::now();
        let [written, full, lost, errors] = rig.finish();
        assert!(begun.elapsed() < FINISHING * 2, "{:?}", begun.elapsed());
        assert_eq!((written, full + lost), (0, 5_000));
        assert!(full > 4_000 && errors >= 1, "{full} {errors}");
    }

    #[test]
    fn a_disk_with_room_again_gets_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later").join("out.jsonl");
        let mut rig = Rig::new(&path);
        rig.put(3);
        std::thread::sleep(Duration::from_millis(50));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let [written, full, lost, errors] = rig.finish();
        assert_eq!((written, full, lost), (3, 0, 0));
        assert!(errors >= 1);
    }

    #[test]
    fn a_pipe_without_a_reader_or_with_a_slow_one_costs_lines_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(folder.path());
        let mut rig = Rig::new(&path);
        assert!(rig.put(1_000) < Duration::from_secs(1), "nobody reads");
        let mut reader = std::io::BufReader::new(File::open(&path).unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(number(&line), 0, "the oldest were kept");
        // The pipe takes 64 KiB, the queue the next ones, and then it is full.
        assert!(rig.put(1_000) < Duration::from_secs(1), "a reader that does not read on");
        let first = number(&line);
        let rest = std::thread::spawn(move || {
            let numbers: Vec<u64> = reader.lines().map(|line| number(&line.unwrap())).collect();
            numbers
        });
        let put = rig.put;
        let [written, full, lost, _] = rig.finish();
        let mut read = rest.join().unwrap();
        read.insert(0, first);
        assert!(read.is_sorted() && read.len() as u64 == written, "{written} {}", read.len());
        assert_eq!((written + full + lost, lost), (put, 0));
        assert!(full > 1_000, "{full}");
    }

    #[test]
    fn the_next_reader_of_a_pipe_begins_with_a_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(folder.path());
        let mut rig = Rig::new(&path);
        for round in 0..2 {
            // A pipe is opened when there is a line for it.
            rig.put(300);
            let mut reader = std::io::BufReader::new(File::open(&path).unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert_eq!(number(&line) == 0, round == 0, "{line}");
            drop(reader);
            let begun = Instant::now();
            while rig.errors() <= round {
                assert!(begun.elapsed() < Duration::from_secs(5), "it is not noticed that the reader went");
                rig.put(1);
                std::thread::sleep(LOOK);
            }
        }
        let put = rig.put;
        let [written, full, lost, errors] = rig.finish();
        assert_eq!(written + full + lost, put);
        assert_eq!(errors, 2, "readers that went");
    }
}
