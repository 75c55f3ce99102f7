//! What masks are worth some frames later, on DAVIS: repeated as they are, put where two earlier ones say, carried by the
//! picture. Mean J over the sequences of mean J over frames, one object a sequence.
//!
//!     cargo run --release -p sightline-benches --bin coast -- --data ../shared/data/davis [--masks DIR]
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use sightline_core::{Mask, Picture, PixelFormat, Plane, Rle};
use sightline_vision::{Coaster, Ride, davis::region_similarity, forecast};

const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 24);

#[derive(Debug, Parser)]
struct Args {
    /// A folder with JPEGImages/480p and Annotations/480p
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Take the masks from NAME.jsonl in this folder, as `sightline run --jsonl` writes them, instead of the annotations
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Frames that pass
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 12])]
    frames: Vec<usize>,
    /// Frames between the two masks of a forecast
    #[arg(long, default_value_t = 1)]
    apart: usize,
    /// Every how manyth frame is a start
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// Where to write the means as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// How long it took, over all frames.
#[derive(Default)]
struct Cost {
    see: (Duration, u32),
    carry: (Duration, u32),
}

/// J by frames passed and way of bringing the mask there.
type Means = BTreeMap<(usize, &'static str), f64>;

const WAYS: [&str; 3] = ["repeated", "forecast", "carried"];

fn main() -> Result<()> {
    let args = Args::parse();
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(args.data.join("Annotations/480p"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    ensure!(
        !names.is_empty() && args.apart > 0 && args.every > 0,
        "expected sequences and steps of at least 1"
    );
    let mut csv = String::from("sequence,frames,way,j\n");
    let (mut all, mut cost) = (Means::new(), Cost::default());
    for name in &names {
        let means = sequence(&args, name, &mut cost).with_context(|| format!("sequence {name:?}"))?;
        for ((frames, way), j) in means {
            csv.push_str(&format!("{name},{frames},{way},{j:.3}\n"));
            *all.entry((frames, way)).or_default() += j / names.len() as f64;
        }
    }
    println!("frames  {}", WAYS.map(|way| format!("{way:>9}")).join(" "));
    for frames in &args.frames {
        println!("{frames:6}  {}", WAYS.map(|way| format!("{:9.2}", all[&(*frames, way)])).join(" "));
    }
    let mean = |(time, count): (Duration, u32)| time.as_secs_f64() * 1e3 / f64::from(count.max(1));
    println!(
        "see {:.2} ms a frame (RGB), carry {:.2} ms a frame and object",
        mean(cost.see),
        mean(cost.carry)
    );
    if let Some(path) = &args.csv {
        File::create(path)?.write_all(csv.as_bytes())?;
    }
    Ok(())
}

fn sequence(args: &Args, name: &str, cost: &mut Cost) -> Result<Means> {
    let truths = files(&args.data.join("Annotations/480p").join(name))?
        .iter()
        .map(|path| annotation(path))
        .collect::<Result<Vec<Mask>>>()?;
    let masks = match &args.masks {
        None => truths.iter().map(Rle::encode).collect(),
        Some(folder) => told(&folder.join(format!("{name}.jsonl")), &truths)?,
    };
    let pictures = files(&args.data.join("JPEGImages/480p").join(name))?;
    ensure!(pictures.len() == truths.len(), "expected a picture an annotation, got {}", pictures.len());
    let mut coaster = Coaster::new(pictures.len());
    for (index, path) in pictures.iter().enumerate() {
        let (width, height, data) = rgb(path)?;
        let plane = Plane { data: &data, stride_bytes: width as usize * 3 };
        let picture = Picture::new(PixelFormat::Rgb, width, height, &[plane])?;
        let start = Instant::now();
        coaster.see(index as u64, &picture)?;
        cost.see = (cost.see.0 + start.elapsed(), cost.see.1 + 1);
    }
    let longest = args.frames.iter().copied().max().unwrap_or(1);
    let mut sums: BTreeMap<(usize, &'static str), (f64, usize)> = BTreeMap::new();
    for from in (args.apart..masks.len() - 1).step_by(args.every) {
        let (older, mask) = (&masks[from - args.apart], &masks[from]);
        if older.area_px() == 0 || mask.area_px() == 0 {
            continue;
        }
        let mut ride = Ride::new(Arc::new(mask.clone()), from as u64);
        for passed in (1..=longest).take_while(|passed| from + passed < masks.len()) {
            let start = Instant::now();
            let carried = coaster.carry(&mut ride, (from + passed) as u64);
            cost.carry = (cost.carry.0 + start.elapsed(), cost.carry.1 + 1);
            if !args.frames.contains(&passed) {
                continue;
            }
            let count = |frames: usize| FRAME * frames as u32;
            let there = [
                mask.clone(),
                forecast(older, mask, count(args.apart), count(passed)),
                carried.map_or_else(|| mask.clone(), |carried| carried.mask),
            ];
            for (way, there) in WAYS.iter().zip(there) {
                let (sum, n) = sums.entry((passed, way)).or_default();
                *sum += 100.0 * region_similarity(&there.decode(), &truths[from + passed])?;
                *n += 1;
            }
        }
    }
    Ok(sums.into_iter().map(|(key, (sum, n))| (key, sum / n as f64)).collect())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("folder {folder:?}"))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn rgb(path: &Path) -> Result<(u32, u32, Vec<u8>)> {
    let bytes = std::fs::read(path)?;
    let mut image = mozjpeg::Decompress::new_mem(&bytes)?.rgb()?;
    let (width, height) = (image.width() as u32, image.height() as u32);
    let data: Vec<u8> = image.read_scanlines()?;
    image.finish()?;
    Ok((width, height, data))
}

/// An annotation of one object: grey, everything but 0 is it.
fn annotation(path: &Path) -> Result<Mask> {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info()?;
    let mut data = vec![0; reader.output_buffer_size().context("too large a PNG")?];
    let info = reader.next_frame(&mut data)?;
    if info.color_type != png::ColorType::Grayscale {
        bail!("annotation {path:?}: expected a grey picture, got {:?}", info.color_type);
    }
    data.truncate(info.buffer_size());
    Ok(Mask::from_bytes(info.width, info.height, data)?)
}

/// The masks of a run, frame by frame; the last frame is never looked at.
fn told(path: &Path, truths: &[Mask]) -> Result<Vec<Rle>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("masks {path:?}"))?;
    let mut masks = Vec::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        if line.get("frame").is_none() {
            continue;
        }
        let mask = &line["objects"][0]["mask"];
        let (height, width) = (mask["size"][0].as_u64(), mask["size"][1].as_u64());
        masks.push(match (width, height, mask["counts"].as_str()) {
            (Some(width), Some(height), Some(counts)) => {
                Rle::from_coco_string(width as u32, height as u32, counts)?
            }
            _ => Rle::empty(truths[0].width_px(), truths[0].height_px()),
        });
    }
    ensure!(
        masks.len() == truths.len(),
        "masks {path:?}: expected {} frames, got {}",
        truths.len(),
        masks.len()
    );
    Ok(masks)
}
