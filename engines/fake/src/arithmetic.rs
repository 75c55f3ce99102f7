//! What the fake graphs compute, as functions of slices. A *cell* is one pixel of the low-res grid; colours are
//! normalised, `[-1,1]` a channel.

/// Cells along one side of the low-res grid.
pub(crate) const LOW: usize = 16;
/// All cells.
pub(crate) const CELLS: usize = LOW * LOW;
/// Pixels of the input along one side of a cell.
pub(crate) const CELL_PX: usize = 4;
/// Channels of the top level: R, G, B and a logit that only `pix_feat` uses.
pub(crate) const FEATURES: usize = 4;
/// Channels of a memory token: R, G, B of the object and whether the cell is part of it.
pub(crate) const MEMORY: usize = 4;
/// Channels of a pointer: R, G, B of the object and whether it is there.
pub(crate) const POINTER: usize = 4;
/// The pointer of an absent object.
pub(crate) const NO_OBJ_PTR: [f32; POINTER] = [0.0, 0.0, 0.0, -1.0];

/// Colours nearer than this are the same object's.
const SAME_COLOUR: f32 = 0.4;
/// How far an object moves between frames at most, in cells, for a model that looks at the previous mask.
const REACH: usize = 4;

type Colour = [f32; 3];

/// Logit of "these are the same colour": positive below [`SAME_COLOUR`].
fn same(a: Colour, b: Colour) -> f32 {
    let distance = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
    ((SAME_COLOUR - distance) * 40.0).clamp(-10.0, 10.0)
}

fn colour(features: &[f32], cell: usize) -> Colour {
    [features[cell], features[CELLS + cell], features[2 * CELLS + cell]]
}

/// `[1,3,64,64]` to `[1,4,16,16]`: the mean of each cell; the fourth channel is 0.
pub(crate) fn encode(image: &[f32], features: &mut [f32]) {
    let side = LOW * CELL_PX;
    for channel in 0..3 {
        for cell in 0..CELLS {
            let (y, x) = (cell / LOW * CELL_PX, cell % LOW * CELL_PX);
            let sum: f32 = (0..CELL_PX * CELL_PX)
                .map(|i| image[channel * side * side + (y + i / CELL_PX) * side + x + i % CELL_PX])
                .sum();
            features[channel * CELLS + cell] = sum / (CELL_PX * CELL_PX) as f32;
        }
    }
    features[3 * CELLS..].fill(0.0);
}

/// The mean of colours that come and go: slots that are used and hold an object.
#[derive(Default)]
pub(crate) struct Remembered {
    sum: [f64; 3],
    count: f64,
}

impl Remembered {
    pub(crate) fn add(&mut self, rgb: &[f32], weight: f64) {
        self.sum.iter_mut().zip(rgb).for_each(|(sum, value)| *sum += f64::from(*value) * weight);
        self.count += weight;
    }

    /// A slot `[T,C]`.
    pub(crate) fn add_memory(&mut self, slot: &[f32]) {
        let tokens = slot.chunks_exact(MEMORY);
        let inside = tokens.clone().filter(|token| token[3] > 0.5).count();
        tokens.filter(|token| token[3] > 0.5).for_each(|token| self.add(token, 1.0 / inside as f64));
    }

    fn colour(&self) -> Option<Colour> {
        (self.count > 0.0).then(|| self.sum.map(|sum| (sum / self.count) as f32))
    }
}

/// The top level with, in its fourth channel, the logit of each cell being the remembered object.
pub(crate) fn attend(features: &[f32], remembered: &Remembered, pix_feat: &mut [f32]) {
    let object = remembered.colour();
    pix_feat[..3 * CELLS].copy_from_slice(&features[..3 * CELLS]);
    for cell in 0..CELLS {
        pix_feat[3 * CELLS + cell] = object.map_or(-10.0, |object| same(colour(features, cell), object));
    }
}

/// Takes from the logits what lies out of reach of the previous mask; without one, nothing.
pub(crate) fn stay_near(previous: &[f32], logits: &mut [f32]) {
    if previous.iter().all(|logit| *logit <= 0.0) {
        return;
    }
    for (cell, logit) in logits.iter_mut().enumerate() {
        let (y, x) = (cell / LOW, cell % LOW);
        let near = |at: usize| (at / LOW).abs_diff(y) <= REACH && (at % LOW).abs_diff(x) <= REACH;
        if !previous.iter().enumerate().any(|(at, logit)| *logit > 0.0 && near(at)) {
            *logit = -10.0;
        }
    }
}

