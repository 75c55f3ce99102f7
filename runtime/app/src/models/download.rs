//! One file over HTTP: resumable, checked against what the server announced, hashed as it comes.
//!
//! Ranges, validators and their pitfalls: RFC 9110, sections 13.1.5 (`If-Range`), 14 and 15.3.7.

use std::{
    fs::{self, File, OpenOptions},
    io::{IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use reqwest::{Client, Response, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

/// Pieces in which a body is read and written.
const PIECE_BYTES: usize = 256 * 1024;

/// How long to wait for a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until it is connected.
    pub(super) connect: Duration,
    /// For the next byte.
    pub(super) stall: Duration,
}

impl Patience {
    fn silence(self) -> Error {
        anyhow!("expected the server to go on within {} s, got silence", self.stall.as_secs_f64())
    }
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hashed {
    pub(super) sha256: String,
    pub(super) length_bytes: u64,
}

/// What is remembered beside a partial file: a later run may only go on with the very same file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mark {
    address: String,
    /// A strong `ETag` or a `Last-Modified`.
    validator: String,
}

/// Downloads to `part`, going on where an earlier attempt stopped if the server still has the same file. A failure
/// leaves what came in `part` for the next attempt.
pub(super) fn fetch(
    address: &str,
    part: &Path,
    expected_bytes: Option<u64>,
    patience: Patience,
) -> Result<Hashed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(download(address, part, expected_bytes, patience))
        .with_context(|| format!("download {address}"))
}

async fn download(
    address: &str,
    part: &Path,
    expected_bytes: Option<u64>,
    patience: Patience,
) -> Result<Hashed> {
    let client = client(patience)?;
    let mark_path = mark_path(part);
    let begun = begun(part, &mark_path, address);
    let response = request(&client, address, begun.as_ref(), patience).await?;
    let (response, start) = match (response.status(), &begun) {
        (StatusCode::OK, _) => (response, 0),
        (StatusCode::PARTIAL_CONTENT, Some((_, have))) if range_start(&response) == Some(*have) => {
            (response, *have)
        }
        // The file has changed under the mark, or was complete: from the beginning.
        (StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT, Some(_)) => {
            let response = request(&client, address, None, patience).await?;
            if response.status() != StatusCode::OK {
                bail!("expected status 200, got {}", response.status());
            }
            (response, 0)
        }
        (status, _) => bail!("expected status 200, got {status}"),
    };
    if let Some((_, have)) = begun.filter(|_| start == 0) {
        tracing::info!(have_bytes = have, "the server does not go on with this file; from the beginning");
    }
    let announced = response.content_length().map(|rest| start + rest);
    if let (Some(expected), Some(got)) = (expected_bytes, announced)
        && expected != got
    {
        bail!("expected {expected} bytes as the catalogue says, got {got}");
    }
    let total = announced.or(expected_bytes);
    if let Some(total) = total {
        check_space(part, total - start)?;
    }
    match validator(&response) {
        Some(validator) => super::write_json(&mark_path, &Mark { address: address.to_owned(), validator })?,
        None => forget(&mark_path),
    }
    let (hashed, cut) = receive(response, part, start, total, patience).await?;
    if let Some(total) = total.filter(|total| *total != hashed.length_bytes) {
        let short = format!(
            "expected {total} bytes, got {}; the same command goes on from there",
            hashed.length_bytes
        );
        return Err(cut.map_or_else(|| anyhow!(short.clone()), |cut| Error::new(cut).context(short.clone())));
    }
    forget(&mark_path);
    Ok(hashed)
}

/// The SHA-256 of a file.
pub(super) fn hash(path: &Path) -> Result<Hashed> {
    let mut hasher = Hasher::default();
    let mut read = || -> std::io::Result<()> {
        let mut file = File::open(path)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(()),
                count => hasher.update(&piece[..count]),
            }
        }
    };
    read().with_context(|| format!("cannot read {path:?}"))?;
    Ok(hasher.finish())
}

/// Throws away a partial file: what came is not what was wanted.
pub(super) fn discard(part: &Path) {
    forget(part);
    forget(&mark_path(part));
}

fn forget(path: &Path) {
    // If it cannot be removed it is at worst read again, and found wanting again.
    let _ = fs::remove_file(path);
}

fn mark_path(part: &Path) -> PathBuf {
    part.with_added_extension("json")
}

#[derive(Default)]
struct Hasher {
    state: Sha256,
    length_bytes: u64,
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.length_bytes += bytes.len() as u64;
    }

    fn finish(self) -> Hashed {
        let sha256 = self.state.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Hashed { sha256, length_bytes: self.length_bytes }
    }
}

/// What an earlier attempt at the same address left, and how many bytes of it there are.
fn begun(part: &Path, mark_path: &Path, address: &str) -> Option<(Mark, u64)> {
    let mark: Mark = serde_json::from_str(&fs::read_to_string(mark_path).ok()?).ok()?;
    let have = fs::metadata(part).ok()?.len();
    (mark.address == address && have > 0).then_some((mark, have))
}

