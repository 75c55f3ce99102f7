//! Pure pixel work: preprocessing, mask upscaling, drawing, the DAVIS measures.
