//! What there may be in a frame, whatever it is: class-agnostic proposals from the prompt decoder.
//!
//! A grid of clicks, then a box around each of the best masks they gave: a small model gives a better mask for a box than
//! for a click, and knows better how good it is. One decoder run a step, so that live frames come first.

use std::sync::Arc;

use sightline_core::{NormBox, NormPoint};
use sightline_engine_api::{EngineError, ModelSpec};
use sightline_vision::{ComponentFilter, Region};

use crate::{
    At, Tracker, TrackerError,
    frames::Found,
    graphs::{Graphs, Points},
    prompt::{Ask, Resolved},
    said::Places,
    session::Eyes,
    slab::Slab,
    view::{Sights, Viewer},
};

/// How proposals are looked for. The defaults were chosen by the recall of the objects of twelve DAVIS sequences, see the
/// room's README.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProposalOptions {
    /// Clicks across and down the view.
    pub grid: [usize; 2],
    /// Masks of the clicks that are tried again by their box, the best first.
    pub boxes: usize,
    /// Proposals at the end, the best first.
    pub most: usize,
    /// Of two masks with a greater IoU than this only the better one is kept.
    pub overlap: f32,
    /// The least and the greatest part of the view a proposal covers.
    pub area: [f32; 2],
    /// The least [`Proposal::stability`].
    pub stability: f32,
}

impl Default for ProposalOptions {
    fn default() -> Self {
        Self { grid: [8, 5], boxes: 24, most: 24, overlap: 0.7, area: [0.002, 0.6], stability: 0.0 }
    }
}

/// Something in a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Its low-res mask, and the part of the picture that it covers.
    pub region: Region,
    /// Tight box in the whole picture.
    pub bounds: NormBox,
    /// Share of the whole picture, in `[0, 1]`.
    pub area: f32,
    /// The model's own estimate in `[0, 1]` of the mask's IoU.
    pub iou: f32,
    /// IoU in `[0, 1]` of the masks at logits above 1 and above -1: low where the model hesitates about the edge.
    pub stability: f32,
    /// It came from one of the boxes that were given as hints.
    pub hinted: bool,
}

/// Half the distance of the two thresholds that stability compares.
const STABILITY_LOGIT: f32 = 1.0;
/// Masks of the first pass with a greater IoU than this would give the same box.
const SAME_BOX: f32 = 0.6;
/// Share of the view below which a hole or a sprinkle is no part of a shape.
const SPRINKLE: f32 = 0.003;

/// Looks for proposals on one frame, one decoder run a step. Made for a query, not for every frame: about a hundred
/// low-res bit masks are allocated.
#[derive(Debug)]
pub struct Proposer {
    options: ProposalOptions,
    /// What the model saw of the frame, and the part of the picture that is.
    features: Vec<Slab>,
    _taken: Arc<()>,
    view: NormBox,
    /// Prompts to be tried, the next one last; with whether they come from a hint.
    open: Vec<(Ask, bool)>,
    boxes_made: bool,
    takes_boxes: bool,
    found: Vec<Proposal>,
    logits: Vec<f32>,
    filter: ComponentFilter,
}

impl Proposer {
    /// For a frame of which the model saw `view`. Hints are boxes in the whole picture where something may be, as
    /// where something moves; those that hang out of the view are clipped, those outside are left out.
    pub(crate) fn new(
        spec: &ModelSpec,
        options: ProposalOptions,
        (features, taken): (Vec<Slab>, Arc<()>),
        view: NormBox,
        hints: &[NormBox],
    ) -> Self {
        let (width, height) = (spec.masks.width_px, spec.masks.height_px);
        let mut open = Vec::with_capacity(hints.len() + options.grid[0] * options.grid[1]);
        if spec.prompts.points {
            let [columns, rows] = options.grid;
            for at in (0..columns * rows).rev() {
                let share = |at: usize, of: usize| (at as f32 + 0.5) / of as f32;
                let (x, y) = (share(at % columns, columns), share(at / columns, rows));
                let at = NormPoint { x: view.x0 + x * view.width(), y: view.y0 + y * view.height() };
                open.push((Ask::Points([(at, 1.0)].into()), false));
            }
        }
        let clipped = hints.iter().rev().filter_map(|hint| {
            let [x0, x1] = [hint.x0, hint.x1].map(|x| x.clamp(view.x0, view.x1));
            let [y0, y1] = [hint.y0, hint.y1].map(|y| y.clamp(view.y0, view.y1));
            (x0 < x1 && y0 < y1).then_some(NormBox { x0, y0, x1, y1 })
        });
        if spec.prompts.boxes {
            open.extend(clipped.map(|hint| (Ask::corners(hint), true)));
        }
        Self {
            options,
            features,
            _taken: taken,
            view,
            open,
            boxes_made: !spec.prompts.boxes,
            takes_boxes: spec.prompts.boxes,
            found: Vec::new(),
            logits: vec![0.0; width * height],
            filter: ComponentFilter::new(width, height),
        }
    }

    /// Runs the decoder once on the frame's features; `true` when there is nothing left to try.
    ///
    /// # Errors
    /// When the graph fails. What was found so far stays; the prompt that failed is not tried again.
    pub(crate) fn step(&mut self, graphs: &mut Graphs) -> Result<bool, EngineError> {
        let Some((ask, hinted)) = self.open.pop() else { return Ok(true) };
        if let Resolved::Points { coords, labels, multimask } =
            ask.resolve(&graphs.spec, graphs.fixed_points(), self.view)
        {
            graphs.begin();
            graphs.set_prev_mask(0, None, NormBox::WHOLE)?;
            graphs.ignore_memory(&self.features, true)?;
            let (seat, places) = (graphs.take_seat(1), Places::default());
            let points = Points { coords: &coords, labels: &labels, multimask };
            graphs.decode_points(&self.features, points, false, seat, &places)?;
            graphs.collect_logits()?;
            self.logits.copy_from_slice(graphs.low_res(seat, 0));
            self.take(graphs.decoded(seat, 0).iou, graphs.spec.masks.width_px, hinted);
        }
        if self.open.is_empty() && !std::mem::replace(&mut self.boxes_made, true) {
            self.make_boxes();
        }
        Ok(self.open.is_empty())
    }

