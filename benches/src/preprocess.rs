//! Raw pictures through the corridor's preprocessing, for `tests/parity/preprocess.py`: their bytes at the model's size,
//! and how long each took.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::{BufReader, BufWriter, ErrorKind, Read as _, Write as _},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use sightline_core::{ColorMatrix, ColorRange, Filter, ImageSpec, Picture, PixelFormat, Plane};
use sightline_vision::Preprocessor;

#[derive(Debug, Parser)]
struct Args {
    /// Raw pictures, one behind the other, rows without padding
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    #[arg(long)]
    format: Format,
    #[arg(long, value_name = "PX")]
    width: u32,
    #[arg(long, value_name = "PX")]
    height: u32,
    #[arg(long, default_value = "bt709")]
    matrix: Matrix,
    /// Luma from 0 to 255
    #[arg(long)]
    full_range: bool,
    /// The model's size
    #[arg(long, value_name = "PX")]
    to_width: usize,
    #[arg(long, value_name = "PX")]
    to_height: usize,
    #[arg(long)]
    filter: Kernel,
    /// Where to write: pictures `[height, width, 3]` u8 RGB, one behind the other
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How often each picture is preprocessed; all of them are timed
    #[arg(long, default_value_t = 1)]
    repeats: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    I420,
    Nv12,
    Rgb,
    Bgrx,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Matrix {
    Bt601,
    Bt709,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kernel {
    Bicubic,
    Bilinear,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let format = match args.format {
        Format::I420 => PixelFormat::I420,
        Format::Nv12 => PixelFormat::Nv12,
        Format::Rgb => PixelFormat::Rgb,
        Format::Bgrx => PixelFormat::Bgrx,
    };
    let matrix = match args.matrix {
        Matrix::Bt601 => ColorMatrix::Bt601,
        Matrix::Bt709 => ColorMatrix::Bt709,
    };
    let range = if args.full_range { ColorRange::Full } else { ColorRange::Limited };
    // With these the tensor is bytes over 255, and times 255 bytes again.
    let (mean, std) = ([0.0; 3], [1.0; 3]);
    let (width_px, height_px) = (args.to_width, args.to_height);
    let filter = match args.filter {
        Kernel::Bicubic => Filter::Bicubic,
        Kernel::Bilinear => Filter::Bilinear,
    };
    let mut preprocessor = Preprocessor::new(&ImageSpec { height_px, width_px, mean, std, filter });
    let mut tensor = vec![0.0_f32; 3 * width_px * height_px];
    let extents: Vec<_> =
        (0..format.planes()).map(|plane| format.plane_extent(plane, args.width, args.height)).collect();
    let mut raw = vec![0; extents.iter().map(|(row, rows)| row * rows).sum()];
    let mut input =
        BufReader::new(File::open(&args.input).with_context(|| format!("cannot read {:?}", args.input))?);
    let mut out =
        BufWriter::new(File::create(&args.out).with_context(|| format!("cannot write {:?}", args.out))?);
    let mut times_ms = Vec::new();
    loop {
        match input.read_exact(&mut raw) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        let mut rest = raw.as_slice();
        let mut planes = Vec::with_capacity(extents.len());
        for (row, rows) in &extents {
            let (data, behind) = rest.split_at(row * rows);
            planes.push(Plane { data, stride_bytes: *row });
            rest = behind;
        }
        let picture = Picture::new(format, args.width, args.height, &planes)?.with_color(matrix, range);
        for _ in 0..args.repeats {
            let start = Instant::now();
            preprocessor.run(&picture, &mut tensor)?;
            times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let pixels = width_px * height_px;
        let bytes: Vec<u8> =
            (0..3 * pixels).map(|at| (tensor[at % 3 * pixels + at / 3] * 255.0).round() as u8).collect();
        out.write_all(&bytes)?;
    }
    out.flush()?;
    times_ms.sort_by(f64::total_cmp);
    let of = |part: usize| times_ms.get(times_ms.len() * part / 100).copied();
    let answer =
        serde_json::json!({ "runs": times_ms.len(), "p5_ms": of(5), "p50_ms": of(50), "p95_ms": of(95) });
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(())
}
