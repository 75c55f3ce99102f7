//! One picture of a whole run: annotated frames, evenly spread, with their times.
//!
//! Nobody knows beforehand how long a stream is. So every `step`-th frame is kept, and once four times as many as
//! wanted are there, every second one goes and `step` doubles: memory stays bounded and the frames stay even.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use gst::prelude::*;

use sightline_core::PixelFormat;
use sightline_vision::draw::{Color, PictureMut, PlaneMut, label};

use super::gate::running_time;
use crate::pictures::{self, RgbPicture};

/// Between and around the pictures.
const GAP_PX: u32 = 6;
const BACKGROUND: u8 = 24;
/// Frames on their way to the worker. Full: `Block` when every frame counts, else `DropNewest`.
const DEPTH: usize = 2;
/// Frames held for each that is wanted, at most. With fewer, the last choice among them would be uneven.
const HELD: usize = 4;

struct Tapped {
    index: u64,
    time: Duration,
    caps: gst::Caps,
    buffer: gst::Buffer,
}

/// A frame that is kept.
struct Thumbnail {
    index: u64,
    time: Duration,
    picture: RgbPicture,
}

/// A contact sheet being made.
pub(crate) struct ContactSheet {
    path: PathBuf,
    wanted: usize,
    worker: JoinHandle<Result<Vec<Thumbnail>>>,
    pad: gst::Pad,
    probe: gst::PadProbeId,
}

impl ContactSheet {
    /// Taps `pad`, which carries the annotated frames.
    pub(crate) fn tap(pad: gst::Pad, path: &Path, wanted: usize, width_px: u32, live: bool) -> Result<Self> {
        let step = Arc::new(AtomicU64::new(1));
        let (sender, receiver) = sync_channel(DEPTH);
        let worker = {
            let step = Arc::clone(&step);
            std::thread::Builder::new()
                .name("contact-sheet".into())
                .spawn(move || collect(&receiver, &step, wanted, width_px))
                .context("cannot start the contact sheet's thread")?
        };
        let probe = add_probe(&pad, sender, step, live).context("cannot tap the annotated frames")?;
        Ok(Self { path: path.to_owned(), wanted, worker, pad, probe })
    }

    /// Writes the file. To be called once no frame comes any more.
    pub(crate) fn finish(self) -> Result<()> {
        // The probe owns the sender; without it the worker sees the end.
        self.pad.remove_probe(self.probe);
        let frames = self.worker.join().map_err(|_| anyhow!("the contact sheet's thread panicked"))??;
        if frames.is_empty() {
            bail!("contact sheet {:?}: expected at least one frame, got none", self.path);
        }
        let chosen = evenly(frames.len(), self.wanted);
        pictures::write_png(&self.path, &compose(&chosen.iter().map(|at| &frames[*at]).collect::<Vec<_>>())?)
    }
}

fn add_probe(
    pad: &gst::Pad,
    sender: SyncSender<Tapped>,
    step: Arc<AtomicU64>,
    live: bool,
) -> Option<gst::PadProbeId> {
    let next = AtomicU64::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if !index.is_multiple_of(step.load(Ordering::Relaxed)) {
            return gst::PadProbeReturn::Ok;
        }
        let (Some(buffer), Some(caps)) = (info.buffer(), pad.current_caps()) else {
            return gst::PadProbeReturn::Ok;
        };
        let time = running_time(pad, buffer).map_or(Duration::ZERO, Duration::from);
        let tapped = Tapped { index, time, caps, buffer: buffer.to_owned() };
        // A worker that is gone reports its error when it is joined.
        if live {
            let _ = sender.try_send(tapped);
        } else {
            let _ = sender.send(tapped);
        }
        gst::PadProbeReturn::Ok
    })
}

fn collect(
    receiver: &Receiver<Tapped>,
    step: &AtomicU64,
    wanted: usize,
    width_px: u32,
) -> Result<Vec<Thumbnail>> {
    let mut shrinker: Option<Shrinker> = None;
    let mut kept: Vec<Thumbnail> = Vec::with_capacity(HELD * wanted);
    for tapped in receiver {
        if !tapped.index.is_multiple_of(step.load(Ordering::Relaxed)) {
            continue;
        }
        if shrinker.as_ref().is_none_or(|known| known.caps != tapped.caps) {
            shrinker = Some(Shrinker::new(&tapped.caps, width_px)?);
        }
        let Some(shrinker) = &shrinker else { continue };
        let picture = shrinker.run(&tapped.buffer)?;
        kept.push(Thumbnail { index: tapped.index, time: tapped.time, picture });
        if kept.len() >= HELD * wanted {
            let doubled = step.load(Ordering::Relaxed) * 2;
            step.store(doubled, Ordering::Relaxed);
            kept.retain(|thumbnail| thumbnail.index.is_multiple_of(doubled));
        }
    }
    Ok(kept)
}

/// From a decoded frame to a small RGB picture.
struct Shrinker {
    caps: gst::Caps,
    info: gst_video::VideoInfo,
    small: gst_video::VideoInfo,
    converter: gst_video::VideoConverter,
}

