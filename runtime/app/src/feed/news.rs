//! What of a source's events is news to whoever reads: that it went, and that it is back. Tries that fail one after
//! the other are one loss.

use std::time::{Duration, Instant};

use super::{LossCause, SourceEvent};

/// What changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum News {
    /// No frames come any more, or none ever came.
    Lost { cause: LossCause, detail: String },
    /// They come again; `gap` is from the last one, or from the start.
    Back { gap: Duration },
    /// The input is over.
    Ended,
}

/// Whether a source is there, and since when not.
#[derive(Debug)]
pub(crate) struct Presence {
    away_since: Option<Instant>,
    /// It was said that it is away.
    said: bool,
}

impl Presence {
    /// Of a source that is tried from now on.
    pub(crate) fn new() -> Self {
        Self { away_since: Some(Instant::now()), said: false }
    }

    /// Since when there have been no frames.
    pub(crate) fn away_since(&self) -> Option<Instant> {
        self.away_since
    }

    /// What an event says that was not known; `silent` is how long ago the newest frame came.
    pub(crate) fn hear(&mut self, event: &SourceEvent, silent: Option<Duration>) -> Option<News> {
        match event {
            SourceEvent::Connected { .. } => {
                let since = self.away_since.take();
                let said = std::mem::take(&mut self.said);
                said.then(|| News::Back { gap: since.map_or(Duration::ZERO, |since| since.elapsed()) })
            }
            SourceEvent::Lost { cause, detail } => {
                // The gap began with the last frame, not with the finding that there is none.
                let silent = silent.unwrap_or_default();
                let since = || Instant::now().checked_sub(silent).unwrap_or_else(Instant::now);
                self.away_since.get_or_insert_with(since);
                let said = std::mem::replace(&mut self.said, true);
                (!said).then(|| News::Lost { cause: *cause, detail: detail.clone() })
            }
            SourceEvent::Ended => Some(News::Ended),
            SourceEvent::Retrying { .. } | SourceEvent::Mended { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_news() {
        let connected = || SourceEvent::Connected { after: Duration::ZERO, caps: String::new() };
        let lost = |cause| SourceEvent::Lost { cause, detail: "why".to_owned() };
        let mut presence = Presence::new();
        assert!(presence.away_since().is_some());
        assert_eq!(presence.hear(&connected(), None), None, "it was never said to be away");
        assert!(presence.away_since().is_none());
        let silent = Some(Duration::from_secs(2));
        let first = presence.hear(&lost(LossCause::Silence), silent);
        assert_eq!(first, Some(News::Lost { cause: LossCause::Silence, detail: "why".to_owned() }));
        assert_eq!(presence.hear(&lost(LossCause::NeverCame), silent), None, "one loss");
        let Some(News::Back { gap }) = presence.hear(&connected(), None) else { panic!("not back") };
        assert!(gap >= Duration::from_secs(2), "from the last frame: {gap:?}");
        assert_eq!(presence.hear(&SourceEvent::Ended, None), Some(News::Ended));
    }
}
