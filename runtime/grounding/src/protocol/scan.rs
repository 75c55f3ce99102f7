//! Finding JSON, tags and numbers in running text.

use std::ops::Range;

use serde_json::Value;

/// Places where an unsuccessful look for JSON may begin; more brackets than that are not an answer.
const MAX_FALSE_STARTS: usize = 512;

/// The arrays and objects in a text, outermost ones only, inside code fences or not.
pub(super) struct Values {
    pub(super) found: Vec<(Range<usize>, Value)>,
    /// An array or object began and did not end, as when an answer was cut off.
    pub(super) unfinished: bool,
}

/// Looks for arrays and objects. Where one is not whole, what is whole inside it is found.
pub(super) fn values(text: &str) -> Values {
    let mut all = Values { found: Vec::new(), unfinished: false };
    let (mut at, mut false_starts) = (0, 0);
    while false_starts < MAX_FALSE_STARTS
        && let Some(start) = text[at..].find(['[', '{']).map(|offset| at + offset)
    {
        let mut reader = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        match reader.next() {
            Some(Ok(value)) => {
                at = start + reader.byte_offset();
                all.found.push((start..at, value));
            }
            other => {
                all.unfinished |= matches!(other, Some(Err(error)) if error.is_eof());
                false_starts += 1;
                at = start + 1;
            }
        }
    }
    all
}

/// `text` without the given parts and without the lines of code fences, trimmed.
pub(super) fn prose<'a>(text: &str, parts: impl Iterator<Item = &'a Range<usize>>) -> String {
    let (mut rest, mut at) = (String::with_capacity(text.len()), 0);
    for part in parts {
        rest.push_str(&text[at..part.start]);
        at = part.end;
    }
    rest.push_str(&text[at..]);
    let lines: Vec<&str> = rest.lines().filter(|line| !line.trim_start().starts_with("```")).collect();
    lines.join("\n").trim().to_owned()
}

/// The next `<name>..</name>` at or after `from`: the whole, and what it encloses. With `one_line`, what it encloses
/// holds no line end (a regular expression's `.`). For tags in any case, give the text in lower case.
pub(super) fn tag(
    text: &str,
    from: usize,
    name: &str,
    one_line: bool,
) -> Option<(Range<usize>, Range<usize>)> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut at = from;
    loop {
        let start = at + text.get(at..)?.find(&open)?;
        let inner = start + open.len();
        let end = inner + text[inner..].find(&close)?;
        if !(one_line && text[inner..end].contains('\n')) {
            return Some((start..end + close.len(), inner..end));
        }
        at = start + 1;
    }
}

/// Every `<name>..</name>`, one after the other.
pub(super) fn tags<'a>(
    text: &'a str,
    name: &'a str,
    one_line: bool,
) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || {
        let found = tag(text, at, name, one_line)?;
        at = found.0.end;
        Some(found)
    })
}

/// Decimal numbers and everything between them: `"(1, 2.5)"` is `[1, 2.5]`. `None` where anything but brackets,
/// commas and space stands between, or where there are not exactly `N`.
pub(super) fn numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let mut numbers = [0.0; N];
    let mut parts =
        text.split(|c: char| c.is_whitespace() || "(),[]".contains(c)).filter(|part| !part.is_empty());
    for number in &mut numbers {
        let part = parts.next()?;
        // `parse` also takes "nan" and "inf", which are refused by whoever maps them.
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Four numbers of a JSON array.
pub(super) fn four(value: &Value) -> Option<[f64; 4]> {
    let [a, b, c, d] = value.as_array()?.as_slice() else { return None };
    Some([a.as_f64()?, b.as_f64()?, c.as_f64()?, d.as_f64()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_in_prose_and_fences() {
        let found =
            |text: &str| values(text).found.into_iter().map(|(_, v)| v.to_string()).collect::<Vec<_>>();
        assert_eq!(found("Sure:\n```json\n[{\"a\":1}]\n``` and {\"b\":[2]}"), ["[{\"a\":1}]", "{\"b\":[2]}"]);
        assert_eq!(found("[see below] {\"a\": 1}"), ["{\"a\":1}"]);
        let cut = values("[{\"a\":1},{\"b\":2},{\"c\":");
        assert_eq!(cut.found.len(), 2);
        assert!(cut.unfinished);
        assert!(!values("none [at all] {here}").unfinished);
    }

    #[test]
    fn brackets_without_end_take_no_time() {
        assert!(values(&"[".repeat(60_000)).found.is_empty());
        assert!(values(&"{\"".repeat(30_000)).found.is_empty());
    }

    #[test]
    fn numbers_are_counted() {
        assert_eq!(numbers("(1, 2.5),( -3,4)"), Some([1.0, 2.5, -3.0, 4.0]));
        assert_eq!(numbers::<4>("1,2,3"), None);
        assert_eq!(numbers::<2>("1,2,3"), None);
        assert_eq!(numbers::<2>("1 and 2"), None);
    }

    #[test]
    fn tags_on_one_line_and_on_several() {
        let text = "é<ref>a\nb</ref> <ref>c</ref><ref>";
        let all = |one_line| tags(text, "ref", one_line).map(|(_, inner)| &text[inner]).collect::<Vec<_>>();
        assert_eq!(all(false), ["a\nb", "c"]);
        assert_eq!(all(true), ["c"]);
    }
}
