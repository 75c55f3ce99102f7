//! `<ref>..</ref><box>(x1,y1),(x2,y2)</box>` of Qwen-VL, several boxes to one phrase, and `<box>[[x1,y1,x2,y2]]</box>`
//! of InternVL; both in thousandths of what was sent. The phrase of a `<ref>` is tied to the boxes that follow it.

use super::{ProblemKind, Reading, Sent, Target, plain, scan};

pub(super) fn read(text: &str, sent: &Sent, reading: &mut Reading) {
    let mut shown = String::with_capacity(text.len());
    // Start and end of the phrase in `shown` that the next boxes belong to.
    let mut phrase = 0..0;
    let lower = text.to_ascii_lowercase();
    let mut references = scan::tags(&lower, "ref", false).peekable();
    let mut places = scan::tags(&lower, "box", false).peekable();
    let mut at = 0;
    loop {
        // One inside the other is not told of again.
        while references.next_if(|(whole, _)| whole.start < at).is_some() {}
        while places.next_if(|(whole, _)| whole.start < at).is_some() {}
        let (reference, place) = (references.peek().cloned(), places.peek().cloned());
        match (reference, place) {
            (Some((whole, inner)), place) if place.as_ref().is_none_or(|(p, _)| whole.start < p.start) => {
                push_prose(&mut shown, &text[at..whole.start]);
                let words = text[inner].trim();
                phrase = shown.len()..shown.len() + words.len();
                shown.push_str(words);
                at = whole.end;
            }
            (_, Some((whole, inner))) => {
                push_prose(&mut shown, &text[at..whole.start]);
                boxes(&text[inner], &shown, phrase.clone(), sent, reading);
                at = whole.end;
            }
            _ => break,
        }
    }
    push_prose(&mut shown, &text[at..]);
    shown.truncate(shown.trim_end().len());
    reading.text = shown;
    plain::read_words(sent, reading);
}

/// A phrase may stand at the very end with space behind it, so only space before it is left out.
fn push_prose(shown: &mut String, prose: &str) {
    shown.push_str(if shown.is_empty() { prose.trim_start() } else { prose });
}

fn boxes(inner: &str, shown: &str, phrase: std::ops::Range<usize>, sent: &Sent, reading: &mut Reading) {
    let mut any = false;
    // "(1,2),(3,4)" and "[[1,2,3,4],[5,6,7,8]]": four numbers are a box.
    let numbers: Vec<&str> = inner
        .split(|c: char| c.is_whitespace() || "(),[]".contains(c))
        .filter(|part| !part.is_empty())
        .collect();
    for four in numbers.chunks(4) {
        let written = four.join(",");
        let Some(corners) = scan::numbers::<4>(&written) else {
            reading
                .problem(ProblemKind::Syntax, format_args!("box: expected (x1,y1),(x2,y2), got {written:?}"));
            continue;
        };
        any = true;
        let mapped = sent.box_from_shares(corners.map(|v| v / 1000.0));
        if let Some(index) = reading.boxed(&shown[phrase.clone()], None, None, corners, mapped) {
            reading.span(phrase.clone(), Target::Found(index));
        }
    }
    if !any && numbers.is_empty() {
        reading.problem(ProblemKind::Syntax, format_args!("box: expected (x1,y1),(x2,y2), got {inner:?}"));
    }
}
