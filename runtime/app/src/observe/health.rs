//! How a feed is, as its own loop says it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A loop that goes round ten times a second and has not for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);
/// Frames that come and are only ever superseded for so long: an engine does not return.
const UNANSWERED: Duration = Duration::from_secs(60);
/// Models of gigabytes are loaded from slow disks.
const LOADING: Duration = Duration::from_secs(300);

/// What a feed is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its thread has not begun.
    Starting,
    /// The model is being loaded.
    Loading,
    /// The corridor plays.
    Running,
    /// It failed, and waits to be built anew.
    Waiting,
    /// It is being stopped.
    Stopping,
    /// Its input is over.
    Ended,
}

/// A feed's state for those who ask.
#[derive(Debug)]
pub(crate) struct FeedHealth {
    name: String,
    /// Without a frame for so long it does not deliver.
    silence: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    ticked: Instant,
    last_frame: Option<Instant>,
    /// Frames with an outcome of their own, and when there was a new one, or nothing to wait for.
    answered: (u64, Instant),
    trouble: String,
}

impl FeedHealth {
    pub(crate) fn new(name: &str, silence: Duration) -> Self {
        let state = State {
            phase: Phase::Starting,
            ticked: Instant::now(),
            last_frame: None,
            answered: (0, Instant::now()),
            trouble: String::new(),
        };
        Self { name: name.to_owned(), silence, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn enter(&self, phase: Phase) {
        let mut state = self.state();
        (state.phase, state.ticked) = (phase, Instant::now());
        state.answered.1 = state.ticked;
        if phase != Phase::Running {
            state.last_frame = None;
        }
    }

    /// The feed's loop went round; the newest frame came so long ago, and so many were not just superseded by others.
    pub(crate) fn tick(&self, since_last_frame: Option<Duration>, answered: u64) {
        let now = Instant::now();
        let mut state = self.state();
        state.ticked = now;
        if answered != state.answered.0 || since_last_frame.is_none_or(|since| since > self.silence) {
            state.answered = (answered, now);
        }
        state.last_frame = since_last_frame.and_then(|since| now.checked_sub(since)).or(state.last_frame);
    }

    /// What went wrong last; passwords in addresses are left out.
    pub(crate) fn trouble(&self, text: &str) {
        self.state().trouble = without_secrets(text);
    }

    /// Why the feed's loop does not go round; `None` when it does.
    pub(crate) fn why_not_alive(&self, now: Instant) -> Option<String> {
        let state = self.state();
        let limit = match state.phase {
            // No loop any more.
            Phase::Ended | Phase::Stopping => return None,
            Phase::Loading | Phase::Starting => LOADING,
            Phase::Running | Phase::Waiting => STUCK,
        };
        let unanswered = now.saturating_duration_since(state.answered.1);
        if state.phase == Phase::Running && unanswered > UNANSWERED {
            let seconds = unanswered.as_secs();
            return Some(format!("frames come, and none has been looked at or refused for {seconds} s"));
        }
        let since = now.saturating_duration_since(state.ticked);
        let stuck =
            || format!("its loop has stood still for {:.1} s ({:?})", since.as_secs_f64(), state.phase);
        (since > limit).then(|| stuck().to_lowercase())
    }

    /// Why the feed does not deliver frames; `None` when it does.
    pub(crate) fn why_not_ready(&self, now: Instant) -> Option<String> {
        let state = self.state();
        let why = match state.phase {
            Phase::Starting => "not started yet".to_owned(),
            Phase::Loading => "the model is being loaded".to_owned(),
            Phase::Waiting => "failed, and waits to be built anew".to_owned(),
            Phase::Stopping => "is being stopped".to_owned(),
            Phase::Ended => return Some("its input is over".to_owned()),
            Phase::Running => match state.last_frame.map(|then| now.saturating_duration_since(then)) {
                None => "no frame yet".to_owned(),
                Some(since) if since > self.silence => format!("no frame for {:.1} s", since.as_secs_f64()),
                Some(_) => return None,
            },
        };
        Some(if state.trouble.is_empty() { why } else { format!("{why}: {}", state.trouble) })
    }

    /// One word, for tables.
    pub(crate) fn standing(&self) -> &'static str {
        let ready = self.why_not_ready(Instant::now()).is_none();
        match self.state().phase {
            Phase::Running if ready => "live",
            Phase::Running => "silent",
            Phase::Starting => "starting",
            Phase::Loading => "loading",
            Phase::Waiting => "failed",
            Phase::Stopping => "stopped",
            Phase::Ended => "over",
        }
    }
}

/// Replaces `user:password@` in addresses, and what follows a `?`, where some cameras want them.
pub(crate) fn without_secrets(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + 3);
        clean.push_str(before);
        let over = address.find(|c: char| "\")".contains(c) || c.is_whitespace()).unwrap_or(address.len());
        let (mut address, after) = address.split_at(over);
        let host = address.find('/').unwrap_or(address.len());
        if let Some(at) = address[..host].rfind('@') {
            clean.push_str("***");
            address = &address[at..];
        }
        match address.find('?') {
            Some(asked) => {
                clean.push_str(&address[..=asked]);
                clean.push_str("***");
            }
            None => clean.push_str(address),
        }
        rest = after;
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_still_is_not_alive() {
        let feed = FeedHealth::new("a", Duration::from_secs(2));
        feed.enter(Phase::Running);
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(feed.why_not_alive(later(9)), None);
        let why = feed.why_not_alive(later(12)).unwrap();
        assert!(why.contains("stood still for 1") && why.contains("running"), "{why}");
        feed.tick(None, 0);
        assert_eq!(feed.why_not_alive(later(9)), None);
        feed.enter(Phase::Loading);
        assert_eq!(feed.why_not_alive(later(200)), None, "a large model");
        assert!(feed.why_not_alive(later(301)).is_some());
        feed.enter(Phase::Ended);
        assert_eq!(feed.why_not_alive(later(10_000)), None);
    }

