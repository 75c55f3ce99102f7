use sightline_engine_api::{DevicePicture, Stream};

use super::{Kernel, arguments};
use crate::{CudaDevice, CudaError, Kind, memory::is_ours, picture};

/// As many as a launch takes (`INKS` of overlay.cu).
const INKS: usize = 16;
/// Threads a block, each for a block of 2x2 pixels.
const BLOCK: u32 = 128;

/// One mask to draw and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ink {
    /// Which of the masks found.
    pub mask: usize,
    /// Y U V as the picture's encoding has them, or the first three bytes of a packed pixel in its order.
    pub bytes: [u8; 3],
    /// 0 (nothing) to 256 (opaque).
    pub weight: u16,
}

/// `Inks` of overlay.cu.
#[repr(C)]
struct InksParameter {
    count: u32,
    mask: [u32; INKS],
    bytes: [u32; INKS],
    weight: [u32; INKS],
}

const _: () = assert!(size_of::<InksParameter>() == 196);

/// Draws masks into a picture, one after the other.
///
/// # Safety
/// `bits` is the address of `words` words for each mask that `inks` name.
pub(super) unsafe fn fill(
    device: &CudaDevice,
    stream: Stream,
    picture: &DevicePicture,
    bits: u64,
    words: u32,
    inks: &[Ink],
) -> Result<(), CudaError> {
    picture::check_place(picture, device)?;
    if !is_ours(&**picture.buffer()) {
        let expected = "memory of this crate's making: what is lent is lent to be read";
        return Err(CudaError::new(
            Kind::Argument,
            "overlay",
            expected,
            format_args!("{:?}", picture.buffer()),
        ));
    }
    let on = device.stream(stream)?;
    let parameter = picture::parameter(picture)?;
    let (width, height) = picture.size_px();
    let grid = [width.div_ceil(2).div_ceil(BLOCK), height.div_ceil(2)];
    for inks in inks.chunks(INKS) {
        let mut all =
            InksParameter { count: inks.len() as u32, mask: [0; INKS], bytes: [0; INKS], weight: [0; INKS] };
        for (index, ink) in inks.iter().enumerate() {
            let [a, b, c] = ink.bytes;
            all.mask[index] = ink.mask as u32;
            all.bytes[index] = u32::from_le_bytes([a, b, c, 0]);
            all.weight[index] = u32::from(ink.weight.min(256));
        }
        let list = arguments![parameter, bits, words, all];
        // SAFETY: (Picture, u32*, u32, Inks). The planes were checked against their buffer, the bits are the caller's
        // promise; a thread writes the pixels of its own block only.
        unsafe { device.kernels.launch(Kernel::OverlayFill, &on, grid, BLOCK, list)? };
    }
    Ok(())
}
