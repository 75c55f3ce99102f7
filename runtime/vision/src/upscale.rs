use sightline_core::{Kind, Rle, ValueError};

/// Turns low-res mask logits into a mask at picture size. Owns its scratch: keep one per stream.
///
/// The mask is that of PyTorch's `F.interpolate(mode="bilinear", align_corners=False) > 0` in f32 arithmetic.
/// A picture column is piecewise linear in the logits, so a run's ends are found by bisection between two
/// logits; only columns and rows next to a positive logit are looked at. Once warm, the only allocation is the
/// result's.
#[derive(Debug)]
pub struct MaskUpscaler {
    low_width: usize,
    low_height: usize,
    picture_px: (u32, u32),
    columns: Vec<Tap>,
    rows: Vec<Tap>,
    /// `[low_height + 1]`: the first picture row that interpolates from low-res row `j` or a later one.
    first_rows: Vec<usize>,
    /// Logits, column-major.
    transposed: Vec<f32>,
    /// Per low-res column: its first positive row and the one after the last; equal when there is none.
    positive: Vec<(usize, usize)>,
    /// One picture column at low-res height.
    profile: Vec<f32>,
    counts: Vec<u32>,
}

/// Interpolates from `low[index]` and the next one (the same at the far edge).
#[derive(Debug, Clone, Copy)]
struct Tap {
    index: usize,
    next_weight: f32,
}

/// As `area_pixel_compute_source_index` and `guard_index_and_lambda` of PyTorch's `UpSample.h`.
fn fill_taps(taps: &mut Vec<Tap>, low: usize, high: u32) {
    let scale = low as f32 / high as f32;
    taps.clear();
    taps.extend((0..high).map(|at| {
        let source = (scale * (at as f32 + 0.5) - 0.5).max(0.0);
        let index = (source as usize).min(low - 1);
        Tap { index, next_weight: (source - index as f32).clamp(0.0, 1.0) }
    }));
}

/// Collects runs of set pixels, given in column-major order.
struct Runs<'a> {
    counts: &'a mut Vec<u32>,
    end: u32,
}

impl Runs<'_> {
    fn add(&mut self, start: u32, end: u32) {
        match self.counts.last_mut() {
            Some(last) if start == self.end => *last += end - start,
            _ => self.counts.extend([start - self.end, end - start]),
        }
        self.end = end;
    }
}

impl MaskUpscaler {
    /// Prepares for logits of `low_width` x `low_height`.
    pub fn new(low_width: usize, low_height: usize) -> Self {
        Self {
            low_width,
            low_height,
            picture_px: (0, 0),
            columns: Vec::new(),
            rows: Vec::new(),
            first_rows: Vec::new(),
            transposed: vec![0.0; low_width * low_height],
            positive: vec![(0, 0); low_width],
            profile: vec![0.0; low_height],
            counts: Vec::new(),
        }
    }

    /// Takes row-major `[low_height, low_width]` f32 logits (finite; positive means object) that cover the
    /// whole picture, gives the mask at `width_px` x `height_px`.
    ///
    /// # Errors
    /// `Kind::Size` when there are not exactly `low_width * low_height` logits, a side is 0, or the picture has
    /// more pixels than 32 bits count.
    pub fn run(&mut self, logits: &[f32], width_px: u32, height_px: u32) -> Result<Rle, ValueError> {
        let (low_width, low_height) = (self.low_width, self.low_height);
        if logits.len() != low_width * low_height || logits.is_empty() {
            return Err(ValueError::new(
                Kind::Size,
                "low-res mask logits",
                format_args!("{} values for [{low_height},{low_width}], at least 1", low_width * low_height),
                logits.len(),
            ));
        }
        if width_px == 0 || height_px == 0 || width_px.checked_mul(height_px).is_none() {
            return Err(ValueError::new(
                Kind::Size,
                "upscaled mask",
                format_args!("1 to {} pixels", u32::MAX),
                format_args!("{width_px}x{height_px}"),
            ));
        }
        self.prepare(width_px, height_px);
        self.transpose(logits);
        self.counts.clear();
        let mut runs = Runs { counts: &mut self.counts, end: 0 };
        for (x, tap) in self.columns.iter().enumerate() {
            let next = (tap.index + 1).min(low_width - 1);
            let (here, there) = (self.positive[tap.index], self.positive[next]);
            let (first, last) = match (here.0 < here.1, there.0 < there.1) {
                (false, false) => continue,
                (true, false) => here,
                (false, true) => there,
                (true, true) => (here.0.min(there.0), here.1.max(there.1)),
            };
            // The rows on either side interpolate with a positive one.
            let (top, bottom) = (first.saturating_sub(1), (last + 1).min(low_height));
            let column = |index: usize| &self.transposed[index * low_height..][top..bottom];
            let (weight, next_weight) = (1.0 - tap.next_weight, tap.next_weight);
            let values = column(tap.index).iter().zip(column(next));
            for (to, (a, b)) in self.profile[top..bottom].iter_mut().zip(values) {
                *to = weight * a + next_weight * b;
            }
            let base = x as u32 * height_px;
            for row in top..last {
                let (upper, lower) = (self.profile[row], self.profile[(row + 1).min(low_height - 1)]);
                let (from, to) = (self.first_rows[row], self.first_rows[row + 1]);
                let crossing = |set_first: bool| {
                    from + self.rows[from..to].partition_point(|tap| {
                        ((1.0 - tap.next_weight) * upper + tap.next_weight * lower > 0.0) == set_first
                    })
                };
                let (start, end) = match (upper > 0.0, lower > 0.0) {
                    (false, false) => continue,
                    (true, true) => (from, to),
                    (true, false) => (from, crossing(true)),
                    (false, true) => (crossing(false), to),
                };
                if start < end {
                    runs.add(base + start as u32, base + end as u32);
                }
            }
        }
        let rest = width_px * height_px - runs.end;
        if rest > 0 {
            self.counts.push(rest);
        }
        Rle::new(width_px, height_px, self.counts.clone())
    }

    /// Tables for a picture size; kept until another size comes.
    fn prepare(&mut self, width_px: u32, height_px: u32) {
        if self.picture_px == (width_px, height_px) {
            return;
        }
        fill_taps(&mut self.columns, self.low_width, width_px);
        fill_taps(&mut self.rows, self.low_height, height_px);
        let rows = &self.rows;
        self.first_rows.clear();
        self.first_rows.extend((0..=self.low_height).map(|low| rows.partition_point(|tap| tap.index < low)));
        self.picture_px = (width_px, height_px);
    }

    fn transpose(&mut self, logits: &[f32]) {
        self.positive.fill((0, 0));
        for (y, row) in logits.chunks_exact(self.low_width).enumerate() {
            for (x, logit) in row.iter().enumerate() {
                self.transposed[x * self.low_height + y] = *logit;
                if *logit > 0.0 {
                    let (first, last) = &mut self.positive[x];
                    if *first == *last {
                        *first = y;
                    }
                    *last = y + 1;
                }
            }
        }
    }
}
