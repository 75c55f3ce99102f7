//! A real RTSP camera on loopback for tests: H.264 of a drawn picture, or of a film played round and round. It says
//! `listening on PORT` on standard output once it takes connections, and runs until it is killed.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // its readiness is what a test waits for

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use gst_rtsp_server::prelude::*;

/// rtsp://127.0.0.1:PORT/stream
#[derive(Debug, Parser)]
struct Args {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[arg(long, default_value_t = 320)]
    width: u32,
    #[arg(long, default_value_t = 240)]
    height: u32,
    #[arg(long, default_value_t = 25)]
    fps: u32,
    /// A pattern of videotestsrc
    #[arg(long, default_value = "ball")]
    pattern: String,
    /// Play this film in a loop instead
    #[arg(long)]
    file: Option<PathBuf>,
    /// Frames from one key frame to the next
    #[arg(long, default_value_t = 25)]
    key_every: u32,
}

fn main() -> Result<()> {
    let args = Args::parse();
    gst::init()?;
    let film = args.file.as_deref().map(film).transpose()?;
    let source = match &args.file {
        Some(_) => "intervideosrc channel=film timeout=18446744073709551615".to_owned(),
        None => format!("videotestsrc is-live=true pattern={}", args.pattern),
    };
    let factory = gst_rtsp_server::RTSPMediaFactory::new();
    factory.set_launch(&format!(
        "( {source} ! videoconvert ! videoscale ! videorate \
         ! video/x-raw,format=I420,width={},height={},framerate={}/1,pixel-aspect-ratio=1/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={} bitrate=2000 \
         ! rtph264pay name=pay0 pt=96 config-interval=-1 )",
        args.width, args.height, args.fps, args.key_every
    ));
    factory.set_shared(true);
    if let Some((film, _)) = &film {
        // It begins with its first viewer, who then knows what the first frame shows.
        let film = film.clone();
        factory.connect_media_configure(move |_, _| {
            if let Err(error) = film.set_state(gst::State::Playing) {
                gst::error!(gst::CAT_RUST, "the film does not play: {error}");
            }
        });
    }
    let server = gst_rtsp_server::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&args.port.to_string());
    server.mount_points().context("the server has no mount points")?.add_factory("/stream", factory);
    let _source = server.attach(None).with_context(|| format!("cannot listen on port {}", args.port))?;
    println!("listening on {}", server.bound_port());
    std::io::stdout().flush()?;
    gst::glib::MainLoop::new(None, false).run();
    Ok(())
}

/// A film that is played into the channel `film`, for ever, once it is started.
fn film(file: &Path) -> Result<(gst::Pipeline, gst::bus::BusWatchGuard)> {
    let file = std::path::absolute(file)?;
    let uri = gst::glib::filename_to_uri(&file, None).with_context(|| format!("film {file:?}"))?;
    let pipeline = gst::parse::launch(&format!(
        "uridecodebin uri={uri} ! videoconvert ! intervideosink channel=film sync=true"
    ))?
    .downcast::<gst::Pipeline>()
    .ok()
    .context("expected a pipeline")?;
    pipeline.set_state(gst::State::Paused)?;
    let played = pipeline.downgrade();
    let bus = pipeline.bus().context("the film's pipeline has no bus")?;
    let watch = bus.add_watch(move |_, message| {
        if let (gst::MessageView::Eos(_), Some(pipeline)) = (message.view(), played.upgrade()) {
            let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
            // A film that cannot be rewound stays at its last picture.
            let _ = pipeline.seek_simple(flags, gst::ClockTime::ZERO);
        }
        gst::glib::ControlFlow::Continue
    })?;
    Ok((pipeline, watch))
}
