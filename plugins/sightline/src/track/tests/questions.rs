//! Questions through a real server on loopback: late answers, faults, conversations, alerts.

use serde_json::json;
use sightline_core::TrackState;

use super::*;
use crate::query_record::{LateRecord, QueryRecord};

#[path = "../../../../../runtime/grounding/tests/support/scripted.rs"]
mod scripted;

use scripted::{End, Seen, Server, Step};

/// A server and the runtime it lives on.
pub(super) struct Desk {
    server: Server,
    _runtime: tokio::runtime::Runtime,
}

impl Desk {
    pub(super) fn new(say: impl Fn(&Seen, usize) -> Step + Send + Sync + 'static) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(Server::start("127.0.0.1:0", say)).unwrap();
        Self { server, _runtime: runtime }
    }

    pub(super) fn llm(&self) -> gst::Structure {
        let text = format!(
            "llm, url=\"{}\", model=m, retries=0, total-timeout-s=2.0, first-token-timeout-s=0.4, patience-s=0.05, \
             breaker-failures=100",
            self.server.url()
        );
        text.parse().unwrap()
    }

    fn rig(&self, mode: Mode) -> Rig {
        Rig::with(mode, FakeOptions::default(), |element| element.set_property("llm", self.llm()))
    }
}

/// What says that the square of the first frame is in this box.
fn square() -> String {
    json!({"text": "", "verdict": null, "spans": [],
        "objects": [{"label": "square", "box": [100, 250, 290, 500], "mark": null, "images": null}]})
    .to_string()
}

pub(super) fn after(delay_ms: u64, text: String) -> Step {
    Step::Answer { text, delay: Duration::from_millis(delay_ms), chunks: 2, pause: Duration::ZERO }
}

impl Rig {
    pub(super) fn query(&self, kind: &str, words: &str, every: f64) -> u64 {
        self.element.emit_by_name("query", &[&kind, &words, &every])
    }

    pub(super) fn queries(&mut self) -> Vec<QueryRecord> {
        self.of("sightline-query").iter().map(|s| QueryRecord::from_structure(s).unwrap()).collect()
    }

    fn states(&mut self, id: u64) -> Vec<String> {
        let mut states: Vec<_> =
            self.queries().into_iter().filter(|query| query.id == id).map(|query| query.state).collect();
        states.dedup();
        states
    }

    /// Pushes a picture every 5 ms until the last message of this name or state says so, at most 2,000.
    fn play_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..2000 {
            self.push();
            std::thread::sleep(Duration::from_millis(5));
            if done(self) {
                return;
            }
        }
        panic!("it never came: {:?}", self.queries());
    }

    fn play_until_final(&mut self, id: u64) -> QueryRecord {
        let ends = ["answered", "failed", "cancelled", "superseded", "refused", "alert"];
        let last = |rig: &mut Self| rig.queries().into_iter().rfind(|query| query.id == id);
        self.play_until(|rig| last(rig).is_some_and(|query| ends.contains(&query.state.as_str())));
        last(self).unwrap()
    }
}

#[test]
fn a_late_answer_lands_on_its_frame_and_catches_up() {
    let desk = Desk::new(|_, _| after(300, square()));
    let mut rig = desk.rig(Mode::Live);
    assert_eq!(rig.query("find", "the red square", 0.0), 1);
    rig.play_until(|rig| !rig.of("sightline-caught-up").is_empty());
    let live = rig.of("sightline-caught-up").remove(0);
    let answered = rig.queries().into_iter().find(|query| query.state == "answered").unwrap();
    assert_eq!((answered.about.unwrap().index, answered.reason.as_str()), (0, "late"));
    assert!(answered.delay >= Duration::from_millis(300));
    assert!(answered.newest.unwrap().index > 10, "frames went on meanwhile");
    assert_eq!(answered.objects[0].id.unwrap().0, 1);
    assert_eq!(rig.states(1)[..2], ["waiting", "asked"]);

    let (from, to): (u64, u64) = (live.get("from-index").unwrap(), live.get("index").unwrap());
    assert_eq!((from, live.get::<bool>("degraded")), (0, Ok(false)));
    let late: Vec<LateRecord> =
        rig.of("sightline-late").iter().map(|s| LateRecord::from_structure(s).unwrap()).collect();
    assert_eq!(late.len() as u32, live.get::<u32>("looked-at").unwrap());
    assert_eq!((late[0].frame.index, late.last().unwrap().frame.index), (0, to));
    assert!(late.is_sorted_by(|a, b| a.frame.index < b.frame.index));
    // The square moves by a hundredth of the width a frame: each late mask is where it was then.
    for record in &late {
        let x = 0.1 + (record.frame.index % 40) as f32 * 0.01;
        let bounds = record.object.bounds.unwrap();
        assert!((bounds.x0 - x).abs() < 0.08, "frame {}: {bounds:?}, expected {x}", record.frame.index);
    }
    rig.push();
    rig.settle();
    let meta = meta_of(&rig.push()).unwrap();
    assert_eq!(meta.objects.len(), 1);
    assert_ne!(meta.objects[0].state, TrackState::Lost);
    rig.assert_sums();
    // What was sent is a picture, and the words.
    let seen = desk.server.seen();
    assert_eq!((seen.len(), seen[0].images().len()), (1, 1));
    assert!(seen[0].text().contains("the red square"));
}

