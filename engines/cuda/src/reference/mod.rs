//! The kernels' arithmetic on the processor: the same operations on the same types in the same order, so that a kernel
//! is right when its bits are these, and these are right when they are `sightline_vision`'s.

mod mask;
mod overlay;
mod picture;
mod tensor;

pub use mask::{FoundMask, mask_bits, measure};
pub use overlay::fill;
pub use picture::{levels, preprocess};
pub use tensor::{add_channels, clamp, round_to_bf16};
