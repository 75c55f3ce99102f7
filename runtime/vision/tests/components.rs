//! Holes and sprinkles against a flood fill that is too simple to be wrong.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use sightline_vision::ComponentFilter;

/// For every pixel the size of its 8-connected component among the pixels of `set`; 0 outside.
fn areas(set: &[bool], width: usize) -> Vec<usize> {
    let height = set.len() / width;
    let mut areas = vec![0; set.len()];
    for seed in 0..set.len() {
        if !set[seed] || areas[seed] != 0 {
            continue;
        }
        let mut members = vec![seed];
        let mut seen = vec![false; set.len()];
        seen[seed] = true;
        let mut next = 0;
        while let Some(at) = members.get(next).copied() {
            next += 1;
            let (x, y) = (at % width, at / width);
            for ny in y.saturating_sub(1)..(y + 2).min(height) {
                for nx in x.saturating_sub(1)..(x + 2).min(width) {
                    let to = ny * width + nx;
                    if set[to] && !seen[to] {
                        seen[to] = true;
                        members.push(to);
                    }
                }
            }
        }
        members.iter().for_each(|at| areas[*at] = members.len());
    }
    areas
}

/// What the published functions give: `where(is_small, value, mask)`.
fn expected(logits: &[f32], width: usize, max_area_px: usize, holes: bool) -> Vec<f32> {
    let set: Vec<bool> =
        logits.iter().map(|logit| if holes { *logit <= 0.0 } else { *logit > 0.0 }).collect();
    let total = set.iter().filter(|set| **set).count();
    let (limit, value) = if holes { (max_area_px, 0.1) } else { (max_area_px.min(total / 2), -0.1) };
    let areas = areas(&set, width);
    logits
        .iter()
        .zip(areas)
        .map(|(logit, area)| if area > 0 && area <= limit { value } else { *logit })
        .collect()
}

prop_compose! {
    /// From sparse to dense, so that snakes, combs and islands all occur.
    fn picture()(width in 1_usize..24, height in 1_usize..24, density in 0.05..0.95_f64)
        (set in prop::collection::vec(prop::bool::weighted(density), width * height), width in Just(width))
        -> (Vec<f32>, usize) {
        (set.into_iter().map(|set| if set { 2.0 } else { -2.0 }).collect(), width)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn components_are_those_of_a_flood_fill(
        pictures in prop::collection::vec(picture(), 1..3),
        max_area_px in 0_usize..40,
        holes: bool,
    ) {
        for (logits, width) in pictures {
            let mut filter = ComponentFilter::new(width, logits.len() / width);
            // Twice: the scratch of the first run must not show in the second.
            for _ in 0..2 {
                let mut got = logits.clone();
                let changed = match holes {
                    true => filter.fill_holes(&mut got, max_area_px),
                    false => filter.remove_sprinkles(&mut got, max_area_px),
                };
                let wanted = expected(&logits, width, max_area_px, holes);
                prop_assert_eq!(&got, &wanted);
                let differing = logits.iter().zip(&wanted).filter(|(a, b)| a != b).count();
                prop_assert_eq!(changed.unwrap(), differing);
            }
        }
    }
}
