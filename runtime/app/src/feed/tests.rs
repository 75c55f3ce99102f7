//! Real sources into a real `appsrc`, whose other end is read by hand.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::*;

/// A corridor that only remembers what went through, in order.
struct Corridor {
    pipeline: gst::Pipeline,
    into: gst_app::AppSrc,
    passed: Arc<Mutex<Vec<Passed>>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Passed {
    Frame { pts_ns: u64, discont: bool },
    Size(i32, i32),
    Event(String),
}

impl Corridor {
    fn new(depth: u64) -> Self {
        crate::gstreamer::init().unwrap();
        let pipeline = gst::Pipeline::new();
        let into = corridor_source("door", depth).unwrap();
        let sink = crate::elements::make("fakesink", "a test").unwrap();
        sink.set_property("sync", false);
        pipeline.add_many([into.upcast_ref(), &sink]).unwrap();
        into.link(&sink).unwrap();
        let passed = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&passed);
        let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        sink.static_pad("sink").unwrap().add_probe(types, move |_, info| {
            let what = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => Some(Passed::Frame {
                    pts_ns: buffer.pts().unwrap().nseconds(),
                    discont: buffer.flags().contains(gst::BufferFlags::DISCONT),
                }),
                Some(gst::PadProbeData::Event(event)) => match event.view() {
                    gst::EventView::Caps(caps) => {
                        let caps = caps.caps().structure(0).unwrap();
                        Some(Passed::Size(caps.get("width").unwrap(), caps.get("height").unwrap()))
                    }
                    gst::EventView::CustomDownstream(event) => {
                        let structure = event.structure().unwrap();
                        let cause = structure.get::<&str>("cause").unwrap_or("");
                        Some(Passed::Event(format!("{} {cause}", structure.name()).trim().to_owned()))
                    }
                    _ => None,
                },
                _ => None,
            };
            seen.lock().unwrap().extend(what);
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, into, passed }
    }

    fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap().clone()
    }

    fn stamps_ns(&self) -> Vec<u64> {
        let stamp = |passed| if let Passed::Frame { pts_ns, .. } = passed { Some(pts_ns) } else { None };
        self.passed().into_iter().filter_map(stamp).collect()
    }
}

impl Drop for Corridor {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// A supervised source and what it told.
struct Fed {
    corridor: Corridor,
    source: Supervised,
    told: Arc<Mutex<Vec<SourceEvent>>>,
}

impl Fed {
    fn new(input: &Input, options: SourceOptions) -> Self {
        let corridor = Corridor::new(64);
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = Arc::clone(&told);
        let source = Supervised::start("test", input, options, &corridor.into, move |event| {
            telling.lock().unwrap().push(event);
        })
        .unwrap();
        Self { corridor, source, told }
    }

