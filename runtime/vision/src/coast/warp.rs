//! A mask moved, scaled and bent, on its run lengths or the bytes of its box.

use std::ops::Range;

use sightline_core::Rle;

use super::fit::Move;

/// Nodes of the longer side of the grid that a bend is worked out on.
const NODES: f32 = 16.0;
/// How far a point bends its surroundings, in square roots of the mask's area.
const REACH: f32 = 0.3;
/// Points that do not bend, everywhere: where few points are they bend less.
const RIDGE: f32 = 0.3;

/// A place of the mask after the move, and how far what is there lies from it, in pixels of the picture.
pub(super) type Bend = ([f32; 2], [f32; 2]);

/// Run lengths under construction, from columns in order.
struct Runs {
    width: u32,
    height: u32,
    counts: Vec<u32>,
    end: u32,
}

impl Runs {
    fn like(mask: &Rle) -> Self {
        let counts = Vec::with_capacity(mask.counts().len() * 2 + 2);
        Self { width: mask.width_px(), height: mask.height_px(), counts, end: 0 }
    }

    fn push(&mut self, x: u32, y0: u32, y1: u32) {
        let (start, stop) = (x * self.height + y0, x * self.height + y1);
        if start >= stop {
            return;
        }
        match self.counts.last_mut() {
            Some(last) if start == self.end => *last += stop - start,
            _ => self.counts.extend([start - self.end, stop - start]),
        }
        self.end = stop;
    }

    fn finish(mut self) -> Rle {
        let all = self.width * self.height;
        if self.end < all {
            self.counts.push(all - self.end);
        }
        // They add up by construction.
        Rle::new(self.width, self.height, self.counts).unwrap_or_else(|_| Rle::empty(self.width, self.height))
    }
}

/// The mask after the move, at the same picture size: a pixel is set where the one behind its middle was. What leaves the
/// picture is cut off.
pub(super) fn moved(mask: &Rle, by: &Move) -> Rle {
    let (width, height) = (mask.width_px(), mask.height_px());
    let mut runs: Vec<(u32, u32)> = Vec::with_capacity(mask.counts().len());
    // Index behind the last run of each column, shifted by one column.
    let mut ends: Vec<usize> = vec![0; width as usize + 1];
    mask.for_each_run(|x, y0, y1| {
        runs.push((y0, y1));
        ends[x as usize + 1] = runs.len();
    });
    for at in 1..ends.len() {
        ends[at] = ends[at].max(ends[at - 1]);
    }
    let row = |y: u32| (by.scale * y as f32 + by.to[1]).round().clamp(0.0, height as f32) as u32;
    let mut out = Runs::like(mask);
    for x in 0..width {
        let source = ((x as f32 + 0.5 - by.to[0]) / by.scale).floor();
        if source >= 0.0 && source < width as f32 {
            let column = source as usize;
            runs[ends[column]..ends[column + 1]].iter().for_each(|(y0, y1)| out.push(x, row(*y0), row(*y1)));
        }
    }
    out.finish()
}

