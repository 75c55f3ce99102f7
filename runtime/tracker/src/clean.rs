use sightline_core::ValueError;
use sightline_vision::ComponentFilter;

/// What is tidied in the masks that are handed out, in pixels of the model's low-res masks; 0 leaves it alone. What
/// the tracker remembers is never tidied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CleanUp {
    /// Holes of at most this area are filled; 8 is `fill_hole_area` of the published SAM 2 video predictor.
    pub fill_hole_area_px: usize,
    /// Specks of at most this area, and at most half the object's, are removed.
    pub sprinkle_area_px: usize,
}

/// A [`CleanUp`] with its scratch.
#[derive(Debug)]
pub(crate) struct Cleaner {
    clean_up: CleanUp,
    filter: ComponentFilter,
    logits: Vec<f32>,
}

impl Cleaner {
    /// For logits of `width` x `height`; none if there is nothing to be done.
    pub(crate) fn new(clean_up: CleanUp, width: usize, height: usize) -> Option<Self> {
        (clean_up != CleanUp::default()).then(|| Self {
            clean_up,
            filter: ComponentFilter::new(width, height),
            logits: Vec::with_capacity(width * height),
        })
    }

    /// A tidied copy: holes first, as `fill_holes_in_mask_scores` of SAM 3 does both.
    pub(crate) fn run(&mut self, low_res: &[f32]) -> Result<&[f32], ValueError> {
        self.logits.clear();
        self.logits.extend_from_slice(low_res);
        self.filter.fill_holes(&mut self.logits, self.clean_up.fill_hole_area_px)?;
        self.filter.remove_sprinkles(&mut self.logits, self.clean_up.sprinkle_area_px)?;
        Ok(&self.logits)
    }
}
