//! `[serve]`, many feeds in one process, and `[feeds.NAME]`, one of them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    ConfigError,
    check::{given, refuse, seconds, within},
};

/// `[serve]`, as one place says it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // each is the key of the same name in configs/default.toml, checked into `ServeSettings`
pub struct ServeLayer {
    pub listen: Option<String>,
    pub engines: Option<String>,
    pub status_every_s: Option<f64>,
    pub connect_timeout_s: Option<f64>,
    pub silence_s: Option<f64>,
    pub retry_base_s: Option<f64>,
    pub retry_cap_s: Option<f64>,
    pub rtsp_latency_ms: Option<u32>,
}

/// `[serve]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServeSettings {
    /// Where metrics and health are served; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// The name under which all feeds share one set of engines; `None`: each has its own.
    pub engines: Option<String>,
    /// Time between two tables on stderr; `None` for none.
    pub status_every: Option<Duration>,
    /// A source that has not delivered a frame by then is lost.
    pub connect_timeout: Duration,
    /// So is one that delivers none for so long.
    pub silence: Duration,
    /// First pause before a lost source is tried again.
    pub retry_base: Duration,
    /// Longest pause, at least `retry_base`.
    pub retry_cap: Duration,
    /// What RTSP packets wait to be put in order, at most 10 s.
    pub rtsp_latency: Duration,
}

/// How an RTSP camera sends its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeedTransport {
    /// What the address says (`rtspt`, `rtspu`); else TCP and UDP in turn until one works, and that from then on.
    #[default]
    Auto,
    /// Interleaved in the RTSP connection: nothing is lost on the way, and firewalls let it through.
    Tcp,
    /// Packets of their own.
    Udp,
}

/// `[feeds.NAME]`, as one place says it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // each is the key of the same name in configs/serve.toml, checked into `FeedSettings`
pub struct FeedLayer {
    pub input: Option<String>,
    pub prompts: Option<String>,
    pub queries: Option<String>,
    pub model: Option<String>,
    pub max_fps: Option<f64>,
    pub max_age_ms: Option<u32>,
    pub jsonl: Option<PathBuf>,
    pub transport: Option<FeedTransport>,
    pub repeat: Option<bool>,
}

/// `[feeds.NAME]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedSettings {
    /// A file, `rtsp://...`, `http://...`, `/dev/videoN`, or "test".
    pub input: String,
    /// What is tracked from the start, in the grammar of `sightlinetrack`'s property; may be empty.
    pub prompts: String,
    /// What is asked from the start, likewise.
    pub queries: String,
    /// Another model than `model.name`.
    pub model: Option<String>,
    /// Frames a second that are looked at, 0.1..=1000; `None` for as many as there is time for.
    pub max_fps: Option<f64>,
    /// The age of masks that the degrade ladder keeps to, at most 60 s; `None` for the element's default.
    pub max_age: Option<Duration>,
    /// Where a line of JSON a frame goes.
    pub jsonl: Option<PathBuf>,
    /// How an RTSP camera sends its packets.
    pub transport: FeedTransport,
    /// A file is played again when it ends.
    pub repeat: bool,
}

/// Feeds by their names.
pub type FeedLayers = BTreeMap<String, FeedLayer>;

impl ServeLayer {
    pub(crate) fn check(self) -> Result<ServeSettings, ConfigError> {
        let listen = given("serve.listen", self.listen)?;
        let address = || {
            listen.parse::<SocketAddr>().map_err(|_| {
                refuse(
                    "serve.listen",
                    "an address and a port, such as \"127.0.0.1:9464\"",
                    format_args!("{listen:?}"),
                )
            })
        };
        let status = seconds("serve.status_every_s", self.status_every_s, 0.0)?;
        let retry_base = seconds("serve.retry_base_s", self.retry_base_s, 0.01)?;
        let retry_cap = seconds("serve.retry_cap_s", self.retry_cap_s, 0.01)?;
        if retry_cap < retry_base {
            let least = format_args!("at least serve.retry_base_s, {}", retry_base.as_secs_f64()).to_string();
            return Err(refuse("serve.retry_cap_s", least, retry_cap.as_secs_f64()));
        }
        let latency_ms = within("serve.rtsp_latency_ms", self.rtsp_latency_ms, 0..=10_000)?;
        Ok(ServeSettings {
            listen: if listen.is_empty() { None } else { Some(address()?) },
            engines: Some(given("serve.engines", self.engines)?).filter(|name| !name.is_empty()),
            status_every: (!status.is_zero()).then_some(status),
            connect_timeout: seconds("serve.connect_timeout_s", self.connect_timeout_s, 0.1)?,
            silence: seconds("serve.silence_s", self.silence_s, 0.1)?,
            retry_base,
            retry_cap,
            rtsp_latency: Duration::from_millis(u64::from(latency_ms)),
        })
    }
}

