//! The built-in vocabulary: what is understood, what is refused, who is chosen.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use sightline_core::NormBox;
use sightline_grounding::vocabulary::{
    By, Candidate, Colour, Count, Description, Motion, Place, Side, Size, Tone, choose, parse,
};

const RED: [u8; 3] = [200, 40, 40];
const BLUE: [u8; 3] = [40, 60, 190];
const WHITE: [u8; 3] = [235, 235, 230];

/// A square of side `side` around (x, y).
fn candidate(id: u32, [x, y]: [f32; 2], side: f32, colour: [u8; 3], motion: [f32; 2]) -> Candidate {
    let half = side / 2.0;
    let bounds = NormBox { x0: x - half, y0: y - half, x1: x + half, y1: y + half };
    Candidate { id, bounds, colour, area: side * side, motion, weight: 1.0 }
}

fn scene() -> Vec<Candidate> {
    vec![
        candidate(1, [0.2, 0.3], 0.2, RED, [0.0, 0.0]),
        candidate(2, [0.8, 0.7], 0.1, RED, [-0.3, 0.0]),
        candidate(3, [0.6, 0.2], 0.3, BLUE, [0.05, 0.1]),
        candidate(4, [0.5, 0.5], 0.1, WHITE, [0.001, 0.0]),
        candidate(5, [0.3, 0.8], 0.11, BLUE, [0.1, 0.02]),
    ]
}

#[test]
fn phrases_and_whom_they_choose() {
    for (phrase, ids) in [
        ("the red object on the left", vec![1]),
        ("the red thing on the right", vec![2]),
        ("red", vec![1]),
        ("everything red", vec![1, 2]),
        ("the largest moving thing", vec![3]),
        ("everything moving", vec![3, 5, 2]),
        ("all things that are not moving", vec![1, 4]),
        ("the still ones", vec![1, 4]),
        ("second from the right", vec![3]),
        ("the 2nd thing from the left", vec![5]),
        ("the second largest object", vec![1]),
        ("the two largest", vec![3, 1]),
        ("leftmost blue thing", vec![5]),
        ("the left-most blue thing", vec![5]),
        ("the fastest one", vec![2]),
        ("something moving to the left", vec![2]),
        ("the thing moving right on the left", vec![5]),
        ("all objects moving down", vec![3]),
        ("the white thing in the middle", vec![4]),
        ("the blue thing at the top", vec![3]),
        ("everything in the lower half", vec![5, 2]),
        ("the thing in the bottom left corner", vec![5]),
        ("the topmost thing", vec![3]),
        ("the large blue one", vec![3]),
        ("small things", vec![]),
        ("the third red thing from the left", vec![]),
        ("the green thing", vec![]),
        ("both red things", vec![1, 2]),
        ("fast moving things", vec![2]),
        ("Follow the RED object, please!", vec![1]),
    ] {
        let description = parse(phrase).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(choose(&description, &scene()), ids, "{phrase}: {description:?}");
    }
}

/// Of several red things, all on the right, the one on the left is the leftmost.
#[test]
fn sides_are_relative_where_they_must_be() {
    let all_right = [
        candidate(1, [0.6, 0.5], 0.1, RED, [0.0; 2]),
        candidate(2, [0.9, 0.5], 0.1, RED, [0.0; 2]),
        candidate(3, [0.7, 0.5], 0.1, BLUE, [0.0; 2]),
    ];
    assert_eq!(choose(&parse("the red thing on the left").unwrap(), &all_right), [1]);
    assert!(
        choose(&parse("the blue thing on the left").unwrap(), &all_right).is_empty(),
        "there is only one"
    );
    assert!(choose(&parse("everything on the left").unwrap(), &all_right).is_empty());
}

#[test]
fn what_is_not_understood_is_said() {
    for (phrase, unknown) in [
        ("the man in the red jacket", &["man", "jacket"][..]),
        ("a dog", &["dog"]),
        ("the one who just put down the bag", &["who", "just", "put", "bag"]),
        ("das rote Ding", &["das", "rote", "ding"]),
        ("", &[]),
        ("the", &[]),
        ("the red and green thing", &[]),
        ("the second thing", &[]),
        ("the thing from the left", &[]),
        ("the largest and smallest thing", &[]),
        ("not red", &[]),
        ("all the largest things", &[]),
        ("the left thing on the right", &[]),
    ] {
        let error = parse(phrase).expect_err(phrase);
        assert_eq!(error.unknown(), unknown, "{phrase}");
        assert!(error.to_string().contains("language model"), "{error}");
        if !unknown.is_empty() || phrase.len() < 4 {
            assert!(error.to_string().contains("colours (red, orange"), "the vocabulary is named: {error}");
        }
    }
    let error = parse("the red and green thing").unwrap_err().to_string();
    assert!(
        error.starts_with("query \"the red and green thing\": expected one colour, got Red and Green"),
        "{error}"
    );
}

