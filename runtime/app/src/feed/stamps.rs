//! From a camera's stamps, which may be anything, to the corridor's running time.
//!
//! A stamp that comes out is later than every one before it, keeps the camera's own spacing where that makes sense, and
//! stays within [`BEHIND_MAX_NS`] and [`AHEAD_MAX_NS`] of the frame's arrival. Pure: the caller brings both times.

/// How far a stamp may lag behind its arrival: a network that stalls for less keeps the camera's own times.
const BEHIND_MAX_NS: i128 = 1_000_000_000;
/// How far a stamp may run ahead: sinks wait for it, so it is short.
const AHEAD_MAX_NS: i128 = 250_000_000;
/// Steps between stamps that had to be made up; at most 10,000 frames a second keep to `AHEAD_MAX_NS`.
const STEP_NS: i128 = 100_000;
/// Clocks are steered towards each other once they are further apart.
const DRIFT_NS: i128 = 30_000_000;
/// Of so many frames the one that came soonest tells the time: late ones are the network, not the clock.
const DRIFT_FRAMES: u32 = 64;
/// Steering bends the spacing by one part in so many: 5,000 ppm, while quartz clocks differ by less than 200.
const STEER_PARTS: i128 = 200;

/// What was wrong with a frame, or with its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Mend {
    /// Its stamp leapt ahead, or away from the time at which it came.
    Jump,
    /// It had none.
    Missing,
    /// Its stamp lies before the one before it, or before zero.
    Negative,
    /// It has the stamp of the one before it.
    Duplicate,
    /// The camera's clock runs at another pace; counted once for every correction, not for every frame of it.
    Drift,
    /// The decoder says that the picture is damaged.
    Corrupt,
}

impl Mend {
    /// All of them, in the order of their counts.
    pub(crate) const ALL: [Self; 6] =
        [Self::Jump, Self::Missing, Self::Negative, Self::Duplicate, Self::Drift, Self::Corrupt];

    /// As it stands in logs, lines and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Jump => "jump",
            Self::Missing => "missing",
            Self::Negative => "negative",
            Self::Duplicate => "duplicate",
            Self::Drift => "drift",
            Self::Corrupt => "corrupt",
        }
    }
}

/// The stamps of one feed, over all its connections.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    /// The newest stamp that was given out.
    out_ns: Option<i128>,
    source: Option<Source>,
}

/// What is known of the clock behind this connection.
#[derive(Debug)]
struct Source {
    pts_ns: i128,
    /// Running time less the camera's stamp.
    offset_ns: i128,
    /// The least of arrival less stamp given, of the frames since the last reading, and how many those are.
    soonest_ns: i128,
    frames: u32,
    /// What is still to be corrected.
    error_ns: i128,
}

impl Source {
    fn anchored(pts_ns: i128, arrival_ns: i128) -> Self {
        Self { pts_ns, offset_ns: arrival_ns - pts_ns, soonest_ns: i128::MAX, frames: 0, error_ns: 0 }
    }

    /// Takes the next stamp, and says what was wrong with it.
    fn follow(&mut self, pts_ns: i128, arrival_ns: i128) -> Option<Mend> {
        let step = pts_ns - self.pts_ns;
        let error = arrival_ns - (pts_ns + self.offset_ns);
        let mend = if step == 0 {
            return Some(Mend::Duplicate);
        } else if step < 0 {
            Mend::Negative
        } else if !(-AHEAD_MAX_NS..=BEHIND_MAX_NS).contains(&error) {
            Mend::Jump
        } else {
            self.pts_ns = pts_ns;
            return self.steer(step, error).then_some(Mend::Drift);
        };
        *self = Self::anchored(pts_ns, arrival_ns);
        Some(mend)
    }

    /// Moves the offset a little towards what arrivals say; whether a correction began.
    fn steer(&mut self, step_ns: i128, error_ns: i128) -> bool {
        self.soonest_ns = self.soonest_ns.min(error_ns);
        self.frames += 1;
        let mut began = false;
        if self.frames == DRIFT_FRAMES {
            let steering = self.error_ns != 0;
            if steering || self.soonest_ns.abs() > DRIFT_NS {
                self.error_ns = self.soonest_ns;
            }
            began = !steering && self.error_ns != 0;
            (self.soonest_ns, self.frames) = (i128::MAX, 0);
        }
        let most = step_ns / STEER_PARTS;
        let moved = self.error_ns.clamp(-most, most);
        self.offset_ns += moved;
        self.error_ns -= moved;
        began
    }
}

