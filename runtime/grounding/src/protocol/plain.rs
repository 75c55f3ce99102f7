//! Words without markup. `object 3` and `#3` are tied to the object that bore the number 3.

use sightline_core::ObjectId;

use super::{ProblemKind, Reading, Sent, Target};

pub(super) fn read(text: &str, sent: &Sent, reading: &mut Reading) {
    reading.text = text.trim().to_owned();
    read_words(sent, reading);
}

/// The verdict and the numbers in `reading.text`.
pub(super) fn read_words(sent: &Sent, reading: &mut Reading) {
    reading.verdict = verdict(&reading.text);
    if !sent.has_numbers() {
        return;
    }
    let text = std::mem::take(&mut reading.text);
    for (start, end, number, named) in numbers(&text) {
        match sent.mark(number) {
            Some(id) => reading.span(start..end, Target::Known(id)),
            // "#1 priority" is no object, "object 9" claims to be one.
            None if named => unknown(number, sent, reading),
            None => {}
        }
    }
    reading.text = text;
}

pub(super) fn unknown(number: u64, sent: &Sent, reading: &mut Reading) {
    let mut known: Vec<&ObjectId> = sent.marks().iter().chain(sent.crops()).collect();
    known.sort_unstable();
    known.dedup();
    let drawn: Vec<String> = known.into_iter().map(ObjectId::to_string).collect();
    let drawn = drawn.join(", ");
    reading.problem(ProblemKind::Unknown, format_args!("object: expected one of [{drawn}], got {number}"));
}

/// Yes or no when the first word says so.
pub(super) fn verdict(text: &str) -> Option<bool> {
    let word = text.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty())?;
    if word.eq_ignore_ascii_case("yes") {
        return Some(true);
    }
    word.eq_ignore_ascii_case("no").then_some(false)
}

/// Start, end and value of every `#7` and `object 7`, and whether it was the latter.
fn numbers(text: &str) -> Vec<(usize, usize, u64, bool)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let digits = at;
        while at < bytes.len() && bytes[at].is_ascii_digit() {
            at += 1;
        }
        let hash = digits > 0 && bytes[digits - 1] == b'#';
        let head = text[..digits - usize::from(hash)].trim_end_matches(' ');
        let word =
            head.len().checked_sub(6).filter(|&from| head.as_bytes()[from..].eq_ignore_ascii_case(b"object"));
        let word = word.filter(|&from| from == 0 || !bytes[from - 1].is_ascii_alphanumeric());
        let start = match (word, hash) {
            (Some(start), _) => start,
            (None, true) => digits - 1,
            (None, false) => continue,
        };
        if let Ok(number) = text[digits..at].parse() {
            found.push((start, at, number, word.is_some()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_tied_to_objects() {
        let sent = Sent::whole([10, 10], [10, 10]).unwrap().with_marks(vec![ObjectId(3), ObjectId(12)]);
        let mut reading = Reading::default();
        read(
            "Né: Object 3 follows #12; object #3 waits, subobject 3 and 12 do not. Object 7 is #1.",
            &sent,
            &mut reading,
        );
        let spans: Vec<_> = reading.spans.iter().map(|s| (&reading.text[s.start..s.end], s.target)).collect();
        let (three, twelve) = (Target::Known(ObjectId(3)), Target::Known(ObjectId(12)));
        assert_eq!(spans, [("Object 3", three), ("#12", twelve), ("object #3", three)]);
        assert_eq!(reading.problems.len(), 1);
        assert_eq!(reading.problems[0].to_string(), "unknown: object: expected one of [3, 12], got 7");
    }

    #[test]
    fn a_verdict_is_the_first_word() {
        for (text, expected) in [
            ("Yes, someone did.", Some(true)),
            ("**No**: nobody", Some(false)),
            ("Nobody is there", None),
            ("Well, yes", None),
            ("", None),
        ] {
            assert_eq!(verdict(text), expected, "{text:?}");
        }
    }
}
