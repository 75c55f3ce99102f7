//! From a TOML file to checked, typed settings, and the [`Catalogue`] of published models.
//!
//! Settings come in layers: [`DEFAULTS`], a file, the environment, flags. A [`Layer`] holds what one place said; the
//! last one that names a key wins. [`Settings::resolve`] checks the result once, at the door.
#![forbid(unsafe_code)]

mod catalogue;
mod check;
mod error;
mod layer;
mod live;
mod llm;
mod query;
mod serve;
mod settings;

pub use catalogue::{Catalogue, CatalogueEntry, Checkpoint, Layout};
pub use error::{ConfigError, Kind};
pub use layer::{DEFAULTS, Layer, ModelLayer, OutputLayer, TrackLayer};
pub use live::{EncodeAhead, LiveLayer, LiveSettings};
pub use llm::{AnswerProtocol, LlmLayer, LlmSettings};
pub use query::{CatchupLayer, CatchupSettings, QueryLayer, QuerySettings};
pub use serve::{FeedLayer, FeedLayers, FeedSettings, FeedTransport, ServeLayer, ServeSettings};
pub use settings::{EncoderPreset, ModelSettings, OutputSettings, Settings, TrackMode, TrackSettings};
