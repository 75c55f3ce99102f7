//! Asks any OpenAI-compatible server about pictures, through the hatch, as the runtime does.
//!
//! ```text
//! cargo run -p sightline-grounding --example ask -- --url http://127.0.0.1:8000/v1 --model NAME \
//!     --image a.png --image b.jpg --object 10,20,80,200 --ask "What is object 1 doing?"
//! ```
//!
//! Prints a JSON line for every piece of news: `{"text"}` so far, then the end, then `{"counts"}`. Pictures are a second
//! apart, oldest first. Boxes given by `--object` are objects 1, 2, ... in all of them: they are outlined and numbered on
//! the last picture, and their close-ups on the others go along.
#![allow(clippy::print_stdout)]

mod pictures;

use std::{
    error::Error,
    path::PathBuf,
    process::ExitCode,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::Duration,
};

use pictures::{Frame, save, stamp};
use serde_json::{Value, json};
use sightline_core::ObjectId;
use sightline_grounding::{
    Album, AlbumSettings, Caption, Composer, Crop, Hatch, Query, View, bindings,
    hatch::{Ask, HatchSettings, News, Notice},
    llm::{Answer, LlmSettings},
    protocol::Reading,
};

const USAGE: &str = "ask --url URL --model NAME --image FILE .. (--find PHRASE | --ask QUESTION | --describe true | \
--watch CONDITION) [--object x0,y0,x1,y1 ..] [--protocol NAME] [--max-tokens N] [--temperature T] [--longest-px N] \
[--key-variable NAME] [--first-token-timeout-s N] [--retries N] [--cancel-after CHARACTERS] [--save FOLDER]";

#[derive(Default)]
struct Options {
    llm: LlmSettings,
    images: Vec<PathBuf>,
    objects: Vec<[u32; 4]>,
    kind: String,
    words: String,
    cancel_after: Option<usize>,
    save: Option<PathBuf>,
}

fn main() -> ExitCode {
    match options().and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options::default();
    let llm = &mut options.llm;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name}: expected a value, got none"))?;
        let bad = |expected: &str| format!("{name}: expected {expected}, got {value:?}");
        let number = || value.parse::<u32>().map_err(|_| bad("a number"));
        match name.as_str() {
            "--url" => llm.url = value,
            "--model" => llm.model = value,
            "--key-variable" => llm.key_variable = Some(value),
            "--protocol" => llm.protocol = value.parse()?,
            "--max-tokens" => llm.max_tokens = number()?,
            "--temperature" => llm.temperature = value.parse().map_err(|_| bad("a number"))?,
            "--longest-px" => llm.image_longest_px = number()?,
            "--first-token-timeout-s" => llm.first_token_timeout = Duration::from_secs(number()?.into()),
            "--retries" => llm.retries = number()?,
            "--image" => options.images.push(value.into()),
            "--object" => {
                let edges: Result<Vec<u32>, _> = value.split(',').map(str::parse).collect();
                let edges = edges.ok().and_then(|edges| <[u32; 4]>::try_from(edges).ok());
                options.objects.push(edges.ok_or_else(|| bad("x0,y0,x1,y1"))?);
            }
            "--find" | "--ask" | "--describe" | "--watch" => {
                options.kind = name[2..].to_owned();
                options.words = value;
            }
            "--cancel-after" => options.cancel_after = Some(number()? as usize),
            "--save" => options.save = Some(value.into()),
            _ => return Err(format!("argument: expected one of those below, got {name:?}").into()),
        }
    }
    Ok(options)
}

/// Whether there was an answer.
fn run(options: Options) -> Result<bool, Box<dyn Error>> {
    let (tell, told) = mpsc::channel();
    let on_news = Box::new(move || _ = tell.send(()));
    let settings = options.llm.clone();
    let limit = settings.total_timeout + Duration::from_secs(5);
    let hatch = Hatch::open(settings, HatchSettings::default(), Some(on_news))?;
    let ask = compose(&options, hatch.now())?;
    if let Some(folder) = &options.save {
        std::fs::create_dir_all(folder)?;
        for (index, image) in ask.images.iter().enumerate() {
            save(image, &folder.join(format!("{index}.png")))?;
        }
    }
    hatch.ask(ask)?;
    let answered = follow(&hatch, &told, &options, limit)?;
    let counts = hatch.counts();
    println!(
        "{}",
        json!({"counts": {"accepted": counts.accepted, "answered": counts.answered, "failed": counts.failed,
            "cancelled": counts.cancelled, "retries": counts.retries}})
    );
    hatch.close();
    Ok(answered)
}

