//! A question about objects, from its pictures to the words tied to them, through the real protocol.
#![allow(clippy::unwrap_used)] // a test file: its helpers may stop the test

#[path = "support/scripted.rs"]
mod scripted;

use std::time::Duration;

use scripted::{Server, Step};
use serde_json::json;
use sightline_core::{FrameStamp, ObjectId};
use sightline_grounding::{
    Album, AlbumSettings, Caption, Composer, Crop, Hatch, View, bindings,
    hatch::{HatchSettings, News, Notice},
    llm::{Image, LlmSettings},
};

const S: Duration = Duration::from_secs(1);

fn image(width: u32, height: u32) -> Image {
    Image::new(width, height, vec![90; (width * height * 3) as usize].into()).unwrap()
}

fn stamp(second: u32) -> FrameStamp {
    FrameStamp { index: u64::from(second) * 25, pts: Some(S * second), running_time: Some(S * second) }
}

async fn end(hatch: &Hatch) -> Notice {
    for _ in 0..1000 {
        match hatch.poll() {
            Some(notice) if notice.query.state().is_final() => return notice,
            Some(_) => {}
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("an end within 10 s");
}

#[tokio::test]
async fn what_is_object_3_doing() {
    let said = json!({
        "text": "It walks towards the dog.", "verdict": null,
        "objects": [{"label": "walker", "box": [100, 100, 300, 500], "mark": 3, "images": [1, 2]}],
        "spans": [{"phrase": "It", "object": 0, "mark": null}, {"phrase": "the dog", "object": null, "mark": 5}],
    });
    let server = Server::steps(vec![Step::Answer {
        text: said.to_string(),
        delay: Duration::ZERO,
        chunks: 3,
        pause: Duration::ZERO,
    }])
    .await;
    let llm = LlmSettings { url: server.url(), model: "m".into(), ..LlmSettings::default() };
    let hatch = Hatch::open(llm, HatchSettings::default(), None).unwrap();

    let mut album = Album::new(AlbumSettings { longest_px: 32, ..AlbumSettings::default() }).unwrap();
    for second in 0..6 {
        let crop = Crop { stamp: stamp(second), part_px: [10, 10, 20, 30], image: image(16, 32) };
        assert!(album.put(ObjectId(3), crop).unwrap());
    }
    let view = View {
        stamp: stamp(8),
        picture_px: [640, 320],
        part_px: [0, 0, 640, 320],
        image: image(64, 32),
        marks: vec![ObjectId(3), ObjectId(5)],
    };
    let crops: Vec<Crop> = album.crops(ObjectId(3)).cloned().collect();
    let mut composer = Composer::new(S, 9 * S, 3);
    let question = "What is object 3 doing?";
    let ask = composer.ask(question, vec![(ObjectId(3), crops)], None, vec![view], hatch.now()).unwrap();
    hatch.ask(ask).unwrap();
    let notice = end(&hatch).await;

    let seen = &server.seen()[0];
    assert_eq!(seen.images().len(), 3, "two close-ups and the scene");
    assert!(seen.text().contains(question), "{}", seen.text());
    let News::Answered { reading, .. } = &notice.news else { panic!("{notice:?}") };
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    assert_eq!(
        Caption::new(&notice.query, reading, Some(9 * S), |_| None).to_json(),
        json!({
            "text": "It walks towards the dog.",
            "spans": [{"start": 0, "end": 2, "object": 3}, {"start": 17, "end": 24, "object": 5}],
            "query_pts": 8.0,
            "answer_pts": 9.0,
        })
    );
    // Pictures 1 and 2 are the close-up of second 5 and the scene of second 8.
    let bound = bindings(&notice.query, reading, |_| None);
    let told: Vec<_> = bound.iter().map(|b| (b.object.0, b.frames.map(|stamp| stamp.pts.unwrap()))).collect();
    assert_eq!(told, [(3, [5 * S, 8 * S]), (5, [4 * S, 8 * S])]);
}

/// A close-up may have any size, the scene may not, and one that is all close-ups has no frame for its boxes.
#[tokio::test]
async fn pictures_that_are_not_what_was_said_are_not_sent() {
    let server = Server::steps(Vec::new()).await;
    let llm = LlmSettings { url: server.url(), model: "m".into(), ..LlmSettings::default() };
    let hatch = Hatch::open(llm, HatchSettings::default(), None).unwrap();
    let view = View {
        stamp: stamp(1),
        picture_px: [640, 320],
        part_px: [0, 0, 640, 320],
        image: image(64, 32),
        marks: Vec::new(),
    };
    let mut composer = Composer::new(S, 9 * S, 4);
    for images in [vec![image(8, 8), image(32, 16)], vec![image(8, 8)], Vec::new()] {
        let crop = Crop { stamp: stamp(0), part_px: [0, 0, 8, 8], image: image(8, 8) };
        let mut ask = composer.describe_object(ObjectId(1), view.clone(), vec![crop], hatch.now()).unwrap();
        ask.images = images;
        hatch.ask(ask).unwrap();
        let notice = end(&hatch).await;
        let News::Failed(error) = &notice.news else { panic!("{notice:?}") };
        assert!(error.to_string().contains("expected 2 of 64x32"), "{error}");
    }
    assert!(server.seen().is_empty());
}
