//! What is given up, when, and when it is taken back.
//!
//! Two ages are watched, each time a buffer passes: of the masks it carries (*shown*), and of the newest frame the
//! engines have looked at (*looked*). They differ once masks are carried on by motion. Down a step when an age is above
//! what is allowed, at once where it is far above; up a step when it has been well below for a while, and for twice as
//! long after each time that turned out too early.

use std::time::{Duration, Instant};

use sightline_core::Degrade;

/// An age above the allowed one is acted upon when it has lasted so long,
const PATIENCE: Duration = Duration::from_millis(500);
/// or on the second buffer in a row when it is so many times the allowed one.
const FAR_ABOVE: f64 = 1.5;
/// Masks carried on for longer than so many times the allowed age drift: better a smaller model.
const DRIFTS: f64 = 4.0;
/// An age below this part of the allowed one leaves room to climb.
const CALM: f64 = 0.7;
/// How long it must, at first and at most.
const HOLD: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(120)];

/// What a buffer carried as it passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ages {
    /// Of its masks.
    pub(crate) shown: Duration,
    /// Of the newest frame that was looked at; zero while every frame is.
    pub(crate) looked: Duration,
}

/// A step taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) from: Degrade,
    pub(crate) to: Degrade,
    /// The age that made for it.
    pub(crate) age: Duration,
}

/// What is given up at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// How far down the ladder.
    pub(crate) at: Degrade,
    /// Which steps there are, by level.
    steps: [bool; Degrade::ALL.len()],
}

