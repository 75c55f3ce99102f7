//! Two engines of one graph on the same numbers, and how far apart they are.

use sightline_core::{DType, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{EngineError, Kind, Port};

/// A tensor that owns its numbers.
#[derive(Debug, Clone)]
pub struct Values {
    shape: Shape,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

impl Values {
    /// Numbers for a graph's input, the same every time: features, memories and logits are noise of variance 1, slots are
    /// all in use, and what is said of them is such as the tracker says.
    ///
    /// # Errors
    /// `Kind::Interface` for a type that no graph of the contract takes.
    pub fn given(port: &Port, shape: Shape) -> Result<Self, EngineError> {
        let count = shape.elements();
        let last = shape.dims().get(1).copied().unwrap_or(1).saturating_sub(1);
        let mut noise = Noise::new(&port.name);
        let data = match (port.dtype, port.name.as_str()) {
            (DType::I64, "tpos_idx") => Data::I64((0..count as i64).map(|slot| slot % 7).collect()),
            (DType::I64, _) => Data::I64(vec![1; count]),
            (DType::F32, name) => Data::F32(match name {
                "mem_mask" | "ptr_mask" | "has_mask_input" | "binarize" => vec![1.0; count],
                "ptr_tdiff" => (0..count).map(|slot| 1.0 + slot as f32).collect(),
                "object_score" => vec![3.0; count],
                "point_coords" => (0..count).map(|_| 64.0 * (noise.next() + 1.8)).collect(),
                "point_labels" => {
                    (0..count).map(|at| if at == last { -1.0 } else { 2.0 + at as f32 % 2.0 }).collect()
                }
                "mask" => (0..count).map(|_| f32::from(u8::from(noise.next() > 0.0))).collect(),
                _ => (0..count).map(|_| noise.next()).collect(),
            }),
            (other, name) => {
                let subject = format!("input {name:?}");
                return Err(EngineError::new(Kind::Interface, subject, "f32 or i64", other));
            }
        };
        Ok(Self { shape, data })
    }

    /// Room for a graph's output: what is not written is NaN.
    pub fn unwritten(shape: Shape) -> Self {
        Self { shape, data: Data::F32(vec![f32::NAN; shape.elements()]) }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::I64(_) => DType::I64,
        }
    }

    /// Sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The same, borrowed.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// For reading.
    pub fn view(&self) -> TensorView<'_> {
        match &self.data {
            Data::F32(data) => TensorView::F32(self.shape, data),
            Data::I64(data) => TensorView::I64(self.shape, data),
        }
    }

    /// For writing.
    pub fn view_mut(&mut self) -> TensorViewMut<'_> {
        match &mut self.data {
            Data::F32(data) => TensorViewMut::F32(self.shape, data),
            Data::I64(data) => TensorViewMut::I64(self.shape, data),
        }
    }

    /// Its floats; none of integers.
    pub fn floats(&self) -> &[f32] {
        match &self.data {
            Data::F32(data) => data,
            Data::I64(_) => &[],
        }
    }

    /// As they lie in a file: little-endian.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Data::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}

/// How far an output is from what it should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The largest difference.
    pub max_abs: f64,
    /// The largest number expected.
    pub largest: f64,
    /// Root mean square of the difference, over that of what was expected or over 1 for what is near zero.
    pub share: f64,
    /// All of both are finite numbers, and as many; if not, the others say nothing.
    pub finite: bool,
}

impl Difference {
    /// Between two of as many numbers.
    pub fn between(expected: &[f32], got: &[f32]) -> Self {
        let off = || expected.iter().zip(got).map(|(a, b)| f64::from(*a) - f64::from(*b));
        let mean = |sum: f64| (sum / expected.len().max(1) as f64).sqrt();
        let size = mean(expected.iter().map(|value| f64::from(*value).powi(2)).sum());
        Self {
            max_abs: off().map(f64::abs).fold(0.0, f64::max),
            largest: expected.iter().map(|value| f64::from(value.abs())).fold(0.0, f64::max),
            share: mean(off().map(|off| off.powi(2)).sum()) / size.max(1.0),
            finite: expected.len() == got.len() && expected.iter().chain(got).all(|value| value.is_finite()),
        }
    }
}

/// Uniform numbers of variance 1, the same for one name every time (xorshift64*).
struct Noise(u64);

impl Noise {
    fn new(name: &str) -> Self {
        // FNV-1a; never 0, which would stay 0.
        Self(
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            }) | 1,
        )
    }

    fn next(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let unit = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1u32 << 24) as f32;
        (unit - 0.5) * 12.0_f32.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, dtype: DType, dims: &[usize]) -> Result<Values, EngineError> {
        let port = Port { name: name.into(), dtype, dims: Vec::new() };
        Values::given(&port, Shape::new(dims).unwrap())
    }

    #[test]
    fn inputs_are_such_as_the_tracker_gives() {
        let labels = given("point_labels", DType::F32, &[1, 3]).unwrap();
        assert_eq!(labels.floats(), [2.0, 3.0, -1.0], "a box and a padding point");
        let mask = given("mem_mask", DType::F32, &[2, 2]).unwrap();
        assert_eq!((mask.floats(), mask.bytes().len()), (&[1.0; 4][..], 16));
        let features = [given("feat_top", DType::F32, &[1, 4096]), given("feat_top", DType::F32, &[1, 4096])];
        let [one, other] = features.map(Result::unwrap);
        assert_eq!(one.floats(), other.floats(), "the same every time");
        let variance = one.floats().iter().map(|value| value * value).sum::<f32>() / 4096.0;
        assert!((0.9..1.1).contains(&variance), "{variance}");
        assert_eq!(given("tpos_idx", DType::I64, &[9]).unwrap().bytes()[64..], [1, 0, 0, 0, 0, 0, 0, 0]);
        let error = given("mem", DType::F16, &[1]).unwrap_err();
        assert_eq!(error.to_string(), "input \"mem\": expected f32 or i64, got f16");
    }

    #[test]
    fn differences_are_told() {
        let told = Difference::between(&[3.0, -4.0], &[3.0, -3.0]);
        assert_eq!((told.max_abs, told.largest, told.finite), (1.0, 4.0, true));
        assert!((told.share - 0.2).abs() < 1e-12, "{}", told.share);
        // Over 1 where hardly anything is expected.
        assert!((Difference::between(&[0.0, 0.0], &[0.1, 0.1]).share - 0.1).abs() < 1e-6);
        assert!(!Difference::between(&[1.0], &[f32::NAN]).finite);
        assert!(!Difference::between(&[f32::INFINITY], &[1.0]).finite);
        assert!(!Difference::between(&[1.0, 1.0], &[1.0]).finite, "too few");
    }
}
