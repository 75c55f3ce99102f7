//! What `sightlinetrack` costs the streaming thread: a live-paced source, two branches.
//!
//! `cargo run --release -p gst-plugin-sightline --example streaming_cost -- [model] [WIDTHxHEIGHT] [format] [seconds]`

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gst::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.into());
    let (model, size, format) = (next("fake"), next("1280x720"), next("NV12"));
    let seconds: u64 = next("20").parse()?;
    let (width, height) = size.split_once('x').ok_or("expected WIDTHxHEIGHT")?;
    gst::init()?;
    gstsightline::plugin_register_static()?;
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc is-live=true pattern=ball \
         ! video/x-raw,format={format},width={width},height={height},framerate=30/1 ! tee name=t \
         t. ! queue ! sightlinetrack name=track model={model} prompts=point={},{} \
         ! sightlineoverlay labels=true age=true ! fakesink sync=true \
         t. ! queue ! fakesink sync=true",
        width.parse::<u32>()? / 2,
        height.parse::<u32>()? / 2,
    ))?;
    let track = pipeline.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("track")).ok_or("no track")?;
    let undisturbed = measure_undisturbed(&track)?;
    let bus = pipeline.bus().ok_or("no bus")?;
    pipeline.set_state(gst::State::Playing)?;
    let begun = std::time::Instant::now();
    while begun.elapsed().as_secs() < seconds {
        if let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(100))
            && let gst::MessageView::Error(error) = message.view()
        {
            return Err(error.error().to_string().into());
        }
    }
    let stats = track.property::<gst::Structure>("stats");
    #[allow(clippy::print_stdout)]
    for (field, value) in stats.iter() {
        println!("{field:24} {}", value.get::<u64>()?);
    }
    pipeline.set_state(gst::State::Null)?;
    let mut times = undisturbed.lock().map_err(|error| error.to_string())?;
    times.undisturbed.sort_unstable();
    let all = &times.undisturbed;
    #[allow(clippy::print_stdout)]
    {
        println!("preempted buffers        {} of {}", times.preempted, times.preempted + all.len() as u64);
        for (name, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)] {
            let at = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
            println!("undisturbed-{name:12} {}", all.get(at).map_or(0, Duration::as_nanos));
        }
    }
    Ok(())
}

/// Time between the sink and the source pad of the buffers whose thread was not preempted meanwhile: on a busy
/// machine `streaming-*` mostly measures the neighbours.
fn measure_undisturbed(track: &gst::Element) -> Result<Arc<Mutex<Times>>, &'static str> {
    let times = Arc::new(Mutex::new(Times::default()));
    let came_in = Arc::clone(&times);
    let sink = track.static_pad("sink").ok_or("no sink pad")?;
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        if let Ok(mut times) = came_in.lock() {
            times.entered = Some((preemptions(), Instant::now()));
        }
        gst::PadProbeReturn::Ok
    });
    let goes_out = Arc::clone(&times);
    track.static_pad("src").ok_or("no source pad")?.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let now = Instant::now();
        if let Ok(mut times) = goes_out.lock()
            && let Some((before, entered)) = times.entered.take()
        {
            if before.is_some() && before == preemptions() {
                times.undisturbed.push(now - entered);
            } else {
                times.preempted += 1;
            }
        }
        gst::PadProbeReturn::Ok
    });
    Ok(times)
}

#[derive(Default)]
struct Times {
    entered: Option<(Option<u64>, Instant)>,
    undisturbed: Vec<Duration>,
    preempted: u64,
}

fn preemptions() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?.trim().parse().ok()
}
