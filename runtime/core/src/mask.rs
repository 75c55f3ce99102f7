use crate::{Kind, NormBox, ValueError};

/// A binary mask, one byte a pixel (0 or 1), row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    width_px: u32,
    height_px: u32,
    data: Vec<u8>,
}

impl Mask {
    /// An empty mask.
    pub fn new(width_px: u32, height_px: u32) -> Self {
        Self { width_px, height_px, data: vec![0; width_px as usize * height_px as usize] }
    }

    /// Takes bytes, row-major; anything but 0 counts as set.
    ///
    /// # Errors
    /// `Kind::Size` when there are not exactly `width_px * height_px` bytes, or none at all.
    pub fn from_bytes(width_px: u32, height_px: u32, mut data: Vec<u8>) -> Result<Self, ValueError> {
        let expected = width_px as usize * height_px as usize;
        if data.len() != expected || expected == 0 {
            return Err(ValueError::new(
                Kind::Size,
                format_args!("mask {width_px}x{height_px}"),
                format_args!("{expected} bytes, at least 1"),
                data.len(),
            ));
        }
        data.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        Ok(Self { width_px, height_px, data })
    }

    /// Width in pixels.
    pub fn width_px(&self) -> u32 {
        self.width_px
    }
    /// Height in pixels.
    pub fn height_px(&self) -> u32 {
        self.height_px
    }
    /// Row-major bytes, 0 or 1.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
    /// Row-major bytes for writing; keep them 0 or 1.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }
    /// Number of set pixels.
    pub fn area_px(&self) -> usize {
        self.data.iter().map(|byte| usize::from(*byte)).sum()
    }

    /// Tight box `[x0, y0, x1, y1]` in pixels, the right and bottom edge exclusive; `None` when empty.
    pub fn bounds_px(&self) -> Option<[u32; 4]> {
        let width = self.width_px as usize;
        let (mut x0, mut x1) = (width, 0);
        let (mut y0, mut y1) = (None, 0);
        for (y, row) in self.data.chunks_exact(width).enumerate() {
            let Some(first) = row.iter().position(|byte| *byte != 0) else { continue };
            let last = row.iter().rposition(|byte| *byte != 0).unwrap_or(first);
            y0.get_or_insert(y);
            y1 = y + 1;
            x0 = x0.min(first);
            x1 = x1.max(last + 1);
        }
        y0.map(|y0| [x0 as u32, y0 as u32, x1 as u32, y1 as u32])
    }
}

/// A mask as COCO run lengths: column-major, runs alternate between 0 and 1 and start with 0.
///
/// The compressed text form is that of the COCO API's `rleToString` (`maskApi.c`), so `pycocotools` reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    width_px: u32,
    height_px: u32,
    counts: Vec<u32>,
}

impl Rle {
    /// Takes run lengths.
    ///
    /// # Errors
    /// `Kind::Encoding` when the runs do not add up to `width_px * height_px`.
    pub fn new(width_px: u32, height_px: u32, counts: Vec<u32>) -> Result<Self, ValueError> {
        let expected = u64::from(width_px) * u64::from(height_px);
        let got: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        if got != expected {
            return Err(ValueError::new(
                Kind::Encoding,
                format_args!("run lengths of a {width_px}x{height_px} mask"),
                format_args!("a sum of {expected}"),
                got,
            ));
        }
        Ok(Self { width_px, height_px, counts })
    }

    /// A mask with no pixel set.
    pub fn empty(width_px: u32, height_px: u32) -> Self {
        Self { width_px, height_px, counts: vec![width_px * height_px] }
    }

    /// Encodes a mask.
    pub fn encode(mask: &Mask) -> Self {
        match mask.bounds_px() {
            None => Self::empty(mask.width_px, mask.height_px),
            Some(bounds) => Self::encode_within(mask, bounds),
        }
    }

    /// Encodes a mask of which nothing is set outside `bounds_px`; only that part is read.
    pub fn encode_within(mask: &Mask, bounds_px: [u32; 4]) -> Self {
        let (width, height) = (mask.width_px as usize, mask.height_px as usize);
        let [x0, y0, x1, y1] = bounds_px.map(|v| v as usize);
        let mut counts = Vec::with_capacity(4 * (x1 - x0) + 2);
        let (mut value, mut run) = (0_u8, (x0 * height) as u32);
        for x in x0..x1 {
            let mut push = |next: u8, length: u32| {
                if next == value {
                    run += length;
                } else {
                    counts.push(run);
                    (value, run) = (next, length);
                }
            };
            if y0 > 0 {
                push(0, y0 as u32);
            }
            for y in y0..y1 {
                push(mask.data[y * width + x], 1);
            }
            if y1 < height {
                push(0, (height - y1) as u32);
            }
        }
        let rest = ((width - x1) * height) as u32;
        if value == 0 {
            counts.push(run + rest);
        } else {
            counts.push(run);
            if rest > 0 {
                counts.push(rest);
            }
        }
        Self { width_px: mask.width_px, height_px: mask.height_px, counts }
    }

