//! Questions from outside: the `queries` property's text and the structures of events; and the `llm` property.

use std::time::Duration;

use sightline_core::{Kind, ObjectId, ValueError};
use sightline_grounding::{AlbumSettings, Hysteresis, ReAsk, hatch::HatchSettings, llm::LlmSettings};

use super::talk::{TalkSettings, What};

fn refuse(subject: &str, expected: &str, got: impl std::fmt::Display) -> ValueError {
    ValueError::new(Kind::Encoding, subject, expected, got)
}

/// What is wanted, and how often.
pub(crate) type Parsed = (What, Option<Duration>);

/// Reads the `queries` property: questions separated by `|`.
///
/// ```text
/// find=WORDS | describe[=OBJECT][;every=SECONDS] | ask=WORDS[;every=SECONDS] | watch=WORDS[;every=SECONDS]
/// ```
///
/// # Errors
/// Naming the question (from 1), what was expected and what came.
pub(crate) fn parse_text(text: &str) -> Result<Vec<Parsed>, ValueError> {
    let questions = text.split('|').map(str::trim).enumerate().filter(|(_, question)| !question.is_empty());
    questions
        .map(|(index, question)| {
            let (body, every) = match question.rsplit_once(";every=") {
                Some((body, every)) => (body, Some(every.trim())),
                None => (question, None),
            };
            let (kind, words) = body.split_once('=').unwrap_or((body, ""));
            let seconds = every.map(|every| every.parse().unwrap_or(f64::NAN));
            parse(kind.trim(), words.trim(), seconds).map_err(|error| {
                refuse(
                    &format!("queries, number {}", index + 1),
                    "find=WORDS, describe, ask=WORDS or watch=WORDS",
                    error,
                )
            })
        })
        .collect()
}

/// A question from its parts; `every` in seconds, 0 for once.
///
/// # Errors
/// Naming what was expected.
pub(crate) fn parse(kind: &str, words: &str, every: Option<f64>) -> Result<Parsed, ValueError> {
    let every = match every {
        None | Some(0.0) => None,
        Some(seconds) => match Duration::try_from_secs_f64(seconds) {
            Ok(every) if every <= Duration::from_secs(24 * 3600) => Some(every),
            _ => return Err(refuse("every", "seconds, at most a day", seconds)),
        },
    };
    let needed = |what: &str| {
        let words = words.trim();
        if words.is_empty() { Err(refuse(what, "words", "none")) } else { Ok(words.to_owned()) }
    };
    let what = match kind {
        "find" if every.is_some() => {
            return Err(refuse("find", "no every: what is found is followed", words));
        }
        "find" => What::Find { phrase: needed(kind)? },
        "ask" => What::Ask { question: needed(kind)? },
        "watch" => What::Watch { condition: needed(kind)? },
        "describe" if words.is_empty() => What::Describe { object: None },
        "describe" => {
            let id = words.parse().map_err(|_| refuse("describe", "an object's id, or nothing", words))?;
            What::Describe { object: Some(ObjectId(id)) }
        }
        other => return Err(refuse("kind", "find, describe, ask or watch", other)),
    };
    Ok((what, every))
}

/// Reads the structure of an upstream event `sightline/query`: `kind`, `words`, `every` in seconds.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_structure(structure: &gst::StructureRef) -> Result<Parsed, ValueError> {
    if let Some(other) =
        structure.fields().find(|field| !["kind", "words", "every"].contains(&field.as_str()))
    {
        return Err(refuse("field", "kind, words or every", other));
    }
    let text = |field| structure.get::<String>(field).unwrap_or_default();
    parse(&text("kind"), &text("words"), number(structure, "every")?)
}

fn number(structure: &gst::StructureRef, field: &str) -> Result<Option<f64>, ValueError> {
    if !structure.has_field(field) {
        return Ok(None);
    }
    let value = structure.value(field).ok().and_then(|value| value.transform::<f64>().ok());
    let number = value.and_then(|value| value.get::<f64>().ok()).filter(|number| number.is_finite());
    number.map(Some).ok_or_else(|| refuse(field, "a number", "something else"))
}

