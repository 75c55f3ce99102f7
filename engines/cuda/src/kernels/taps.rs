use sightline_core::Filter;

/// Which inputs an output is made of, along one direction, and how much of each; antialiased, as Pillow's
/// `precompute_coeffs` has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Taps {
    /// The first input of each output.
    pub starts: Vec<i32>,
    /// How many there are.
    pub counts: Vec<i32>,
    /// `[most taps, outputs]`, 0 where an output has fewer.
    pub weights: Vec<f32>,
}

/// Catmull-Rom, a = -0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

impl Taps {
    /// For `inputs` to `outputs`, neither 0. Equal sizes give each input as it is.
    pub fn new(inputs: usize, outputs: usize, filter: Filter) -> Self {
        let (reach, weigh): (f64, fn(f64) -> f64) = match filter {
            Filter::Bicubic => (2.0, bicubic),
            Filter::Bilinear => (1.0, triangle),
        };
        let scale = inputs as f64 / outputs as f64;
        let wide = scale.max(1.0);
        let support = reach * wide;
        let spans: Vec<(usize, Vec<f64>)> = (0..outputs)
            .map(|output| {
                let center = (output as f64 + 0.5) * scale;
                let start = (center - support + 0.5).max(0.0) as usize;
                let end = ((center + support + 0.5) as usize).min(inputs);
                let weights: Vec<f64> =
                    (start..end).map(|input| weigh((input as f64 - center + 0.5) / wide)).collect();
                let total: f64 = weights.iter().sum();
                (start, weights.into_iter().map(|weight| weight / total).collect())
            })
            .collect();
        let most = spans.iter().map(|(_, weights)| weights.len()).max().unwrap_or(0);
        let mut weights = vec![0.0; most * outputs];
        for (output, (_, own)) in spans.iter().enumerate() {
            own.iter().enumerate().for_each(|(tap, weight)| weights[tap * outputs + output] = *weight as f32);
        }
        Self {
            starts: spans.iter().map(|(start, _)| *start as i32).collect(),
            counts: spans.iter().map(|(_, weights)| weights.len() as i32).collect(),
            weights,
        }
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.starts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_a_whole_and_lie_in_the_picture() {
        for filter in [Filter::Bicubic, Filter::Bilinear] {
            for (inputs, outputs) in [(1, 1), (1, 7), (9, 4), (1920, 1024), (1080, 1024), (64, 64), (5, 512)]
            {
                let taps = Taps::new(inputs, outputs, filter);
                assert_eq!(taps.outputs(), outputs);
                for output in 0..outputs {
                    let count = taps.counts[output] as usize;
                    assert!(taps.starts[output] as usize + count <= inputs && count > 0);
                    let sum: f32 = (0..count).map(|tap| taps.weights[tap * outputs + output]).sum();
                    assert!((sum - 1.0).abs() < 1e-5, "{filter:?} {inputs} to {outputs}: {sum}");
                }
            }
            let same = Taps::new(16, 16, filter);
            for output in 0..16 {
                let whole = (0..same.counts[output] as usize)
                    .map(|tap| (same.starts[output] as usize + tap, same.weights[tap * 16 + output]));
                let kept: Vec<_> = whole.filter(|(_, weight)| *weight != 0.0).collect();
                assert_eq!(kept, [(output, 1.0)], "{filter:?}");
            }
        }
    }
}