impl Stamps {
    /// Another connection: the camera's clock may have started anew.
    pub(crate) fn reconnected(&mut self) {
        self.source = None;
    }

    /// The stamp of a frame that came at running time `arrival_ns`, and what had to be mended. `pts_ns` is the camera's.
    ///
    /// Arrivals must not go back.
    pub(crate) fn stamp(&mut self, pts_ns: Option<i64>, arrival_ns: u64) -> (u64, Option<Mend>) {
        let arrival = i128::from(arrival_ns);
        let pts = pts_ns.map(i128::from);
        let mend = match (pts, &mut self.source) {
            (None, _) => Some(Mend::Missing),
            (Some(pts), Some(source)) => source.follow(pts, arrival),
            (Some(pts), none) => {
                *none = Some(Source::anchored(pts, arrival));
                (pts < 0).then_some(Mend::Negative)
            }
        };
        let wanted = match (&self.source, mend) {
            (Some(source), None | Some(Mend::Drift)) => source.pts_ns + source.offset_ns,
            _ => arrival,
        };
        let least = self.out_ns.map_or(0, |out| {
            // Only a flood gets here, and it must not push stamps ever further ahead.
            if out + STEP_NS > arrival + AHEAD_MAX_NS { out + 1 } else { out + STEP_NS }
        });
        let out = wanted.max(least);
        self.out_ns = Some(out);
        (u64::try_from(out).unwrap_or(u64::MAX), mend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds in, milliseconds and mends out.
    fn run(frames: &[(Option<i64>, u64)]) -> Vec<(f64, Option<Mend>)> {
        let mut stamps = Stamps::default();
        let ms = |value: i64| value * 1_000_000;
        frames
            .iter()
            .map(|(pts, arrival)| {
                let (out, mend) = stamps.stamp(pts.map(ms), arrival * 1_000_000);
                (out as f64 / 1e6, mend)
            })
            .collect()
    }

    #[test]
    fn single_faults() {
        use Mend::{Duplicate, Jump, Missing, Negative};
        type Row<'a> = (&'a str, &'a [(Option<i64>, u64)], &'a [(f64, Option<Mend>)]);
        let rows: &[Row<'_>] = &[
            (
                "regular: the camera's spacing, not the network's",
                &[(Some(7000), 100), (Some(7040), 155), (Some(7080), 181), (Some(7120), 220)],
                &[(100.0, None), (140.0, None), (180.0, None), (220.0, None)],
            ),
            (
                "missing: as it came, and the clock is kept",
                &[(Some(0), 100), (None, 143), (Some(80), 190)],
                &[(100.0, None), (143.0, Some(Missing)), (180.0, None)],
            ),
            (
                "none has one",
                &[(None, 0), (None, 40), (None, 40)],
                &[(0.0, Some(Missing)), (40.0, Some(Missing)), (40.1, Some(Missing))],
            ),
            (
                "jump ahead",
                &[(Some(0), 100), (Some(40), 140), (Some(9_000_000), 180), (Some(9_000_040), 222)],
                &[(100.0, None), (140.0, None), (180.0, Some(Jump)), (220.0, None)],
            ),
            (
                "back to zero",
                &[(Some(5000), 100), (Some(5040), 140), (Some(0), 180), (Some(40), 220)],
                &[(100.0, None), (140.0, None), (180.0, Some(Negative)), (220.0, None)],
            ),
            (
                "before zero",
                &[(Some(-80), 100), (Some(-40), 140), (Some(0), 180)],
                &[(100.0, Some(Negative)), (140.0, None), (180.0, None)],
            ),
            (
                "duplicate: passed on, between its neighbours",
                &[(Some(0), 100), (Some(40), 140), (Some(40), 150), (Some(80), 180)],
                &[(100.0, None), (140.0, None), (150.0, Some(Duplicate)), (180.0, None)],
            ),
            (
                "duplicate in a burst",
                &[(Some(0), 100), (Some(40), 140), (Some(40), 140), (Some(40), 140)],
                &[(100.0, None), (140.0, None), (140.1, Some(Duplicate)), (140.2, Some(Duplicate))],
            ),
            (
                "a pause of camera and network is no fault",
                &[(Some(0), 100), (Some(5000), 5110)],
                &[(100.0, None), (5100.0, None)],
            ),
            (
                "a short stall keeps the camera's times",
                &[(Some(0), 100), (Some(40), 840), (Some(80), 841), (Some(760), 860)],
                &[(100.0, None), (140.0, None), (180.0, None), (860.0, None)],
            ),
            (
                "a long stall does not",
                &[(Some(0), 100), (Some(40), 3000), (Some(80), 3001)],
                &[(100.0, None), (3000.0, Some(Jump)), (3040.0, None)],
            ),
            (
                "the largest stamps there are",
                &[(Some(i64::MAX / 1_000_000), 0), (Some(i64::MIN / 1_000_000), 40)],
                &[(0.0, None), (40.0, Some(Negative))],
            ),
        ];
        for (case, frames, expected) in rows {
            assert_eq!(&run(frames), expected, "{case}");
        }
    }

    #[test]
    fn a_reconnect_is_no_fault() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.stamp(Some(500), 1_000_000), (1_000_000, None));
        stamps.reconnected();
        assert_eq!(stamps.stamp(Some(0), 2_000_000), (2_000_000, None));
        stamps.reconnected();
        assert_eq!(stamps.stamp(Some(0), 2_000_000), (2_100_000, None), "time does not stand still");
    }

    /// A clock that runs at another pace, frames that come up to 25 ms late: followed, and corrected now and then.
    #[test]
    fn a_drifting_clock_is_steered() {
        for (case, parts_per_million, corrections) in
            [("even", 0, 0..=0), ("quartz", 150, 1..=6), ("slow", -150, 1..=6), ("bad", 3000, 1..=60)]
        {
            let mut stamps = Stamps::default();
            let (mut last, mut steered, mut worst_gap) = (0, 0, 0_i128);
            let spacing = 40_000_000_i128;
            for frame in 0..25 * 600_i128 {
                // Deterministic noise.
                let late = (frame * 7919 % 26) * 1_000_000;
                let arrival = frame * spacing + late;
                let pts = frame * spacing * (1_000_000 + parts_per_million) / 1_000_000;
                let (out, mend) =
                    stamps.stamp(Some(i64::try_from(pts).unwrap()), u64::try_from(arrival).unwrap());
                assert!(matches!(mend, None | Some(Mend::Drift)), "{case}: {mend:?} at {frame}");
                steered += u32::from(mend.is_some());
                let out = i128::from(out);
                assert!((out - arrival).abs() < 80_000_000, "{case}: {} ms off", (out - arrival) / 1_000_000);
                if frame > 0 {
                    worst_gap = worst_gap.max((out - last - spacing).abs());
                }
                last = out;
            }
            assert!(corrections.contains(&steered), "{case}: {steered} corrections");
            // 5,000 ppm of steering and the clock's own error.
            assert!(worst_gap <= 400_000, "{case}: spacing off by {worst_gap} ns");
        }
    }

    /// Whatever comes in: strictly increasing, and near its arrival.
    #[test]
    fn any_stamps_at_all() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut stamps = Stamps::default();
        let (mut arrival, mut pts, mut last) = (0_u64, 0_i64, None);
        for frame in 0..200_000 {
            arrival += match random(50) {
                0 => random(5_000_000_000),
                1..10 => random(200_000),
                _ => random(60_000_000),
            };
            pts = match random(40) {
                0 => i64::from_ne_bytes(random(u64::MAX).to_ne_bytes()),
                1 => pts,
                2 => pts.saturating_sub_unsigned(random(1_000_000_000)),
                _ => pts.saturating_add_unsigned(random(80_000_000)),
            };
            if random(500) == 0 {
                stamps.reconnected();
            }
            let (out, _) = stamps.stamp((random(30) > 0).then_some(pts), arrival);
            assert!(last.is_none_or(|last| out > last), "frame {frame}: {out} after {last:?}");
            let off = i128::from(out) - i128::from(arrival);
            assert!((-BEHIND_MAX_NS..=AHEAD_MAX_NS + 100_000).contains(&off), "frame {frame}: {off} ns off");
            last = Some(out);
        }
    }
}