    /// Decoder runs that are still to come, as far as is known.
    pub fn steps_left(&self) -> usize {
        self.open.len()
    }

    /// What was found, the best first. Before the last step: what has been found by then.
    pub fn finish(mut self) -> Vec<Proposal> {
        self.found.retain(|found| !found.region.spans_view());
        let mut kept = distinct(self.found, self.options.overlap);
        kept.truncate(self.options.most);
        kept
    }

    /// Cleans the mask in `logits` and keeps it if it may be a thing.
    fn take(&mut self, iou: f32, width: usize, hinted: bool) {
        let ProposalOptions { area: [least, most], stability: least_stability, .. } = self.options;
        let pixels = self.logits.len();
        let above = |limit: f32| self.logits.iter().filter(|logit| **logit > limit).count();
        let stability = above(STABILITY_LOGIT) as f32 / above(-STABILITY_LOGIT).max(1) as f32;
        let sprinkle_px = (pixels as f32 * SPRINKLE) as usize;
        // The sizes fit: the buffer was made for the filter.
        let cleaned = self
            .filter
            .fill_holes(&mut self.logits, sprinkle_px)
            .and_then(|_| self.filter.remove_sprinkles(&mut self.logits, sprinkle_px))
            .and_then(|_| Region::from_logits(&self.logits, width, self.view));
        let Ok(region) = cleaned else { return };
        let share = region.area_px() as f32 / pixels as f32;
        if (least..=most).contains(&share)
            && stability >= least_stability
            && let Some(bounds) = region.bounds()
        {
            let area = region.area();
            self.found.push(Proposal { region, bounds, area, iou, stability, hinted });
        }
    }

    /// The second pass: a box around each of the best masks.
    fn make_boxes(&mut self) {
        if !self.takes_boxes {
            return;
        }
        let (hinted, clicked): (Vec<Proposal>, Vec<Proposal>) =
            self.found.iter().cloned().partition(|found| found.hinted);
        let mut best = distinct(clicked, SAME_BOX);
        best.truncate(self.options.boxes);
        let again = hinted.iter().chain(&best).rev();
        self.open.extend(again.map(|found| (Ask::corners(found.bounds), found.hinted)));
    }
}

impl Tracker {
    /// Looks on a kept frame for things that may be meant; [`Tracker::propose_step`] does the work. The whole picture is
    /// looked at where it is kept, else what the frame showed. `hints` are boxes in the whole picture where something
    /// may be.
    pub(crate) fn propose(
        &mut self,
        at: At,
        options: ProposalOptions,
        hints: &[NormBox],
        eyes: Option<&mut Eyes>,
    ) -> Result<Proposer, TrackerError> {
        let Self { graphs, frames, aside, .. } = self;
        let Found::Kept { tick, degraded: false } = frames.find(at) else {
            return Err(frames.gone_error(at));
        };
        graphs.begin();
        let (mut copied, taken) = room(graphs, aside)?;
        // A session that was split has no eyes, and keeps features, not pictures.
        let view = match frames.picture(tick).zip(eyes) {
            Some((picture, eyes)) => {
                let picture = picture.picture().map_err(TrackerError::picture)?;
                let sights = Sights { anywhere: true, ..Sights::default() };
                let mut viewer = Viewer::new(graphs.spec.view, &graphs.spec.image);
                let view = eyes.look(&picture, sights, &mut viewer, &mut graphs.intake)?;
                graphs.encode(None, &mut copied)?;
                view
            }
            None if frames.has_features(tick) => {
                let look = frames.look(tick);
                let mut levels = copied.iter_mut().zip(look.features);
                levels.try_for_each(|(to, from)| to.copy_from(&graphs.ground, from))?;
                look.view
            }
            None => return Err(frames.gone_error(at)),
        };
        Ok(Proposer::new(&graphs.spec, options, (copied, taken), view, hints))
    }

    /// One decoder run for proposals; `true` when there is nothing left to try. Objects are not touched.
    ///
    /// # Errors
    /// `Kind::Engine` when the graph fails; what was found stays.
    pub fn propose_step(&mut self, proposer: &mut Proposer) -> Result<bool, TrackerError> {
        Ok(proposer.step(&mut self.graphs)?)
    }
}

/// Room for a frame's features, until the token is dropped: on a device there is one.
fn room(graphs: &Graphs, aside: &Option<(Vec<Slab>, Arc<()>)>) -> Result<(Vec<Slab>, Arc<()>), TrackerError> {
    match aside {
        Some((_, taken)) if Arc::strong_count(taken) > 1 => {
            let expected = "those of one frame at a time, as the model is on a device";
            Err(TrackerError::prompt("proposals", expected, "a second frame's"))
        }
        Some(aside) => Ok(aside.clone()),
        None => Ok((graphs.feature_buffers()?, Arc::default())),
    }
}

/// Leaves of masks that overlap too much only the one that the model thinks best of; the best first.
fn distinct(mut found: Vec<Proposal>, overlap: f32) -> Vec<Proposal> {
    found.sort_by(|a, b| b.iou.total_cmp(&a.iou));
    let mut kept: Vec<Proposal> = Vec::new();
    for proposal in found {
        if kept.iter().all(|better| better.region.iou(&proposal.region) <= overlap) {
            kept.push(proposal);
        }
    }
    kept
}
