//! `decoder_prompt` and what it is given.

use std::mem::take;

use sightline_core::TensorView;
use sightline_engine_api::EngineError;

use super::{Graphs, LOGIT_LIMIT, fill_clamped, timed};
use crate::{
    binder::{Given, Source},
    object::Logits,
    said::{IOUS, LOGITS, Places, SCORES, place},
    slab::Slab,
};

/// Clicks and box corners.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Points<'a> {
    /// `[N,2]`
    pub(crate) coords: &'a [f32],
    /// `[N]`
    pub(crate) labels: &'a [f32],
    pub(crate) multimask: bool,
}

impl Graphs {
    /// Sets `mask_input` to the logits of an earlier run on the same frame.
    pub(crate) fn set_mask_input(&mut self, logits: &Logits<'_>) -> Result<(), EngineError> {
        match (logits, self.mask_input.device(0, self.mask_elements)) {
            (Logits::Device(from), Some(to)) => return self.ground.clamp(from, LOGIT_LIMIT, &to),
            (Logits::Host(from), _) => fill_clamped(self.mask_input.host_mut(), Some(from)),
            _ => {} // one model is on one ground
        }
        self.mask_input.tell(&self.ground, 0, self.mask_elements)
    }

    /// The same where nobody has waited for that run yet.
    pub(crate) fn refine_decoded(&mut self, seat: usize, lane: usize) -> Result<(), EngineError> {
        let mask = self.mask_elements;
        let logits = self.said[seat].values.device(LOGITS + lane * mask, mask);
        match logits.zip(self.mask_input.device(0, mask)) {
            Some((from, to)) => self.ground.clamp(&from, LOGIT_LIMIT, &to),
            None => Ok(()),
        }
    }

    /// Makes `pix_feat` without memory: the top level, plus `no_mem_embed` unless the prompt is a mask.
    pub(crate) fn ignore_memory(&mut self, features: &[Slab], embed: bool) -> Result<(), EngineError> {
        if !self.prompts_take_pix_feat() {
            return Ok(());
        }
        let (top, size) = (&features[self.top], features[self.top].len());
        let channels = self.spec.no_mem_embed.len();
        let embed = embed && channels > 0;
        if let Some((from, to)) = top.device(0, size).zip(self.pix_feat.device(0, size)) {
            return match self.no_mem_embed.as_ref().filter(|_| embed) {
                Some(values) => self.ground.add_channels(&from, values, &to),
                None => self.ground.copy(&from, &to),
            };
        }
        let pix_feat = &mut self.pix_feat.host_mut()[..size];
        pix_feat.copy_from_slice(top.host());
        if embed {
            let plane = pix_feat.len() / channels;
            for (plane, value) in pix_feat.chunks_exact_mut(plane).zip(&self.spec.no_mem_embed) {
                plane.iter_mut().for_each(|feature| *feature += value);
            }
        }
        Ok(())
    }

    /// `decoder_prompt` with clicks or a box, and if `refine` the logits of [`Graphs::set_mask_input`].
    pub(crate) fn decode_points(
        &mut self,
        features: &[Slab],
        points: Points<'_>,
        refine: bool,
        seat: usize,
        places: &Places,
    ) -> Result<(), EngineError> {
        if !refine {
            self.mask_input.clear(&self.ground, 0, self.mask_elements)?;
        }
        self.decode_prompt(features, points, refine, seat, places)
    }

    /// A mask as it was given: its own logits, and where the model has it a pointer from `decoder_prompt`.
    pub(crate) fn decode_mask(
        &mut self,
        features: &[Slab],
        full: &[f32],
        low_res: &[f32],
        seat: usize,
        places: &Places,
    ) -> Result<(), EngineError> {
        let size = self.pointer.len() / self.lanes;
        let zeros = vec![0.0; size];
        self.set_pointer(&zeros, places)?;
        if let Some(downsample) =
            self.bound.mask_downsample.as_mut().filter(|_| self.spec.prompts.mask_decoder)
        {
            let mask = self.ground.give(TensorView::f32(&[full.len()], full)?, &self.mask_prompt)?;
            let given = Given { tensors: &[(Source::Mask, mask)], ..Given::default() };
            let outputs = &mut [Some(self.mask_input.place(0, self.mask_elements)?)];
            timed(&mut self.times.decoder, || downsample.run(1, &given, outputs))?;
            self.ignore_memory(features, false)?;
            // Padding only.
            let padding = (take(&mut self.padding.0), take(&mut self.padding.1));
            let points = Points { coords: &padding.0, labels: &padding.1, multimask: false };
            let done = self.decode_prompt(features, points, true, seat, places);
            self.padding = padding;
            done?;
        }
        let present = full.iter().any(|inside| *inside > 0.0);
        if !present && !self.spec.no_obj_ptr.is_empty() {
            let pointer = take(&mut self.spec.no_obj_ptr);
            let done = self.set_pointer(&pointer, places);
            self.spec.no_obj_ptr = pointer;
            done?;
        }
        let said = &mut self.said[seat];
        said.count = said.count.max(1);
        let values = said.values.host_mut();
        values[LOGITS..][..low_res.len()].copy_from_slice(low_res);
        values[IOUS] = 1.0;
        values[SCORES] = if present { 10.0 } else { -10.0 };
        for (start, len) in [(SCORES, 1), (IOUS, 1), (LOGITS, low_res.len())] {
            said.values.tell(&self.ground, start, len)?;
        }
        Ok(())
    }

    fn set_pointer(&mut self, pointer: &[f32], places: &Places) -> Result<(), EngineError> {
        if !self.ground.is_device() {
            self.pointer.host_mut()[..pointer.len()].copy_from_slice(pointer);
            return Ok(());
        }
        let Some(place) = places.pointers.first() else { return Ok(()) };
        self.ground.give(TensorView::f32(&[pointer.len()], pointer)?, &Some(place.clone())).map(drop)
    }

    fn decode_prompt(
        &mut self,
        features: &[Slab],
        points: Points<'_>,
        has_mask: bool,
        seat: usize,
        places: &Places,
    ) -> Result<(), EngineError> {
        let Points { coords, labels, multimask } = points;
        let (mask, count) = (self.mask_elements, labels.len());
        let ground = &self.ground;
        let tensors = [
            (Source::PixFeat, self.pix_feat.given(0, self.pix_feat.len() / self.lanes)?),
            (Source::PrevMask, self.prev_mask.given(0, mask)?),
            (Source::PointCoords, ground.give(TensorView::f32(&[1, count, 2], coords)?, &self.points[0])?),
            (Source::PointLabels, ground.give(TensorView::f32(&[1, count], labels)?, &self.points[1])?),
            (Source::MaskInput, self.mask_input.given(0, mask)?),
            (Source::HasMaskInput, self.flags.floats(has_mask, 1)?),
            (Source::Multimask, self.flags.int(multimask)?),
        ];
        let given = Given { features, tensors: &tensors, ..Given::default() };
        let size = self.pointer.len() / self.lanes;
        let objects = self.said[seat].count;
        let [low_res, iou, score] = self.said[seat].places(1, mask)?;
        let pointer = place(&mut self.pointer, &places.pointers, size)?;
        let outputs = &mut [low_res, iou, score, Some(pointer)];
        timed(&mut self.times.decoder, || self.bound.decoder_prompt.run(1, &given, outputs))?;
        // Others may be seated there, who were tracked together with this one.
        self.said[seat].count = objects.max(1);
        self.check_numbers("decoder_prompt", seat)
    }
}