    /// Waits until `done`, and fails with everything that was told if that takes long.
    fn wait(&self, what: &str, done: impl Fn(&SourceCounts) -> bool) -> SourceCounts {
        let begun = Instant::now();
        loop {
            let counts = self.source.counts();
            if done(&counts) {
                return counts;
            }
            let told = self.told.lock().unwrap();
            assert!(begun.elapsed() < Duration::from_secs(15), "{what}: {counts:?}\n{told:?}");
            drop(told);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn lost(&self, cause: LossCause) -> u64 {
        self.source.counts().losses[cause as usize].1
    }
}

/// Short waits.
fn quick() -> SourceOptions {
    SourceOptions {
        connect_timeout: Duration::from_secs(5),
        silence: Duration::from_millis(300),
        retry_base: Duration::from_millis(10),
        retry_cap: Duration::from_millis(50),
        ..SourceOptions::default()
    }
}

fn increasing(stamps_ns: &[u64]) {
    assert!(stamps_ns.windows(2).all(|two| two[0] < two[1]), "{stamps_ns:?}");
}

fn play(description: &str) {
    let pipeline = gst::parse::launch(description).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(30), &types);
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(matches!(message.unwrap().view(), gst::MessageView::Eos(_)), "{description}");
}

#[test]
fn the_test_picture_keeps_its_pace() {
    let fed = Fed::new(&Input::Test, SourceOptions { pace: Some(100.0), ..quick() });
    let counts = fed.wait("frames", |counts| counts.frames >= 30);
    assert!(
        counts.up && counts.connects == 1 && counts.since_last_frame.unwrap() < Duration::from_millis(300)
    );
    let stamps_ns = fed.corridor.stamps_ns();
    increasing(&stamps_ns);
    // Ten frames in: the first ones may come together.
    let mean_ns = (stamps_ns[28] - stamps_ns[8]) / 20;
    assert!((9_900_000..=10_100_000).contains(&mean_ns), "{mean_ns} ns apart");
    let told = fed.told.lock().unwrap().clone();
    assert!(matches!(&told[0], SourceEvent::Connected { caps, .. } if caps.contains("640")), "{told:?}");
    let begun = Instant::now();
    fed.source.stop();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn files_end_or_begin_again() {
    crate::gstreamer::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.avi");
    play(&format!(
        "videotestsrc num-buffers=10 ! video/x-raw,width=64,height=48,framerate=25/1 ! jpegenc ! avimux ! filesink location={clip:?}"
    ));
    let input = Input::parse(clip.to_str().unwrap()).unwrap();
    let fed = Fed::new(&input, quick());
    let begun = Instant::now();
    while !fed.told.lock().unwrap().contains(&SourceEvent::Ended) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", fed.told.lock().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(begun.elapsed() > Duration::from_millis(340), "at its own pace: {:?}", begun.elapsed());
    let counts = fed.source.counts();
    assert_eq!((counts.frames, counts.up), (10, false));
    fed.source.stop();

    let looped = SourceOptions { loop_file: true, pace: Some(200.0), ..quick() };
    let fed = Fed::new(&input, looped);
    let counts = fed.wait("three rounds", |counts| counts.frames >= 35);
    assert_eq!(counts.connects, 1, "rewound, not opened again");
    assert!(counts.mended.iter().all(|(_, count)| *count == 0), "{counts:?}");
    increasing(&fed.corridor.stamps_ns());
    fed.source.stop();
}

#[test]
fn a_file_that_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("later.avi");
    let uri = gst::glib::filename_to_uri(&clip, None).unwrap();
    let fed = Fed::new(&Input::File(uri.into()), SourceOptions { pace: Some(500.0), ..quick() });
    fed.wait("two tries", |counts| counts.losses[LossCause::NeverCame as usize].1 >= 2);
    assert!(fed.corridor.passed().is_empty(), "nothing was lost that never was");
    play(&format!(
        "videotestsrc num-buffers=5 ! video/x-raw,width=64,height=48 ! jpegenc ! avimux ! filesink location={clip:?}"
    ));
    fed.wait("its frames", |counts| counts.frames >= 5);
    fed.source.stop();
}

/// One JPEG of a colour and size.
fn jpeg(folder: &std::path::Path, (width, height): (u32, u32)) -> Vec<u8> {
    let path = folder.join("one.jpg");
    play(&format!(
        "videotestsrc num-buffers=1 ! video/x-raw,width={width},height={height} ! jpegenc ! filesink location={path:?}"
    ));
    std::fs::read(path).unwrap()
}

/// What a scripted HTTP camera does with its connections, one after the other; the last is repeated.
#[derive(Debug, Clone)]
enum Act {
    /// So many frames of these pictures in turn, 100 a second, then what follows.
    Frames(Vec<Vec<u8>>, usize, After),
    Refuse,
}

#[derive(Debug, Clone, Copy)]
enum After {
    Close,
    Freeze,
}

/// A camera that speaks HTTP, on a free port; it ends with the test.
struct HttpCamera {
    port: u16,
    over: Arc<AtomicBool>,
}

impl HttpCamera {
    fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        std::thread::spawn(move || {
            for (turn, stream) in listener.incoming().enumerate() {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                let act = acts[turn.min(acts.len() - 1)].clone();
                let ended = Arc::clone(&ended);
                // A client that hangs up is what is tested.
                std::thread::spawn(move || drop(Self::answer(stream.unwrap(), &act, &ended)));
            }
        });
        Self { port, over }
    }

