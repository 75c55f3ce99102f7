//! Finding what a phrase means with no server: proposals, their looks and motion, and the built-in vocabulary.
//!
//! [`BuiltIn::look`] compares two pictures and says where something moves, for [`sightline_tracker::Session::propose`];
//! [`BuiltIn::choose`] picks among the proposals. Neither runs an engine.

use std::{fmt, time::Duration};

use sightline_core::{NormBox, Picture, ValueError};
use sightline_grounding::vocabulary::{
    By, Candidate, Count, Description, Motion as Moves, NotUnderstood, choose, parse,
};
use sightline_tracker::Proposal;
use sightline_vision::{Motion, dominant_colour};

/// Boxes around moving things that are handed out.
const HINTS: usize = 6;
/// Of two proposals that share this much of the smaller one, one is a part of the other.
const SAME_THING: f32 = 0.6;
/// What each of the picture's edges that a proposal touches leaves of its weight: the background touches them, and things
/// that are cut off are seldom spoken of. Of six DAVIS sequences' objects 7 of 18 then weigh most, without it 5; so with
/// 0.5.
const AT_EDGE: f32 = 0.7;
/// Shares of the picture's sides that count as its edge: about a pixel of a low-res mask.
const EDGE: f32 = 0.012;

/// Why nothing was found, for callers that branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The vocabulary does not cover the phrase; the message names it.
    NotUnderstood,
    /// Understood, and nothing in the picture is like that.
    NothingFits,
    /// The phrase speaks of motion, and there was one picture only.
    NoMotion,
    /// A picture cannot be compared.
    Picture,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    kind: Kind,
    message: String,
}

impl Refusal {
    fn new(kind: Kind, phrase: &str, expected: &str, got: impl fmt::Display) -> Self {
        let phrase = &phrase[..phrase.floor_char_boundary(200)];
        Self { kind, message: format!("query {phrase:?}: expected {expected}, got {got}") }
    }

    /// The category to branch on; the wording may change.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl From<NotUnderstood> for Refusal {
    fn from(error: NotUnderstood) -> Self {
        Self { kind: Kind::NotUnderstood, message: error.to_string() }
    }
}

impl From<ValueError> for Refusal {
    fn from(error: ValueError) -> Self {
        Self { kind: Kind::Picture, message: error.to_string() }
    }
}

/// A picture and the running time it was taken at.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The pixels.
    pub picture: &'a Picture<'a>,
    /// Running time.
    pub time: Duration,
}

/// The built-in grounder. Owns its scratch: keep one where queries are answered.
#[derive(Debug, Default)]
pub struct BuiltIn {
    motion: Motion,
    /// From the picture asked about to the other one, in seconds; negative where that is the earlier one.
    apart_s: Option<f32>,
}

impl BuiltIn {
    /// With nothing looked at yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares the picture that is asked about with another one, earlier or later, best an eighth of a second away, and
    /// gives boxes around what moves by itself, the largest first. Without another one nothing is known of motion.
    ///
    /// # Errors
    /// `Kind::Picture` when the pictures differ in size or are tiny; nothing is then known of motion.
    pub fn look(&mut self, asked: Sight<'_>, other: Option<Sight<'_>>) -> Result<Vec<NormBox>, Refusal> {
        self.apart_s = None;
        let Some(other) = other.filter(|other| other.time != asked.time) else { return Ok(Vec::new()) };
        self.motion.measure(asked.picture, other.picture)?;
        self.apart_s = Some(other.time.as_secs_f32() - asked.time.as_secs_f32());
        Ok(self.motion.boxes(HINTS))
    }

    /// The places among `proposals` of those that the phrase means, the best first, at least one. `asked` is the picture
    /// they were made on, and that [`BuiltIn::look`] was last given.
    ///
    /// # Errors
    /// `Kind::NotUnderstood`, `Kind::NoMotion` and `Kind::NothingFits`, each with its reason.
    pub fn choose(
        &self,
        phrase: &str,
        asked: &Picture<'_>,
        proposals: &[Proposal],
    ) -> Result<Vec<usize>, Refusal> {
        let description = parse(phrase)?;
        if self.apart_s.is_none() && speaks_of_motion(&description) {
            let expected = "two pictures at different times to tell what moves";
            return Err(Refusal::new(Kind::NoMotion, phrase, expected, "one"));
        }
        let candidates = self.candidates(&description, asked, proposals);
        let chosen = pick(&description, &candidates, proposals);
        if chosen.is_empty() {
            let got = format!("{} things, none of them like that", candidates.len());
            return Err(Refusal::new(Kind::NothingFits, phrase, "something in the picture that fits", got));
        }
        Ok(chosen)
    }