    /// Decodes into a mask.
    pub fn decode(&self) -> Mask {
        let mut mask = Mask::new(self.width_px, self.height_px);
        let width = self.width_px as usize;
        self.for_each_run(|x, y0, y1| {
            for y in y0..y1 {
                mask.data[y as usize * width + x as usize] = 1;
            }
        });
        mask
    }

    /// Calls `f(x, y0, y1)` for every vertical run of set pixels, `y1` exclusive, left to right.
    pub fn for_each_run(&self, mut f: impl FnMut(u32, u32, u32)) {
        let height = self.height_px;
        let mut at = 0_u32;
        for pair in self.counts.chunks(2) {
            at += pair[0];
            let Some(&length) = pair.get(1) else { break };
            let end = at + length;
            while at < end {
                let (x, y) = (at / height, at % height);
                let stop = (y + (end - at)).min(height);
                f(x, y, stop);
                at += stop - y;
            }
        }
    }

    /// The same mask as part of a larger one, with its top left corner at `x_px`,`y_px`.
    ///
    /// # Errors
    /// `Kind::Size` when it hangs over the edge.
    pub fn placed(&self, x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Result<Self, ValueError> {
        let fits = |at: u32, length: u32, side: u32| at.checked_add(length).is_some_and(|end| end <= side);
        if !fits(x_px, self.width_px, width_px)
            || !fits(y_px, self.height_px, height_px)
            || width_px.checked_mul(height_px).is_none()
        {
            return Err(ValueError::new(
                Kind::Size,
                format_args!("{}x{} mask at ({x_px}, {y_px})", self.width_px, self.height_px),
                format_args!("a place within {width_px}x{height_px}"),
                "one that hangs over the edge",
            ));
        }
        let mut counts: Vec<u32> = Vec::with_capacity(self.counts.len() + 2);
        let mut end = 0;
        self.for_each_run(|x, y0, y1| {
            let start = (x + x_px) * height_px + y0 + y_px;
            match counts.last_mut() {
                Some(last) if start == end => *last += y1 - y0,
                _ => counts.extend([start - end, y1 - y0]),
            }
            end = start + y1 - y0;
        });
        if width_px * height_px > end {
            counts.push(width_px * height_px - end);
        }
        Ok(Self { width_px, height_px, counts })
    }

    /// Width in pixels.
    pub fn width_px(&self) -> u32 {
        self.width_px
    }
    /// Height in pixels.
    pub fn height_px(&self) -> u32 {
        self.height_px
    }
    /// Run lengths, column-major, the first of zeros.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }
    /// Number of set pixels.
    pub fn area_px(&self) -> u64 {
        self.counts.iter().skip(1).step_by(2).map(|count| u64::from(*count)).sum()
    }

    /// Tight box in normalised coordinates; `None` when empty.
    pub fn bounds(&self) -> Option<NormBox> {
        let [mut x0, mut y0, mut x1, mut y1] = [u32::MAX, u32::MAX, 0, 0];
        self.for_each_run(|x, top, bottom| {
            (x0, y0) = (x0.min(x), y0.min(top));
            (x1, y1) = (x1.max(x + 1), y1.max(bottom));
        });
        let (w, h) = (self.width_px as f32, self.height_px as f32);
        (x1 > 0).then(|| NormBox {
            x0: x0 as f32 / w,
            y0: y0 as f32 / h,
            x1: x1 as f32 / w,
            y1: y1 as f32 / h,
        })
    }

    /// The COCO compressed text: LEB128-like, six bits a character from `'0'`, every count from the fourth on
    /// (index 3) stored as the difference to the count two before it.
    pub fn to_coco_string(&self) -> String {
        let mut text = String::with_capacity(self.counts.len() * 2);
        for (index, &count) in self.counts.iter().enumerate() {
            let mut x = i64::from(count);
            if index > 2 {
                x -= i64::from(self.counts[index - 2]);
            }
            loop {
                let mut c = (x & 0x1f) as u8;
                x >>= 5;
                let more = if c & 0x10 != 0 { x != -1 } else { x != 0 };
                if more {
                    c |= 0x20;
                }
                text.push(char::from(c + 48));
                if !more {
                    break;
                }
            }
        }
        text
    }

    /// Reads the COCO compressed text.
    ///
    /// # Errors
    /// `Kind::Encoding` on a character outside the alphabet, a number that does not end, a negative run, or
    /// runs that do not add up to the picture.
    pub fn from_coco_string(width_px: u32, height_px: u32, text: &str) -> Result<Self, ValueError> {
        let refuse = |expected: &str, at: usize| {
            ValueError::new(
                Kind::Encoding,
                "COCO run lengths",
                expected,
                format_args!("byte {at} of {text:?}"),
            )
        };
        let bytes = text.as_bytes();
        let mut counts: Vec<u32> = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let (mut x, mut shift) = (0_i64, 0_u32);
            loop {
                let Some(&byte) = bytes.get(at) else { return Err(refuse("a number that ends", at)) };
                if !(48..112).contains(&byte) || shift > 50 {
                    return Err(refuse("characters '0' to 'o'", at));
                }
                let c = i64::from(byte - 48);
                x |= (c & 0x1f) << shift;
                shift += 5;
                at += 1;
                if c & 0x20 == 0 {
                    if c & 0x10 != 0 {
                        x |= -1 << shift;
                    }
                    break;
                }
            }
            if counts.len() > 2 {
                x += i64::from(counts[counts.len() - 2]);
            }
            counts.push(u32::try_from(x).map_err(|_| refuse("run lengths of at least 0", at))?);
        }
        Self::new(width_px, height_px, counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disc(width: u32, height: u32) -> Mask {
        let mut mask = Mask::new(width, height);
        for y in 0..height {
            for x in 0..width {
                let (dx, dy) = (x as f32 - width as f32 / 2.5, y as f32 - height as f32 / 2.0);
                mask.data[(y * width + x) as usize] =
                    u8::from(dx * dx + dy * dy < 0.08 * (width * height) as f32);
            }
        }
        mask
    }

    /// Strings made by pycocotools 2.0.10, `mask.encode(numpy.asfortranarray(m))["counts"]`.
    #[test]
    fn text_form_is_that_of_pycocotools() {
        let all = Mask::from_bytes(4, 3, vec![1; 12]).unwrap();
        assert_eq!(Rle::encode(&all).to_coco_string(), "0<");
        let none = Mask::new(4, 3);
        assert_eq!(Rle::encode(&none).to_coco_string(), "<");
        let mut corner = Mask::new(4, 3);
        corner.data_mut()[0] = 1;
        assert_eq!(Rle::encode(&corner).counts(), [0, 1, 11]);
        assert_eq!(Rle::encode(&corner).to_coco_string(), "01;");
    }

    #[test]
    fn masks_survive_every_form() {
        for (name, mask) in [
            ("disc", disc(97, 61)),
            ("touching the corners", Mask::from_bytes(3, 2, vec![1, 0, 1, 1, 0, 1]).unwrap()),
            ("full", Mask::from_bytes(5, 7, vec![1; 35]).unwrap()),
            ("empty", Mask::new(5, 7)),
        ] {
            let rle = Rle::encode(&mask);
            assert_eq!(rle.decode(), mask, "{name}");
            assert_eq!(rle.area_px(), mask.area_px() as u64, "{name}");
            let text = rle.to_coco_string();
            assert_eq!(Rle::from_coco_string(mask.width_px, mask.height_px, &text).unwrap(), rle, "{name}");
            let bounds = mask.bounds_px().map(|b| b.map(|v| v as f32));
            assert_eq!(
                rle.bounds().map(|b| b.to_pixels(mask.width_px, mask.height_px).map(f32::round)),
                bounds,
                "{name}"
            );
        }
    }

    #[test]
    fn a_placed_mask_is_the_mask_drawn_there() {
        for (name, mask) in [
            ("disc", disc(9, 7)),
            ("full", Mask::from_bytes(9, 7, vec![1; 63]).unwrap()),
            ("empty", Mask::new(9, 7)),
        ] {
            for (x, y, width, height) in [(0, 0, 9, 7), (3, 0, 12, 7), (0, 5, 9, 12), (2, 4, 20, 15)] {
                let mut drawn = Mask::new(width, height);
                for (at, byte) in mask.data().iter().enumerate() {
                    let (dx, dy) = (at as u32 % 9, at as u32 / 9);
                    drawn.data_mut()[((y + dy) * width + x + dx) as usize] = *byte;
                }
                let placed = Rle::encode(&mask).placed(x, y, width, height).unwrap();
                assert_eq!(placed, Rle::encode(&drawn), "{name} at ({x}, {y})");
            }
            assert!(Rle::encode(&mask).placed(4, 0, 12, 7).is_err(), "{name}");
        }
    }

    #[test]
    fn garbage_text_is_an_error() {
        for text in ["", "~", "P", "0<<", "\u{e9}"] {
            assert!(Rle::from_coco_string(4, 3, text).is_err(), "{text:?}");
        }
    }
}
