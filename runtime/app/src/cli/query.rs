use clap::{Args, ValueEnum};

/// What is asked in words.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct QueryFlags {
    /// Find what these words say in the picture, and follow it
    #[arg(long, value_name = "WORDS")]
    pub(crate) query: Vec<String>,

    /// Ask a question about the picture; "object 3" is the one with that id
    #[arg(long, value_name = "WORDS")]
    pub(crate) ask: Vec<String>,

    /// Say so once when this becomes true; it is looked at again and again
    #[arg(long, value_name = "WORDS")]
    pub(crate) watch: Vec<String>,

    /// Describe the picture every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds)]
    pub(crate) caption_every: Option<f64>,
}

/// Who is asked.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LlmFlags {
    /// A chat-completions server, up to and with the version: http://127.0.0.1:8000/v1
    #[arg(long, value_name = "URL")]
    pub(crate) llm: Option<String>,

    /// The model's name on that server
    #[arg(long, value_name = "NAME")]
    pub(crate) llm_model: Option<String>,

    /// Where an answer goes that comes after its frame [default: catch-up]
    #[arg(long, value_name = "WAY", default_value = "catch-up")]
    pub(crate) late: LateArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LateArg {
    /// To the frame it is about; the object then catches up with the newest
    #[default]
    CatchUp,
    /// To the newest frame, wherever the object is by then: for comparisons
    Naive,
}
