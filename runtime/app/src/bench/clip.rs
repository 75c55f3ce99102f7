//! A clip in memory: decoded once, so that what is measured is not the decoder.

use anyhow::{Context as _, Result, bail};
use gst::prelude::*;
use gst_app::AppSink;

use crate::{elements, run::Input};

/// What is kept at most.
const MAX_PICTURES: usize = 150;
const MAX_BYTES: usize = 512 << 20;
/// How long the decoder may take over a picture.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(20);
/// Where a file does not say.
const DEFAULT_FPS: f64 = 30.0;

/// Pictures of one size and format.
pub(super) struct Clip {
    pub(super) caps: gst::Caps,
    pub(super) buffers: Vec<gst::Buffer>,
    pub(super) width_px: u32,
    pub(super) height_px: u32,
    pub(super) format: String,
    /// As the file has it.
    pub(super) fps: f64,
    pub(super) bytes: usize,
}

impl Clip {
    /// Decodes the beginning of a file, in the decoder's own format where `sightlinetrack` takes that.
    pub(super) fn read(input: &str) -> Result<Self> {
        let pipeline = gst::Pipeline::new();
        let convert = elements::make("videoconvert", "the bench")?;
        let formats = [
            gst_video::VideoFormat::I420,
            gst_video::VideoFormat::Nv12,
            gst_video::VideoFormat::Yuy2,
            gst_video::VideoFormat::Rgb,
        ];
        let caps = gst_video::VideoCapsBuilder::new().format_list(formats).build();
        let sink = AppSink::builder().caps(&caps).sync(false).max_buffers(4).build();
        pipeline.add_many([&convert, sink.upcast_ref()])?;
        convert.link(&sink)?;
        match Input::parse(input)? {
            Input::File(uri) => {
                let decoder = elements::make("uridecodebin", "the bench")?;
                decoder.set_property("uri", &uri);
                pipeline.add(&decoder)?;
                let to = convert.static_pad("sink").context("videoconvert has no sink pad")?;
                decoder.connect_pad_added(move |_, pad| {
                    let video = pad.current_caps().or_else(|| Some(pad.query_caps(None)));
                    let video = video.is_some_and(|caps| caps.to_string().starts_with("video/"));
                    if video && !to.is_linked() && pad.link(&to).is_err() {
                        tracing::warn!("the clip's video cannot be taken");
                    }
                });
            }
            Input::Test => {
                let source = elements::make("videotestsrc", "the bench")?;
                source.set_property_from_str("pattern", "ball");
                source.set_property("num-buffers", MAX_PICTURES as i32);
                let size = gst_video::VideoCapsBuilder::new()
                    .format(gst_video::VideoFormat::I420)
                    .width(1280)
                    .height(720);
                let filter = elements::make("capsfilter", "the bench")?;
                filter.set_property("caps", size.framerate(gst::Fraction::new(30, 1)).build());
                pipeline.add_many([&source, &filter])?;
                gst::Element::link_many([&source, &filter, &convert])?;
            }
            other => bail!("input {input:?}: expected a file or \"test\", got {other:?}"),
        }
        let read = Self::collect(&pipeline, &sink).with_context(|| format!("input {input:?}"));
        pipeline.set_state(gst::State::Null)?;
        read
    }

    fn collect(pipeline: &gst::Pipeline, sink: &AppSink) -> Result<Self> {
        pipeline.set_state(gst::State::Playing).context("the clip does not play")?;
        let (mut buffers, mut bytes, mut first) = (Vec::new(), 0, None::<gst::Caps>);
        while buffers.len() < MAX_PICTURES && bytes < MAX_BYTES {
            let Some(sample) = sink.try_pull_sample(PATIENCE) else { break };
            let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else { continue };
            let known = first.get_or_insert_with(|| caps.to_owned());
            if !known.is_strictly_equal(caps) {
                break;
            }
            // The decoder wants its own memory back.
            let copy = buffer.copy_deep().context("a picture cannot be copied")?;
            bytes += copy.size();
            buffers.push(copy);
        }
        if let Some(message) = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]))
            && let gst::MessageView::Error(error) = message.view()
            && buffers.is_empty()
        {
            bail!("{}", error.error());
        }
        let caps = first.context("expected pictures, got none")?;
        let info = gst_video::VideoInfo::from_caps(&caps)?;
        let (numer, denom) = (info.fps().numer(), info.fps().denom());
        let fps = if numer > 0 && denom > 0 { f64::from(numer) / f64::from(denom) } else { DEFAULT_FPS };
        Ok(Self {
            width_px: info.width(),
            height_px: info.height(),
            format: info.format().to_str().to_string(),
            caps,
            buffers,
            fps,
            bytes,
        })
    }

    /// `count` boxes `[x0, y0, x1, y1]` in pixels, each in the middle half of a cell of a grid over the picture.
    pub(super) fn spread(&self, count: usize) -> Vec<[f32; 4]> {
        let columns = (count as f32).sqrt().ceil().max(1.0);
        let rows = (count as f32 / columns).ceil().max(1.0);
        let (width, height) = (self.width_px as f32 / columns, self.height_px as f32 / rows);
        let cell = |at: usize| {
            let (x, y) = ((at as f32 % columns) * width, (at as f32 / columns).floor() * height);
            [x + 0.25 * width, y + 0.25 * height, x + 0.75 * width, y + 0.75 * height]
        };
        (0..count).map(cell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_clip_is_kept_and_boxes_spread_over_it() {
        crate::gstreamer::init().unwrap();
        let clip = Clip::read("test").unwrap();
        assert_eq!((clip.width_px, clip.height_px, clip.fps), (1280, 720, 30.0));
        assert_eq!(clip.buffers.len(), MAX_PICTURES);
        assert_eq!(clip.bytes, MAX_PICTURES * 1280 * 720 * 3 / 2, "{}", clip.format);
        assert_eq!(clip.spread(1), [[320.0, 180.0, 960.0, 540.0]]);
        let three = clip.spread(3);
        assert_eq!(three[2], [160.0, 450.0, 480.0, 630.0]);
        assert!(Clip::read("/nowhere.mp4").is_err());
    }
}