    #[test]
    fn only_frames_make_a_feed_ready() {
        let feed = FeedHealth::new("a", Duration::from_secs(2));
        let why = |after| feed.why_not_ready(Instant::now() + Duration::from_secs(after)).unwrap_or_default();
        feed.enter(Phase::Loading);
        assert_eq!(why(0), "the model is being loaded");
        feed.enter(Phase::Running);
        feed.trouble("could not connect");
        assert_eq!((why(0).as_str(), feed.standing()), ("no frame yet: could not connect", "silent"));
        feed.trouble("");
        feed.tick(Some(Duration::from_millis(40)), 0);
        assert_eq!((why(1).as_str(), feed.standing()), ("", "live"));
        assert!(why(5).starts_with("no frame for 5."), "{}", why(5));
        feed.tick(Some(Duration::from_secs(4)), 0);
        assert!(why(0).starts_with("no frame for 4."), "{}", why(0));
        feed.enter(Phase::Waiting);
        feed.enter(Phase::Running);
        assert_eq!(why(0), "no frame yet", "those before the failure do not count");
        feed.enter(Phase::Ended);
        assert_eq!(why(0), "its input is over");
    }

    #[test]
    fn passwords_are_not_told() {
        for (text, expected) in [
            ("rtsp://u:p@h/x", "rtsp://***@h/x"),
            ("a \"rtsp://u:p@ss@h:554\" b http://h/@x", "a \"rtsp://***@h:554\" b http://h/@x"),
            ("rtsp://h/x?user=u&password=p, http://u:p@h/a?b", "rtsp://h/x?*** http://***@h/a?***"),
            ("none", "none"),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }

    #[test]
    fn an_engine_that_does_not_return_is_not_alive() {
        let feed = FeedHealth::new("gate", Duration::from_secs(1));
        feed.enter(Phase::Running);
        let soon = Instant::now() + UNANSWERED + Duration::from_secs(1);
        // Frames come, the loop goes round, and every frame is superseded by the next.
        feed.tick(Some(Duration::ZERO), 0);
        feed.state().ticked = soon;
        assert!(feed.why_not_alive(soon).is_some_and(|why| why.contains("none has been looked at")));
        feed.tick(Some(Duration::ZERO), 1);
        feed.state().ticked = soon;
        assert_eq!(feed.why_not_alive(Instant::now() + UNANSWERED / 2), None);
        // A camera that is away owes no answers.
        feed.state().answered.1 = Instant::now().checked_sub(UNANSWERED * 2).unwrap_or_else(Instant::now);
        feed.tick(Some(Duration::from_secs(5)), 1);
        assert_eq!(feed.why_not_alive(Instant::now()), None);
    }
}
