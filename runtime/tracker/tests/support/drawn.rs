//! Models whose decoders say masks that are drawn for the purpose.

use sightline_core::TensorViewMut;
use sightline_engine_api::{Engine, Model, TensorMut};
use sightline_engine_fake::FnEngine;

/// A logit: of a decoder's run, counted from 0, and the object's place in it, at x and y of a mask of so many rows.
pub type Pattern = fn(run: u64, object: usize, at: (usize, usize), side: usize) -> f32;

/// The model with other masks, which are square; scores, pointers and all else stay what they are.
pub fn drawn(model: Model, pattern: Pattern) -> Model {
    let draw = |mut inner: Box<dyn Engine>| -> Box<dyn Engine> {
        let (name, io) = (inner.name().to_owned(), inner.io().clone());
        let at = io.output("low_res_mask").unwrap();
        let score = io.output("object_score").unwrap();
        let mut run = 0;
        Box::new(FnEngine::new(name, io, move |inputs, outputs| {
            inner.run(inputs, outputs)?;
            if let TensorMut::Host(TensorViewMut::F32(shape, logits)) = &mut outputs[at] {
                let side = shape.dims()[3];
                for (index, logit) in logits.iter_mut().enumerate() {
                    let place = (index % side, index / side % side);
                    *logit = pattern(run, index / (side * side), place, side);
                }
            }
            if let TensorMut::Host(TensorViewMut::F32(_, scores)) = &mut outputs[score] {
                scores.fill(3.0);
            }
            run += 1;
            Ok(())
        }))
    };
    Model { decoder_track: draw(model.decoder_track), decoder_prompt: draw(model.decoder_prompt), ..model }
}

/// A disc that wanders, never all of the mask.
pub fn disc(run: u64, object: usize, (x, y): (usize, usize), side: usize) -> f32 {
    let side = side as f32;
    let centre = |share: u64| side * (0.3 + 0.05 * ((run + share * object as u64) % 9) as f32);
    let away = (x as f32 - centre(3)).hypot(y as f32 - centre(5));
    side * 0.22 - away + 0.37 * (object % 4) as f32
}

/// Full, empty, a corner, a disc or noise; in turn.
pub fn mixed(run: u64, object: usize, (x, y): (usize, usize), side: usize) -> f32 {
    match (run + object as u64) % 5 {
        0 => 2.5,
        1 => -0.5,
        2 if x + y + 2 * side >= 4 * side - 5 => 1.0,
        2 => -0.25,
        3 => disc(run, object, (x, y), side),
        // At most two stretches a column in eight rows.
        _ => ((x * 7 + y / (side / 4).max(1) * 5 + run as usize) % 11) as f32 - 5.5,
    }
}

/// Rows in turn, from the seventh run on to the ninth for the first object: more changes than there is room for.
pub fn striped(run: u64, object: usize, (x, y): (usize, usize), side: usize) -> f32 {
    match object == 0 && (7..10).contains(&run) {
        true => (y % 2) as f32 - 0.5,
        false => disc(run, object, (x, y), side),
    }
}