    /// The proposals as the vocabulary judges them; an id is the place in the list. Where the phrase speaks of motion those
    /// weigh most that move as a whole and unlike what is around them, and of a thing and its parts the thing; else those
    /// that the picture's edge does not cut.
    fn candidates(
        &self,
        description: &Description,
        asked: &Picture<'_>,
        proposals: &[Proposal],
    ) -> Vec<Candidate> {
        let by_motion = speaks_of_motion(description) && description.motion != Some(Moves::Still);
        let candidate = |(id, proposal): (usize, &Proposal)| {
            let own = self.apart_s.and_then(|_| self.motion.of(&proposal.region)).unwrap_or_default();
            let edges = AT_EDGE.powi(edges(proposal.bounds));
            let moves = if by_motion { own.moving * own.stands_out } else { 1.0 };
            let size = if by_motion && description.rank.is_none() { proposal.area.sqrt() } else { 1.0 };
            Some(Candidate {
                id: id as u32,
                bounds: proposal.bounds,
                colour: dominant_colour(asked, &proposal.region)?,
                area: proposal.area,
                motion: own.way.map(|shares| shares / self.apart_s.unwrap_or(1.0)),
                weight: proposal.iou * edges * moves * size,
            })
        };
        proposals.iter().enumerate().filter_map(candidate).collect()
    }
}

fn speaks_of_motion(description: &Description) -> bool {
    description.motion.is_some() || matches!(description.rank, Some((By::Fastest | By::Slowest, _)))
}

/// How many of the picture's edges a box touches.
fn edges(NormBox { x0, y0, x1, y1 }: NormBox) -> i32 {
    [x0 < EDGE, y0 < EDGE, x1 > 1.0 - EDGE, y1 > 1.0 - EDGE].map(i32::from).iter().sum()
}

/// Where several are meant or counted, a thing and its parts must count once.
fn pick(description: &Description, candidates: &[Candidate], proposals: &[Proposal]) -> Vec<usize> {
    let ids = |description: &Description| {
        choose(description, candidates).into_iter().map(|id| id as usize).collect::<Vec<_>>()
    };
    if description.count == Count::One && description.rank.is_none() {
        return ids(description);
    }
    let all =
        Description { count: Count::All, rank: description.rank.map(|(by, _)| (by, 1)), ..*description };
    let mut things: Vec<usize> = Vec::new();
    for id in ids(&all) {
        let same = |known: &&mut usize| proposals[**known].region.shared(&proposals[id].region) > SAME_THING;
        match things.iter_mut().find(same) {
            Some(known) if proposals[id].iou > proposals[*known].iou => *known = id,
            Some(_) => {}
            None => things.push(id),
        }
    }
    let skip = description.rank.map_or(0, |(_, nth)| nth.saturating_sub(1));
    let take = match description.count {
        Count::One => 1,
        Count::Exactly(n) => n,
        Count::All => usize::MAX,
    };
    things.into_iter().skip(skip).take(take).collect()
}

#[cfg(test)]
mod tests {
    use sightline_core::{PixelFormat, Plane};
    use sightline_vision::Region;

    use super::*;

    const SIZE: [usize; 2] = [320, 192];

    /// A thing: its box in pixels and its colour.
    type Thing = ([usize; 4], [u8; 3]);

    /// Things on a speckled ground.
    fn draw(things: &[Thing]) -> Vec<u8> {
        let mut data = Vec::new();
        for at in 0..SIZE[0] * SIZE[1] {
            let (x, y) = (at % SIZE[0], at / SIZE[0]);
            let speck = |x: usize, y: usize| ((x / 5 * 37 + y / 5 * 91) % 23) as u8;
            let inside = |[x0, y0, x1, y1]: [usize; 4]| (x0..x1).contains(&x) && (y0..y1).contains(&y);
            let pixel = match things.iter().rev().find(|(bounds, _)| inside(*bounds)) {
                Some(([x0, y0, ..], rgb)) => rgb.map(|value| value.saturating_add(speck(x - x0, y - y0) * 2)),
                None => [90 + 3 * speck(x, y); 3],
            };
            data.extend(pixel);
        }
        data
    }

