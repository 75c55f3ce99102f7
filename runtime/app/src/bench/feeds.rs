//! Feeds at a camera's pace: `appsrc ! sightlinetrack mode=live ! fakesink`, side by side in this process.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use gst::prelude::*;
use gst_app::AppSrc;
use gstsightline::{
    meta::META_NAME,
    record::{FRAME_MESSAGE, FrameRecord, PROMPT_REFUSED_MESSAGE},
};
use sightline_config::Settings;

use super::clip::Clip;
use crate::{elements, talk};

/// Time for the last frames' outcomes.
const ENDING: Duration = Duration::from_secs(20);

/// A buffer's way through the element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passage {
    pub(super) entered: Instant,
    /// From sink pad to source pad.
    pub(super) streaming: Duration,
    /// Of the masks it left with.
    pub(super) mask_age: Option<Duration>,
}

/// What a feed gave.
pub(super) struct Fed {
    /// The `n`th has the frame of index `n`.
    pub(super) passages: Vec<Passage>,
    /// In the order of their indices.
    pub(super) records: Vec<FrameRecord>,
    pub(super) stats: BTreeMap<String, u64>,
}

/// A pipeline and the thread that plays into it.
pub(super) struct Feed {
    pipeline: gst::Pipeline,
    source: AppSrc,
    track: gst::Element,
    passages: Arc<Mutex<Vec<Passage>>>,
    player: Option<JoinHandle<Result<()>>>,
    /// Records are read when all is over: reading them costs as much as writing them did.
    messages: Vec<gst::Message>,
    ended: bool,
}

impl Feed {
    /// Builds it and loads the model; nothing plays yet.
    pub(super) fn new(
        clip: &Clip,
        settings: &Settings,
        set: &[(String, String)],
        boxes: &[[f32; 4]],
        late: crate::cli::LateArg,
    ) -> Result<Self> {
        let pipeline = gst::Pipeline::new();
        let source = AppSrc::builder().caps(&clip.caps).format(gst::Format::Time).is_live(true).build();
        let track = crate::run::track_element(settings, true)?;
        talk::configure(&track, settings, late, false)?;
        super::set_properties(&track, set)?;
        let sink = elements::make("fakesink", "the bench")?;
        sink.set_property("sync", false);
        pipeline.add_many([source.upcast_ref(), &track, &sink])?;
        gst::Element::link_many([source.upcast_ref(), &track, &sink])?;
        for (id, corners) in (1_u32..).zip(boxes) {
            let corners = gst::Array::new(corners.map(f64::from));
            let prompt = gst::Structure::builder("prompt").field("box-px", corners).field("id", id).build();
            let given: u32 = track.emit_by_name("add-object", &[&prompt]);
            if given != id {
                bail!("box {id}: expected sightlinetrack to take it, got a refusal");
            }
        }
        let passages = Arc::new(Mutex::new(Vec::new()));
        watch(&track, &passages)?;
        pipeline.set_state(gst::State::Playing).context("the pipeline refused to play")?;
        Ok(Self { pipeline, source, track, passages, player: None, messages: Vec::new(), ended: false })
    }

    /// Plays the clip over and over from `start` on, a picture each `1 / fps` seconds, until `stop`.
    pub(super) fn play(
        &mut self,
        clip: &Clip,
        fps: f64,
        start: Instant,
        stop: &Arc<AtomicBool>,
    ) -> Result<()> {
        let (source, buffers, stop) = (self.source.clone(), clip.buffers.clone(), Arc::clone(stop));
        let play = move || {
            for (picture, buffer) in buffers.iter().cycle().enumerate() {
                let at = Duration::from_secs_f64(picture as f64 / fps);
                std::thread::sleep((start + at).saturating_duration_since(Instant::now()));
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let mut buffer = buffer.copy();
                let fields = buffer.get_mut().context("a fresh buffer is writable")?;
                fields.set_pts(gst::ClockTime::from_nseconds(at.as_nanos() as u64));
                fields.set_dts(gst::ClockTime::NONE);
                source.push_buffer(buffer).context("the element took no more pictures")?;
            }
            source.end_of_stream().context("the element did not take the end")?;
            Ok(())
        };
        self.player = Some(std::thread::Builder::new().name("bench-feed".into()).spawn(play)?);
        Ok(())
    }

    /// Takes what was said.
    pub(super) fn listen(&mut self) -> Result<()> {
        let bus = self.pipeline.bus().context("the pipeline has no bus")?;
        while let Some(message) = bus.pop() {
            match message.view() {
                gst::MessageView::Eos(_) => self.ended = true,
                gst::MessageView::Error(error) => bail!("{}: {:?}", error.error(), error.debug()),
                gst::MessageView::Element(element) => match element.structure() {
                    Some(said) if said.name() == FRAME_MESSAGE => self.messages.push(message),
                    Some(said) if said.name() == PROMPT_REFUSED_MESSAGE => {
                        bail!("prompt refused: {}", said.get::<String>("reason").unwrap_or_default());
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits for the end and reads what was said.
    pub(super) fn finish(mut self) -> Result<Fed> {
        if let Some(player) = self.player.take() {
            player.join().map_err(|_| anyhow::anyhow!("the feed's thread panicked"))??;
        }
        let begun = Instant::now();
        while !self.ended {
            self.listen()?;
            if begun.elapsed() > ENDING {
                bail!("expected the end of the stream, got nothing for {} s", ENDING.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.pipeline.set_state(gst::State::Null)?;
        let structures = self.messages.iter().filter_map(|message| message.structure());
        let mut records = structures.map(FrameRecord::from_structure).collect::<Result<Vec<_>, _>>()?;
        records.sort_by_key(|record| record.frame.index);
        let passages = std::mem::take(&mut *self.passages.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Fed { passages, records, stats: super::stats(&self.track) })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // After a failure; a finished feed is stopped already, and nothing more can be done about one that is not.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn watch(track: &gst::Element, passages: &Arc<Mutex<Vec<Passage>>>) -> Result<()> {
    let pad = |name| track.static_pad(name).context("sightlinetrack has two pads");
    let seen = Arc::clone(passages);
    pad("sink")?.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing of ours comes between this and the element.
        seen.push(Passage { entered: Instant::now(), streaming: Duration::ZERO, mask_age: None });
        gst::PadProbeReturn::Ok
    });
    let seen = Arc::clone(passages);
    pad("src")?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let now = Instant::now();
        let age = info.buffer().and_then(|buffer| {
            let meta = gst::meta::CustomMeta::from_buffer(buffer, META_NAME).ok()?;
            meta.structure().get::<u64>("age").ok().map(Duration::from_nanos)
        });
        if let Some(last) = seen.lock().unwrap_or_else(PoisonError::into_inner).last_mut() {
            (last.streaming, last.mask_age) = (now - last.entered, age);
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}
