//! Masks that are made where the logits are: on a device only their run lengths come to the host.

use std::sync::Arc;

use sightline_core::{DType, Rle, Shape, TensorViewMut};
use sightline_engine_api::{DeviceMasks, DeviceTensor, EngineError, Kind, MaskRoom, ModelSpec};
use sightline_vision::MaskUpscaler;

use crate::{
    said::Said,
    slab::{Ground, shaped},
};

/// Pictures of more pixels have their masks made on the host: 4K, with some to spare.
const MOST_PIXELS: usize = 4096 * 2304;

/// Masks of frames that a device has tracked, by where they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaskCounts {
    /// On the device.
    pub on_device: u64,
    /// On the host, from logits: a mask of more runs than the device has room for, a picture of too many pixels, or one
    /// asked for after its frame.
    pub on_host: u64,
}

/// What is known of an object's mask without its logits.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// A logit is positive.
    pub(crate) positive: bool,
    /// At the picture's size, if one was wanted and came.
    pub(crate) mask: Option<Arc<Rle>>,
}

/// Makes a frame's masks on the device.
pub(crate) struct Finder {
    device: Box<dyn DeviceMasks>,
    /// What it leaves of a frame, there and here.
    place: DeviceTensor,
    words: Vec<i64>,
    /// The size of the logits.
    low_px: (u32, u32),
    upscaler: MaskUpscaler,
    /// The size of the masks that are wanted.
    wanted: Option<(u32, u32)>,
    /// Of the masks of this frame.
    room: Option<MaskRoom>,
    /// The first mask of each decoder run, and behind the last.
    firsts: Vec<usize>,
    /// A mask of the last frame had more runs than there is room for.
    dense: bool,
    pub(crate) counts: MaskCounts,
}

impl Finder {
    /// For at most `most` objects a frame, `lanes` a run; `None` where the device makes no masks.
    pub(crate) fn new(
        ground: &Ground,
        spec: &ModelSpec,
        lanes: usize,
        most: usize,
    ) -> Result<Option<Self>, EngineError> {
        let (width, height) = (spec.masks.width_px, spec.masks.height_px);
        let pairs = most * MaskRoom::most_words() / 2;
        let device = ground.masks(lanes, MOST_PIXELS.max(width * height))?;
        let (Some(device), Some(place)) = (device, ground.tensor(DType::I64, pairs)?) else {
            return Ok(None);
        };
        Ok(Some(Self {
            device,
            place,
            words: vec![0; pairs],
            low_px: (width as u32, height as u32),
            upscaler: MaskUpscaler::new(width, height),
            wanted: None,
            room: None,
            firsts: Vec::with_capacity(most + 1),
            dense: false,
            counts: MaskCounts::default(),
        }))
    }

    /// From now on masks are made at this size; or none, and of logits it is only said whether they are numbers.
    pub(crate) fn want(&mut self, size_px: Option<(u32, u32)>) {
        self.wanted = size_px;
    }

    /// The size that is wanted.
    pub(crate) fn wanted(&self) -> Option<(u32, u32)> {
        self.wanted
    }

    /// Has the masks of decoder runs made. Gives whether their logits are to come to the host too, as masks are to be
    /// made of them there.
    pub(crate) fn find(&mut self, ground: &Ground, said: &[Said]) -> Result<bool, EngineError> {
        let (width, height) = self.wanted.unwrap_or(self.low_px);
        self.firsts.clear();
        let firsts = said.iter().scan(0, |end, said| {
            *end += said.count;
            Some(*end)
        });
        self.firsts.extend(std::iter::once(0).chain(firsts));
        let all = self.firsts.last().copied().unwrap_or(0);
        let room = MaskRoom::new(width, height).filter(|room| {
            room.pixels() <= MOST_PIXELS.max(self.pixels()) && all * room.words() / 2 <= self.words.len()
        });
        self.room = room;
        let Some(room) = room else { return Ok(true) };
        let pairs = room.words() / 2;
        for (first, said) in self.firsts.iter().zip(said) {
            let Some(logits) = said.logits(said.count * self.pixels()) else { continue };
            let dims = [said.count, 1, self.low_px.1 as usize, self.low_px.0 as usize];
            let logits = shaped(&logits, Shape::new(&dims)?);
            let to = self.place.part(first * pairs, said.count * pairs);
            ground.find_masks(&mut *self.device, &logits, room, &to)?;
        }
        Ok(self.dense && self.wanted.is_some())
    }

    fn pixels(&self) -> usize {
        self.low_px.0 as usize * self.low_px.1 as usize
    }

    /// What was left of all masks of the frame, and where it goes on the host.
    pub(crate) fn downloaded(&mut self) -> Option<(DeviceTensor, TensorViewMut<'_>)> {
        let len = self.firsts.last()? * self.room?.words() / 2;
        let tensor = self.place.part(0, len);
        let view = TensorViewMut::I64(tensor.shape, &mut self.words[..len]);
        (len > 0).then_some((tensor, view))
    }

    /// Looks at what came. A number that is none must not reach the memory, where it would stay.
    pub(crate) fn check(&mut self) -> Result<(), EngineError> {
        let Some(room) = self.room else { return Ok(()) };
        let all = self.firsts.last().copied().unwrap_or(0);
        let heads = self.words.chunks_exact(room.words() / 2).take(all).map(|words| room.head(words));
        let (mut dense, mut finite) = (false, true);
        for head in heads {
            dense |= head.changes > room.most_changes();
            finite &= head.finite;
        }
        self.dense = dense && self.wanted.is_some();
        if finite {
            return Ok(());
        }
        let got = "a mask logit that is none";
        Err(EngineError::new(Kind::Run, "decoder outputs", "finite numbers", got))
    }

    /// The mask of one lane of a decoder run; `logits` are its, if they came.
    pub(crate) fn found(
        &mut self,
        seat: usize,
        lane: usize,
        logits: Option<&[f32]>,
    ) -> Result<Found, EngineError> {
        let first = self.firsts.get(seat).copied().unwrap_or(0);
        let mut found = Found { positive: false, mask: None };
        if let Some(room) = self.room {
            let words = self.words.chunks_exact(room.words() / 2).nth(first + lane).unwrap_or_default();
            found.positive = room.head(words).positive;
            if self.wanted.is_some() {
                let runs = room.runs(words).map_err(|error| {
                    EngineError::new(Kind::Run, "masks from the device", "whole ones", error)
                })?;
                self.counts.on_device += u64::from(runs.is_some());
                found.mask = runs.map(Arc::new);
            }
        } else if let Some(logits) = logits {
            found.positive = logits.iter().any(|logit| *logit > 0.0);
        }
        if let (None, Some(size), Some(logits)) = (&found.mask, self.wanted, logits) {
            found.mask = Some(self.upscale(logits, size)?);
        }
        Ok(found)
    }

    /// Makes a mask here.
    pub(crate) fn upscale(
        &mut self,
        logits: &[f32],
        (width_px, height_px): (u32, u32),
    ) -> Result<Arc<Rle>, EngineError> {
        let mask = self.upscaler.run(logits, width_px, height_px)?;
        self.counts.on_host += 1;
        Ok(Arc::new(mask))
    }
}
