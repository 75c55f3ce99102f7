//! A server of small texts that cannot hurt what it tells about: a thread of its own, so many connections, so long each.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, watch};

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

/// What a stranger may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time; the next one is closed as it comes.
    pub(super) connections: usize,
    /// From being accepted to having read the answer.
    pub(super) time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 32, time: Duration::from_secs(5) }
    }
}

/// Headers longer than this are refused.
const MOST_HEADER_BYTES: usize = 16 * 1024;

/// Serves until it is dropped.
pub(super) struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, and answers GET and HEAD with what `answer` says to the path; `None` is 404.
    pub(super) fn start(
        listen: SocketAddr,
        limits: Limits,
        answer: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static,
    ) -> Result<Self> {
        let subject = || format!("serve.listen {listen}: expected an address that is free");
        let listener = TcpListener::bind(listen).with_context(subject)?;
        listener.set_nonblocking(true).with_context(subject)?;
        let address = listener.local_addr().with_context(subject)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("cannot start the metrics server's runtime")?;
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("observe".into())
            .spawn(move || runtime.block_on(serve(listener, limits, Arc::new(answer), stopped)))
            .context("cannot start the metrics server's thread")?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Without a receiver the thread is over already.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the metrics server panicked");
        }
    }
}

type Answer = dyn Fn(&str) -> Option<Reply> + Send + Sync;

async fn serve(listener: TcpListener, limits: Limits, answer: Arc<Answer>, mut stop: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics cannot be served"),
    };
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            _ = stop.changed() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others need them first.
                tracing::debug!(%error, "a connection for metrics was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tracing::debug!("a connection for metrics was one too many");
            continue;
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let response = respond(&request, &*answer);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(MOST_HEADER_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            // Who is too slow, or goes, is nobody's concern here.
            let _ = tokio::time::timeout(limits.time, connection).await;
        });
    }
}

fn respond<B>(request: &Request<B>, answer: &Answer) -> Response<Full<Bytes>> {
    let reply = match *request.method() {
        Method::GET | Method::HEAD => answer(request.uri().path()).unwrap_or_else(|| Reply {
            status: 404,
            content_type: "text/plain",
            body: "expected /, /metrics, /healthz or /readyz\n".into(),
        }),
        _ => Reply { status: 405, content_type: "text/plain", body: "expected GET or HEAD\n".into() },
    };
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(reply.content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    fn start(connections: usize, time: Duration) -> Server {
        let limits = Limits { connections, time };
        let large = "x".repeat(32 << 20);
        Server::start(([127, 0, 0, 1], 0).into(), limits, move |path| {
            let body = match path {
                "/" => "hello".to_owned(),
                "/large" => large.clone(),
                _ => return None,
            };
            Some(Reply { status: 200, content_type: "text/plain", body })
        })
        .unwrap()
    }

    fn ask(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut text = String::new();
        // One that is closed at once resets.
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut text));
        text
    }

    #[test]
    fn paths_and_methods() {
        let server = start(4, Duration::from_secs(5));
        for (case, request, status, end) in [
            ("get", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "200", "\r\n\r\nhello"),
            ("head", "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "200", "\r\n\r\n"),
            ("query", "GET /?x=1 HTTP/1.1\r\nHost: h\r\n\r\n", "200", "hello"),
            ("unknown", "GET /x HTTP/1.1\r\nHost: h\r\n\r\n", "404", "/readyz\n"),
            ("post", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "405", "GET or HEAD\n"),
            ("garbage", "nonsense\r\n\r\n", "400", ""),
        ] {
            let text = ask(&server, request);
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")) && text.ends_with(end), "{case}: {text}");
        }
        let header = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
        assert!(!ask(&server, &header).starts_with("HTTP/1.1 200"), "a header of a megabyte");
    }

    #[test]
    fn slow_readers_and_silent_ones_are_let_go() {
        let server = start(3, Duration::from_millis(400));
        let begun = Instant::now();
        let mut slow: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
        slow[0].write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        slow[1].write_all(b"GET / HT").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(ask(&server, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"), "", "one too many");
        let answered = |server: &Server| ask(server, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").ends_with("hello");
        while !answered(&server) {
            assert!(begun.elapsed() < Duration::from_secs(5), "slow readers keep others out");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(slow);
    }

    #[test]
    fn an_address_that_is_taken_is_named_and_dropping_frees_it() {
        let server = start(1, Duration::from_secs(1));
        let address = server.address();
        let again = || Server::start(address, Limits::default(), |_| None);
        let error = format!("{:#}", again().err().unwrap());
        assert!(error.starts_with(&format!("serve.listen {address}: expected")), "{error}");
        drop(server);
        again().unwrap();
    }
}