/// Reads the `llm` property. Every field has the name of its key in `[llm]` and `[query]` of the configuration, with
/// hyphens; those left out have their defaults.
///
/// # Errors
/// Naming the field, what was expected and what came.
pub(crate) fn parse_llm(structure: &gst::StructureRef) -> Result<TalkSettings, ValueError> {
    let mut llm = LlmSettings::default();
    let mut hatch = HatchSettings::default();
    let (mut re_ask, mut hysteresis) = (ReAsk::default(), Hysteresis::default());
    let (mut patience, mut grace) = (Duration::from_secs(5), Duration::from_secs(30));
    let (mut history, mut album) = ((8, 16 * 1024), AlbumSettings::default());
    let mut reacquire = Some(Duration::from_secs(3));
    for field in structure.fields() {
        let name = field.as_str();
        let text = || structure.get::<String>(name).map_err(|error| refuse(name, "text", error));
        let real = || number(structure, name).map(Option::unwrap_or_default);
        let seconds = || {
            let seconds = real()?;
            Duration::try_from_secs_f64(seconds).map_err(|_| refuse(name, "seconds, 0 or more", seconds))
        };
        let whole = || {
            let value = real()?;
            let fits = value.fract() == 0.0 && (0.0..=9e15).contains(&value);
            if fits { Ok(value as u64) } else { Err(refuse(name, "a whole number, 0 or more", value)) }
        };
        let small =
            || u32::try_from(whole()?).map_err(|_| refuse(name, "a smaller number", whole().unwrap_or(0)));
        let flag = || structure.get::<bool>(name).map_err(|error| refuse(name, "true or false", error));
        let some = |limit: u32| (limit > 0).then_some(limit);
        match name {
            "url" => llm.url = text()?,
            "model" => llm.model = text()?,
            "key-variable" => llm.key_variable = Some(text()?).filter(|name| !name.is_empty()),
            "protocol" => {
                llm.protocol = text()?.parse().map_err(|error| refuse(name, "a protocol", error))?;
            }
            "image-longest-px" => llm.image_longest_px = small()?,
            "image-quality" => llm.image_quality = u8::try_from(small()?).unwrap_or(u8::MAX),
            "max-images" => llm.max_images = small()? as usize,
            "temperature" => llm.temperature = real()? as f32,
            "max-tokens" => llm.max_tokens = small()?,
            "max-answer-bytes" => llm.max_answer_bytes = small()? as usize,
            "structured" => llm.structured = flag()?,
            "connect-timeout-s" => llm.connect_timeout = seconds()?,
            "first-token-timeout-s" => llm.first_token_timeout = seconds()?,
            "total-timeout-s" => llm.total_timeout = seconds()?,
            "retries" => llm.retries = small()?,
            "retry-base-s" => llm.retry_base = seconds()?,
            "retry-cap-s" => llm.retry_cap = seconds()?,
            "breaker-failures" => llm.breaker_failures = small()?,
            "breaker-pause-s" => llm.breaker_pause = seconds()?,
            "requests-per-minute" => llm.requests_per_minute = some(small()?),
            "tokens-per-minute" => llm.tokens_per_minute = some(small()?),
            "tokens-in-all" => llm.tokens_in_all = Some(whole()?).filter(|tokens| *tokens > 0),
            "patience-s" => patience = seconds()?,
            "grace-s" => grace = seconds()?,
            "depth" => hatch.depth = small()? as usize,
            "at-once" => hatch.at_once = small()? as usize,
            "find-again-after-s" => reacquire = Some(seconds()?).filter(|after| !after.is_zero()),
            "watch-every-s" => re_ask.every = seconds()?,
            "watch-at-least-s" => re_ask.at_least = seconds()?,
            "watch-scene-change" => re_ask.scene_change = Some(real()? as f32).filter(|change| *change > 0.0),
            "watch-on-lost" => re_ask.on_lost = flag()?,
            "watch-to-fire" => hysteresis.to_fire = small()?,
            "watch-to-rearm" => hysteresis.to_rearm = small()?,
            "history-turns" => history.0 = small()? as usize,
            "history-bytes" => history.1 = small()? as usize,
            "crops" => album.crops = small()? as usize,
            "crop-every-s" => album.every = seconds()?,
            "crop-longest-px" => album.longest_px = small()?,
            other => return Err(refuse("llm", "one of the documented fields", other)),
        }
    }
    llm.check().map_err(|error| refuse("llm", "settings a server can be asked with", error))?;
    Ok(TalkSettings { llm, hatch, patience, grace, reacquire, re_ask, hysteresis, history, album })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read() {
        let find = What::Find { phrase: "the red car; left=right".into() };
        let watch = What::Watch { condition: "someone enters".into() };
        let all = parse_text(
            "find=the red car; left=right| describe;every=2.5 |describe=3|watch=someone enters;every=10|",
        );
        let second = Duration::from_secs(1);
        let expected = vec![
            (find, None),
            (What::Describe { object: None }, Some(5 * second / 2)),
            (What::Describe { object: Some(ObjectId(3)) }, None),
            (watch, Some(10 * second)),
        ];
        assert_eq!(all.unwrap(), expected);
        for (text, says) in [
            ("find", "find: expected words, got none"),
            ("find=a|seek=b", "queries, number 2"),
            ("find=a;every=3", "find: expected no every"),
            ("describe=it", "describe: expected an object's id"),
            ("ask=why;every=-1", "every: expected seconds"),
            ("ask=why;every=soon", "every: expected seconds"),
        ] {
            let error = parse_text(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn servers_are_read() {
        gst::init().unwrap();
        let read = |text: &str| parse_llm(&text.parse::<gst::Structure>().unwrap());
        let settings = read(
            "llm, url=\"http://127.0.0.1:8000/v1\", model=qwen, protocol=qwen, temperature=0.5, max-tokens=99, \
             grace-s=7, watch-to-fire=2, structured=false, tokens-in-all=0",
        );
        let settings = settings.unwrap();
        assert_eq!((settings.llm.model.as_str(), settings.llm.max_tokens), ("qwen", 99));
        assert_eq!((settings.llm.temperature, settings.llm.tokens_in_all), (0.5, None));
        assert_eq!((settings.grace, settings.hysteresis.to_fire), (Duration::from_secs(7), 2));
        for (text, says) in [
            ("llm, url=ftp", "llm.url: expected http"),
            ("llm, url=\"http://a\", protocol=telepathy", "protocol: expected"),
            ("llm, url=\"http://a\", retries=0.5", "retries: expected a whole number"),
            ("llm, adress=\"http://a\"", "llm: expected one of the documented fields, got adress"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
