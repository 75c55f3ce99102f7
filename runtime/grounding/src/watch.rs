//! Standing conditions: when to look again, and when to say so.

use std::time::Duration;

/// When a condition is looked at again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReAsk {
    /// After this long without another reason.
    pub every: Duration,
    /// Never sooner than this after the last look.
    pub at_least: Duration,
    /// When the picture has changed by this much since the last look, in `[0, 1]`; `None` for never.
    pub scene_change: Option<f32>,
    /// When a tracked object is lost.
    pub on_lost: bool,
}

impl Default for ReAsk {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            at_least: Duration::from_secs(1),
            scene_change: Some(0.3),
            on_lost: true,
        }
    }
}

/// Why a condition is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It never was.
    First,
    /// Its time has come.
    Rate,
    /// The picture has changed.
    SceneChange,
    /// An object was lost.
    Lost,
}

/// What has happened since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Signals {
    /// The largest change of the picture, in `[0, 1]`.
    pub scene_change: f32,
    /// Whether an object was lost.
    pub lost: bool,
}

impl ReAsk {
    /// Whether to look now: `last` is when the last look began, if there was one.
    pub fn due(&self, last: Option<Duration>, signals: Signals, now: Duration) -> Option<Reason> {
        let Some(last) = last else { return Some(Reason::First) };
        let waited = now.saturating_sub(last);
        if waited < self.at_least {
            return None;
        }
        if self.on_lost && signals.lost {
            return Some(Reason::Lost);
        }
        if self.scene_change.is_some_and(|threshold| signals.scene_change >= threshold) {
            return Some(Reason::SceneChange);
        }
        (waited >= self.every).then_some(Reason::Rate)
    }
}

/// How many answers in a row it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hysteresis {
    /// Times "yes" before it fires.
    pub to_fire: u32,
    /// Times "no" before it may fire again.
    pub to_rearm: u32,
}

impl Default for Hysteresis {
    fn default() -> Self {
        Self { to_fire: 1, to_rearm: 2 }
    }
}

/// Whether the alert may fire, and how far it is from changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// It may fire; so many times "yes" in a row.
    Armed(u32),
    /// It has fired; so many times "no" in a row.
    Fired(u32),
}

impl Default for Alert {
    fn default() -> Self {
        Self::Armed(0)
    }
}

impl Alert {
    /// What an answer makes of it, and whether it fires. "I cannot tell" (`None`) is no evidence: nothing changes.
    #[must_use]
    pub fn after(self, verdict: Option<bool>, hysteresis: Hysteresis) -> (Self, bool) {
        match (self, verdict) {
            (state, None) => (state, false),
            (Self::Armed(_), Some(false)) => (Self::Armed(0), false),
            (Self::Fired(_), Some(true)) => (Self::Fired(0), false),
            (Self::Armed(yes), Some(true)) if yes + 1 >= hysteresis.to_fire => (Self::Fired(0), true),
            (Self::Armed(yes), Some(true)) => (Self::Armed(yes + 1), false),
            (Self::Fired(no), Some(false)) if no + 1 >= hysteresis.to_rearm => (Self::Armed(0), false),
            (Self::Fired(no), Some(false)) => (Self::Fired(no + 1), false),
        }
    }
}

/// A standing condition. It looks at one answer at a time: while one is awaited, nothing is due.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    policy: ReAsk,
    hysteresis: Hysteresis,
    alert: Alert,
    last: Option<Duration>,
    awaited: bool,
    signals: Signals,
}

impl Watch {
    /// A condition nobody has looked at yet.
    pub fn new(policy: ReAsk, hysteresis: Hysteresis) -> Self {
        Self { policy, hysteresis, ..Self::default() }
    }

    /// Takes note of what a frame showed; it counts until the next look.
    pub fn note(&mut self, signals: Signals) {
        self.signals.scene_change = self.signals.scene_change.max(signals.scene_change);
        self.signals.lost |= signals.lost;
    }

