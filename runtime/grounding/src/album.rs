//! What tracked objects looked like a moment ago: the pictures that a question about an object takes along.
//!
//! VideoRefer (Yuan et al., CVPR 2025) shows a model the object on several frames rather than on one; a general model gets
//! the same as close-ups over time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use sightline_core::{FrameStamp, ObjectId};

use crate::{GroundingError, Kind, llm::Image, protocol::Sent};

/// How much an [`Album`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlbumSettings {
    /// Objects, in 1..=1024; a further one takes the place of the one not seen for longest.
    pub objects: usize,
    /// Close-ups of each, at most 64; 0 keeps none.
    pub crops: usize,
    /// Least time between two of one object.
    pub every: Duration,
    /// Longest side of one, in 1..=1024 pixels.
    pub longest_px: u32,
}

impl Default for AlbumSettings {
    fn default() -> Self {
        Self { objects: 16, crops: 4, every: Duration::from_secs(1), longest_px: 224 }
    }
}

/// An object on one frame.
#[derive(Debug, Clone)]
pub struct Crop {
    /// The frame it was cut from.
    pub stamp: FrameStamp,
    /// Where: `[x0, y0, x1, y1]` in pixels of the frame, the latter two exclusive.
    pub part_px: [u32; 4],
    /// The picture, no side longer than [`AlbumSettings::longest_px`].
    pub image: Image,
}

/// The newest close-ups of every object, at least so far apart. It never holds more than `objects * crops` pictures of
/// `longest_px * longest_px * 3` bytes.
#[derive(Debug, Clone)]
pub struct Album {
    settings: AlbumSettings,
    pages: BTreeMap<ObjectId, VecDeque<Crop>>,
}

impl Album {
    /// An empty one.
    ///
    /// # Errors
    /// `Kind::Settings` for a number out of range.
    pub fn new(settings: AlbumSettings) -> Result<Self, GroundingError> {
        let AlbumSettings { objects, crops, longest_px, .. } = settings;
        if !(1..=1024).contains(&objects) || crops > 64 || !(1..=1024).contains(&longest_px) {
            return Err(GroundingError::new(
                Kind::Settings,
                "album",
                "objects in 1..=1024, crops in 0..=64, longest_px in 1..=1024",
                format_args!("objects {objects}, crops {crops}, longest_px {longest_px}"),
            ));
        }
        Ok(Self { settings, pages: BTreeMap::new() })
    }

    /// Whether a close-up of an object on this frame would be kept: ask before cutting one. Of a stream without times
    /// there is one of each object.
    pub fn is_due(&self, id: ObjectId, stamp: FrameStamp) -> bool {
        let Some(last) = self.pages.get(&id).and_then(VecDeque::back) else { return self.settings.crops > 0 };
        let waited = match (time(stamp), time(last.stamp)) {
            (Some(now), Some(then)) => now.checked_sub(then),
            _ => None,
        };
        stamp.index > last.stamp.index && waited.is_some_and(|waited| waited >= self.settings.every)
    }

    /// The size to scale a part of a frame to.
    pub fn size_px(&self, [x0, y0, x1, y1]: [u32; 4]) -> [u32; 2] {
        Sent::fit([x1.saturating_sub(x0), y1.saturating_sub(y0)], self.settings.longest_px)
    }

    /// Keeps a close-up if one is due; whether it was. The oldest of the object's goes when there are too many.
    ///
    /// # Errors
    /// `Kind::Request` when a side is longer than [`AlbumSettings::longest_px`].
    pub fn put(&mut self, id: ObjectId, crop: Crop) -> Result<bool, GroundingError> {
        let [width, height] = crop.image.size_px();
        let longest = self.settings.longest_px;
        if width.max(height) > longest {
            let subject = format!("close-up of object {id}");
            let got = format!("{width}x{height}");
            return Err(GroundingError::new(
                Kind::Request,
                subject,
                format_args!("sides of at most {longest}"),
                got,
            ));
        }
        if !self.is_due(id, crop.stamp) {
            return Ok(false);
        }
        if self.pages.len() == self.settings.objects && !self.pages.contains_key(&id) {
            let seen = |page: &VecDeque<Crop>| page.back().map(|crop| crop.stamp.index);
            let stalest = self.pages.iter().min_by_key(|(_, page)| seen(page)).map(|(id, _)| *id);
            stalest.map(|id| self.pages.remove(&id));
        }
        let page = self.pages.entry(id).or_default();
        if page.len() == self.settings.crops {
            page.pop_front();
        }
        page.push_back(crop);
        Ok(true)
    }