/// What a prompt says: cells of the object's colour in the box, or connected to a positive click; less those
/// connected to a negative one.
pub(crate) fn prompted(
    features: &[f32],
    mask: Option<&[f32]>,
    points: &[(f32, f32, i32)],
    logits: &mut [f32],
) {
    match mask {
        Some(mask) => logits.copy_from_slice(mask),
        None => logits.fill(-10.0),
    }
    let cell_of = |px: f32| ((px / CELL_PX as f32).max(0.0) as usize).min(LOW - 1);
    let corner = |label: i32| points.iter().find(|point| point.2 == label);
    let inside: Box<dyn Fn(usize) -> bool> = match (corner(2), corner(3)) {
        (Some(a), Some(b)) => {
            let (x0, y0, x1, y1) = (a.0, a.1, b.0, b.1);
            // The centre of a cell decides.
            let centre = |index: usize| (index as f32 + 0.5) * CELL_PX as f32;
            let within = move |cell: usize| {
                let (x, y) = (centre(cell % LOW), centre(cell / LOW));
                (x0..=x1).contains(&x) && (y0..=y1).contains(&y)
            };
            let middle = cell_of((y0 + y1) / 2.0) * LOW + cell_of((x0 + x1) / 2.0);
            let object = colour(features, middle);
            for (cell, logit) in logits.iter_mut().enumerate() {
                if within(cell) {
                    *logit = logit.max(same(colour(features, cell), object));
                }
            }
            Box::new(within)
        }
        _ => Box::new(|_| true),
    };
    for positive in [true, false] {
        for point in points.iter().filter(|point| point.2 == i32::from(positive)) {
            for cell in connected(features, cell_of(point.1) * LOW + cell_of(point.0)) {
                if !positive {
                    logits[cell] = -10.0;
                } else if inside(cell) {
                    logits[cell] = 10.0;
                }
            }
        }
    }
}

/// The cells of one colour around a cell, in 4 directions.
fn connected(features: &[f32], start: usize) -> Vec<usize> {
    let object = colour(features, start);
    let mut seen = [false; CELLS];
    let mut found = vec![start];
    seen[start] = true;
    let mut next = 0;
    while let Some(&cell) = found.get(next) {
        next += 1;
        let (y, x) = (cell / LOW, cell % LOW);
        let around = [
            (y > 0).then(|| cell - LOW),
            (y + 1 < LOW).then(|| cell + LOW),
            (x > 0).then(|| cell - 1),
            (x + 1 < LOW).then(|| cell + 1),
        ];
        for other in around.into_iter().flatten() {
            if !seen[other] && same(colour(features, other), object) > 0.0 {
                seen[other] = true;
                found.push(other);
            }
        }
    }
    found
}

/// The mean colour under a mask, if it has any cell.
pub(crate) fn colour_under(features: &[f32], logits: &[f32]) -> Option<Colour> {
    let mut mean = Remembered::default();
    for cell in (0..CELLS).filter(|cell| logits[*cell] > 0.0) {
        mean.add(&colour(features, cell), 1.0);
    }
    mean.colour()
}

/// `[1,T,C]`: the object's colour where the mask is, zero elsewhere.
pub(crate) fn remember(features: &[f32], logits: &[f32], object_score: f32, memory: &mut [f32]) {
    memory.fill(0.0);
    let Some(object) = colour_under(features, logits).filter(|_| object_score > 0.0) else {
        return;
    };
    for (cell, token) in memory.chunks_exact_mut(MEMORY).enumerate() {
        if logits[cell] > 0.0 {
            token[..3].copy_from_slice(&object);
            token[3] = 1.0;
        }
    }
}

/// `[1,1,64,64]` 0/1 to `[1,1,16,16]` logits.
pub(crate) fn downsample(mask: &[f32], low_res: &mut [f32]) {
    let side = LOW * CELL_PX;
    for (cell, logit) in low_res.iter_mut().enumerate() {
        let (y, x) = (cell / LOW * CELL_PX, cell % LOW * CELL_PX);
        let sum: f32 = (0..CELL_PX * CELL_PX).map(|i| mask[(y + i / CELL_PX) * side + x + i % CELL_PX]).sum();
        *logit = if sum * 2.0 >= (CELL_PX * CELL_PX) as f32 { 10.0 } else { -10.0 };
    }
}
