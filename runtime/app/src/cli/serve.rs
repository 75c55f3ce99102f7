use std::path::PathBuf;

use clap::{Args, ValueEnum, builder::TypedValueParser as _};

#[derive(Debug, Args)]
#[command(after_help = "\
FILE has a table [feeds.NAME] for each feed and anything of configs/default.toml; configs/serve.toml is an example.
A feed that fails is tried again for ever, and alone. Ctrl-C and SIGTERM stop within three seconds.

Examples:
  sightline serve --config configs/serve.toml
  curl http://127.0.0.1:9464/readyz              who does not deliver frames, and why
  Manifests for four machines, feeds dealt out by their frames a second (configs/fleet.md):
  sightline serve --config cameras.toml --render kubernetes --machines 4 > sightline.yaml")]
pub(crate) struct ServeArgs {
    /// The settings file with the feeds
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Where to serve metrics and health; "" for nowhere [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,

    /// A table of all feeds on stderr every so many seconds; 0 for none [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds)]
    pub(crate) status_every: Option<f64>,

    /// Print manifests for an orchestrator instead of serving
    #[arg(long, value_name = "FORM")]
    pub(crate) render: Option<Form>,

    /// With --render: deal the feeds out to so many machines
    #[arg(long, value_name = "N", default_value_t = 1, requires = "render", value_parser = clap::value_parser!(u16).range(1..=1000).map(usize::from))]
    pub(crate) machines: usize,

    /// With --render: the container image that has sightline in it
    #[arg(long, value_name = "NAME", default_value = concat!("sightline:", env!("CARGO_PKG_VERSION")), requires = "render")]
    pub(crate) image: String,
}

/// Whose manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A ConfigMap (a Secret where an address has a password) and a Deployment for each machine
    Kubernetes,
    /// One file with a service for each machine
    Compose,
    /// One unit, and a settings file for each machine
    Systemd,
}