fn compose(options: &Options, now: Duration) -> Result<Ask, Box<dyn Error>> {
    let llm = &options.llm;
    let frames = options.images.iter().map(|path| Frame::read(path)).collect::<Result<Vec<_>, _>>()?;
    let last = frames.last().ok_or("--image: expected at least one, got none")?;
    let ids = (1..).map(ObjectId);
    let masks = options.objects.iter().map(|box_px| last.mask(*box_px)).collect::<Result<Vec<_>, _>>()?;
    let objects: Vec<_> = ids.zip(masks).collect();
    let mut album = Album::new(AlbumSettings::default())?;
    let mut views: Vec<View> = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        if objects.is_empty() || index + 1 == frames.len() {
            views.push(frame.view(stamp(index), &objects, llm.image_longest_px)?);
        } else {
            frame.cut(stamp(index), &objects, &mut album)?;
        }
    }
    let crops = |id: ObjectId| album.crops(id).cloned().collect::<Vec<Crop>>();
    let mut composer = Composer::new(Duration::from_secs(2), Duration::from_secs(60), llm.max_images);
    let words = options.words.clone();
    let newest = |mut views: Vec<View>| views.pop().ok_or("--image: expected at least one, got none");
    Ok(match (options.kind.as_str(), objects.first()) {
        ("find", _) => composer.find(words, newest(views)?, now)?,
        ("watch", _) => composer.watch(words, views, now)?,
        ("describe", None) => composer.describe_scene(views, now)?,
        ("describe", Some((id, _))) => composer.describe_object(*id, newest(views)?, crops(*id), now)?,
        ("ask", _) => {
            let about = objects.iter().map(|(id, _)| (*id, crops(*id))).collect();
            composer.ask(words, about, None, views, now)?
        }
        _ => return Err("expected one of --find, --ask, --describe, --watch, got none".into()),
    })
}

/// Prints the news until the end; whether it was an answer.
fn follow(
    hatch: &Hatch,
    told: &Receiver<()>,
    options: &Options,
    limit: Duration,
) -> Result<bool, Box<dyn Error>> {
    loop {
        // A cancellation is told of by `cancel` itself, so there may be news without a call.
        while let Some(Notice { query, news }) = hatch.poll() {
            match news {
                News::Text(text) => {
                    let so_far = text.chars().count();
                    println!("{}", json!({"text": text}));
                    if options.cancel_after.is_some_and(|after| so_far >= after) {
                        hatch.cancel(query.id);
                    }
                }
                News::Answered { reading, answer } => {
                    println!("{}", answered(&query, &reading, &answer));
                    return Ok(true);
                }
                News::Failed(error) => {
                    println!(
                        "{}",
                        json!({"state": "failed", "kind": error.kind().as_str(), "error": error.to_string()})
                    );
                    return Ok(false);
                }
                other => {
                    println!("{}", json!({"state": query.state().as_str(), "news": format!("{other:?}")}));
                    return Ok(false);
                }
            }
        }
        match told.recv_timeout(limit) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("news: expected within {limit:?}, got none").into());
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err("hatch: expected an open one, got a closed one".into());
            }
        }
    }
}

fn answered(query: &Query, reading: &Reading, answer: &Answer) -> Value {
    let objects = reading.objects.iter().map(|found| {
        let bounds = found.bounds.map(|b| [b.x0, b.y0, b.x1, b.y1]);
        json!({"label": found.label, "box_in_picture": bounds, "object": found.mark.map(|id| id.0)})
    });
    let about = bindings(query, reading, |_| None).into_iter().map(|bound| {
        let pts = bound.frames.map(|stamp| stamp.pts.map(|time| time.as_secs_f64()));
        json!({"object": bound.object.0, "pts": pts})
    });
    json!({
        "state": query.state().as_str(),
        "caption": Caption::new(query, reading, None, |_| None).to_json(),
        "verdict": reading.verdict,
        "objects": objects.collect::<Vec<_>>(),
        "about": about.collect::<Vec<_>>(),
        "problems": reading.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "answer": {
            "cut_off": answer.cut_off,
            "prompt_tokens": answer.usage.map(|usage| usage.prompt),
            "completion_tokens": answer.usage.map(|usage| usage.completion),
            "first_token_ms": answer.first_token.as_millis() as u64,
            "total_ms": answer.total.as_millis() as u64,
            "attempts": answer.attempts,
        },
    })
}
