//! A small HTTP server of one file, at any path but `/moved.pt`, which redirects to it, with the faults that downloads meet.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// How the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As one should: whole, or the range that was asked for.
    Sound,
    /// Announces everything, sends so many bytes, hangs up.
    CutAfter(usize),
    /// Announces everything, sends so many bytes, says no more.
    StallAfter(usize),
    /// Always the whole file, and no validator.
    NoRanges,
    /// The status and no body.
    Status(u16),
    /// Announces more than any disk holds.
    Boasting,
}

/// The server; it lives as long as the process.
pub(crate) struct Server {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    body: Vec<u8>,
    tag: String,
    manner: Manner,
    /// The `Range` of each request, if it had one.
    ranges: Vec<Option<String>>,
}

impl Server {
    pub(crate) fn new(body: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/model.pt", listener.local_addr().unwrap());
        let state = State { body, tag: "\"one\"".to_owned(), manner: Manner::Sound, ranges: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = shared.clone();
                // A client that hangs up is part of the game.
                std::thread::spawn(move || drop(answer(stream.unwrap(), &state)));
            }
        });
        Self { address, state }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        self.state.lock().unwrap().manner = manner;
    }

    /// Another file at the same address.
    pub(crate) fn replace(&self, body: Vec<u8>, tag: &str) {
        let mut state = self.state.lock().unwrap();
        state.body = body;
        state.tag = tag.to_owned();
    }

    /// The `Range` headers of the requests since the last call.
    pub(crate) fn ranges(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.state.lock().unwrap().ranges)
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let (mut range, mut if_range, mut moved) = (None, None, false);
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        moved |= line.starts_with("GET /moved.pt ");
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => range = Some(value.to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("if-range") => if_range = Some(value.to_owned()),
            None if line.is_empty() => break,
            _ => {}
        }
    }
    if moved {
        let head = "HTTP/1.1 302 X\r\nLocation: /model.pt\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(head.as_bytes());
    }
    let (body, tag, manner) = {
        let mut state = state.lock().unwrap();
        state.ranges.push(range.clone());
        (state.body.clone(), state.tag.clone(), state.manner)
    };
    let start = range
        .filter(|_| if_range.as_ref().is_none_or(|sent| *sent == tag) && manner != Manner::NoRanges)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let total = body.len();
    let (status, extra) = match (manner, start) {
        (Manner::Status(status), _) => (status, String::new()),
        (_, Some(start)) if start >= total => (416, format!("Content-Range: bytes */{total}\r\n")),
        (_, Some(start)) => (206, format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1)),
        (_, None) => (200, String::new()),
    };
    let rest = if status == 200 || status == 206 { &body[start.unwrap_or(0)..] } else { &[] };
    let announced = if manner == Manner::Boasting { 1 << 60 } else { rest.len() };
    let tag = if manner == Manner::NoRanges { String::new() } else { format!("ETag: {tag}\r\n") };
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {announced}\r\n{tag}{extra}Connection: close\r\n\r\n"
    )?;
    match manner {
        Manner::CutAfter(count) => stream.write_all(&rest[..count.min(rest.len())])?,
        Manner::StallAfter(count) => {
            stream.write_all(&rest[..count.min(rest.len())])?;
            stream.flush()?;
            std::thread::sleep(Duration::from_secs(20));
        }
        _ => stream.write_all(rest)?,
    }
    stream.flush()
}