    /// Whether to look now; if so, that look has begun and [`Watch::answered`] must follow.
    pub fn poll(&mut self, now: Duration) -> Option<Reason> {
        if self.awaited {
            return None;
        }
        let reason = self.policy.due(self.last, self.signals, now)?;
        (self.last, self.awaited, self.signals) = (Some(now), true, Signals::default());
        Some(reason)
    }

    /// Takes the answer, `None` when there is none to be had (a failure, or "I cannot tell"); whether the alert fires.
    pub fn answered(&mut self, verdict: Option<bool>) -> bool {
        self.awaited = false;
        let (alert, fires) = self.alert.after(verdict, self.hysteresis);
        self.alert = alert;
        fires
    }

    /// Whether the alert may fire.
    pub fn alert(&self) -> Alert {
        self.alert
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn when_to_look() {
        let policy = ReAsk { every: 10 * S, at_least: 2 * S, scene_change: Some(0.5), on_lost: true };
        let calm = Signals::default();
        let change = Signals { scene_change: 0.5, lost: false };
        let lost = Signals { scene_change: 0.0, lost: true };
        for (name, policy, last, signals, now, expected) in [
            ("never looked", policy, None, calm, 0, Some(Reason::First)),
            ("nothing new", policy, Some(0), calm, 9, None),
            ("its time", policy, Some(0), calm, 10, Some(Reason::Rate)),
            ("change too soon", policy, Some(0), change, 1, None),
            ("change", policy, Some(0), change, 2, Some(Reason::SceneChange)),
            ("small change", policy, Some(0), Signals { scene_change: 0.49, lost: false }, 5, None),
            ("lost too soon", policy, Some(0), lost, 1, None),
            ("lost", policy, Some(0), lost, 3, Some(Reason::Lost)),
            ("change does not matter", ReAsk { scene_change: None, ..policy }, Some(0), change, 5, None),
            ("loss does not matter", ReAsk { on_lost: false, ..policy }, Some(0), lost, 5, None),
            ("the clock went back", policy, Some(20), lost, 10, None),
        ] {
            assert_eq!(policy.due(last.map(|s| s * S), signals, now * S), expected, "{name}");
        }
    }

    #[test]
    fn an_alert_fires_once_and_rearms() {
        let hysteresis = Hysteresis { to_fire: 2, to_rearm: 3 };
        // y, n, ? are answers; capital letters mark where it fires.
        for (name, answers) in [
            ("twice in a row", "yYyyyy"),
            ("never twice", "ynynyn"),
            ("doubt changes nothing", "y?Y??y"),
            ("two times no are not enough", "yYnnyy"),
            ("three are", "yYnnnyYyy"),
            ("yes in between starts anew", "yYnnynnyy"),
        ] {
            let mut alert = Alert::default();
            for (at, answer) in answers.chars().enumerate() {
                let verdict = match answer.to_ascii_lowercase() {
                    'y' => Some(true),
                    'n' => Some(false),
                    _ => None,
                };
                let (next, fires) = alert.after(verdict, hysteresis);
                assert_eq!(fires, answer.is_ascii_uppercase(), "{name}: answer {at}");
                alert = next;
            }
        }
    }

    #[test]
    fn one_look_at_a_time_and_nothing_forgotten() {
        let mut watch = Watch::new(ReAsk::default(), Hysteresis::default());
        assert_eq!(watch.poll(Duration::ZERO), Some(Reason::First));
        watch.note(Signals { scene_change: 0.0, lost: true });
        watch.note(Signals::default());
        assert_eq!(watch.poll(30 * S), None, "one is awaited");
        assert!(watch.answered(Some(true)), "it fires");
        assert_eq!(watch.poll(30 * S), Some(Reason::Lost), "noted meanwhile");
        assert!(!watch.answered(None), "a failure is no evidence");
        assert_eq!(watch.alert(), Alert::Fired(0));
        assert_eq!(watch.poll(31 * S), None, "the loss has been dealt with");
    }
}
