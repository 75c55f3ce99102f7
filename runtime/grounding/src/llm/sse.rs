//! The server's side of a chat completion, streamed (server-sent events, HTML standard 9.2) or whole.

use serde_json::Value;

use crate::{GroundingError, Kind};

/// A line of an event stream is a token or a few; one of a megabyte is no such stream.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// Tokens as the server counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Of the request.
    pub prompt: u64,
    /// Of the answer.
    pub completion: u64,
}

/// An answer as far as it has come.
#[derive(Debug)]
pub(crate) struct Incoming {
    max_answer_bytes: usize,
    line: Vec<u8>,
    data: String,
    pub(crate) text: String,
    /// A token of any kind has come; a model that thinks aloud is alive though it says nothing.
    pub(crate) begun: bool,
    ended: bool,
    pub(crate) cut_off: bool,
    pub(crate) usage: Option<Usage>,
}

fn malformed(expected: &str, got: &str) -> GroundingError {
    let got = &got[..got.floor_char_boundary(200)];
    GroundingError::new(Kind::Malformed, "answer stream", expected, format_args!("{got:?}"))
}

impl Incoming {
    pub(crate) fn new(max_answer_bytes: usize) -> Self {
        Self {
            max_answer_bytes,
            line: Vec::new(),
            data: String::new(),
            text: String::new(),
            begun: false,
            ended: false,
            cut_off: false,
            usage: None,
        }
    }