    fn picture(data: &[u8]) -> Picture<'_> {
        let plane = Plane { data, stride_bytes: SIZE[0] * 3 };
        Picture::new(PixelFormat::Rgb, SIZE[0] as u32, SIZE[1] as u32, &[plane]).unwrap()
    }

    fn proposal([x0, y0, x1, y1]: [usize; 4], iou: f32) -> Proposal {
        let inside = |x: usize, y: usize| (x0..x1).contains(&(x * 4 + 2)) && (y0..y1).contains(&(y * 4 + 2));
        let logits: Vec<f32> =
            (0..80 * 48).map(|at| if inside(at % 80, at / 80) { 5.0 } else { -5.0 }).collect();
        let region = Region::from_logits(&logits, 80, NormBox::WHOLE).unwrap();
        let (bounds, area) = (region.bounds().unwrap(), region.area());
        Proposal { region, bounds, area, iou, stability: 1.0, hinted: false }
    }

    const RED: Thing = ([40, 40, 88, 120], [180, 20, 20]);
    const BLUE: Thing = ([200, 60, 240, 100], [20, 40, 170]);
    const SMALL_RED: Thing = ([260, 120, 284, 148], [185, 25, 25]);

    #[test]
    fn phrases_pick_by_look_and_place() {
        let data = draw(&[RED, BLUE, SMALL_RED]);
        let picture = picture(&data);
        // The fourth is a part of the first, the last a strip of the ground along three edges.
        let proposals = [
            proposal(RED.0, 0.8),
            proposal(BLUE.0, 0.7),
            proposal(SMALL_RED.0, 0.6),
            proposal([40, 40, 88, 80], 0.5),
            proposal([0, 0, 320, 32], 0.8),
        ];
        let mut grounder = BuiltIn::new();
        let asked = Sight { picture: &picture, time: Duration::ZERO };
        assert_eq!(grounder.look(asked, None).unwrap(), []);
        for (phrase, wanted) in [
            ("the blue thing", &[1][..]),
            ("the red thing", &[0]),
            ("the red object on the right", &[2]),
            ("the largest thing", &[0]),
            ("the second largest thing", &[1]),
            ("all red things", &[0, 2]),
            ("two things", &[0, 1]),
        ] {
            assert_eq!(grounder.choose(phrase, &picture, &proposals).unwrap(), wanted, "{phrase}");
        }
        for (phrase, kind) in [
            ("the woman with the dog", Kind::NotUnderstood),
            ("the yellow thing", Kind::NothingFits),
            ("everything moving", Kind::NoMotion),
            ("the fastest thing", Kind::NoMotion),
        ] {
            let refusal = grounder.choose(phrase, &picture, &proposals).unwrap_err();
            assert_eq!(refusal.kind(), kind, "{refusal}");
            assert!(refusal.to_string().starts_with("query "), "{refusal}");
        }
    }

    #[test]
    fn what_moves_is_told_from_what_does_not_in_either_order_of_time() {
        let before = draw(&[RED, BLUE]);
        let after = draw(&[RED, ([206, 60, 246, 100], BLUE.1)]);
        let (before, after) = (picture(&before), picture(&after));
        let proposals = [proposal(RED.0, 0.8), proposal(BLUE.0, 0.7)];
        let mut grounder = BuiltIn::new();
        for (at, other, way) in [(1000, 1200, "right"), (1000, 800, "left")] {
            let sight = |picture, ms| Sight { picture, time: Duration::from_millis(ms) };
            let hints = grounder.look(sight(&before, at), Some(sight(&after, other))).unwrap();
            assert!(hints.iter().any(|hint| hint.x0 > 0.5 && hint.x1 < 0.9), "{hints:?}");
            let found = |phrase: &str| grounder.choose(phrase, &before, &proposals);
            assert_eq!(found("everything moving").unwrap(), [1], "{way}");
            assert_eq!(found(&format!("the thing moving {way}")).unwrap(), [1]);
            assert_eq!(found("the thing that is not moving").unwrap(), [0]);
            assert_eq!(found("the thing moving up").unwrap_err().kind(), Kind::NothingFits);
        }
    }
}
