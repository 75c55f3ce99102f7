use super::{By, Candidate, Count, Description, Motion, Place, Side, Size, colour::FITS};

/// Below this share of the picture a second nothing moves: boxes tremble.
const MOVES: f32 = 0.02;
const FAST: f32 = 0.2;
/// Times the median area that is large, or small turned round.
const LARGE: f32 = 1.5;
/// What is large when there is nothing to compare with.
const LARGE_ALONE: f32 = 0.05;

/// Where one is meant, what bears the words or weighs less than this part of the best is out: a scrap further out, or
/// larger, must not win over a thing.
const WORTH: f32 = 0.5;

/// The ids of those meant, the best first; none when nothing fits.
///
/// Where one is meant and several fit, the outermost of those that weigh enough counts when a side was named, else the one
/// that bears the colour best and weighs most, then the largest. "The red one on the left" is the leftmost of several red ones even where all are on the right.
pub fn choose(description: &Description, candidates: &[Candidate]) -> Vec<u32> {
    let median = median_area(candidates);
    let mut kept: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| {
            description.colour.is_none_or(|colour| colour.fit(candidate.colour) >= FITS)
                && description.tone.is_none_or(|tone| tone.fits(candidate.colour))
                && description
                    .size
                    .is_none_or(|size| has_size(size, candidate.area, median, candidates.len()))
                && description.motion.is_none_or(|motion| moves(motion, candidate.motion))
        })
        .collect();
    let placed = |candidate: &&Candidate| {
        description.across.is_none_or(|place| is_at(place, centre(candidate)[0]))
            && description.down.is_none_or(|place| is_at(place, centre(candidate)[1]))
    };
    let relative = description.count == Count::One && description.rank.is_none() && kept.len() > 1;
    if !relative || kept.iter().any(placed) {
        kept.retain(placed);
    }

    let by =
        description.rank.map(|(by, _)| by).or(outermost(description.across)).or(outermost(description.down));
    let fit = |candidate: &Candidate| {
        candidate.weight * description.colour.map_or(1.0, |colour| colour.fit(candidate.colour))
    };
    if description.count == Count::One || description.rank.is_some() {
        let best = kept.iter().map(|candidate| fit(candidate)).fold(0.0, f32::max);
        kept.retain(|candidate| fit(candidate) >= WORTH * best);
    }
    kept.sort_by(|a, b| {
        let order = by.map_or(std::cmp::Ordering::Equal, |by| measure(by, b).total_cmp(&measure(by, a)));
        order.then(fit(b).total_cmp(&fit(a))).then(b.area.total_cmp(&a.area)).then(a.id.cmp(&b.id))
    });
    let skip = description.rank.map_or(0, |(_, nth)| nth.saturating_sub(1));
    let take = match description.count {
        Count::One => 1,
        Count::Exactly(n) => n,
        Count::All => usize::MAX,
    };
    kept.into_iter().skip(skip).take(take).map(|candidate| candidate.id).collect()
}

fn outermost(place: Option<Place>) -> Option<By> {
    match place {
        Some(Place::At(side)) => Some(By::Outermost(side)),
        Some(Place::Middle) | None => None,
    }
}

fn centre(candidate: &Candidate) -> [f32; 2] {
    let bounds = candidate.bounds;
    [(bounds.x0 + bounds.x1) / 2.0, (bounds.y0 + bounds.y1) / 2.0]
}

fn speed(motion: [f32; 2]) -> f32 {
    motion[0].hypot(motion[1])
}

/// The more, the earlier.
fn measure(by: By, candidate: &Candidate) -> f32 {
    let [x, y] = centre(candidate);
    match by {
        By::Largest => candidate.area,
        By::Smallest => -candidate.area,
        By::Fastest => speed(candidate.motion),
        By::Slowest => -speed(candidate.motion),
        By::Outermost(Side::Left) => -x,
        By::Outermost(Side::Right) => x,
        By::Outermost(Side::Top) => -y,
        By::Outermost(Side::Bottom) => y,
    }
}

fn is_at(place: Place, at: f32) -> bool {
    match place {
        Place::At(Side::Left | Side::Top) => at < 0.5,
        Place::At(Side::Right | Side::Bottom) => at > 0.5,
        Place::Middle => (at - 0.5).abs() <= 0.25,
    }
}

fn moves(motion: Motion, [dx, dy]: [f32; 2]) -> bool {
    let speed = speed([dx, dy]);
    let moving = speed >= MOVES;
    match motion {
        Motion::Moving => moving,
        Motion::Still => !moving,
        Motion::Fast => speed >= FAST,
        Motion::Slow => moving && speed < FAST,
        Motion::Towards(Side::Left) => moving && -dx >= dy.abs(),
        Motion::Towards(Side::Right) => moving && dx >= dy.abs(),
        Motion::Towards(Side::Top) => moving && -dy >= dx.abs(),
        Motion::Towards(Side::Bottom) => moving && dy >= dx.abs(),
    }
}

fn median_area(candidates: &[Candidate]) -> f32 {
    let mut areas: Vec<f32> = candidates.iter().map(|candidate| candidate.area).collect();
    areas.sort_by(f32::total_cmp);
    let middle = areas.len() / 2;
    match (areas.len() % 2, areas.get(middle)) {
        (1, Some(area)) => *area,
        (_, Some(area)) => (*area + areas[middle - 1]) / 2.0,
        (_, None) => 0.0,
    }
}

fn has_size(size: Size, area: f32, median: f32, count: usize) -> bool {
    let limit = if count > 1 { None } else { Some(LARGE_ALONE) };
    match size {
        Size::Large => area >= limit.unwrap_or(median * LARGE),
        Size::Small => limit.map_or(area <= median / LARGE, |limit| area < limit),
    }
}
