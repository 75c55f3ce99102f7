//! Where a feed's frames come from.

mod source;

pub(crate) use self::source::{LossCause, Mend, SourceEvent, SourceOptions, Supervised, Transport};
