//! One line of JSON a frame, a late mask and a step of a question; the schema is in this room's README.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use gstsightline::{
    live_record::LiveRecord,
    query_record::{Binding, CaptionSpan, LateRecord, NamedObject, QueryRecord},
    record::FrameRecord,
};
use serde::Serialize;
use sightline_core::{Degrade, ObjectResult};

use crate::feed::News;

#[derive(Serialize)]
struct Line<'a> {
    frame: u64,
    pts: Option<f64>,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    age_ms: Option<f64>,
    latency_ms: f64,
    #[serde(skip_serializing_if = "is_full")]
    degrade: &'a str,
    stages_ms: BTreeMap<&'a str, f64>,
    objects: Vec<Object<'a>>,
}

fn is_full(degrade: &&str) -> bool {
    *degrade == Degrade::Full.as_str()
}

#[derive(Serialize)]
struct Object<'a> {
    id: u32,
    state: &'a str,
    score: f64,
    iou: f64,
    /// `[x0, y0, x1, y1]` in pixels, the right and bottom edge exclusive.
    #[serde(rename = "box")]
    box_px: Option<[u32; 4]>,
    mask: CocoMask,
}

#[derive(Serialize)]
struct LateLine<'a> {
    late_frame: u64,
    pts: Option<f64>,
    object: Object<'a>,
}

#[derive(Serialize)]
struct QueryLine<'a> {
    query: u64,
    kind: &'a str,
    words: &'a str,
    state: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    /// The frame it is about.
    frame: Option<u64>,
    query_pts: Option<f64>,
    answer_pts: Option<f64>,
    delay_ms: f64,
    text: &'a str,
    spans: Vec<Span>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bound: Vec<Bound>,
    objects: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    problems: &'a [String],
}

#[derive(Serialize)]
struct Span {
    start: usize,
    end: usize,
    object: u32,
}

#[derive(Serialize)]
struct Bound {
    object: u32,
    /// The first and the last.
    frames: [u64; 2],
    pts: [Option<f64>; 2],
}

#[derive(Serialize)]
struct Named<'a> {
    id: Option<u32>,
    label: &'a str,
    /// `[x0, y0, x1, y1]` in shares of the picture's sides.
    #[serde(rename = "box")]
    box_norm: Option<[f64; 4]>,
}

#[derive(Serialize)]
#[serde(tag = "camera", rename_all = "lowercase")]
enum CameraLine<'a> {
    Lost { cause: &'a str, detail: &'a str },
    Back { gap_ms: f64 },
}

#[derive(Serialize)]
struct RestartLine<'a> {
    restarted: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum LiveLine<'a> {
    Degrade { degrade: &'a str, from: &'a str, age_ms: f64 },
    Tracks { tracks: &'a str, ids: Vec<u32>, gap_ms: f64 },
    Reacquired { reacquired: u32, at_frame: u64, pts: Option<f64>, gap_ms: f64 },
}

/// As pycocotools takes it.
#[derive(Serialize)]
struct CocoMask {
    size: [u32; 2],
    counts: String,
}

/// Writes lines to a file.
pub(crate) struct JsonlWriter<W: Write = BufWriter<File>> {
    out: W,
}

impl JsonlWriter {
    /// Creates the file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {path:?}"))?;
        Ok(Self { out: BufWriter::with_capacity(1 << 16, file) })
    }
}

impl<W: Write> JsonlWriter<W> {
    /// Writes to `out`.
    pub(crate) fn over(out: W) -> Self {
        Self { out }
    }

    /// What was written to.
    pub(crate) fn into_inner(self) -> W {
        self.out
    }

    /// Writes a frame. `age` is the time since the newest frame that was looked at.
    pub(crate) fn write(&mut self, record: &FrameRecord, age: Option<Duration>) -> Result<()> {
        let looked_at = record.outcome.skip_reason().is_none();
        let stages = record.stages.named();
        let line = Line {
            frame: record.frame.index,
            pts: record.frame.pts.map(seconds),
            outcome: record.outcome.as_str(),
            reason: record.outcome.skip_reason().map(|reason| reason.as_str()),
            error: record.error.as_deref(),
            age_ms: age.map(ms),
            latency_ms: ms(record.latency),
            degrade: record.degrade.as_str(),
            stages_ms: stages.iter().filter(|_| looked_at).map(|(name, time)| (*name, ms(*time))).collect(),
            objects: record.objects.iter().map(object).collect(),
        };
        self.line(&line)
    }

    /// Writes a mask of a frame that has gone by.
    pub(crate) fn write_late(&mut self, record: &LateRecord) -> Result<()> {
        let pts = record.frame.pts.map(seconds);
        self.line(&LateLine { late_frame: record.frame.index, pts, object: object(&record.object) })
    }

    /// Writes that the camera went or came, and everything before it: whoever follows the file wants to know now.
    pub(crate) fn write_camera(&mut self, news: &News) -> Result<()> {
        match news {
            News::Lost { cause, detail } => self.line(&CameraLine::Lost { cause: cause.as_str(), detail })?,
            News::Back { gap } => self.line(&CameraLine::Back { gap_ms: ms(*gap) })?,
            News::Ended => {}
        }
        Ok(self.out.flush()?)
    }

    /// Writes that what tracks failed and is built anew, and everything before it: the lines after it number frames from
    /// 0 and know nothing of the objects before.
    pub(crate) fn write_restart(&mut self, reason: &str) -> Result<()> {
        self.line(&RestartLine { restarted: reason })?;
        Ok(self.out.flush()?)
    }

