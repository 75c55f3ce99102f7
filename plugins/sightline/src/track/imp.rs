//! `sightlinetrack`'s part in the pipeline.

use std::{
    collections::VecDeque,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gst::{glib, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{base_transform::GenerateOutputSuccess, prelude::*},
};
use sightline_core::FrameStamp;

use super::{
    CAT, ahead, coast, events,
    hub::{COMMANDS, Camera, Command, Hub},
    notice::{self, Notice, Notify},
    priority, prompts, questions,
    session::{self, Opened},
    settings::{self, Late, Mode, Settings},
    share::Share,
    talk::{Question, Talk},
    worker,
};
use crate::{
    device::{self, Memory},
    frame::FramePicture,
    meta,
    pixels::{Layout, Said},
    record::{FrameRecord, ns},
};

/// How long EOS waits in live mode for the outcomes of the last frames.
const EOS_WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct State {
    /// The corridor; stays after stop, for its counts.
    pub(super) hub: Option<Arc<Hub>>,
    join: Option<JoinHandle<()>>,
    /// Where masks may be carried on by motion.
    pub(super) coast: Option<(Arc<coast::Desk>, JoinHandle<()>)>,
    /// The image encoder's thread, where it runs ahead.
    ahead: Option<JoinHandle<()>>,
    pub(super) layout: Option<Arc<Layout>>,
    /// What runs the model, from the start on.
    engine: String,
    pub(super) mode: Mode,
    /// Commands given before the start; as many as the corridor's queue takes.
    early: VecDeque<Command>,
    /// The last object id given out or taken.
    pub(super) last_id: Arc<Mutex<u32>>,
    /// The last question's id.
    pub(super) last_query: u64,
    #[cfg(test)]
    pub(super) next_session: Option<sightline_tracker::Session>,
    #[cfg(test)]
    pub(super) next_small: Option<sightline_tracker::Session>,
}

/// The element.
#[derive(Default)]
pub struct SightlineTrack {
    settings: Mutex<Settings>,
    state: Mutex<State>,
    /// Reported latency in ns; every-frame mode only.
    latency_ns: AtomicU64,
    share: Share,
}

impl SightlineTrack {
    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hub(&self) -> Option<Arc<Hub>> {
        self.state().hub.clone()
    }

    /// Tells the application. Takes no lock while it does.
    pub(super) fn tell(&self, notice: Notice) {
        let frames = self.settings().messages;
        notice::post(&self.obj(), notice, frames);
    }

    pub(super) fn tell_frames(&self, records: impl IntoIterator<Item = FrameRecord>) {
        records.into_iter().for_each(|record| self.tell(Notice::Frame(record)));
    }

    /// Hands a command to the worker, or keeps it for the start; `false` when there is no room.
    pub(super) fn command(&self, command: Command) -> bool {
        let mut state = self.state();
        if state.join.is_some()
            && let Some(hub) = &state.hub
        {
            return hub.command(command);
        }
        let room = state.early.len() < COMMANDS;
        if room {
            state.early.push_back(command);
        }
        room
    }

    fn open(&self, settings: &Settings) -> Result<Opened, String> {
        #[cfg(test)]
        {
            let mut state = self.state();
            let small = state.next_small.take();
            if let Some(session) = state.next_session.take() {
                let relay = super::relay::Relay::new(session, small);
                let (ahead, engine) = (settings.encode_ahead == settings::Ahead::On, "test".to_owned());
                return Ok(Opened { relay, turn: None, ahead, engine });
            }
        }
        session::open(settings)
    }

    /// Attaches the newest masks. `None` when there are none yet.
    fn attach(
        &self,
        hub: &Hub,
        buffer: &mut gst::BufferRef,
        stamp: FrameStamp,
        layout: &Layout,
    ) -> Option<bool> {
        let newest = hub.newest()?;
        match newest.attach(buffer, stamp, (layout.width_px(), layout.height_px())) {
            Ok(fresh) => Some(fresh),
            Err(error) => {
                gst::warning!(CAT, imp = self, "frame {}: no meta attached: {error}", stamp.index);
                None
            }
        }
    }

    /// In every-frame mode the slowest frame so far is our latency.
    pub(super) fn report_latency(&self, cost: Duration) {
        let (known, cost) = (self.latency_ns.load(Ordering::Relaxed), ns(cost));
        // A fifth more than the last report, lest every frame reconfigures the pipeline.
        if cost > known + known / 5 {
            self.latency_ns.store(cost, Ordering::Relaxed);
            let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
    }

    fn stats(&self) -> gst::Structure {
        let level = self.hub().map_or(0, |hub| hub.given().at.level());
        let (counts, latency, cost) = self.hub().map(|hub| hub.stats()).unwrap_or_default();
        let mut stats = gst::Structure::new_empty("sightline-stats");
        for (field, value) in [
            ("frames-in", counts.frames_in),
            ("processed", counts.processed()),
            ("masks", counts.masks),
            ("no-object", counts.no_object),
            ("skipped", counts.skipped()),
            ("skipped-superseded", counts.superseded),
            ("skipped-no-prompt", counts.no_prompt),
            ("skipped-over-budget", counts.over_budget),
            ("skipped-degraded", counts.degraded),
            ("skipped-error", counts.error),
            ("skipped-flushed", counts.flushed),
            ("pending", counts.pending),
            ("fresh-buffers", counts.fresh_buffers),
            ("coasted-buffers", counts.coasted_buffers),
            ("prompts-applied", counts.prompts_applied),
            ("prompts-refused", counts.prompts_refused),
            ("degrade-level", level.into()),
            ("degrade-steps-down", counts.steps_down),
            ("degrade-steps-up", counts.steps_up),
            ("fetched-pictures", counts.fetched),
            ("joined-runs", counts.joined_runs),
        ] {
            stats.set(field, value);
        }
        for (name, times) in [("latency", latency), ("streaming", cost)] {
            for (part, time) in ["p50", "p95", "p99", "max"].into_iter().zip(times) {
                stats.set(format!("{name}-{part}"), ns(time));
            }
        }
        stats.set("engine", &self.state().engine);
        stats
    }
}

#[glib::object_subclass]
impl ObjectSubclass for SightlineTrack {
    const NAME: &'static str = "GstSightlineTrack";
    type Type = super::SightlineTrack;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for SightlineTrack {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        events::signals()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.settings().set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => self.stats().to_value(),
            "latency" => self.latency_ns.load(Ordering::Relaxed).to_value(),
            name => self.settings().get(name).unwrap_or_else(|| pspec.default_value().clone()),
        }
    }
}

impl GstObjectImpl for SightlineTrack {}

impl ElementImpl for SightlineTrack {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Sightline tracker",
                "Filter/Analyzer/Video",
                "Follows the objects it is prompted with and puts a mask of each on every buffer, never holding \
                 the stream up in live mode",
                "The Sightline authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| crate::pad_templates(device::found()));
        TEMPLATES.as_ref()
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if matches!(transition, gst::StateChange::NullToReady | gst::StateChange::ReadyToPaused) {
            // Before the elements upstream make theirs: states change from the sink on. Again when the provider is final.
            let provider = self.settings().provider.clone();
            self.share.ensure(self.obj().upcast_ref(), &provider);
        }
        // The streaming thread may be waiting for masks: the pads cannot be deactivated before it returns.
        if transition == gst::StateChange::PausedToReady
            && let Some(hub) = self.hub()
        {
            self.tell_frames(hub.flush_start());
        }
        let changed = self.parent_change_state(transition);
        if transition == gst::StateChange::ReadyToNull {
            self.share.clear();
        }
        changed
    }

    fn set_context(&self, context: &gst::Context) {
        let provider = self.settings().provider.clone();
        self.share.offered(self.obj().upcast_ref(), &provider, context);
        self.parent_set_context(context);
    }
}