fn client(patience: Patience) -> Result<Client> {
    // One provider a process; whoever came first may have chosen another.
    _ = rustls::crypto::ring::default_provider().install_default();
    // The system's certificates, and the proxies of the environment.
    Ok(Client::builder()
        .connect_timeout(patience.connect)
        .user_agent(concat!("sightline/", env!("CARGO_PKG_VERSION")))
        .build()?)
}

async fn request(
    client: &Client,
    address: &str,
    begun: Option<&(Mark, u64)>,
    patience: Patience,
) -> Result<Response> {
    let mut request = client.get(address).header("Accept-Encoding", "identity");
    if let Some((mark, have)) = begun {
        request = request.header("Range", format!("bytes={have}-")).header("If-Range", &mark.validator);
    }
    // It connects first, and anew for each redirection.
    let answer =
        timeout(patience.connect + patience.stall, request.send()).await.map_err(|_| patience.silence())?;
    answer.map_err(|error| {
        if error.is_connect() && error.is_timeout() {
            return anyhow!("expected a connection within {} s, got none", patience.connect.as_secs_f64());
        }
        // The address is the subject's.
        Error::new(error.without_url())
    })
}

/// Where a partial answer starts: `Content-Range: bytes 5-9/10`.
fn range_start(response: &Response) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// A strong `ETag`, else a `Last-Modified`: what `If-Range` takes.
fn validator(response: &Response) -> Option<String> {
    let header = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    header("etag").filter(|tag| !tag.starts_with("W/")).or_else(|| header("last-modified"))
}

fn check_space(part: &Path, need_bytes: u64) -> Result<()> {
    let folder = part.parent().unwrap_or(Path::new("."));
    // A file system that does not say is found out by writing.
    if let Ok(found) = rustix::fs::statvfs(folder) {
        let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
        if need_bytes > free_bytes {
            bail!(
                "disk of {folder:?}: expected {} free for the download, got {}",
                super::megabytes(need_bytes),
                super::megabytes(free_bytes)
            );
        }
    }
    Ok(())
}

/// Reads the body behind the first `start` bytes of `part`, to its end or to where the connection was cut, and says why it was.
async fn receive(
    mut response: Response,
    part: &Path,
    start: u64,
    total: Option<u64>,
    patience: Patience,
) -> Result<(Hashed, Option<reqwest::Error>)> {
    let cannot = || format!("cannot write {part:?}");
    let mut hasher = Hasher::default();
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .read(true)
        .open(part)
        .with_context(cannot)?;
    file.set_len(start).with_context(cannot)?;
    let mut piece = vec![0; PIECE_BYTES];
    while hasher.length_bytes < start {
        match file.read(&mut piece).with_context(cannot)? {
            0 => bail!("{part:?}: expected {start} bytes, got {}", hasher.length_bytes),
            count => hasher.update(&piece[..count]),
        }
    }
    let mut progress = Progress::new(start, total);
    let cut = loop {
        let piece = match timeout(patience.stall, response.chunk()).await.map_err(|_| patience.silence())? {
            Ok(Some(piece)) => piece,
            Ok(None) => break None,
            // How much is missing is said by who knows the length.
            Err(error) if total.is_some() => break Some(error.without_url()),
            Err(error) => return Err(Error::new(error.without_url())),
        };
        file.write_all(&piece).with_context(|| {
            format!(
                "cannot write {part:?} behind {}; is the disk full?",
                super::megabytes(hasher.length_bytes)
            )
        })?;
        hasher.update(&piece);
        progress.show(hasher.length_bytes);
    };
    progress.done();
    // Delayed allocation may only now find the disk full.
    file.sync_all().with_context(cannot)?;
    Ok((hasher.finish(), cut))
}

/// A line on a terminal that says how far it is; nothing elsewhere.
struct Progress {
    shown: bool,
    start_bytes: u64,
    total_bytes: Option<u64>,
    began: Instant,
    last: Option<Instant>,
}

impl Progress {
    const EVERY: Duration = Duration::from_millis(200);

    fn new(start_bytes: u64, total_bytes: Option<u64>) -> Self {
        let shown = std::io::stderr().is_terminal();
        Self { shown, start_bytes, total_bytes, began: Instant::now(), last: None }
    }

    fn show(&mut self, have_bytes: u64) {
        let now = Instant::now();
        if !self.shown || self.last.is_some_and(|last| now - last < Self::EVERY) {
            return;
        }
        self.last = Some(now);
        let speed = (have_bytes - self.start_bytes) as f64 / (now - self.began).as_secs_f64().max(1e-3);
        let of =
            self.total_bytes.map_or_else(String::new, |total| format!(" of {}", super::megabytes(total)));
        let have = super::megabytes(have_bytes);
        // Nobody to tell when stderr is gone.
        let _ = write!(std::io::stderr(), "\r  {have}{of}, {}/s   ", super::megabytes(speed as u64));
    }

    fn done(&self) {
        if self.last.is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }
}
