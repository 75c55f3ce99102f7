//! `sightline serve`: many feeds in one process, and what others see of them.

mod corridor;
mod feed;
mod fleet;
mod lines;
mod measure;
mod table;

use std::{
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use gst::glib;
use sightline_config::{Layer, ServeLayer, Settings};
use sightline_telemetry::Telemetry;

use self::{
    feed::Feed,
    measure::{SharedTally, Tally},
};
use crate::{
    cli::ServeArgs,
    observe::{FeedHealth, Observe, View},
};

/// Feeds that do not stop within this time are left.
const STOPPING: Duration = Duration::from_secs(3);
/// How long the main thread sleeps between two looks.
const ROUND: Duration = Duration::from_millis(50);
const UPKEEP: Duration = Duration::from_secs(1);

/// Runs the command.
pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    let settings = settings(args)?;
    if settings.feeds.is_empty() {
        bail!("{:?}: expected a table [feeds.NAME] for each feed, got none", args.config);
    }
    if let Some(form) = args.render {
        return crate::print_stdout(&fleet::render(args, &settings, form)?);
    }
    crate::gstreamer::init()?;
    check(&settings)?;
    let telemetry = Telemetry::new()?;
    let running = start(settings, &telemetry)?;
    running.watch(&telemetry)
}

fn settings(args: &ServeArgs) -> Result<Settings> {
    let flags = Layer {
        serve: ServeLayer {
            listen: args.listen.clone(),
            status_every_s: args.status_every,
            ..ServeLayer::default()
        },
        ..Layer::default()
    };
    Ok(Settings::resolve([Layer::from_file(&args.config)?, Layer::from_env(std::env::vars())?, flags])?)
}

/// Finds out now what a feed would stumble over for ever.
fn check(settings: &Settings) -> Result<()> {
    for (name, feed) in &settings.feeds {
        gstsightline::check_texts(&feed.prompts, &feed.queries).with_context(|| format!("feeds.{name}"))?;
        let model = feed.model.as_deref().unwrap_or(&settings.model.name);
        sightline_engine_registry::resolve(model)
            .with_context(|| format!("feeds.{name}: model {model:?}"))?;
        if let Some(path) = &feed.jsonl {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            if !folder.is_dir() {
                bail!("feeds.{name}.jsonl: expected a folder {folder:?} to write into, got none");
            }
            if path.is_dir() {
                bail!("feeds.{name}.jsonl: expected a file or a pipe, got the folder {path:?}");
            }
        }
    }
    Ok(())
}

struct Running {
    feeds: Vec<(Arc<FeedHealth>, SharedTally, JoinHandle<()>)>,
    stop: Arc<AtomicBool>,
    status_every: Option<Duration>,
    /// Serves until it is dropped.
    _observe: Option<Observe>,
}

fn start(settings: Settings, telemetry: &Telemetry) -> Result<Running> {
    let settings = Arc::new(settings);
    let healths: Vec<_> =
        settings.feeds.keys().map(|name| Arc::new(FeedHealth::new(name, settings.serve.silence))).collect();
    // Before the feeds: an address that is taken is found out before anything runs.
    let view = View { telemetry: telemetry.clone(), feeds: healths.clone() };
    let observe = settings.serve.listen.map(|listen| Observe::start(listen, view)).transpose()?;
    if let Some(observe) = &observe {
        tracing::info!("metrics, health and readiness at http://{}/", observe.address());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut feeds = Vec::new();
    for ((name, feed), health) in settings.feeds.iter().zip(healths) {
        let tally = SharedTally::default();
        let thread = feed::spawn(Feed {
            name: name.clone(),
            feed: feed.clone(),
            settings: Arc::clone(&settings),
            metrics: Arc::new(telemetry.feed(name)),
            health: Arc::clone(&health),
            tally: tally.clone(),
            stop: Arc::clone(&stop),
        })?;
        feeds.push((health, tally, thread));
    }
    Ok(Running { feeds, stop, status_every: settings.serve.status_every, _observe: observe })
}

impl Running {
    /// Until a signal, or until every input is over.
    fn watch(self, telemetry: &Telemetry) -> Result<()> {
        let signals = Signals::install();
        let process = telemetry.process(env!("CARGO_PKG_VERSION"));
        let context = glib::MainContext::default();
        let (mut kept_up, mut shown) = (Instant::now() - UPKEEP, Instant::now());
        while !signals.asked() && !self.feeds.iter().all(|(.., thread)| thread.is_finished()) {
            while context.iteration(false) {}
            if kept_up.elapsed() >= UPKEEP {
                kept_up = Instant::now();
                telemetry.upkeep();
                process.update();
            }
            if signals.shown() || self.status_every.is_some_and(|every| shown.elapsed() >= every) {
                shown = Instant::now();
                // Nobody to tell when stderr is gone.
                let _ = std::io::stderr().lock().write_all(self.table().as_bytes());
            }
            std::thread::sleep(ROUND);
        }
        if signals.asked() {
            tracing::info!("stopping; once more to stop at once");
        }
        self.stop(&context);
        crate::print_stdout(&self.table())?;
        for (health, _, thread) in self.feeds {
            if thread.is_finished() && thread.join().is_err() {
                bail!("feed {:?} panicked, please report it", health.name());
            }
        }
        Ok(())
    }

    fn stop(&self, context: &glib::MainContext) {
        self.stop.store(true, Ordering::Release);
        let begun = Instant::now();
        while begun.elapsed() < STOPPING {
            if self.feeds.iter().all(|(.., thread)| thread.is_finished()) {
                return;
            }
            while context.iteration(false) {}
            std::thread::sleep(ROUND / 5);
        }
        let late = self.feeds.iter().filter(|(.., thread)| !thread.is_finished());
        for (health, ..) in late {
            tracing::warn!(feed = health.name(), "did not stop in time, and is left");
        }
    }

    fn table(&self) -> String {
        let rows: Vec<(&str, &str, Tally)> = self
            .feeds
            .iter()
            .map(|(health, tally, _)| (health.name(), health.standing(), tally.lock().clone()))
            .collect();
        table::table(&rows)
    }
}

/// SIGINT and SIGTERM stop, SIGUSR1 shows the table; SIGHUP is told to be of no effect.
struct Signals {
    asked: Arc<AtomicBool>,
    show: Arc<AtomicBool>,
}

impl Signals {
    fn install() -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [2, 15] {
            let asked = Arc::clone(&asked);
            // The handler goes after the first signal, so the second one has its usual effect.
            glib_unix::unix_signal_add(signal, move || {
                asked.store(true, Ordering::Release);
                glib::ControlFlow::Break
            });
        }
        glib_unix::unix_signal_add(1, || {
            tracing::info!("SIGHUP: settings are read at the start only; restart to read them again");
            glib::ControlFlow::Continue
        });
        let show = Arc::new(AtomicBool::new(false));
        let wanted = Arc::clone(&show);
        glib_unix::unix_signal_add(10, move || {
            wanted.store(true, Ordering::Release);
            glib::ControlFlow::Continue
        });
        Self { asked, show }
    }

    /// Whether the table was asked for, once each time.
    fn shown(&self) -> bool {
        self.show.swap(false, Ordering::AcqRel)
    }

    fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}