impl BaseTransformImpl for SightlineTrack {
    const MODE: gst_base::subclass::BaseTransformMode = gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    // In passthrough buffers are read-only and cannot carry our meta.
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        meta::register();
        let settings = self.settings().clone();
        let parsed = prompts::parse_text(&settings.prompts)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let asked = questions::parse_text(&settings.queries)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let llm = settings.llm.as_deref().map(questions::parse_llm).transpose();
        let llm = llm.map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let ladder =
            settings.ladder().map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let begun = Instant::now();
        let live = settings.mode == Mode::Live;
        let open = || {
            if live {
                // The engines' threads inherit it.
                priority::give_way();
            }
            self.open(&settings)
        };
        let opened = std::thread::scope(|scope| scope.spawn(open).join());
        let opened =
            opened.unwrap_or_else(|_| Err("loading the model panicked, please report it".to_owned()));
        let Opened { mut relay, turn, ahead, engine } = opened.map_err(|reason| {
            gst::error_msg!(
                gst::ResourceError::NotFound,
                ("{reason}"),
                ["model={:?} provider={:?}", settings.model, settings.provider]
            )
        })?;
        gst::info!(CAT, imp = self, "model {:?} loaded in {:?}", settings.model, begun.elapsed());

        let max_fps = (settings.max_fps > 0.0).then_some(settings.max_fps);
        let coasts = ladder.coasts();
        let encoder = if live && ahead { relay.split() } else { None };
        let flights = settings.frames_in_flight as usize;
        let hub = Arc::new(Hub::new(encoder.as_ref().map(|_| flights), max_fps, ladder));
        let waker = Arc::clone(&hub);
        let talk = Talk::new(llm, move || waker.wake())
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let weak = self.obj().downgrade();
        let notify: Notify = Arc::new(move |notice| {
            if let Some(element) = weak.upgrade() {
                element.imp().tell(notice);
            }
        });
        let mut state = self.state();
        let options = worker::Options {
            strict: !live,
            within: Duration::from_millis(settings.catch_up_within.into()),
            share: settings.catch_up_share,
            naive: settings.late == Late::Naive,
            forecast: live && settings.forecast,
            // A ladder's patience, or what is fresh at 10 frames a second.
            due: Duration::from_millis(if settings.max_age > 0 { settings.max_age.into() } else { 100 }),
            lost_after: Duration::from_millis(settings.lost_after.into()),
            last_id: Arc::clone(&state.last_id),
        };
        {
            let mut last_id = state.last_id.lock().unwrap_or_else(PoisonError::into_inner);
            for request in events::number(parsed, &mut last_id) {
                hub.command(Command::Prompt(request));
            }
        }
        for (what, every) in asked {
            state.last_query += 1;
            let question = Question { id: state.last_query, what, every, object: None };
            hub.command(Command::Question(question));
        }
        let early = std::mem::take(&mut state.early);
        let refused: Vec<Command> =
            early.into_iter().filter(|command| !hub.command(command.clone())).collect();
        // What was started before a thread that could not be is found there by `stop`.
        state.hub = Some(Arc::clone(&hub));
        (state.mode, state.layout, state.engine) = (settings.mode, None, engine);
        let threads = &mut *state;
        let started = (|| {
            if coasts {
                let desk = Arc::new(coast::Desk::default());
                let join = coast::spawn(Arc::clone(&hub), Arc::clone(&desk), Arc::clone(&notify))?;
                threads.coast = Some((desk, join));
            }
            // The two halves are on different frames: each has its own deadline.
            let (turn, first) =
                match turn.as_ref().filter(|_| encoder.is_some()).map(sightline_engine_registry::Turn::split)
                {
                    Some((first, others)) => (Some(others), Some(first)),
                    None => (turn, None),
                };
            let ahead =
                encoder.map(|encoder| ahead::spawn(Arc::clone(&hub), encoder, first, options.due, flights));
            let (belt, ahead) = ahead.transpose()?.unzip();
            threads.ahead = ahead;
            threads.join = Some(worker::spawn(Arc::clone(&hub), relay, talk, notify, options, belt, turn)?);
            Ok::<(), std::io::Error>(())
        })();
        drop(state);
        if let Err(error) = started {
            self.stop()?;
            return Err(gst::error_msg!(gst::ResourceError::NoSpaceLeft, ("no thread: {error}")));
        }
        self.latency_ns.store(0, Ordering::Relaxed);
        refused.into_iter().for_each(|command| self.refuse_full(&command));
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let (hub, join, coast, ahead) = {
            let mut state = self.state();
            state.last_id = Arc::default();
            state.last_query = 0;
            (state.hub.clone(), state.join.take(), state.coast.take(), state.ahead.take())
        };
        if let Some((desk, join)) = coast {
            desk.close();
            if join.join().is_err() {
                gst::error!(CAT, imp = self, "the thread that carries masks on panicked");
            }
        }
        if let Some(hub) = hub {
            self.tell_frames(hub.close());
        }
        if let Some(ahead) = ahead
            && ahead.join().is_err()
        {
            gst::error!(CAT, imp = self, "the thread that encodes ahead panicked");
        }
        if let Some(join) = join
            && join.join().is_err()
        {
            gst::error!(CAT, imp = self, "the worker panicked outside its guard");
        }
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let mut layout = Layout::from_caps(incaps).map_err(|error| gst::loggable_error!(CAT, "{error}"))?;
        layout.said = Arc::new(Said::by(&*self.obj(), *CAT));
        // Nothing else: coordinates are normalised, tracks go on at the new size.
        gst::debug!(CAT, imp = self, "caps {incaps}");
        self.state().layout = Some(Arc::new(layout));
        Ok(())
    }

    fn query(&self, direction: gst::PadDirection, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Context(context) = query.view_mut()
            && self.share.answer(context)
        {
            return true;
        }
        if !BaseTransformImplExt::parent_query(self, direction, query) {
            return false;
        }
        if let gst::QueryViewMut::Latency(latency) = query.view_mut() {
            let added = gst::ClockTime::from_nseconds(self.latency_ns.load(Ordering::Relaxed));
            let (live, min, max) = latency.result();
            latency.set(live, min + added, max.map(|max| max + added));
        }
        true
    }

    fn propose_allocation(
        &self,
        decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        let answered = self.parent_propose_allocation(decide_query, query);
        let (layout, held) = {
            let state = self.state();
            let coasting = if state.coast.is_some() { coast::HELD } else { 0 };
            let hub = state.hub.as_ref().map_or(0, |hub| hub.held());
            (state.layout.clone(), hub + coasting)
        };
        let Some(layout) = layout.filter(|layout| layout.memory != Memory::System) else { return answered };
        // What we hold is to be said, whatever downstream has to say. Upstream reads the first pool only.
        let pools: Vec<_> = query.allocation_pools().collect();
        for (at, (pool, bytes, min, max)) in (0..).zip(&pools) {
            let max = if *max > 0 { max.saturating_add(held) } else { 0 };
            query.set_nth_allocation_pool(at, pool.as_ref(), *bytes, min.saturating_add(held), max);
        }
        if pools.is_empty() {
            let bytes = match layout.memory {
                // Its buffers' bytes are a description of the picture, whose size is its maker's business.
                Memory::Nvmm => 0,
                _ => u32::try_from(layout.info.size()).unwrap_or(u32::MAX),
            };
            // A pool that gives this many buffers away still has one to fill.
            query.add_allocation_pool(None::<&gst::BufferPool>, bytes, held + 1, 0);
        }
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match (event.view(), self.hub()) {
            (gst::EventView::FlushStart(_), Some(hub)) => self.tell_frames(hub.flush_start()),
            (gst::EventView::FlushStop(_), Some(hub)) => hub.flush_stop(),
            (gst::EventView::Eos(_), Some(hub)) => self.tell_frames(hub.drain(EOS_WAIT)),
            (gst::EventView::CustomDownstream(custom), Some(hub)) => {
                match custom.structure().map(|structure| structure.name().as_str()) {
                    Some("sightline/camera-lost") => hub.camera(Camera::Lost),
                    Some("sightline/camera-back") => hub.camera(Camera::Back),
                    _ => {}
                }
            }
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn src_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::CustomUpstream(custom) = event.view()
            && let Some(structure) = custom.structure()
            && self.handle_event(structure)
        {
            return true;
        }
        self.parent_src_event(event)
    }

    fn transform_ip(&self, buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        let arrived = self.arrive(buffer)?;
        let fill = |slot: &mut FramePicture, layout: &Arc<Layout>| slot.copy(layout, buffer);
        let left = self.leave_to_worker(arrived, fill);
        left.wait();
        let fresh = self.attach(&left.hub, buffer, left.stamp, &left.layout);
        self.depart(&left, fresh)
    }

    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        let lent = self.state().layout.as_ref().is_some_and(|layout| layout.memory != Memory::System);
        if !lent {
            return self.parent_generate_output();
        }
        // Device memory is not copied but held, which asks for the buffer itself. From when it is held it is read-only.
        let Some(mut buffer) = self.take_queued_buffer() else { return Ok(GenerateOutputSuccess::NoOutput) };
        let arrived = self.arrive(&buffer)?;
        let (hub, stamp, layout) = (Arc::clone(&arrived.hub), arrived.stamp, Arc::clone(&arrived.layout));
        let live = arrived.mode == Mode::Live;
        let mut fresh = None;
        if live {
            fresh = self.attach(&hub, buffer.make_mut(), stamp, &layout);
        }
        // A pool takes back no memory that somebody else has: in live mode, where buffers go on before the worker is through,
        // the buffer itself is held; in every-frame mode, where they go on once it is, its memory is enough, and it can still be
        // written to.
        let hold = || if live { buffer.clone() } else { buffer.copy() };
        let left = self.leave_to_worker(arrived, |slot, layout| slot.hold(layout, hold()));
        if !live {
            left.wait();
            fresh = self.attach(&hub, buffer.make_mut(), stamp, &layout);
        }
        self.depart(&left, fresh)?;
        Ok(GenerateOutputSuccess::Buffer(buffer))
    }
}
