//! One value each, from what a layer says to what the rest of the program takes.

use std::{fmt, ops::RangeInclusive, time::Duration};

use crate::{ConfigError, Kind};

/// Instants cannot be far away for ever.
const LONGEST_S: f64 = 24.0 * 3600.0;

pub(crate) fn refuse(key: &str, expected: impl fmt::Display, got: impl fmt::Display) -> ConfigError {
    ConfigError::new(Kind::Value, format_args!("setting {key}"), expected, got)
}

/// The defaults name every key (a test sees to it), so only a broken build comes without a value.
pub(crate) fn given<T>(key: &str, value: Option<T>) -> Result<T, ConfigError> {
    value.ok_or_else(|| refuse(key, "a value", "none"))
}

pub(crate) fn within<T>(key: &str, value: Option<T>, range: RangeInclusive<T>) -> Result<T, ConfigError>
where
    T: PartialOrd + fmt::Display,
{
    let value = given(key, value)?;
    if range.contains(&value) {
        return Ok(value);
    }
    Err(refuse(key, format_args!("{} to {}", range.start(), range.end()), value))
}

/// A time in seconds, from `least_s` to a day.
pub(crate) fn seconds(key: &str, value: Option<f64>, least_s: f64) -> Result<Duration, ConfigError> {
    let value = given(key, value)?;
    let time = (least_s..=LONGEST_S).contains(&value).then(|| Duration::try_from_secs_f64(value).ok());
    time.flatten().ok_or_else(|| refuse(key, format_args!("{least_s} to {LONGEST_S} seconds"), value))
}

/// A number of bytes with its unit.
pub(crate) fn bytes(
    key: &str,
    value: Option<String>,
    range: RangeInclusive<usize>,
) -> Result<usize, ConfigError> {
    let text = given(key, value)?;
    parse_bytes(&text).filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let (least, most) = (told(*range.start()), told(*range.end()));
        refuse(key, format_args!("{least} to {most}, such as \"512MiB\""), format_args!("{text:?}"))
    })
}

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// "512MiB", "1.5 GB"; `None` without a unit, without a number, or beyond what can be addressed.
fn parse_bytes(text: &str) -> Option<usize> {
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.trim().strip_suffix(name)?.trim_end(), unit)))?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(*unit).and_then(|bytes| usize::try_from(bytes).ok());
    }
    let plain = number.chars().all(|c| c.is_ascii_digit() || c == '.');
    let value = number.parse::<f64>().ok().filter(|_| plain)? * *unit as f64;
    (value < 2_f64.powi(53)).then_some(value.round() as u64).and_then(|bytes| usize::try_from(bytes).ok())
}

fn told(bytes: usize) -> String {
    let fitting = UNITS[..3].iter().rev().find(|(_, unit)| bytes > 0 && (bytes as u64).is_multiple_of(*unit));
    fitting.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes as u64 / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_with_their_unit() {
        for (text, expected) in [
            ("512MiB", Some(512 << 20)),
            (" 2 GiB ", Some(2 << 30)),
            ("1.5GB", Some(1_500_000_000)),
            ("64kB", Some(64_000)),
            ("0B", Some(0)),
            ("512", None),
            ("MiB", None),
            ("-1MiB", None),
            ("1e3KiB", None),
            ("infGB", None),
            ("512mib", None),
            ("99999999999999999GiB", None),
            ("1.2.3MB", None),
        ] {
            assert_eq!(parse_bytes(text), expected, "{text:?}");
        }
    }
}