/// As [`moved`], and then bent: around each place the mask goes as far on as is said of it.
pub(super) fn bent(mask: &Rle, by: &Move, bends: &[Bend]) -> Rle {
    let Some(bounds) = mask.bounds() else { return mask.clone() };
    let (width, height) = (mask.width_px(), mask.height_px());
    let source = Source::of(mask, bounds.to_pixels(width, height));
    // The box after the move, with room on all sides for a bend, within the picture.
    let around = |room: f32| {
        [0, 1].map(|axis| {
            let low = by.scale * source.origin[axis] as f32 + by.to[axis] - room;
            let high = low + by.scale * source.size[axis] as f32 + 2.0 * room;
            let side = [width, height][axis];
            let [low, high] = [low.floor(), high.ceil()].map(|v| v.clamp(0.0, side as f32) as u32);
            low..high
        })
    };
    let furthest = |offs: &mut dyn Iterator<Item = [f32; 2]>| {
        offs.fold(0.0, |most: f32, off| most.max(off[0].abs()).max(off[1].abs())) + 1.0
    };
    let wide = around(furthest(&mut bends.iter().map(|(_, off)| *off)));
    if wide.iter().any(Range::is_empty) {
        return Rle::empty(width, height);
    }
    let field = Field::new(mask, by, bends, &wide);
    // The field is smoother than its points, so there is less to look at.
    let [columns, rows] = around(furthest(&mut field.values.iter().copied()));
    let mut out = Runs::like(mask);
    let mut nodes = vec![[0.0_f32; 2]; field.nodes[1]];
    for x in columns {
        field.column(x, &mut nodes);
        let mut start = None;
        for (node, pair) in nodes.windows(2).enumerate() {
            let line = |node: usize| wide[1].start + (node as f32 * field.step).ceil() as u32;
            let (top, bottom) = (line(node).max(rows.start), line(node + 1).min(rows.end));
            if top >= bottom {
                continue;
            }
            // Where the first pixel comes from, and how much further on each next one does.
            let slope = [0, 1].map(|axis| (pair[1][axis] - pair[0][axis]) / field.step);
            let along = (top - wide[1].start) as f32 - node as f32 * field.step;
            let at = [x as f32 + 0.5, top as f32 + 0.5];
            let mut from = [0, 1].map(|axis| {
                let off = pair[0][axis] + slope[axis] * along;
                fixed((at[axis] - by.to[axis] - off) / by.scale - source.origin[axis] as f32)
            });
            let step = [fixed(-slope[0] / by.scale), fixed((1.0 - slope[1]) / by.scale)];
            for y in top..bottom {
                match (source.at(from), start) {
                    (true, None) => start = Some(y),
                    (false, Some(first)) => {
                        out.push(x, first, y);
                        start = None;
                    }
                    _ => {}
                }
                from = [from[0] + step[0], from[1] + step[1]];
            }
        }
        if let Some(first) = start {
            out.push(x, first, rows.end);
        }
    }
    out.finish()
}

/// With 14 binary places: room for pictures of 128 K pixels a side.
fn fixed(value: f32) -> i32 {
    (value * (1 << FRACTION_BITS) as f32) as i32
}

const FRACTION_BITS: u32 = 14;

/// The bytes of a mask's box, column by column.
struct Source {
    origin: [usize; 2],
    size: [usize; 2],
    data: Vec<u8>,
}

impl Source {
    fn of(mask: &Rle, bounds_px: [f32; 4]) -> Self {
        let [x0, y0, x1, y1] = bounds_px.map(|v| v.round() as usize);
        let (origin, size) = ([x0, y0], [x1 - x0, y1 - y0]);
        let mut data = vec![0; size[0] * size[1]];
        mask.for_each_run(|x, top, bottom| {
            let column = (x as usize - x0) * size[1];
            data[column + top as usize - y0..column + bottom as usize - y0].fill(1);
        });
        Self { origin, size, data }
    }

    /// At a place in [`fixed`] pixels of the box; nothing is set outside.
    fn at(&self, from: [i32; 2]) -> bool {
        // What is negative becomes a number far beyond the size.
        let [column, row] = from.map(|v| (v >> FRACTION_BITS) as usize);
        column < self.size[0] && row < self.size[1] && self.data[column * self.size[1] + row] != 0
    }
}

/// How far the mask goes on at the nodes of a coarse grid over a part of the picture.
struct Field {
    origin: [u32; 2],
    step: f32,
    /// Columns and rows.
    nodes: [usize; 2],
    /// Column by column.
    values: Vec<[f32; 2]>,
}

impl Field {
    fn new(mask: &Rle, by: &Move, bends: &[Bend], over: &[Range<u32>; 2]) -> Self {
        let from = [over[0].start, over[1].start];
        let sides = [0, 1].map(|axis| (over[axis].end - over[axis].start) as f32);
        let step = (sides[0].max(sides[1]) / NODES).max(4.0);
        let nodes = sides.map(|side| (side / step).ceil() as usize + 1);
        let reach = REACH * by.scale * (mask.area_px() as f32).sqrt();
        let mut values = Vec::with_capacity(nodes[0] * nodes[1]);
        for column in 0..nodes[0] {
            for row in 0..nodes[1] {
                let at = [from[0] as f32 + column as f32 * step, from[1] as f32 + row as f32 * step];
                let (mut sum, mut weights) = ([0.0_f32; 2], RIDGE);
                for (place, off) in bends {
                    let far = ((place[0] - at[0]).powi(2) + (place[1] - at[1]).powi(2)) / (reach * reach);
                    if far < 1.0 {
                        let weight = (1.0 - far) * (1.0 - far);
                        sum = [sum[0] + weight * off[0], sum[1] + weight * off[1]];
                        weights += weight;
                    }
                }
                values.push(sum.map(|v| v / weights));
            }
        }
        Self { origin: from, step, nodes, values }
    }

