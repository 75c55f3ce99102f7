/// How a picture is scaled to the model's input. Both are antialiased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Catmull-Rom (a = -0.5), as PIL's `BICUBIC`.
    Bicubic,
    /// Triangle, as PIL's `BILINEAR`.
    Bilinear,
}

/// The picture a model takes: `[1,3,height,width]`, RGB in `[0,1]`, minus `mean`, over `std`.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSpec {
    /// Rows.
    pub height_px: usize,
    /// Columns.
    pub width_px: usize,
    /// Per channel, R G B.
    pub mean: [f32; 3],
    /// Per channel, R G B.
    pub std: [f32; 3],
    /// How pictures of other sizes are scaled.
    pub filter: Filter,
}

impl ImageSpec {
    /// `(v / 255 - mean) / std` of levels 0 to 255 as one product and one sum, a channel's `(factor, offset)`: within a last
    /// bit of the two quotients, and the same wherever pictures are prepared.
    pub fn normalisation(&self) -> [(f32, f32); 3] {
        std::array::from_fn(|channel| {
            let (mean, std) = (f64::from(self.mean[channel]), f64::from(self.std[channel]));
            ((1.0 / (255.0 * std)) as f32, (-mean / std) as f32)
        })
    }
}