#[test]
fn a_file_waits_for_what_is_looked_for() {
    let desk = Desk::new(|_, _| after(200, square()));
    let mut rig = desk.rig(Mode::EveryFrame);
    rig.query("find", "the red square", 0.0);
    assert!(meta_of(&rig.push()).is_none_or(|meta| meta.objects.is_empty()), "it is asked about the first");
    for _ in 0..5 {
        assert_eq!(meta_of(&rig.push()).unwrap().objects.len(), 1);
    }
    rig.assert_sums();
}

#[test]
fn faults_are_told_and_cost_no_frame() {
    for (fault, kind) in [
        (Step::Hang, "first token"),
        (Step::HangAfterHead, "first token"),
        (Step::HangUp { text: square() }, ""),
        (Step::Garbage, ""),
        (Step::Refuse, ""),
        (Step::Status { code: 500, retry_after: None, body: "no".into() }, "500"),
        (Step::Status { code: 429, retry_after: None, body: "slow down".into() }, "429"),
    ] {
        let said = fault.clone();
        let desk = Desk::new(move |_, _| said.clone());
        let mut rig = desk.rig(Mode::Live);
        rig.query("find", "the red square", 0.0);
        let end = rig.play_until_final(1);
        assert_eq!(end.state, "failed", "{fault:?}");
        assert!(end.reason.contains(kind), "{fault:?}: {}", end.reason);
        rig.settle();
        let before = rig.stat("frames-in");
        rig.add_square();
        for _ in 0..20 {
            rig.push();
            rig.settle();
        }
        rig.assert_sums();
        assert_eq!(rig.stat("frames-in"), before + 20);
        assert!(rig.stat("masks") >= 20, "{fault:?}: every one of them was looked at");
    }
}

#[test]
fn an_answer_of_nothing_useful_says_so_and_finds_nothing() {
    let outside = square().replace("[100,250,290,500]", "[4000,250,5000,500]");
    let desk = Desk::new(move |_, _| after(0, outside.clone()));
    let mut rig = desk.rig(Mode::Live);
    rig.query("find", "the red square", 0.0);
    let end = rig.play_until_final(1);
    assert_eq!(end.state, "answered");
    assert_eq!(end.problems.len(), 1, "{:?}", end.problems);
    assert!(end.objects.iter().all(|object| object.id.is_none()));
    assert_eq!(rig.stat("prompts-applied"), 0);
}

#[test]
fn without_a_server_and_without_words_questions_are_refused() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    assert_eq!(rig.query("seek", "the red square", 0.0), 0);
    assert_eq!(rig.query("ask", "why?", 0.0), 1);
    let end = rig.play_until_final(1);
    assert_eq!(end.reason, "ask: expected a language model's server (llm), got none");
    let reasons: Vec<_> = rig.queries().into_iter().map(|query| query.reason).collect();
    assert!(reasons[0].starts_with("kind: expected find, describe, ask or watch"), "{reasons:?}");
}