    /// The values of every row of nodes at a column of pixels.
    fn column(&self, x: u32, out: &mut [[f32; 2]]) {
        let at = (x - self.origin[0]) as f32 / self.step;
        let left = (at as usize).min(self.nodes[0] - 2);
        let part = at - left as f32;
        let rows = self.nodes[1];
        let (here, next) = (&self.values[left * rows..][..rows], &self.values[(left + 1) * rows..][..rows]);
        for (out, (a, b)) in out.iter_mut().zip(here.iter().zip(next)) {
            *out = [0, 1].map(|axis| a[axis] + (b[axis] - a[axis]) * part);
        }
    }
}

#[cfg(test)]
mod tests {
    use sightline_core::Mask;

    use super::*;

    /// A ring with a hole, so that columns have two runs.
    fn drawn(by: &Move, bend: impl Fn([f32; 2]) -> [f32; 2]) -> Mask {
        let mut mask = Mask::new(60, 40);
        for at in 0..60 * 40 {
            let p = [(at % 60) as f32 + 0.5, (at / 60) as f32 + 0.5];
            let off = bend(p);
            let [u, v] = [0, 1].map(|axis| (p[axis] - by.to[axis] - off[axis]) / by.scale);
            mask.data_mut()[at] = u8::from((4.0..13.0).contains(&(u - 25.0).hypot(v - 20.0)));
        }
        mask
    }

    #[test]
    fn a_moved_mask_is_the_thing_drawn_elsewhere() {
        let mask = Rle::encode(&drawn(&Move::STILL, |_| [0.0; 2]));
        for (name, way, scale) in [
            ("still", [0.0, 0.0], 1.0),
            ("right and up", [11.0, -3.0], 1.0),
            ("over the corner", [-20.0, 15.0], 1.0),
            ("over the other corner", [30.0, -15.0], 1.0),
            ("out of the picture", [80.0, 0.0], 1.0),
            ("larger", [2.0, 1.0], 1.2),
            ("smaller, part of a pixel", [-3.4, 0.6], 0.85),
        ] {
            let by = Move::about([25.0, 20.0], way, scale);
            let expected = drawn(&by, |_| [0.0; 2]);
            for (how, got) in [("moved", moved(&mask, &by)), ("bent", bent(&mask, &by, &[]))] {
                let got = got.decode();
                let off = got.data().iter().zip(expected.data()).filter(|(a, b)| a != b).count();
                // Whole pixels are exact; between them the mask's own raster is a pixel off at some edges.
                let whole = way.iter().all(|v: &f32| v.fract() == 0.0) && scale == 1.0;
                let allowed = if whole { 0 } else { expected.area_px() / 5 };
                assert!(off <= allowed, "{name}, {how}: {off} of {} pixels differ", expected.area_px());
            }
        }
        assert_eq!(bent(&Rle::empty(60, 40), &Move::STILL, &[]), Rle::empty(60, 40));
    }

    #[test]
    fn a_bend_takes_the_part_that_it_is_near() {
        let mask = Rle::encode(&drawn(&Move::STILL, |_| [0.0; 2]));
        // The left half stays, the right half goes down.
        let bends: Vec<Bend> = (0..40)
            .map(|at| [(at % 8) as f32 * 4.0 + 11.0, (at / 8) as f32 * 6.0 + 8.0])
            .map(|at| (at, [0.0, if at[0] > 30.0 { 6.0 } else { 0.0 }]))
            .collect();
        let got = bent(&mask, &Move::STILL, &bends).decode();
        let column = |mask: &Mask, x: usize| (0..40).map(|y| mask.data()[y * 60 + x]).collect::<Vec<_>>();
        let first = |mask: &Mask, x: usize| column(mask, x).iter().position(|set| *set != 0);
        let before = mask.decode();
        assert_eq!(column(&got, 13), column(&before, 13), "the left edge stays");
        let [was, is] = [&before, &got].map(|mask| first(mask, 36).unwrap());
        assert!((4..=6).contains(&(is - was)), "the right edge went from {was} to {is}");
    }
}