impl Given {
    /// Whether this is given up.
    pub(crate) fn up(self, step: Degrade) -> bool {
        step <= self.at && self.steps[step.level() as usize]
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Ladder {
    max_age: Duration,
    given: Given,
    /// The steps that may be taken, the floor first.
    steps: Vec<Degrade>,
    at: usize,
    /// Since when an age has been too high, and on how many buffers.
    over: Option<(Instant, u32)>,
    calm: Option<Instant>,
    hold: Duration,
    /// The last step up.
    climbed: Option<Instant>,
}

impl Ladder {
    /// With these steps, in the order of [`Degrade::ALL`]; it never climbs above `floor`, and without a `max_age` it
    /// stays there.
    pub(crate) fn new(max_age: Option<Duration>, wanted: &[Degrade], floor: Degrade) -> Self {
        let below = |step: &Degrade| *step > floor && wanted.contains(step) && max_age.is_some();
        let steps = std::iter::once(floor).chain(Degrade::ALL.into_iter().filter(below)).collect();
        Self {
            // So much that nothing overflows, and no stream lasts.
            max_age: max_age.unwrap_or(Duration::from_secs(u32::MAX.into())),
            given: Given { at: floor, steps: Degrade::ALL.map(|step| wanted.contains(&step)) },
            steps,
            at: 0,
            over: None,
            calm: None,
            hold: HOLD[0],
            climbed: None,
        }
    }

    /// Where it stands.
    pub(crate) fn given(&self) -> Given {
        self.given
    }

    fn at(&self) -> Degrade {
        self.given.at
    }

    /// Whether masks may ever be carried on by motion.
    pub(crate) fn coasts(&self) -> bool {
        self.given.up(Degrade::Coast) || self.steps.contains(&Degrade::Coast)
    }

    /// Whether masks are, or soon may be, carried on by motion.
    pub(crate) fn may_coast(&self, ages: Ages) -> bool {
        self.given.up(Degrade::Coast)
            || (self.steps.contains(&Degrade::Coast) && ages.looked > self.max_age / 4)
    }

    /// A buffer has passed.
    pub(crate) fn observe(&mut self, now: Instant, ages: Ages) -> Option<Step> {
        let limit = self.max_age;
        let next = self.steps.get(self.at + 1).copied();
        let reason = next.and_then(|next| match next {
            Degrade::SkipMemory | Degrade::Coast => (ages.looked > limit).then_some(ages.looked),
            Degrade::Smaller if ages.looked > limit.mul_f64(DRIFTS) => Some(ages.looked),
            _ => (ages.shown > limit).then_some(ages.shown),
        });
        if let (Some(age), Some(next)) = (reason, next) {
            self.calm = None;
            let (since, buffers) = self.over.map_or((now, 1), |(since, buffers)| (since, buffers + 1));
            self.over = Some((since, buffers));
            // Below `coast` there is time: coasting takes a frame or two to help.
            let far = next <= Degrade::Coast && age > limit.mul_f64(FAR_ABOVE) && buffers >= 2;
            return (far || now - since >= PATIENCE).then(|| self.down(now, age));
        }
        self.over = None;
        let age = if self.at() >= Degrade::Fewer { ages.shown } else { ages.looked };
        if self.at == 0 || age > limit.mul_f64(CALM) {
            self.calm = None;
            return None;
        }
        let since = *self.calm.get_or_insert(now);
        (now - since >= self.hold).then(|| self.up(now, age))
    }

    fn down(&mut self, now: Instant, age: Duration) -> Step {
        // Too early, if it was climbed to not long ago.
        let hasty = self.climbed.is_some_and(|climbed| now - climbed < 2 * self.hold);
        self.hold = if hasty { (2 * self.hold).min(HOLD[1]) } else { HOLD[0] };
        self.go(self.at + 1, age)
    }

    fn up(&mut self, now: Instant, age: Duration) -> Step {
        self.climbed = Some(now);
        self.go(self.at - 1, age)
    }

    fn go(&mut self, to: usize, age: Duration) -> Step {
        let from = self.at();
        (self.at, self.over, self.calm) = (to, None, None);
        self.given.at = self.steps[to];
        Step { from, to: self.at(), age }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(200);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn play(ladder: &mut Ladder, seconds: u64, ages: impl Fn(Degrade, u64) -> Ages) -> Vec<(u64, Degrade)> {
        play_from(Instant::now(), ladder, seconds, ages)
    }

    /// Passes a buffer every 40 ms whose ages the rung decides; the rungs taken with their times in ms.
    fn play_from(
        start: Instant,
        ladder: &mut Ladder,
        seconds: u64,
        ages: impl Fn(Degrade, u64) -> Ages,
    ) -> Vec<(u64, Degrade)> {
        let mut taken = Vec::new();
        for at in (0..seconds * 1000).step_by(40) {
            if let Some(step) = ladder.observe(start + ms(at), ages(ladder.at(), at)) {
                assert_eq!(step.to, ladder.at());
                taken.push((at, step.to));
            }
        }
        taken
    }

    #[test]
    fn a_machine_that_is_fast_enough_gives_nothing_up() {
        let mut ladder = Ladder::new(Some(MAX), &Degrade::ALL, Degrade::Full);
        let taken = play(&mut ladder, 600, |_, at| {
            // A slow frame now and then is none of its business.
            let looked = if at % 2000 == 0 { ms(350) } else { ms(40) };
            Ages { shown: looked, looked }
        });
        assert_eq!(taken, []);
    }

    #[test]
    fn far_too_slow_coasts_within_two_buffers_a_step_and_stays_there() {
        let mut ladder = Ladder::new(Some(MAX), &Degrade::ALL, Degrade::Full);
        let taken = play(&mut ladder, 600, |rung, _| Ages {
            shown: if rung >= Degrade::Coast { ms(45) } else { ms(450) },
            looked: ms(450),
        });
        assert_eq!(taken, [(40, Degrade::SkipMemory), (120, Degrade::Coast)]);
    }

    #[test]
    fn each_step_has_its_own_reason() {
        for (case, ages, expected) in [
            ("a little too slow", Ages { shown: ms(210), looked: ms(210) }, Degrade::DropQueries),
            ("coasting helps", Ages { shown: ms(100), looked: ms(210) }, Degrade::Coast),
            ("but drifts", Ages { shown: ms(100), looked: ms(900) }, Degrade::Smaller),
            ("not even coasting keeps up", Ages { shown: ms(400), looked: ms(900) }, Degrade::DropQueries),
        ] {
            let mut ladder = Ladder::new(Some(MAX), &Degrade::ALL, Degrade::Full);
            play(&mut ladder, 20, |_, _| ages);
            assert_eq!(ladder.at(), expected, "{case}");
        }
    }

    #[test]
    fn it_climbs_back_and_learns_when_that_was_too_early() {
        let mut ladder = Ladder::new(Some(MAX), &[Degrade::SkipMemory], Degrade::Full);
        let start = Instant::now();
        // Without memory writes it is just fast enough, with them it is not.
        let bad_hour = |rung: Degrade, _| {
            let looked = if rung == Degrade::Full { ms(230) } else { ms(100) };
            Ages { shown: looked, looked }
        };
        let taken = play_from(start, &mut ladder, 600, bad_hour);
        let falls: Vec<u64> =
            taken.iter().filter(|(_, rung)| *rung == Degrade::SkipMemory).map(|(at, _)| *at).collect();
        let pauses: Vec<u64> = falls.windows(2).map(|pair| (pair[1] - pair[0]) / 1000).collect();
        assert_eq!(pauses[..6], [5, 10, 20, 40, 80, 120], "{taken:?}");
        // Once there is room again it is taken back for good, and the next bad hour starts afresh.
        let start = start + Duration::from_secs(600);
        play_from(start, &mut ladder, 600, |_, _| Ages { shown: ms(40), looked: ms(40) });
        assert_eq!(ladder.at(), Degrade::Full);
        let taken = play_from(start + Duration::from_secs(600), &mut ladder, 8, bad_hour);
        let rungs: Vec<_> = taken.iter().map(|(_, rung)| *rung).collect();
        assert_eq!(rungs[..2], [Degrade::SkipMemory, Degrade::Full], "{taken:?}");
    }

    #[test]
    fn only_the_steps_that_are_wanted_are_taken() {
        let mut ladder = Ladder::new(Some(MAX), &[Degrade::Coast, Degrade::DropQueries], Degrade::Full);
        let slow = Ages { shown: ms(900), looked: ms(900) };
        let taken: Vec<_> = play(&mut ladder, 20, |_, _| slow).into_iter().map(|(_, rung)| rung).collect();
        assert_eq!(taken, [Degrade::Coast, Degrade::DropQueries]);
        assert!(ladder.given().up(Degrade::Coast) && !ladder.given().up(Degrade::Smaller));
        let mut off = Ladder::new(None, &Degrade::ALL, Degrade::Full);
        assert_eq!(play(&mut off, 20, |_, _| slow), []);
        let mut fixed = Ladder::new(None, &Degrade::ALL, Degrade::Coast);
        play(&mut fixed, 200, |_, _| Ages::default());
        assert_eq!(fixed.at(), Degrade::Coast, "a floor is never left");
        assert!(fixed.given().up(Degrade::SkipMemory) && !fixed.given().up(Degrade::Smaller));
        let mut raised = Ladder::new(Some(MAX), &Degrade::ALL, Degrade::Coast);
        play(&mut raised, 200, |_, _| Ages::default());
        assert_eq!(raised.at(), Degrade::Coast);
    }
}
