//! The thread of a feed: connect, watch, give up, pause, again.

use std::{
    sync::{Arc, atomic::AtomicBool, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use gst::prelude::*;
use sightline_config::FeedTransport;

use super::{
    LossCause, SourceEvent, SourceOptions,
    attempt::{Attempt, Closing},
    backoff::Backoff,
    door::{Door, Seen},
    source::{self, NO_VIDEO},
};
use crate::{observe::without_secrets, run::input::Input};

/// How often silence is looked for, and how late an event may be told.
const TICK: Duration = Duration::from_millis(20);
/// The cap of pauses for a camera that never was up: nobody knows whether it exists.
const NEVER_SEEN_CAP: Duration = Duration::from_secs(10);
/// A camera that was up has so long for its first answer. One that hangs would else hold a try, and its own return
/// would go unnoticed, for the whole of `connect_timeout`.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// Every so many tries it has the whole time all the same, should it have become slow.
const PATIENT_EVERY: u64 = 5;
/// A connection that lived for so long was none of those that die at once.
const SETTLED: Duration = Duration::from_secs(2);
/// Sources that hang while they are closed; beyond these there is no other try until one lets go.
const CLOSING_MAX: usize = 2;
/// How long the end may wait for sources to close.
const LAST_CLOSE: Duration = Duration::from_millis(1500);
/// Told once in so long for each kind.
const MEND_PAUSE: Duration = Duration::from_secs(1);

type Told = Box<dyn Fn(SourceEvent) + Send>;

pub(super) struct Supervisor {
    name: String,
    input: Input,
    options: SourceOptions,
    door: Arc<Door>,
    stopped: mpsc::Receiver<()>,
    told: Told,
    closing: Closing,
    connection: u64,
    /// It brought a frame once.
    known: bool,
    /// Since the last frame.
    tries: u64,
    /// Of an RTSP camera whose way is left open.
    udp: bool,
    mends: [(u64, Option<Instant>); 6],
}

/// How a connection ended.
enum Over {
    Stopped,
    Ended,
    Lost { cause: LossCause, detail: String, up_for: Duration },
}

/// What a message means.
enum Heard {
    Nothing,
    /// The peer answered.
    Answer,
    End,
    Failure(String),
}

impl Supervisor {
    pub(super) fn new(
        name: &str,
        input: Input,
        options: SourceOptions,
        door: Arc<Door>,
        stopped: mpsc::Receiver<()>,
        told: Told,
    ) -> Self {
        Self {
            name: name.to_owned(),
            input,
            options,
            door,
            stopped,
            told,
            closing: Closing::default(),
            connection: 0,
            known: false,
            tries: 0,
            udp: false,
            mends: [(0, None); 6],
        }
    }

    pub(super) fn run(mut self) {
        let mut backoff = Backoff::jittered(self.options.retry_base);
        'feed: loop {
            match self.connect() {
                Over::Stopped => break,
                Over::Ended => {
                    (self.told)(SourceEvent::Ended);
                    // Nothing is ever sent: the other end goes when it is stopped.
                    let _ = self.stopped.recv();
                    break;
                }
                Over::Lost { cause, detail, up_for } => {
                    (self.told)(SourceEvent::Lost { cause, detail });
                    if up_for >= SETTLED {
                        backoff.reset();
                    }
                    if cause == LossCause::NeverCame && !self.known {
                        self.udp = !self.udp;
                    }
                }
            }
            self.tries += 1;
            let cap =
                if self.known { self.options.retry_cap } else { self.options.retry_cap.max(NEVER_SEEN_CAP) };
            let pause = backoff.next(cap);
            (self.told)(SourceEvent::Retrying { attempt: self.tries, pause });
            if self.stops_within(pause) {
                break;
            }
            if self.closing.outstanding() >= CLOSING_MAX {
                tracing::warn!(feed = self.name, "two sources do not let go: no other until one does");
            }
            while self.closing.outstanding() >= CLOSING_MAX {
                if self.stops_within(TICK) {
                    break 'feed;
                }
            }
        }
        let left = self.closing.wait(LAST_CLOSE);
        if left > 0 {
            self.door.left_behind(left as u64);
            tracing::warn!(feed = self.name, left, "a source does not let go and is left behind");
        }
    }

    fn stops_within(&self, pause: Duration) -> bool {
        !matches!(self.stopped.recv_timeout(pause), Err(mpsc::RecvTimeoutError::Timeout))
    }

    /// One connection, from its first packet to its end.
    fn connect(&mut self) -> Over {
        self.connection += 1;
        let connection = self.connection;
        let door = Arc::clone(&self.door);
        let pass = move |sample, pts_ns| door.pass(connection, sample, pts_ns);
        let built = source::build(&self.input, &self.options, self.transport(), pass).and_then(|source| {
            self.door.open(connection);
            Ok((Attempt::begin(&self.name, source.pipeline)?, source.finite))
        });
        let (attempt, finite) = match built {
            Ok(built) => built,
            Err(error) => return self.lost(LossCause::NeverCame, format!("{error:#}"), None),
        };
        let over = self.watch(&attempt, &finite);
        self.closing.give_up(attempt);
        over
    }

    /// What an address leaves open is tried: TCP first.
    fn transport(&self) -> FeedTransport {
        match (&self.input, self.options.transport) {
            (Input::NetworkCamera(uri), FeedTransport::Auto) if uri.starts_with("rtsp://") => {
                if self.udp {
                    FeedTransport::Udp
                } else {
                    FeedTransport::Tcp
                }
            }
            (_, asked) => asked,
        }
    }

    fn watch(&mut self, attempt: &Attempt, finite: &AtomicBool) -> Over {
        let begun = Instant::now();
        let (mut answered, mut missing, mut up_since) = (false, None, None);
        loop {
            if self.stops_within(Duration::ZERO) {
                self.door.shut();
                return Over::Stopped;
            }
            let heard = attempt
                .bus
                .timed_pop(gst::ClockTime::from_mseconds(TICK.as_millis() as u64))
                .map_or(Heard::Nothing, |message| hear(&attempt.pipeline, &message, &mut missing));
            let seen = self.door.seen();
            self.tell_mends(&seen);
            if let (Some(first), None) = (seen.first, up_since) {
                (up_since, self.known, self.tries) = (Some(first), true, 0);
                (self.told)(SourceEvent::Connected { after: first - begun, caps: self.door.caps() });
            }
            match heard {
                Heard::Nothing => {}
                Heard::Answer => answered = true,
                Heard::End if !finite.load(Ordering::Acquire) => {
                    return self.lost(LossCause::Eos, "the stream ended".into(), up_since);
                }
                Heard::End if self.options.loop_file => {
                    self.door.rewound();
                    if let Err(error) = attempt
                        .pipeline
                        .seek_simple(gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT, gst::ClockTime::ZERO)
                    {
                        return self.lost(LossCause::Eos, format!("cannot play it again: {error}"), up_since);
                    }
                }
                Heard::End => {
                    self.door.shut();
                    return Over::Ended;
                }
                Heard::Failure(text) => {
                    let lost = self.lost(LossCause::Error, text, up_since);
                    // What is broken in the middle of a file is so the next time.
                    let once =
                        finite.load(Ordering::Acquire) && !self.options.loop_file && up_since.is_some();
                    if let (true, Over::Lost { cause, detail, .. }) = (once, &lost) {
                        (self.told)(SourceEvent::Lost { cause: *cause, detail: detail.clone() });
                        return Over::Ended;
                    }
                    return lost;
                }
            }
            match seen.last.filter(|_| up_since.is_some()) {
                // A film may stand still.
                Some(last) if !finite.load(Ordering::Acquire) && last.elapsed() > self.options.silence => {
                    let text = format!("expected a frame every {:?}, got none", self.options.silence);
                    return self.lost(LossCause::Silence, text, up_since);
                }
                Some(_) => {}
                None => {
                    let limit = self.patience(answered);
                    if begun.elapsed() > limit {
                        return self.lost(
                            LossCause::NeverCame,
                            format!("expected a frame within {limit:?}, got none"),
                            None,
                        );
                    }
                }
            }
        }
    }

    /// How long a connection may take to bring its first frame.
    fn patience(&self, answered: bool) -> Duration {
        let all = self.options.connect_timeout;
        if !self.known || answered || self.tries % PATIENT_EVERY == PATIENT_EVERY - 1 {
            all
        } else {
            all.min(FIRST_ANSWER)
        }
    }

    fn lost(&self, cause: LossCause, detail: String, up_since: Option<Instant>) -> Over {
        let cause = if up_since.is_some() { cause } else { LossCause::NeverCame };
        self.door.lost(cause);
        // Sources repeat the address they were given, password and all.
        let detail = without_secrets(&detail);
        let up_for = up_since.map_or(Duration::ZERO, |since| since.elapsed());
        Over::Lost { cause, detail, up_for }
    }

    fn tell_mends(&mut self, seen: &Seen) {
        for (&(what, count), (told, at)) in seen.mended.iter().zip(&mut self.mends) {
            if count > *told && at.is_none_or(|at| at.elapsed() >= MEND_PAUSE) {
                (*told, *at) = (count, Some(Instant::now()));
                (self.told)(SourceEvent::Mended { what });
            }
        }
    }
}

fn hear(pipeline: &gst::Pipeline, message: &gst::Message, missing: &mut Option<String>) -> Heard {
    match message.view() {
        gst::MessageView::Eos(_) => Heard::End,
        gst::MessageView::Error(error) => Heard::Failure(explain(error, missing.as_deref())),
        gst::MessageView::Warning(warning) => {
            tracing::debug!("{}: {:?}", warning.error().message(), warning.debug());
            Heard::Nothing
        }
        gst::MessageView::Latency(_) => {
            if let Err(error) = pipeline.recalculate_latency() {
                tracing::debug!(%error, "cannot work out a source's latency");
            }
            Heard::Nothing
        }
        gst::MessageView::Progress(progress) if progress.get().0 == gst::ProgressType::Complete => {
            Heard::Answer
        }
        gst::MessageView::StreamStart(_) => Heard::Answer,
        gst::MessageView::Application(application)
            if application.structure().is_some_and(|structure| structure.name() == NO_VIDEO) =>
        {
            Heard::Failure("expected a video, got a stream without a picture in it".into())
        }
        gst::MessageView::Element(element) => {
            if let Some(plugin) = element.structure().and_then(crate::run::missing_plugin) {
                missing.get_or_insert(plugin);
            }
            Heard::Nothing
        }
        _ => Heard::Nothing,
    }
}

/// An element's last words, with what is missing if that is known.
fn explain(error: &gst::message::Error, missing: Option<&str>) -> String {
    if let Some(missing) = missing {
        return format!(
            "expected every decoder to be installed, got none for {missing}; \
             type: sudo apt install gstreamer1.0-libav gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly"
        );
    }
    let trimmed = |text: &str| text.trim().trim_end_matches('.').to_owned();
    let what = trimmed(error.error().message());
    match error.debug().as_deref().and_then(|debug| debug.lines().last().map(trimmed)) {
        Some(detail) if !detail.is_empty() => format!("{what} ({detail})"),
        _ => what,
    }
}
