use sightline_core::Rle;

/// A mask of a bit a pixel, row-major; in a word the lowest bit is on the left. Only rows `first..last` hold
/// anything.
#[derive(Debug, Default)]
pub(super) struct Bits {
    words_per_row: usize,
    first: usize,
    last: usize,
    words: Vec<u64>,
}

impl Clone for Bits {
    fn clone(&self) -> Self {
        let mut bits = Self::default();
        bits.clone_from(self);
        bits
    }

    fn clone_from(&mut self, from: &Self) {
        (self.words_per_row, self.first, self.last) = (from.words_per_row, from.first, from.last);
        self.words.clone_from(&from.words);
    }
}

/// The first of `to` picture positions whose centre falls on source position `edge` or a later one.
fn scaled_edge(edge: u32, from: u32, to: u32) -> usize {
    if from == to {
        return edge as usize;
    }
    let (edge, from, to) = (u64::from(edge), u64::from(from), u64::from(to));
    (2 * edge * to).saturating_sub(from).div_ceil(2 * from).min(to) as usize
}

impl Bits {
    /// Rows that may hold something: first, and one past the last.
    pub(super) fn rows(&self) -> (usize, usize) {
        (self.first, self.last)
    }

    /// Takes the shape of a mask, scaled to `width_px` x `height_px`.
    pub(super) fn rasterise(&mut self, mask: &Rle, width_px: u32, height_px: u32) {
        let words_per_row = width_px.div_ceil(64) as usize;
        let height = height_px as usize;
        self.words_per_row = words_per_row;
        self.words.clear();
        self.words.resize(words_per_row * (height + 1), 0);
        (self.first, self.last) = (0, 0);
        if mask.width_px() == 0 || mask.height_px() == 0 {
            return;
        }
        let (mut first, mut last) = (height, 0);
        // A run flips a bit where it starts and where it ends; going down the rows adds the flips up.
        mask.for_each_run(|x, y0, y1| {
            let top = scaled_edge(y0, mask.height_px(), height_px);
            let bottom = scaled_edge(y1, mask.height_px(), height_px);
            if top >= bottom {
                return;
            }
            let left = scaled_edge(x, mask.width_px(), width_px);
            let right = scaled_edge(x + 1, mask.width_px(), width_px);
            for x in left..right {
                self.words[top * words_per_row + x / 64] ^= 1 << (x % 64);
                self.words[bottom * words_per_row + x / 64] ^= 1 << (x % 64);
            }
            (first, last) = (first.min(top), last.max(bottom));
        });
        if first >= last {
            return;
        }
        (self.first, self.last) = (first, last);
        for at in (self.first + 1) * words_per_row..self.last * words_per_row {
            self.words[at] ^= self.words[at - words_per_row];
        }
        self.words[self.last * words_per_row..][..words_per_row].fill(0);
    }

    fn row(&self, y: usize) -> Option<&[u64]> {
        (self.first..self.last)
            .contains(&y)
            .then(|| &self.words[y * self.words_per_row..][..self.words_per_row])
    }

    /// Pixels set in a part of the picture, `[x0, y0, x1, y1]`, the latter two exclusive.
    pub(super) fn count_within(&self, [x0, y0, x1, y1]: [u32; 4]) -> u64 {
        let (x0, x1) = (x0 as usize, (x1 as usize).min(self.words_per_row * 64));
        let mut count = 0;
        for row in (y0 as usize..y1 as usize).filter_map(|y| self.row(y)) {
            for (index, word) in row.iter().enumerate().take(x1.div_ceil(64)).skip(x0 / 64) {
                let (from, to) = (x0.saturating_sub(index * 64), (x1 - index * 64).min(64));
                let kept = u64::MAX.checked_shl(from as u32).unwrap_or(0) & (u64::MAX >> (64 - to));
                count += u64::from((word & kept).count_ones());
            }
        }
        count
    }

    /// Keeps the pixels of `from` whose neighbours are set as well: all eight, or the four beside, above and
    /// below. Outside of the picture nothing is set.
    pub(super) fn erode(&mut self, from: &Self, diagonals: bool) {
        (self.words_per_row, self.first, self.last) = (from.words_per_row, from.first, from.last);
        self.words.resize(from.words.len(), 0);
        for y in from.first..from.last {
            let Some(row) = from.row(y) else { continue };
            let neighbours = if y == 0 { None } else { from.row(y - 1) }.zip(from.row(y + 1));
            for index in 0..self.words_per_row {
                self.words[y * self.words_per_row + index] = neighbours.map_or(0, |(above, below)| {
                    let vertical = if diagonals {
                        thinned(above, index) & thinned(below, index)
                    } else {
                        above[index] & below[index]
                    };
                    thinned(row, index) & vertical
                });
            }
        }
    }

    /// Clears what is set in `other`, a mask within this one.
    pub(super) fn remove(&mut self, other: &Self) {
        let part = self.first * self.words_per_row..self.last * self.words_per_row;
        for (word, other) in self.words[part.clone()].iter_mut().zip(&other.words[part]) {
            *word &= !other;
        }
    }

    /// Calls `f(x0, x1)` for every run of pixels set in either of two rows, left to right.
    pub(super) fn for_each_span(&self, y: usize, other_y: usize, mut f: impl FnMut(usize, usize)) {
        let (row, other) = (self.row(y), self.row(other_y));
        let mut start = None;
        for index in 0..self.words_per_row {
            let word = row.map_or(0, |row| row[index]) | other.map_or(0, |row| row[index]);
            let mut at = 0;
            while at < 64 {
                // Next change from here on.
                let rest = if start.is_some() { !word >> at } else { word >> at };
                if rest == 0 {
                    break;
                }
                at += rest.trailing_zeros() as usize;
                match start.take() {
                    None => start = Some(index * 64 + at),
                    Some(start) => f(start, index * 64 + at),
                }
            }
        }
        if let Some(start) = start {
            f(start, self.words_per_row * 64);
        }
    }
}

/// The bits of a word whose left and right neighbours are set too.
fn thinned(row: &[u64], index: usize) -> u64 {
    let word = row[index];
    let before = if index > 0 { row[index - 1] >> 63 } else { 0 };
    let after = row.get(index + 1).map_or(0, |next| next << 63);
    word & (word << 1 | before) & (word >> 1 | after)
}
