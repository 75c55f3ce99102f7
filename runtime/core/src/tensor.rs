use std::fmt;

use crate::{Kind, ValueError};

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32 bit float.
    F32,
    /// IEEE half; on the host only moved about.
    F16,
    /// bfloat16; on the host only moved about.
    Bf16,
    /// 64 bit integer.
    I64,
}

impl DType {
    /// Bytes of one element.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::I64 => 8,
        }
    }

    /// The name `model.toml` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I64 => "i64",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Sizes of a tensor, outermost first. At most [`Shape::MAX_RANK`] dimensions, kept without allocating.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    rank: u8,
    dims: [usize; Self::MAX_RANK],
}

impl Shape {
    /// More than any graph of ours has.
    pub const MAX_RANK: usize = 6;

    /// Takes the sizes, outermost first.
    ///
    /// # Errors
    /// `Kind::Size` above [`Shape::MAX_RANK`] dimensions.
    pub fn new(dims: &[usize]) -> Result<Self, ValueError> {
        if dims.len() > Self::MAX_RANK {
            return Err(ValueError::new(
                Kind::Size,
                "tensor shape",
                format_args!("at most {} dimensions", Self::MAX_RANK),
                dims.len(),
            ));
        }
        let mut kept = [0; Self::MAX_RANK];
        kept[..dims.len()].copy_from_slice(dims);
        Ok(Self { rank: dims.len() as u8, dims: kept })
    }

    /// The same with another size at `axis`; an axis it does not have changes nothing.
    #[must_use]
    pub fn with(mut self, axis: usize, size: usize) -> Self {
        if axis < usize::from(self.rank) {
            self.dims[axis] = size;
        }
        self
    }

    /// So many in one row.
    #[must_use]
    pub fn flat(mut self, elements: usize) -> Self {
        (self.rank, self.dims) = (1, [0; Self::MAX_RANK]);
        self.dims[0] = elements;
        self
    }

    /// The sizes.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Product of the sizes.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, dim) in self.dims().iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// A dense row-major host tensor, borrowed for reading.
#[derive(Debug, Clone, Copy)]
pub enum TensorView<'a> {
    /// 32 bit floats.
    F32(Shape, &'a [f32]),
    /// 64 bit integers.
    I64(Shape, &'a [i64]),
}

/// A dense row-major host tensor, borrowed for writing.
#[derive(Debug)]
pub enum TensorViewMut<'a> {
    /// 32 bit floats.
    F32(Shape, &'a mut [f32]),
    /// 64 bit integers.
    I64(Shape, &'a mut [i64]),
}

fn check(shape: Shape, len: usize) -> Result<(), ValueError> {
    if shape.elements() == len {
        return Ok(());
    }
    Err(ValueError::new(
        Kind::Size,
        "tensor data",
        format_args!("{} elements for shape {shape}", shape.elements()),
        len,
    ))
}

impl<'a> TensorView<'a> {
    /// Views floats under a shape.
    ///
    /// # Errors
    /// `Kind::Size` when the shape does not hold exactly the data.
    pub fn f32(dims: &[usize], data: &'a [f32]) -> Result<Self, ValueError> {
        let shape = Shape::new(dims)?;
        check(shape, data.len())?;
        Ok(Self::F32(shape, data))
    }

    /// Views integers under a shape.
    ///
    /// # Errors
    /// `Kind::Size` when the shape does not hold exactly the data.
    pub fn i64(dims: &[usize], data: &'a [i64]) -> Result<Self, ValueError> {
        let shape = Shape::new(dims)?;
        check(shape, data.len())?;
        Ok(Self::I64(shape, data))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(..) => DType::F32,
            Self::I64(..) => DType::I64,
        }
    }

    /// Sizes.
    pub fn shape(&self) -> Shape {
        match self {
            Self::F32(shape, _) | Self::I64(shape, _) => *shape,
        }
    }
}

impl<'a> TensorViewMut<'a> {
    /// Views floats under a shape, for writing.
    ///
    /// # Errors
    /// `Kind::Size` when the shape does not hold exactly the data.
    pub fn f32(dims: &[usize], data: &'a mut [f32]) -> Result<Self, ValueError> {
        let shape = Shape::new(dims)?;
        check(shape, data.len())?;
        Ok(Self::F32(shape, data))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(..) => DType::F32,
            Self::I64(..) => DType::I64,
        }
    }

    /// Sizes.
    pub fn shape(&self) -> Shape {
        match self {
            Self::F32(shape, _) | Self::I64(shape, _) => *shape,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_holds_exactly_its_shape() {
        assert!(TensorView::f32(&[2, 3], &[0.0; 6]).is_ok());
        let error = TensorView::f32(&[2, 3], &[0.0; 5]).expect_err("one short");
        assert_eq!(error.to_string(), "tensor data: expected 6 elements for shape [2,3], got 5");
        assert!(Shape::new(&[1; 7]).is_err());
    }
}