impl FeedLayer {
    fn overlaid(self, upper: Self) -> Self {
        Self {
            input: upper.input.or(self.input),
            prompts: upper.prompts.or(self.prompts),
            queries: upper.queries.or(self.queries),
            model: upper.model.or(self.model),
            max_fps: upper.max_fps.or(self.max_fps),
            max_age_ms: upper.max_age_ms.or(self.max_age_ms),
            jsonl: upper.jsonl.or(self.jsonl),
            transport: upper.transport.or(self.transport),
            repeat: upper.repeat.or(self.repeat),
        }
    }

    fn check(self, name: &str, captioned: bool) -> Result<FeedSettings, ConfigError> {
        let key = |key: &str| format!("feeds.{name}.{key}");
        let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
        if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
            let got = format!("{name:?}");
            return Err(refuse("feeds", "names of 1 to 40 of the characters a-z, 0-9 and -", got));
        }
        let input = given(&key("input"), self.input)?;
        if let Some((scheme, _)) = input.split_once("://")
            && !["file", "rtsp", "rtsps", "rtspt", "rtspu", "rtsph", "http", "https"].contains(&scheme)
        {
            let expected = "rtsp://, http://, https:// or file://";
            return Err(refuse(&key("input"), expected, format_args!("{scheme}://")));
        }
        if input.trim().is_empty() {
            return Err(refuse(&key("input"), "a file, an address, /dev/videoN or \"test\"", "\"\""));
        }
        let prompts = self.prompts.unwrap_or_default();
        let queries = self.queries.unwrap_or_default();
        if prompts.trim().is_empty() && queries.trim().is_empty() && !captioned {
            return Err(refuse(
                &format!("feeds.{name}"),
                "prompts or queries",
                "neither: nothing would be tracked",
            ));
        }
        let max_fps = self.max_fps.filter(|fps| *fps != 0.0);
        let max_fps = max_fps.map(|fps| within(&key("max_fps"), Some(fps), 0.1..=1000.0)).transpose()?;
        let max_age =
            self.max_age_ms.map(|ms| within(&key("max_age_ms"), Some(ms), 0..=60_000)).transpose()?;
        Ok(FeedSettings {
            input,
            prompts,
            queries,
            model: self.model.filter(|model| !model.trim().is_empty()),
            max_fps,
            max_age: max_age.map(|ms| Duration::from_millis(u64::from(ms))),
            jsonl: self.jsonl.filter(|path| !path.as_os_str().is_empty()),
            transport: self.transport.unwrap_or_default(),
            repeat: self.repeat.unwrap_or_default(),
        })
    }
}

/// Lays feeds over feeds, key by key.
pub(crate) fn overlaid(mut lower: FeedLayers, upper: FeedLayers) -> FeedLayers {
    for (name, feed) in upper {
        let under = lower.remove(&name).unwrap_or_default();
        lower.insert(name, under.overlaid(feed));
    }
    lower
}