#[test]
fn phrases_become_descriptions() {
    let one = Description::default();
    for (phrase, expected) in [
        ("dark blue thing", Description { colour: Some(Colour::Blue), tone: Some(Tone::Dark), ..one }),
        (
            "the top middle",
            Description { down: Some(Place::At(Side::Top)), across: Some(Place::Middle), ..one },
        ),
        ("3 small things", Description { count: Count::Exactly(3), size: Some(Size::Small), ..one }),
        ("moving towards the top", Description { motion: Some(Motion::Towards(Side::Top)), ..one }),
        (
            "moving on the left",
            Description { motion: Some(Motion::Moving), across: Some(Place::At(Side::Left)), ..one },
        ),
        ("the fourth smallest", Description { rank: Some((By::Smallest, 4)), ..one }),
        ("first from the top", Description { rank: Some((By::Outermost(Side::Top), 1)), ..one }),
    ] {
        assert_eq!(parse(phrase).unwrap(), expected, "{phrase}");
    }
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    // Multiples of 1/1024, so that mirroring is exact.
    let grid = |range: std::ops::Range<u16>| range.prop_map(|v| f32::from(v) / 1024.0);
    let way = || -0.4..0.4_f32;
    let one = (grid(52..972), grid(52..972), grid(10..92), any::<[u8; 3]>(), way(), way());
    proptest::collection::vec(one, 0..12).prop_map(|all| {
        let make = |(id, (x, y, side, colour, dx, dy)): (usize, _)| {
            candidate(id as u32, [x, y], side, colour, [dx, dy])
        };
        all.into_iter().enumerate().map(make).collect()
    })
}

fn phrase() -> impl Strategy<Value = String> {
    let words = "the|all|everything|thing|things|red|blue|dark|large|small|left|right|top|middle|moving|still|fast|to|on|from|second|largest|leftmost|two|not";
    let word = proptest::sample::select(words.split('|').collect::<Vec<&str>>());
    proptest::collection::vec(word, 1..7).prop_map(|words| words.join(" "))
}

fn mirrored(phrase: &str) -> String {
    let swap = |word: &str| match word {
        "left" => "right".to_owned(),
        "right" => "left".to_owned(),
        "leftmost" => "rightmost".to_owned(),
        other => other.to_owned(),
    };
    phrase.split(' ').map(swap).collect::<Vec<_>>().join(" ")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_understood_or_refused(text in any::<String>()) {
        _ = parse(&text);
    }

    /// As many as were asked for, each once, in an order that does not depend on how they were given.
    #[test]
    fn choices_are_sound(phrase in phrase(), candidates in candidates()) {
        let Ok(description) = parse(&phrase) else { return Ok(()) };
        let chosen = choose(&description, &candidates);
        let limit = match description.count {
            Count::One => 1,
            Count::Exactly(n) => n,
            Count::All => usize::MAX,
        };
        prop_assert!(chosen.len() <= limit);
        let mut sorted = chosen.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(sorted.len(), chosen.len());
        prop_assert!(sorted.iter().all(|id| candidates.iter().any(|candidate| candidate.id == *id)));
        let mut turned = candidates.clone();
        turned.reverse();
        prop_assert_eq!(choose(&description, &turned), chosen);
    }

    /// In a mirror, left is right.
    #[test]
    fn a_mirror_swaps_left_and_right(phrase in phrase(), candidates in candidates()) {
        let Ok(description) = parse(&phrase) else { return Ok(()) };
        let mirror: Vec<Candidate> = candidates
            .iter()
            .map(|c| Candidate {
                bounds: NormBox { x0: 1.0 - c.bounds.x1, x1: 1.0 - c.bounds.x0, ..c.bounds },
                motion: [-c.motion[0], c.motion[1]],
                ..*c
            })
            .collect();
        prop_assert_eq!(choose(&parse(&mirrored(&phrase)).unwrap(), &mirror), choose(&description, &candidates));
    }
}
