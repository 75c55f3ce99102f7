//! A chat-completions server that does what it is told: the real protocol over real sockets, with every fault a real
//! server has. HTTP/1.1 by hand, because no library sends half an answer and hangs up.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

/// What a request gets.
#[derive(Debug, Clone)]
pub enum Step {
    /// An answer, streamed in `chunks` parts with a pause before each but the first.
    Answer { text: String, delay: Duration, chunks: usize, pause: Duration },
    /// A whole answer that is not streamed.
    Whole { text: String, delay: Duration },
    /// An HTTP status and the body's text.
    Status { code: u16, retry_after: Option<u64>, body: String },
    /// Accepts and says nothing.
    Hang,
    /// Says 200 and then nothing.
    HangAfterHead,
    /// Streams the first of two halves and says nothing more.
    HangMidStream { text: String },
    /// Streams the first of two halves and hangs up, without ending the stream as HTTP wants it.
    HangUp { text: String },
    /// Ends the stream as HTTP wants it, but not as the protocol does.
    EndEarly { text: String },
    /// A stream of something that is not JSON.
    Garbage,
    /// As `Answer`, but 400 to whoever asks for structured output.
    Unstructured { text: String },
    /// Hangs up without a word.
    Refuse,
}

impl Step {
    pub fn answer(text: impl Into<String>) -> Self {
        Self::Answer { text: text.into(), delay: Duration::ZERO, chunks: 4, pause: Duration::ZERO }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Still going on.
    Open,
    /// All that was to be said was said.
    Said,
    /// The client hung up first.
    ClientGone,
}

/// What came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    pub path: String,
    pub authorization: Option<String>,
    pub body: Value,
    pub end: End,
    pub ended_at: Option<Instant>,
}

impl Seen {
    /// The user's words: every text of the last message.
    pub fn text(&self) -> String {
        let last = self.body["messages"].as_array().and_then(|messages| messages.last());
        match last.map(|message| &message["content"]) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => {
                parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
            }
            _ => String::new(),
        }
    }

    /// The `data:` URLs of the last message's pictures.
    pub fn images(&self) -> Vec<String> {
        let last = self.body["messages"].as_array().and_then(|messages| messages.last().cloned());
        let parts = last.and_then(|message| message["content"].as_array().cloned()).unwrap_or_default();
        parts.iter().filter_map(|part| part["image_url"]["url"].as_str().map(str::to_owned)).collect()
    }
}

type Say = dyn Fn(&Seen, usize) -> Step + Send + Sync;

