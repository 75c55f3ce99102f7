//! What comes from a device once a frame: scores, and masks or logits.

use std::sync::Arc;

use sightline_core::{Rle, TensorViewMut};
use sightline_engine_api::{DeviceTensor, EngineError};

use super::{Graphs, timed};
use crate::{
    found::{Finder, Found, MaskCounts},
    said::LOGITS,
};

impl Graphs {
    /// On a device, waits for all that was said since [`Graphs::begin`]: scores, IoUs, and masks or logits.
    pub(crate) fn collect(&mut self) -> Result<(), EngineError> {
        self.collect_with(false)
    }

    /// The same with the logits.
    pub(crate) fn collect_logits(&mut self) -> Result<(), EngineError> {
        self.collect_with(true)
    }

    fn collect_with(&mut self, logits: bool) -> Result<(), EngineError> {
        let Self { said, finder, ground, times, .. } = self;
        if !ground.is_device() {
            return Ok(());
        }
        let said = &mut said[..self.taken];
        let mut finder = finder.as_mut().filter(|_| !logits);
        self.logits_here = match &mut finder {
            Some(finder) => finder.find(ground, said)?,
            None => true,
        };
        // Scores and IoUs lie before them.
        let mask = if self.logits_here { self.mask_elements } else { 0 };
        let parts = said.iter_mut().map(|said| said.values.downloaded(LOGITS + said.count * mask));
        let mut parts: Vec<_> = parts.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        parts.extend(finder.as_mut().and_then(|finder| finder.downloaded()));
        timed(&mut times.decoder, || ground.download(&mut parts))?;
        drop(parts);
        said.iter().try_for_each(|said| said.check("decoder", mask))?;
        finder.map_or(Ok(()), Finder::check)
    }

    /// The mask of the object in `lane`, where masks are made on the device.
    pub(crate) fn found(&mut self, seat: usize, lane: usize) -> Result<Option<Found>, EngineError> {
        let Self { said, finder, times, .. } = self;
        let logits = self.logits_here.then(|| said[seat].low_res(lane, self.mask_elements));
        let Some(finder) = finder else { return Ok(None) };
        timed(&mut times.postprocess, || finder.found(seat, lane, logits)).map(Some)
    }

    /// The size that masks are made at on the device; `None` where they are not.
    pub(crate) fn wanted(&self) -> Option<(u32, u32)> {
        self.finder.as_ref().and_then(Finder::wanted)
    }

    /// From now on masks are to be made at this size, or none.
    pub(crate) fn want(&mut self, size_px: Option<(u32, u32)>) {
        if let Some(finder) = &mut self.finder {
            finder.want(size_px);
        }
    }

    /// Whether the logits stay on the device.
    pub(crate) fn finds_masks(&self) -> bool {
        self.finder.is_some()
    }

    /// Where masks were made.
    pub(crate) fn mask_counts(&self) -> MaskCounts {
        self.finder.as_ref().map(|finder| finder.counts).unwrap_or_default()
    }

    /// Brings logits to the host, with one wait, and makes masks of them.
    pub(crate) fn fetch_masks(
        &mut self,
        logits: &[DeviceTensor],
        size_px: (u32, u32),
    ) -> Result<Vec<Arc<Rle>>, EngineError> {
        let Some(finder) = &mut self.finder else { return Ok(Vec::new()) };
        let mut values = vec![0.0; logits.len() * self.mask_elements];
        let views = values.chunks_exact_mut(self.mask_elements);
        let parts = logits
            .iter()
            .zip(views)
            .map(|(from, to)| Ok((from.clone(), TensorViewMut::f32(&[self.mask_elements], to)?)));
        let mut parts = parts.collect::<Result<Vec<_>, EngineError>>()?;
        timed(&mut self.times.decoder, || self.ground.download(&mut parts))?;
        drop(parts);
        values.chunks_exact(self.mask_elements).map(|logits| finder.upscale(logits, size_px)).collect()
    }
}