    /// Forgets every object that is not among these: call it with those still tracked.
    pub fn keep_only(&mut self, ids: &[ObjectId]) {
        self.pages.retain(|id, _| ids.contains(id));
    }

    /// Forgets everything: after a seek, or with another stream.
    pub fn clear(&mut self) {
        self.pages.clear();
    }

    /// The close-ups of an object, oldest first.
    pub fn crops(&self, id: ObjectId) -> impl Iterator<Item = &Crop> {
        self.pages.get(&id).into_iter().flatten()
    }

    /// Bytes of the pictures held.
    pub fn bytes(&self) -> usize {
        let pixels = |crop: &Crop| crop.image.size_px().map(|side| side as usize).iter().product::<usize>();
        self.pages.values().flatten().map(|crop| 3 * pixels(crop)).sum()
    }
}

/// Running time never goes back; a file's own time does, after a seek.
fn time(stamp: FrameStamp) -> Option<Duration> {
    stamp.running_time.or(stamp.pts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(index: u64, ms: u64) -> FrameStamp {
        let time = Some(Duration::from_millis(ms));
        FrameStamp { index, pts: time, running_time: time }
    }

    fn crop(index: u64, ms: u64, side: u32) -> Crop {
        let image = Image::new(side, side, vec![0; (side * side * 3) as usize].into()).unwrap();
        Crop { stamp: stamp(index, ms), part_px: [0, 0, side, side], image }
    }

    fn album(objects: usize, crops: usize) -> Album {
        let every = Duration::from_millis(500);
        Album::new(AlbumSettings { objects, crops, every, longest_px: 8 }).unwrap()
    }

    fn kept(album: &Album, id: u32) -> Vec<u64> {
        album.crops(ObjectId(id)).map(|crop| crop.stamp.index).collect()
    }

    #[test]
    fn the_newest_at_least_so_far_apart() {
        let mut album = album(2, 3);
        for index in 0..100 {
            // 25 frames a second: one in 13 is 500 ms or more after the last.
            let crop = crop(index, 40 * index, 8);
            assert_eq!(album.is_due(ObjectId(1), crop.stamp), index % 13 == 0, "{index}");
            assert_eq!(album.put(ObjectId(1), crop).unwrap(), index % 13 == 0, "{index}");
        }
        assert_eq!(kept(&album, 1), [65, 78, 91]);
        assert!(!album.put(ObjectId(1), crop(90, 60_000, 8)).unwrap(), "an older frame");
    }

    #[test]
    fn memory_is_constant() {
        let mut album = album(4, 3);
        for n in 0..10_000 {
            album.put(ObjectId(n as u32 % 50), crop(n, 1000 * n, 8)).unwrap();
            assert!(album.bytes() <= 4 * 3 * 8 * 8 * 3 && album.pages.len() <= 4);
        }
        assert_eq!(kept(&album, 9_999 % 50), [9_999], "what came last is there");
        let error = album.put(ObjectId(1), crop(20_000, 90_000_000, 9)).expect_err("too large");
        assert_eq!(error.to_string(), "close-up of object 1: expected sides of at most 8, got 9x9");
    }

    #[test]
    fn objects_that_go_are_forgotten() {
        let mut album = album(4, 2);
        for id in [1, 2, 3] {
            album.put(ObjectId(id), crop(0, 0, 4)).unwrap();
        }
        album.keep_only(&[ObjectId(2), ObjectId(7)]);
        assert_eq!((kept(&album, 1).len(), kept(&album, 2).len(), kept(&album, 3).len()), (0, 1, 0));
        // An id that is used again begins a new page.
        assert!(album.is_due(ObjectId(1), stamp(1, 1)));
        album.clear();
        assert_eq!(album.bytes(), 0);
    }

    #[test]
    fn none_are_kept_where_none_are_wanted() {
        let mut album = album(1, 0);
        assert!(!album.is_due(ObjectId(1), stamp(0, 0)));
        assert!(!album.put(ObjectId(1), crop(0, 0, 8)).unwrap());
        assert_eq!(album.size_px([10, 10, 42, 26]), [8, 4]);
        let bad = AlbumSettings { objects: 0, ..AlbumSettings::default() };
        assert!(Album::new(bad).is_err());
    }
}