    fn input(&self) -> Input {
        Input::parse(&format!("http://127.0.0.1:{}/video", self.port)).unwrap()
    }

    fn answer(mut stream: TcpStream, act: &Act, over: &AtomicBool) -> std::io::Result<()> {
        let _ = stream.read(&mut [0; 4096])?;
        let Act::Frames(pictures, count, after) = act else {
            return stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        };
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n",
        )?;
        for picture in pictures.iter().cycle().take(*count) {
            let head =
                format!("--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", picture.len());
            stream.write_all(head.as_bytes())?;
            stream.write_all(picture)?;
            stream.write_all(b"\r\n")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        while matches!(after, After::Freeze) && !over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for HttpCamera {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the listener.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Closed, frozen, refused, and back with another size: every loss is counted and marked in the stream, in order.
#[test]
fn an_http_camera_with_every_fault() {
    crate::gstreamer::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (jpeg(folder.path(), (64, 48)), jpeg(folder.path(), (96, 64)));
    let camera = HttpCamera::start(vec![
        Act::Frames(vec![small.clone()], 30, After::Close),
        Act::Refuse,
        Act::Frames(vec![small], 20, After::Freeze),
        Act::Frames(vec![large], 1_000_000, After::Close),
    ]);
    let fed = Fed::new(&camera.input(), quick());
    let counts = fed.wait("the third connection", |counts| {
        counts.connects == 3 && counts.losses.iter().map(|(_, count)| count).sum::<u64>() == 3
    });
    let before = counts.frames;
    fed.wait("its frames", |counts| counts.frames > before + 10);
    for (cause, count) in
        [(LossCause::Eos, 1), (LossCause::NeverCame, 1), (LossCause::Silence, 1), (LossCause::Error, 0)]
    {
        assert_eq!(fed.lost(cause), count, "{cause:?}: {:?}", fed.told.lock().unwrap());
    }
    let passed = fed.corridor.passed();
    let marks: Vec<_> = passed.iter().filter(|what| !matches!(what, Passed::Frame { .. })).cloned().collect();
    let event = |text: &str| Passed::Event(text.to_owned());
    assert_eq!(
        marks,
        [
            Passed::Size(64, 48),
            event("sightline/camera-lost eos"),
            event("sightline/camera-back"),
            event("sightline/camera-lost silence"),
            Passed::Size(96, 64),
            event("sightline/camera-back"),
        ]
    );
    for two in passed.windows(2) {
        if two[0] == event("sightline/camera-back") {
            assert!(matches!(two[1], Passed::Frame { discont: true, .. }), "{two:?}");
        }
    }
    increasing(&fed.corridor.stamps_ns());
    let counts = fed.source.counts();
    assert_eq!(fed.corridor.stamps_ns().len() as u64, counts.frames, "each frame that went in came out");
    fed.source.stop();
}

/// Garbage between good pictures is a decoder's warning, not a loss.
#[test]
fn garbage_among_the_pictures() {
    crate::gstreamer::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let good = jpeg(folder.path(), (64, 48));
    let half = good[..good.len() / 2].to_vec();
    let mut scribbled = good.clone();
    scribbled.iter_mut().skip(2).enumerate().for_each(|(at, byte)| *byte = (at * 97 % 251) as u8);
    let pictures = vec![good.clone(), half, good.clone(), scribbled, good];
    let camera = HttpCamera::start(vec![Act::Frames(pictures, 1_000_000, After::Close)]);
    let fed = Fed::new(&camera.input(), quick());
    fed.wait("frames", |counts| counts.frames >= 60);
    let counts = fed.source.counts();
    assert_eq!((counts.connects, counts.losses.iter().map(|(_, count)| count).sum::<u64>()), (1, 0));
    increasing(&fed.corridor.stamps_ns());
    fed.source.stop();
}

/// H.264 with holes in it: the decoder conceals what it can and complains, and the source is not given up for that.
#[test]
fn a_damaged_stream() {
    crate::gstreamer::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.ts");
    play(&format!(
        "videotestsrc pattern=snow num-buffers=50 ! video/x-raw,width=160,height=120,framerate=25/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 bitrate=500 ! mpegtsmux ! filesink location={clip:?}"
    ));
    let mut bytes = std::fs::read(&clip).unwrap();
    let from = bytes.len() / 5;
    // The payload of every ninth packet; headers stay, so that the pieces are still taken for video.
    for packet in bytes[from..].chunks_exact_mut(188).step_by(9) {
        packet[40..].fill(0x55);
    }
    std::fs::write(&clip, bytes).unwrap();
    let input = Input::parse(clip.to_str().unwrap()).unwrap();
    let fed = Fed::new(&input, SourceOptions { pace: Some(200.0), loop_file: true, ..quick() });
    let counts = fed.wait("frames", |counts| counts.frames >= 80);
    assert_eq!(
        counts.losses.iter().map(|(_, count)| count).sum::<u64>(),
        0,
        "{:?}",
        fed.told.lock().unwrap()
    );
    assert_eq!(counts.connects, 1);
    increasing(&fed.corridor.stamps_ns());
    fed.source.stop();
}

fn frame(size: i32, flags: gst::BufferFlags) -> gst::Sample {
    let mut buffer = gst::Buffer::with_size((size * size * 3) as usize).unwrap();
    buffer.get_mut().unwrap().set_flags(flags);
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "RGB")
        .field("width", size)
        .field("height", size)
        .field("framerate", gst::Fraction::new(25, 1))
        .build();
    gst::Sample::builder().buffer(&buffer).caps(&caps).build()
}

/// Every kind of bad stamp, a damaged frame and a new size: all pass, in order, and are counted.
#[test]
fn the_door_mends_what_comes() {
    let corridor = Corridor::new(64);
    let door = Door::new(corridor.into.clone());
    while corridor.into.current_running_time().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    door.open(1);
    let second = 1_000_000_000;
    let none = gst::BufferFlags::empty();
    let frames = [
        (Some(5 * second), 32, none),
        (Some(5 * second), 32, none),
        (None, 32, none),
        (Some(900 * second), 48, none),
        (Some(-second), 48, gst::BufferFlags::CORRUPTED),
    ];
    for (pts_ns, size, flags) in frames {
        door.pass(1, frame(size, flags), pts_ns).unwrap();
    }
    assert_eq!(door.pass(2, frame(32, none), None), Err(gst::FlowError::Eos), "another connection");
    let begun = Instant::now();
    while corridor.stamps_ns().len() < 5 && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    increasing(&corridor.stamps_ns());
    let sizes: Vec<_> =
        corridor.passed().into_iter().filter(|what| matches!(what, Passed::Size(..))).collect();
    assert_eq!(sizes, [Passed::Size(32, 32), Passed::Size(48, 48)]);
    let counts = door.counts();
    assert_eq!((counts.frames, counts.door_drops), (5, 0));
    let expected = [
        (Mend::Jump, 1),
        (Mend::Missing, 1),
        (Mend::Negative, 1),
        (Mend::Duplicate, 1),
        (Mend::Drift, 0),
        (Mend::Corrupt, 1),
    ];
    assert_eq!(counts.mended, expected);
}

/// A corridor that stands still costs the camera nothing: what has no room is turned away and counted.
#[test]
fn a_full_corridor_turns_frames_away() {
    let corridor = Corridor::new(3);
    let door = Door::new(corridor.into.clone());
    let pad = corridor.into.static_pad("src").unwrap();
    let blocked = pad.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| gst::PadProbeReturn::Ok).unwrap();
    door.open(1);
    let begun = Instant::now();
    for index in 0..100 {
        let pts_ns = Some(index * 10_000_000);
        door.pass(1, frame(16, gst::BufferFlags::empty()), pts_ns).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "nobody waited");
    let counts = door.counts();
    assert_eq!(counts.frames + counts.door_drops, 100);
    assert!((3..=5).contains(&counts.frames), "{counts:?}");
    pad.remove_probe(blocked);
    let begun = Instant::now();
    while (corridor.stamps_ns().len() as u64) < counts.frames && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(corridor.stamps_ns().len() as u64, counts.frames, "what went in comes out");
}