#[test]
fn a_conversation_goes_on_and_objects_are_shown() {
    let desk = Desk::new(|_, number| after(0, format!("answer {number}: object 1 stands still")));
    let mut rig = Rig::with(Mode::Live, FakeOptions::default(), |element| {
        let mut llm = desk.llm();
        llm.set("protocol", "plain");
        element.set_property("llm", llm);
    });
    rig.add_square();
    rig.play_until(|rig| rig.stat("masks") > 0);
    rig.query("ask", "What is object 1 doing?", 0.0);
    let first = rig.play_until_final(1);
    assert_eq!((first.text.as_str(), first.spans[0].object.0), ("answer 0: object 1 stands still", 1));
    let bound = first.bound[0];
    assert_eq!(
        (bound.object.0, bound.frames[1]),
        (1, first.about.unwrap()),
        "from its close-ups to the scene"
    );
    assert!(bound.frames[0].index <= bound.frames[1].index);
    rig.query("ask", "Why?", 0.0);
    rig.play_until_final(2);
    let seen = desk.server.seen();
    assert!(seen[0].images().len() >= 2, "its close-ups and the scene");
    let body = seen[1].body.to_string();
    assert!(body.contains("What is object 1 doing?") && body.contains("answer 0"), "{body:.300}");
}

#[test]
fn an_alert_fires_once() {
    let desk = Desk::new(|_, _| {
        after(0, json!({"text": "yes", "verdict": true, "objects": [], "spans": []}).to_string())
    });
    let mut rig = Rig::with(Mode::Live, FakeOptions::default(), |element| {
        let mut llm = desk.llm();
        llm.set("watch-at-least-s", 0.02);
        element.set_property("llm", llm);
    });
    let id = rig.query("watch", "someone enters", 0.03);
    rig.play_until(|_| desk.server.seen().len() >= 5);
    let states: Vec<_> = rig.queries().into_iter().filter(|q| q.id == id).map(|q| q.state).collect();
    assert_eq!(states.iter().filter(|state| *state == "alert").count(), 1, "{states:?}");
    assert!(rig.element.emit_by_name::<bool>("withdraw", &[&id]));
}

#[test]
fn a_question_taken_back_hangs_up() {
    let desk = Desk::new(|_, _| Step::HangAfterHead);
    let mut rig = desk.rig(Mode::Live);
    let id = rig.query("find", "the red square", 0.0);
    rig.play_until(|_| !desk.server.seen().is_empty());
    assert!(rig.element.emit_by_name::<bool>("withdraw", &[&id]));
    let end = rig.play_until_final(id);
    assert_eq!(end.state, "cancelled");
    rig.play_until(|_| desk.server.seen()[0].end == End::ClientGone);
    // Nothing is left to do for the frames.
    rig.settle();
    let before = rig.stat("skipped-no-prompt");
    rig.push();
    rig.push();
    rig.settle();
    assert_eq!(rig.stat("skipped-no-prompt"), before + 2);
}

#[test]
fn an_object_that_is_lost_is_asked_for_again() {
    let desk = Desk::new(|_, _| after(0, square()));
    let mut rig = Rig::with(Mode::Live, FakeOptions::default(), |element| {
        let mut llm = desk.llm();
        llm.set("find-again-after-s", 0.05);
        element.set_property("llm", llm);
    });
    rig.query("find", "the red square", 0.0);
    rig.play_until(|rig| !rig.of("sightline-caught-up").is_empty());
    // The square is gone from now on.
    for _ in 0..60 {
        let mut buffer = picture(WIDTH, HEIGHT, 2.0, 2.0);
        let pts = FRAME * rig.pushed;
        buffer.get_mut().unwrap().set_pts(pts);
        rig.pushed += 1;
        rig.harness.push_and_pull(buffer).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let seen = desk.server.seen();
    assert!(seen.len() >= 2, "asked again");
    assert!(seen[1].text().contains("the red square"));
    assert!(seen.len() < 6, "ever less often: {}", seen.len());
    rig.settle();
    assert!(rig.queries().iter().all(|query| query.id == 1));
    let ids: Vec<u32> = rig.of("sightline-prompt-applied").iter().map(|s| s.get("id").unwrap()).collect();
    assert!(ids.iter().all(|id| *id == 1), "it is the same object: {ids:?}");
}