/// Checks every feed, and that no two write to the same file.
pub(crate) fn check(
    feeds: FeedLayers,
    captioned: bool,
) -> Result<BTreeMap<String, FeedSettings>, ConfigError> {
    let mut checked = BTreeMap::new();
    let mut outputs: BTreeMap<PathBuf, String> = BTreeMap::new();
    for (name, feed) in feeds {
        let feed = feed.check(&name, captioned)?;
        if let Some(path) = feed.jsonl.as_deref().filter(|path| *path != Path::new("/dev/null"))
            && let Some(other) = outputs.insert(path.to_owned(), name.clone())
        {
            let key = format!("feeds.{name}.jsonl");
            return Err(refuse(
                &key,
                "a file of its own",
                format_args!("{path:?}, which feeds.{other} writes"),
            ));
        }
        checked.insert(name, feed);
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Layer, Settings};

    fn resolve(texts: &[&str]) -> Result<Settings, ConfigError> {
        Settings::resolve(texts.iter().map(|text| Layer::from_toml("f", text).unwrap()))
    }

    #[test]
    fn feeds_are_laid_over_each_other_key_by_key() {
        let lower = "[feeds.a]\ninput = \"test\"\nprompts = \"point=1,1\"\n[feeds.b]\ninput = \"x.mp4\"\nqueries = \"find=a car\"\nmax_age_ms = 100";
        let settings = resolve(&[lower, "[feeds.b]\nmax_fps = 5\ntransport = \"tcp\""]).unwrap();
        assert_eq!(settings.feeds.keys().collect::<Vec<_>>(), ["a", "b"]);
        let b = &settings.feeds["b"];
        assert_eq!((b.input.as_str(), b.max_fps, b.transport), ("x.mp4", Some(5.0), FeedTransport::Tcp));
        assert_eq!((b.max_age, b.repeat), (Some(Duration::from_millis(100)), false));
        assert_eq!(settings.serve.listen, Some("127.0.0.1:9464".parse().unwrap()));
        assert_eq!(settings.serve.engines.as_deref(), Some("shared"));
    }

    #[test]
    fn empty_and_zero_stand_for_none() {
        let settings =
            resolve(&["[serve]\nlisten = \"\"\nengines = \"\"\nstatus_every_s = 0\n[feeds.a]\ninput = \"test\"\nprompts = \"point=1,1\"\nmax_fps = 0\nmodel = \"\""])
                .unwrap();
        let serve = &settings.serve;
        assert_eq!((serve.listen, &serve.engines, serve.status_every), (None, &None, None));
        assert_eq!((settings.feeds["a"].max_fps, &settings.feeds["a"].model), (None, &None));
    }

    #[test]
    fn what_cannot_be_is_refused_by_key() {
        let feed = |rest: &str| format!("[feeds.a]\ninput = \"test\"\nprompts = \"point=1,1\"\n{rest}");
        for (text, message) in [
            (
                "[serve]\nlisten = \"9464\"".into(),
                "serve.listen: expected an address and a port, such as \"127.0.0.1:9464\", got \"9464\"",
            ),
            (
                "[serve]\nretry_cap_s = 0.05".into(),
                "serve.retry_cap_s: expected at least serve.retry_base_s, 0.1, got 0.05",
            ),
            ("[serve]\nsilence_s = 0".into(), "serve.silence_s: expected 0.1 to 86400 seconds, got 0"),
            (
                "[feeds.Gate]\ninput = \"test\"".into(),
                "feeds: expected names of 1 to 40 of the characters a-z, 0-9 and -, got \"Gate\"",
            ),
            ("[feeds.a]\nprompts = \"point=1,1\"".into(), "feeds.a.input: expected a value, got none"),
            (
                "[feeds.a]\ninput = \"test\"".into(),
                "feeds.a: expected prompts or queries, got neither: nothing would be tracked",
            ),
            (
                "[feeds.a]\ninput = \"ftp://x\"".into(),
                "feeds.a.input: expected rtsp://, http://, https:// or file://, got ftp://",
            ),
            (feed("max_fps = -1"), "feeds.a.max_fps: expected 0.1 to 1000, got -1"),
            (feed("max_age_ms = 60001"), "feeds.a.max_age_ms: expected 0 to 60000, got 60001"),
            (
                feed("jsonl = \"o\"\n[feeds.b]\ninput = \"test\"\nprompts = \"point=1,1\"\njsonl = \"o\""),
                "feeds.b.jsonl: expected a file of its own, got \"o\", which feeds.a writes",
            ),
        ] {
            let error = resolve(&[text.as_str()]).expect_err(&text);
            assert_eq!(error.kind(), Kind::Value, "{text}");
            assert_eq!(error.to_string(), format!("setting {message}"), "{text}");
        }
        for text in ["[feeds.a]\nurl = \"x\"", "[feeds.a]\ntransport = \"quic\"", "[serve]\nlisten = 9464"] {
            assert_eq!(Layer::from_toml("f", text).expect_err(text).kind(), Kind::Syntax, "{text}");
        }
    }
}
