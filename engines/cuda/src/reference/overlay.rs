use sightline_core::PixelFormat;

fn blend(from: &mut u8, to: u8, weight: u16) {
    *from = ((u16::from(*from) * (256 - weight) + u16::from(to) * weight + 128) >> 8) as u8;
}

/// Tints a mask into a picture, in place: overlay_fill of overlay.cu for one mask. `planes` are the bytes of each plane
/// and the distance between its rows; `bits` as [`mask_bits`](super::mask_bits) gives them; `bytes` are Y U V or the first
/// three bytes of a packed pixel, `weight` 0 to 256. A chroma sample is tinted once, when any of its pixels is.
///
/// # Panics
/// When a plane or the bits are shorter than the picture.
pub fn fill(
    format: PixelFormat,
    (width_px, height_px): (usize, usize),
    planes: &mut [(&mut [u8], usize)],
    bits: &[u32],
    bytes: [u8; 3],
    weight: u16,
) {
    let set = |x: usize, y: usize| {
        let at = x * height_px + y;
        x < width_px && y < height_px && bits[at / 32] >> (at % 32) & 1 == 1
    };
    let pixels = |y: usize| (0..width_px).filter(move |x| set(*x, y));
    for y in 0..height_px {
        let (data, stride) = &mut planes[0];
        let row = &mut data[y * *stride..];
        for x in pixels(y) {
            match format {
                PixelFormat::Nv12 | PixelFormat::I420 => blend(&mut row[x], bytes[0], weight),
                PixelFormat::Yuy2 => blend(&mut row[2 * x], bytes[0], weight),
                PixelFormat::Rgb | PixelFormat::Bgr => {
                    row[3 * x..][..3].iter_mut().zip(bytes).for_each(|(from, to)| blend(from, to, weight));
                }
                _ => row[4 * x..][..3].iter_mut().zip(bytes).for_each(|(from, to)| blend(from, to, weight)),
            }
        }
        if format == PixelFormat::Yuy2 {
            for pair in (0..width_px.div_ceil(2)).filter(|pair| set(2 * pair, y) || set(2 * pair + 1, y)) {
                blend(&mut row[4 * pair + 1], bytes[1], weight);
                blend(&mut row[4 * pair + 3], bytes[2], weight);
            }
        }
    }
    if !matches!(format, PixelFormat::Nv12 | PixelFormat::I420) {
        return;
    }
    for (y, x) in (0..height_px.div_ceil(2)).flat_map(|y| (0..width_px.div_ceil(2)).map(move |x| (y, x))) {
        if ![(0, 0), (1, 0), (0, 1), (1, 1)].iter().any(|(dx, dy)| set(2 * x + dx, 2 * y + dy)) {
            continue;
        }
        let at = |plane: &(&mut [u8], usize)| y * plane.1;
        if format == PixelFormat::Nv12 {
            let start = at(&planes[1]) + 2 * x;
            blend(&mut planes[1].0[start], bytes[1], weight);
            blend(&mut planes[1].0[start + 1], bytes[2], weight);
        } else {
            let starts = [at(&planes[1]) + x, at(&planes[2]) + x];
            blend(&mut planes[1].0[starts[0]], bytes[1], weight);
            blend(&mut planes[2].0[starts[1]], bytes[2], weight);
        }
    }
}
