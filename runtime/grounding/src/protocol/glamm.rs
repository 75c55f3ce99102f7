//! VideoGLaMM's grounded captions (Munasinghe et al., CVPR 2025): `A <p>man</p> [SEG] rides ...`. The k-th `[SEG]`
//! stands for the object of the k-th `<p>`; its mask comes from an embedding, so there is no box.

use super::{Found, ProblemKind, Reading, Target, reading::MAX_LABEL_BYTES, reading::shortened};

const SEG: &str = "[SEG]";

pub(super) fn read(text: &str, reading: &mut Reading) {
    let seeds = text.matches(SEG).count();
    let (shown, phrases) = clean(text);
    for k in 0..seeds.max(phrases.len()) {
        let phrase = phrases.get(k);
        let label = phrase.map_or("", |range| &shown[range.clone()]);
        match (phrase, k < seeds) {
            (Some(_), false) => {
                reading.problem(
                    ProblemKind::Unlinked,
                    format_args!("phrase {label:?}: expected a [SEG], got none"),
                );
            }
            (None, _) => {
                reading.problem(
                    ProblemKind::Unlinked,
                    format_args!("[SEG] {}: expected a phrase, got none", k + 1),
                );
            }
            _ => {}
        }
        if k >= seeds {
            continue;
        }
        let label = shortened(label, MAX_LABEL_BYTES).to_owned();
        if let Some(index) = reading.found(Found { label, bounds: None, images: None, mark: None })
            && let Some(range) = phrase
        {
            reading.span(range.clone(), Target::Found(index));
        }
    }
    reading.text = shown;
    reading.verdict = super::plain::verdict(&reading.text);
}

/// The words as the published program shows them (line ends removed, tags and `[SEG]` deleted, space collapsed,
/// apostrophes stripped off the ends), and where the phrases are in them.
fn clean(text: &str) -> (String, Vec<std::ops::Range<usize>>) {
    let mut shown = String::with_capacity(text.len());
    let mut phrases = Vec::new();
    let mut open: Option<usize> = None;
    let mut rest = text;
    // Looked for once: a text of nothing but `<` would be searched to its end again and again.
    let last_close = text.rfind('>').unwrap_or(0);
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix(SEG) {
            rest = after;
        } else if c == '<'
            && text.len() - rest.len() < last_close
            && let Some(end) = rest.find('>')
        {
            match &rest[..=end] {
                // Only one that ends counts; `<p>` again starts anew inside it.
                "<p>" => open = open.or(Some(shown.len())),
                "</p>" => {
                    if let Some(start) = open.take() {
                        phrases.push(trimmed(&shown, start));
                    }
                }
                _ => {}
            }
            rest = &rest[end + 1..];
        } else {
            if c == ' ' {
                if !shown.is_empty() && !shown.ends_with(' ') {
                    shown.push(c);
                }
            } else if c != '\n' {
                shown.push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    // The ends are stripped last, so the phrases move with them.
    let end = shown.trim_end().trim_end_matches('\'').trim_end().len();
    shown.truncate(end);
    let head = shown.len() - shown.trim_start_matches('\'').trim_start().len();
    shown.drain(..head);
    let limit = shown.len();
    for range in &mut phrases {
        *range = range.start.saturating_sub(head).min(limit)..range.end.saturating_sub(head).min(limit);
    }
    (shown, phrases)
}

fn trimmed(shown: &str, start: usize) -> std::ops::Range<usize> {
    let phrase = &shown[start..];
    let left = phrase.len() - phrase.trim_start().len();
    let words = phrase.trim().len();
    start + left..start + left + words
}