/// A running server; dropping it closes every connection.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves on a port of the system's choosing: the n-th request gets the n-th step, the last one over and over.
    pub async fn steps(steps: Vec<Step>) -> Self {
        Self::start("127.0.0.1:0", move |_, n| steps[n.min(steps.len() - 1)].clone())
            .await
            .expect("a free port")
    }

    /// Serves on an address; `say` is given each request and its number.
    pub async fn start(
        address: &str,
        say: impl Fn(&Seen, usize) -> Step + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (shared, say) = (seen.clone(), Arc::new(say) as Arc<Say>);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, shared.clone(), say.clone()));
            }
        });
        Ok(Self { address, seen, task })
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn connection(mut stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>, say: Arc<Say>) {
    _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        let (number, step) = {
            let mut all = seen.lock().unwrap();
            let number = all.len();
            let step = say(&request, number);
            all.push(request);
            (number, step)
        };
        let body = seen.lock().unwrap()[number].body.clone();
        // Whatever is being said, a client that hangs up ends it.
        let (mut incoming, mut outgoing) = stream.into_split();
        let mut probe = [0_u8; 1];
        let keep = tokio::select! {
            keep = perform(&mut outgoing, step, &body) => Some(keep),
            _ = incoming.read(&mut probe) => None,
        };
        {
            let mut all = seen.lock().unwrap();
            all[number].end = if keep.is_some() { End::Said } else { End::ClientGone };
            all[number].ended_at = Some(Instant::now());
        }
        match keep {
            Some(Ok(true)) => stream = incoming.reunite(outgoing).expect("two halves of one"),
            _ => return,
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    while buffer.len() < head_end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = serde_json::from_slice(&buffer[head_end..head_end + length]).unwrap_or(Value::Null);
    buffer.drain(..head_end + length);
    Some(Seen {
        at: Instant::now(),
        path: head.split_whitespace().nth(1).unwrap_or_default().to_owned(),
        authorization: header("authorization"),
        body,
        end: End::Open,
        ended_at: None,
    })
}

/// Says what is to be said; whether the connection may go on.
async fn perform(
    out: &mut (impl AsyncWriteExt + Unpin),
    step: Step,
    request: &Value,
) -> std::io::Result<bool> {
    const STREAM: &str =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    const END: &str = "0\r\n\r\n";
    match step {
        Step::Answer { text, delay, chunks, pause } => {
            sleep(delay).await;
            out.write_all(STREAM.as_bytes()).await?;
            write_event(out, &delta(json!({"role": "assistant", "content": ""}), None)).await?;
            for (index, part) in parts(&text, chunks).into_iter().enumerate() {
                if index > 0 {
                    sleep(pause).await;
                }
                write_event(out, &delta(json!({"content": part}), None)).await?;
            }
            write_event(out, &delta(json!({}), Some("stop"))).await?;
            if request["stream_options"]["include_usage"] == true {
                let usage = json!({"prompt_tokens": 100, "completion_tokens": text.len() / 4});
                write_event(out, &json!({"choices": [], "usage": usage}).to_string()).await?;
            }
            write_event(out, "[DONE]").await?;
            out.write_all(END.as_bytes()).await?;
            Ok(true)
        }
        Step::Whole { text, delay } => {
            sleep(delay).await;
            let body = json!({
                "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": text.len() / 4},
            });
            write_whole(out, 200, "", &body.to_string()).await?;
            Ok(true)
        }
        Step::Status { code, retry_after, body } => {
            let extra = retry_after.map(|s| format!("retry-after: {s}\r\n")).unwrap_or_default();
            write_whole(out, code, &extra, &json!({"error": {"message": body}}).to_string()).await?;
            Ok(true)
        }
        Step::Unstructured { text } => {
            let step = if request.get("response_format").is_some() {
                Step::Status { code: 400, retry_after: None, body: "response_format is not supported".into() }
            } else {
                Step::answer(text)
            };
            Box::pin(perform(out, step, request)).await
        }
        Step::Hang => std::future::pending().await,
        Step::HangAfterHead => {
            out.write_all(STREAM.as_bytes()).await?;
            write_event(out, &delta(json!({"role": "assistant", "content": ""}), None)).await?;
            std::future::pending().await
        }
        Step::HangMidStream { text } => {
            write_half(out, STREAM, &text).await?;
            std::future::pending().await
        }
        Step::HangUp { text } => {
            write_half(out, STREAM, &text).await?;
            Ok(false)
        }
        Step::EndEarly { text } => {
            write_half(out, STREAM, &text).await?;
            out.write_all(END.as_bytes()).await?;
            Ok(true)
        }
        Step::Garbage => {
            out.write_all(STREAM.as_bytes()).await?;
            write_event(out, "{\"choices\":[{\"delta\":{\"content\": oops").await?;
            out.write_all(END.as_bytes()).await?;
            Ok(true)
        }
        Step::Refuse => Ok(false),
    }
}

async fn write_half(out: &mut (impl AsyncWriteExt + Unpin), head: &str, text: &str) -> std::io::Result<()> {
    out.write_all(head.as_bytes()).await?;
    let half = &text[..text.floor_char_boundary(text.len() / 2)];
    write_event(out, &delta(json!({"content": half}), None)).await
}

async fn write_event(out: &mut (impl AsyncWriteExt + Unpin), data: &str) -> std::io::Result<()> {
    let event = format!("data: {data}\n\n");
    out.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await
}

async fn write_whole(
    out: &mut (impl AsyncWriteExt + Unpin),
    code: u16,
    extra: &str,
    body: &str,
) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{extra}\r\n"
    );
    out.write_all(head.as_bytes()).await?;
    out.write_all(body.as_bytes()).await
}

fn delta(delta: Value, finish: Option<&str>) -> String {
    json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        .to_string()
}

/// About `count` parts of a text, cut between characters.
fn parts(text: &str, count: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(chars.len().div_ceil(count.max(1)).max(1)).map(|part| part.iter().collect()).collect()
}