    /// Takes bytes as they come.
    ///
    /// # Errors
    /// `Malformed`, `TooLong`, or `Server` when the stream itself says so.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), GroundingError> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > MAX_LINE_BYTES {
                return Err(malformed("lines of at most 1 MiB", "a longer one"));
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take_line(&line)?;
            }
        }
        Ok(())
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// `Disconnected` when the answer had not.
    pub(crate) fn close(&mut self) -> Result<(), GroundingError> {
        // Not every server ends its last event with an empty line.
        let line = std::mem::take(&mut self.line);
        self.take_line(&line)?;
        self.dispatch()?;
        if self.ended {
            return Ok(());
        }
        let got = format!("the end of the connection after {} bytes", self.text.len());
        Err(GroundingError::new(Kind::Disconnected, "answer stream", "data: [DONE] or a finish_reason", got))
    }

    /// Whether `[DONE]` was said: nothing follows, though the connection may stay.
    pub(crate) fn is_done(&self) -> bool {
        self.ended && self.data == "[DONE]"
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), GroundingError> {
        let line = std::str::from_utf8(line)
            .map_err(|_| malformed("UTF-8", &String::from_utf8_lossy(line)))?
            .trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            return self.dispatch();
        }
        if let Some(data) = line.strip_prefix("data:") {
            if !self.data.is_empty() {
                self.data.push('\n');
            }
            if self.data.len() + data.len() > MAX_LINE_BYTES {
                return Err(malformed("events of at most 1 MiB", "a longer one"));
            }
            self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
        } else if self.text.is_empty() && line.starts_with(['{', '<']) {
            return Err(malformed("data: lines", line));
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Result<(), GroundingError> {
        if self.data.is_empty() || self.is_done() {
            return Ok(());
        }
        if self.data == "[DONE]" {
            self.ended = true;
            return Ok(());
        }
        let data = std::mem::take(&mut self.data);
        let event: Value = serde_json::from_str(&data).map_err(|_| malformed("JSON", &data))?;
        self.take_event(&event, "delta")
    }

    /// Takes a whole answer, as a server that does not stream gives it.
    pub(crate) fn take_whole(&mut self, body: &[u8]) -> Result<(), GroundingError> {
        let whole: Value = serde_json::from_slice(body)
            .map_err(|_| malformed("a JSON chat completion", &String::from_utf8_lossy(body)))?;
        if whole.pointer("/choices/0/message").is_none() && whole.get("error").is_none() {
            return Err(malformed("a chat completion with a message", &whole.to_string()));
        }
        self.take_event(&whole, "message")?;
        self.ended = true;
        Ok(())
    }

    fn take_event(&mut self, event: &Value, part: &str) -> Result<(), GroundingError> {
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            let said =
                error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned);
            let said = &said[..said.floor_char_boundary(200)];
            return Err(GroundingError::new(
                Kind::Server,
                "answer stream",
                "tokens",
                format_args!("{said:?}"),
            ));
        }
        let count = |key: &str| event.pointer(&format!("/usage/{key}")).and_then(Value::as_u64);
        if let (Some(prompt), Some(completion)) = (count("prompt_tokens"), count("completion_tokens")) {
            self.usage = Some(Usage { prompt, completion });
        }
        // The last event of a stream may carry the usage alone.
        let Some(choice) = event.pointer("/choices/0") else { return Ok(()) };
        let said = |key: &str| {
            choice.get(part).and_then(|part| part.get(key)).and_then(Value::as_str).unwrap_or_default()
        };
        let content = said("content");
        self.begun |=
            !(content.is_empty() && said("reasoning_content").is_empty() && said("reasoning").is_empty());
        if self.text.len() + content.len() > self.max_answer_bytes {
            let limit = format!("at most {} bytes", self.max_answer_bytes);
            return Err(GroundingError::new(Kind::TooLong, "answer", limit, "more"));
        }
        self.text.push_str(content);
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.ended = true;
            self.cut_off = reason == "length";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": keep-alive\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"één \"},\"finish_reason\":null}]}\n\n\
        event: message\ndata: {\"choices\":[{\"delta\":\ndata: {\"content\":\"hond\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n\
        data: [DONE]\n\n";

    fn feed(stream: &str, step: usize) -> Result<Incoming, GroundingError> {
        let mut incoming = Incoming::new(1000);
        for chunk in stream.as_bytes().chunks(step) {
            incoming.feed(chunk)?;
        }
        incoming.close()?;
        Ok(incoming)
    }

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut() {
        for step in [1, 2, 3, 7, 64, 10_000] {
            let incoming = feed(STREAM, step).unwrap();
            assert_eq!(incoming.text, "één hond", "{step}");
            assert!(incoming.cut_off && incoming.is_done() && incoming.begun, "{step}");
            assert_eq!(incoming.usage, Some(Usage { prompt: 7, completion: 2 }), "{step}");
        }
    }

    #[test]
    fn ends_and_faults() {
        let token = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        for (name, stream, kind) in [
            ("cut", token.to_owned(), Kind::Disconnected),
            ("empty", String::new(), Kind::Disconnected),
            ("not JSON", format!("{token}data: {{oops\n\n"), Kind::Malformed),
            ("not a stream", "<html>Bad gateway</html>\n".into(), Kind::Malformed),
            (
                "said so",
                format!("{token}data: {{\"error\":{{\"message\":\"out of memory\"}}}}\n\n"),
                Kind::Server,
            ),
            ("too long", token.repeat(1001), Kind::TooLong),
            ("endless line", "data: ".to_owned() + &"x".repeat(MAX_LINE_BYTES), Kind::Malformed),
        ] {
            assert_eq!(feed(&stream, 4096).expect_err(name).kind(), kind, "{name}");
        }
        let unterminated =
            format!("{token}data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}");
        assert_eq!(feed(&unterminated, 9).unwrap().text, "a", "no empty line at the end");
        assert!(Incoming::new(9).feed(b"data: \xff\n").is_err());
    }

    #[test]
    fn whole_answers() {
        let mut incoming = Incoming::new(1000);
        incoming.take_whole(br#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#).unwrap();
        assert_eq!((incoming.text.as_str(), incoming.cut_off), ("hi", false));
        assert_eq!(Incoming::new(9).take_whole(b"{}").unwrap_err().kind(), Kind::Malformed);
        assert_eq!(Incoming::new(9).take_whole(b"hello").unwrap_err().kind(), Kind::Malformed);
        assert_eq!(Incoming::new(9).take_whole(br#"{"error":"x"}"#).unwrap_err().kind(), Kind::Server);
    }
}