    /// Writes what changed for all frames: a step on the degrade ladder, objects over a gap. And everything before it.
    pub(crate) fn write_live(&mut self, record: &LiveRecord) -> Result<()> {
        self.line(&match record {
            LiveRecord::Degrade { from, to, age } => {
                LiveLine::Degrade { degrade: to.as_str(), from: from.as_str(), age_ms: ms(*age) }
            }
            LiveRecord::Tracks { state, ids, gap } => LiveLine::Tracks {
                tracks: state.as_str(),
                ids: ids.iter().map(|id| id.0).collect(),
                gap_ms: ms(*gap),
            },
            LiveRecord::Reacquired { id, frame, gap } => LiveLine::Reacquired {
                reacquired: id.0,
                at_frame: frame.index,
                pts: frame.pts.map(seconds),
                gap_ms: ms(*gap),
            },
        })?;
        Ok(self.out.flush()?)
    }

    /// Writes a step of a question.
    pub(crate) fn write_query(&mut self, record: &QueryRecord) -> Result<()> {
        let span = |span: &CaptionSpan| Span { start: span.start, end: span.end, object: span.object.0 };
        self.line(&QueryLine {
            query: record.id,
            kind: &record.kind,
            words: &record.words,
            state: &record.state,
            reason: &record.reason,
            frame: record.about.map(|frame| frame.index),
            query_pts: record.about.and_then(|frame| frame.pts).map(seconds),
            answer_pts: record.newest.and_then(|frame| frame.pts).map(seconds),
            delay_ms: ms(record.delay),
            text: &record.text,
            spans: record.spans.iter().map(span).collect(),
            bound: record.bound.iter().map(bound).collect(),
            objects: record.objects.iter().map(named).collect(),
            problems: &record.problems,
        })
    }

    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Writes what is buffered.
    pub(crate) fn finish(mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

fn object(object: &ObjectResult) -> Object<'_> {
    let (width, height) = (object.mask.width_px(), object.mask.height_px());
    Object {
        id: object.id.0,
        state: object.state.as_str(),
        score: rounded(f64::from(object.score), 1e4),
        iou: rounded(f64::from(object.iou), 1e4),
        box_px: object.bounds.map(|bounds| bounds.to_pixels(width, height).map(|v| v.round() as u32)),
        mask: CocoMask { size: [height, width], counts: object.mask.to_coco_string() },
    }
}

fn bound(bound: &Binding) -> Bound {
    let frames = bound.frames;
    Bound {
        object: bound.object.0,
        frames: frames.map(|frame| frame.index),
        pts: frames.map(|frame| frame.pts.map(seconds)),
    }
}

fn named(object: &NamedObject) -> Named<'_> {
    let corners = |b: sightline_core::NormBox| [b.x0, b.y0, b.x1, b.y1].map(|at| rounded(f64::from(at), 1e4));
    Named { id: object.id.map(|id| id.0), label: &object.label, box_norm: object.bounds.map(corners) }
}

fn seconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64(), 1e9)
}

fn ms(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3, 1e3)
}

fn rounded(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sightline_core::{FrameStamp, Mask, ObjectId, Outcome, Rle, SkipReason, StageTimes, TrackState};

    use super::*;

    fn line(record: &FrameRecord, age: Option<Duration>) -> serde_json::Value {
        let mut writer = JsonlWriter::over(Vec::new());
        writer.write(record, age).unwrap();
        let text = String::from_utf8(writer.into_inner()).unwrap();
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn lines_have_the_documented_keys() {
        let mut mask = Mask::new(6, 4);
        mask.data_mut()[8..10].fill(1);
        let mask = Rle::encode(&mask);
        let record = FrameRecord {
            frame: FrameStamp { index: 3, pts: Some(Duration::from_millis(125)), running_time: None },
            outcome: Outcome::Masks,
            latency: Duration::from_micros(12_345),
            stages: StageTimes { decoder: Duration::from_millis(2), ..StageTimes::default() },
            objects: vec![sightline_core::ObjectResult {
                id: ObjectId(7),
                state: TrackState::Tracking,
                score: 0.98767,
                iou: 0.5,
                bounds: mask.bounds(),
                mask: Arc::new(mask),
            }],
            degrade: Degrade::Full,
            error: None,
        };
        let value = line(&record, Some(Duration::ZERO));
        assert_eq!(value["frame"], 3);
        assert_eq!(value["pts"], 0.125);
        assert_eq!(value["latency_ms"], 12.345);
        assert_eq!(value["stages_ms"]["decoder"], 2.0);
        assert_eq!(value["stages_ms"].as_object().unwrap().len(), 7);
        let object = &value["objects"][0];
        assert_eq!(object["box"], serde_json::json!([2, 1, 4, 2]));
        assert_eq!(object["score"], 0.9877);
        assert_eq!(object["mask"]["size"], serde_json::json!([4, 6]));
        let counts = object["mask"]["counts"].as_str().unwrap();
        assert_eq!(Rle::from_coco_string(6, 4, counts).unwrap().area_px(), 2);
        assert!(value.get("reason").is_none() && value.get("error").is_none());
    }

    #[test]
    fn a_skipped_frame_says_why() {
        let stamp = FrameStamp { index: 0, pts: None, running_time: None };
        let record = FrameRecord::skipped(stamp, SkipReason::Superseded, Duration::ZERO);
        let value = line(&record, None);
        assert_eq!((&value["outcome"], &value["reason"]), (&"skipped".into(), &"superseded".into()));
        assert!(value["pts"].is_null() && value["age_ms"].is_null());
        assert_eq!(value["objects"], serde_json::json!([]));
    }
}
