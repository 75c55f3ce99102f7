//! Text in, prompts out: what a user says about a picture, who is asked, and what is made of the answer.
//!
//! The corridor of frames never waits for any of it. It leaves a [`Query`] in the [`Hatch`] and looks there for news;
//! a thread of the hatch's own talks to the server. Without a server, [`vocabulary`] understands a stated set of words.
#![forbid(unsafe_code)]

mod album;
mod caption;
mod compose;
mod error;
pub mod hatch;
mod history;
pub mod llm;
pub mod protocol;
pub mod query;
pub mod vocabulary;
mod watch;

pub use album::{Album, AlbumSettings, Crop};
pub use caption::{Binding, Caption, CaptionSpan, bindings};
pub use compose::{Composer, View};
pub use error::{GroundingError, Kind};
pub use hatch::Hatch;
pub use history::{History, Turn};
pub use query::{Query, QueryId, QueryKind, Timeliness};
pub use watch::{Alert, Hysteresis, ReAsk, Reason, Signals, Watch};
