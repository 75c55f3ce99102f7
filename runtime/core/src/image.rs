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
