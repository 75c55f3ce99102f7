//! Masks that a device makes of logits, and how it leaves them.

use std::fmt;

use sightline_core::{Rle, ValueError};

use crate::{DeviceTensor, EngineError, Stream};

/// Turns mask logits on a device into masks at a picture's size there. Owns its scratch, sized when it was made
/// ([`DeviceOps::masks`](crate::DeviceOps::masks)); one is for one stream.
pub trait DeviceMasks: Send + fmt::Debug {
    /// Makes masks of `logits` `[B,1,h,w]` (positive means object) that cover a whole picture of the room's size: what
    /// PyTorch's `F.interpolate(mode="bilinear", align_corners=False) > 0` gives in f32, as
    /// `sightline_vision::MaskUpscaler` does. They are left in `to`, i64 of `B * room.words() / 2`, as [`MaskRoom`]
    /// says. Waits for nothing.
    ///
    /// # Errors
    /// As [`DeviceOps`](crate::DeviceOps); `Kind::Interface` also for more objects or pixels than it was made for.
    fn find_to(
        &mut self,
        stream: Stream,
        logits: &DeviceTensor,
        room: MaskRoom,
        to: &DeviceTensor,
    ) -> Result<(), EngineError>;
}

/// How masks of one size lie one behind the other, in words of 32 bits, two in each i64 as memory has them: a head of
/// [`MaskRoom::HEAD_WORDS`], then the run lengths, down the columns and beginning with what is not set, if there are no
/// more changes than [`MaskRoom::most_changes`].
///
/// The head is: set pixels; the tight box x0, y0, x1, y1 in pixels, the latter two exclusive; changes between set and
/// not set, the first pixel preceded by one that is not; whether a logit is no finite number; whether one is positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskRoom {
    width_px: u32,
    height_px: u32,
}

impl MaskRoom {
    /// Words before the run lengths.
    pub const HEAD_WORDS: usize = 8;
    /// Changes for which there is room in a picture of any size.
    pub const MOST_CHANGES: u32 = 4 * 4096;
    /// A side in pixels, at most.
    pub const MOST_SIDE_PX: u32 = 0xffff;

    /// For pictures of a size that has pixels, and no side above [`MaskRoom::MOST_SIDE_PX`].
    pub fn new(width_px: u32, height_px: u32) -> Option<Self> {
        let sides = 1..=Self::MOST_SIDE_PX;
        (sides.contains(&width_px) && sides.contains(&height_px)).then_some(Self { width_px, height_px })
    }

    /// Columns and rows.
    pub fn size_px(self) -> (u32, u32) {
        (self.width_px, self.height_px)
    }

    /// Pixels.
    pub fn pixels(self) -> usize {
        self.width_px as usize * self.height_px as usize
    }

    /// Changes there is room for: two stretches of the object in every column. What has more is told in the head alone.
    pub fn most_changes(self) -> u32 {
        (4 * self.width_px).min(Self::MOST_CHANGES)
    }

    /// Words a mask takes; an even number.
    pub fn words(self) -> usize {
        (Self::HEAD_WORDS + self.most_changes() as usize + 1).next_multiple_of(2)
    }

    /// Words a mask of any size takes at most.
    pub fn most_words() -> usize {
        (Self::HEAD_WORDS + Self::MOST_CHANGES as usize + 1).next_multiple_of(2)
    }

    /// The head of the mask at the beginning of these.
    pub fn head(self, words: &[i64]) -> MaskHead {
        let head: [u32; Self::HEAD_WORDS] = std::array::from_fn(|at| word(words, at));
        let [area_px, x0, y0, x1, y1, changes, faulty, positive] = head;
        MaskHead {
            area_px,
            bounds_px: (area_px > 0).then_some([x0, y0, x1, y1]),
            changes,
            finite: faulty == 0,
            positive: positive != 0,
        }
    }

    /// Its run lengths; `None` when there was no room for them.
    ///
    /// # Errors
    /// `Kind::Encoding` when they do not add up to the picture.
    pub fn runs(self, words: &[i64]) -> Result<Option<Rle>, ValueError> {
        let changes = self.head(words).changes;
        if changes > self.most_changes() {
            return Ok(None);
        }
        let counts = Self::HEAD_WORDS..=Self::HEAD_WORDS + changes as usize;
        Rle::new(self.width_px, self.height_px, counts.map(|at| word(words, at)).collect()).map(Some)
    }
}

/// What there is behind the end is 0.
fn word(words: &[i64], at: usize) -> u32 {
    let bytes = words.get(at / 2).map_or([0; 8], |pair| pair.to_ne_bytes());
    bytes.as_chunks::<4>().0.get(at % 2).map_or(0, |word| u32::from_ne_bytes(*word))
}

/// What is known of a mask without its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskHead {
    /// Set pixels; not counted where there are more changes than there is room for.
    pub area_px: u32,
    /// Tight box `[x0, y0, x1, y1]` in pixels, the latter two exclusive; `None` when nothing is set or it was not
    /// counted.
    pub bounds_px: Option<[u32; 4]>,
    /// Changes between set and not set.
    pub changes: u32,
    /// All logits are finite numbers.
    pub finite: bool,
    /// A logit is positive.
    pub positive: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(words: &[u32]) -> Vec<i64> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.as_chunks::<8>().0.iter().map(|pair| i64::from_ne_bytes(*pair)).collect()
    }

    #[test]
    fn a_mask_is_read_as_it_lies() {
        let room = MaskRoom::new(3, 2).unwrap();
        assert_eq!((room.most_changes(), room.words()), (12, 22));
        // The middle column: 2 not set, 2 set, 2 not set.
        let mut words = [vec![2, 1, 0, 2, 2, 2, 0, 1], vec![2, 2, 2], vec![9; 11]].concat();
        let head =
            MaskHead { area_px: 2, bounds_px: Some([1, 0, 2, 2]), changes: 2, finite: true, positive: true };
        assert_eq!(room.head(&pairs(&words)), head);
        assert_eq!(room.runs(&pairs(&words)).unwrap().unwrap().counts(), [2, 2, 2]);
        words[8] = 3;
        let error = room.runs(&pairs(&words)).unwrap_err();
        assert_eq!(error.to_string(), "run lengths of a 3x2 mask: expected a sum of 6, got 7");
        words[5] = 13;
        assert_eq!(room.runs(&pairs(&words)).unwrap(), None, "there is room for 12");
        assert!(room.runs(&[]).is_err(), "nothing at all");
    }

    #[test]
    fn room_is_bounded() {
        assert!(MaskRoom::new(0, 5).is_none() && MaskRoom::new(5, 0x1_0000).is_none());
        for (width, changes) in [(1, 4), (1280, 5120), (4096, 16384), (65_535, 16384)] {
            let room = MaskRoom::new(width, 1).unwrap();
            assert_eq!(room.most_changes(), changes);
            assert!(room.words() <= MaskRoom::most_words());
        }
    }
}