impl Shrinker {
    fn new(caps: &gst::Caps, width_px: u32) -> Result<Self> {
        let info = gst_video::VideoInfo::from_caps(caps)?;
        let shape = info.par();
        let height = f64::from(width_px) * f64::from(info.height()) * f64::from(shape.denom())
            / (f64::from(info.width()) * f64::from(shape.numer()));
        let height_px = (height.round() as u32).clamp(1, 4 * width_px);
        let small = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width_px, height_px)
            .fps(info.fps())
            .interlace_mode(info.interlace_mode())
            .build()?;
        let converter = gst_video::VideoConverter::new(&info, &small, None)?;
        Ok(Self { caps: caps.clone(), info, small, converter })
    }

    fn run(&self, buffer: &gst::Buffer) -> Result<RgbPicture> {
        let input = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.info)?;
        let target = gst::Buffer::with_size(self.small.size())?;
        let mut target = gst_video::VideoFrame::from_buffer_writable(target, &self.small)
            .map_err(|_| anyhow!("cannot map a thumbnail"))?;
        self.converter.frame_ref(&input, &mut target.as_mut_video_frame_ref());
        let row = self.small.width() as usize * 3;
        let stride = self.small.stride()[0] as usize;
        let data = target.plane_data(0)?.chunks(stride).flat_map(|line| &line[..row]).copied().collect();
        Ok(RgbPicture { width_px: self.small.width(), height_px: self.small.height(), data })
    }
}

/// `wanted` positions out of `have`, the first and the last among them.
fn evenly(have: usize, wanted: usize) -> Vec<usize> {
    if have <= wanted {
        return (0..have).collect();
    }
    if wanted == 1 {
        return vec![have / 2];
    }
    (0..wanted).map(|at| (at * (have - 1) + (wanted - 1) / 2) / (wanted - 1)).collect()
}

fn compose(frames: &[&Thumbnail]) -> Result<RgbPicture> {
    let columns = (1..).find(|side| side * side >= frames.len()).unwrap_or(1);
    let rows = frames.len().div_ceil(columns);
    let cell_width = frames.iter().map(|frame| frame.picture.width_px).max().unwrap_or(1);
    let cell_height = frames.iter().map(|frame| frame.picture.height_px).max().unwrap_or(1);
    let width_px = columns as u32 * (cell_width + GAP_PX) + GAP_PX;
    let height_px = rows as u32 * (cell_height + GAP_PX) + GAP_PX;
    let mut sheet = RgbPicture {
        width_px,
        height_px,
        data: vec![BACKGROUND; width_px as usize * height_px as usize * 3],
    };
    for (at, frame) in frames.iter().enumerate() {
        let left = (at % columns) as u32 * (cell_width + GAP_PX) + GAP_PX;
        let top = (at / columns) as u32 * (cell_height + GAP_PX) + GAP_PX;
        paste(&mut sheet, &frame.picture, left, top);
        write_time(&mut sheet, frame.time, left, top)?;
    }
    Ok(sheet)
}

fn paste(sheet: &mut RgbPicture, picture: &RgbPicture, left: u32, top: u32) {
    let row = picture.width_px as usize * 3;
    for (y, line) in picture.data.chunks_exact(row).enumerate() {
        let at = ((top as usize + y) * sheet.width_px as usize + left as usize) * 3;
        sheet.data[at..at + row].copy_from_slice(line);
    }
}

/// In the picture's corner, on the sheet itself: letters grow with the picture they are written on.
fn write_time(sheet: &mut RgbPicture, time: Duration, left: u32, top: u32) -> Result<()> {
    let plane = PlaneMut { stride_bytes: sheet.width_px as usize * 3, data: &mut sheet.data };
    let mut picture = PictureMut::new(PixelFormat::Rgb, sheet.width_px, sheet.height_px, [plane])?;
    label(&mut picture, left, top, &time_text(time), Color { r: 0, g: 0, b: 0 });
    Ok(())
}

/// Minutes, seconds and a tenth of running time.
fn time_text(time: Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    let (minutes, rest) = (tenths / 600, tenths % 600);
    format!("{minutes}:{:02}.{}", rest / 10, rest % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_even_and_keep_both_ends() {
        assert_eq!(evenly(3, 12), [0, 1, 2]);
        assert_eq!(evenly(23, 12), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]);
        for have in 12..24 {
            let chosen = evenly(have, 12);
            assert_eq!((chosen[0], chosen[11], chosen.len()), (0, have - 1, 12), "{have}");
            assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "{have}: {chosen:?}");
        }
        assert_eq!(evenly(9, 1), [4]);
    }

    #[test]
    fn an_endless_stream_keeps_few_frames_and_evenly() {
        gst::init().unwrap();
        let caps = gst_video::VideoCapsBuilder::new()
            .format(gst_video::VideoFormat::I420)
            .width(16)
            .height(8)
            .framerate(gst::Fraction::new(30, 1))
            .build();
        let step = Arc::new(AtomicU64::new(1));
        let (sender, receiver) = sync_channel(DEPTH);
        let worker = {
            let step = Arc::clone(&step);
            std::thread::spawn(move || collect(&receiver, &step, 12, 64))
        };
        for index in 0..1000 {
            let buffer = gst::Buffer::with_size(16 * 8 * 3 / 2).unwrap();
            sender
                .send(Tapped { index, time: Duration::from_millis(index * 33), caps: caps.clone(), buffer })
                .unwrap();
        }
        drop(sender);
        let kept = worker.join().unwrap().unwrap();
        assert!((24..48).contains(&kept.len()), "{}", kept.len());
        let step = step.load(Ordering::Relaxed);
        assert!(kept.iter().enumerate().all(|(at, thumbnail)| thumbnail.index == at as u64 * step));
        let sheet = compose(&kept.iter().take(12).collect::<Vec<_>>()).unwrap();
        assert_eq!((sheet.width_px, sheet.height_px), (4 * (64 + 6) + 6, 3 * (32 + 6) + 6));
    }

    #[test]
    fn times() {
        assert_eq!(time_text(Duration::from_millis(62_345)), "1:02.3");
        assert_eq!(time_text(Duration::from_millis(59_960)), "1:00.0");
    }
}
