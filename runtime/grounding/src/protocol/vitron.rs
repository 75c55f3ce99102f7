//! VITRON's answers (Fei et al., NeurIPS 2024): `<module>B</module> <instruction>segmentation: zebra</instruction>
//! <region>(x0,y0,x1,y1)</region>`, and groundings `object: (Xl,Yt,Xr,Yb)` or `object: (Xl,Yt,Xr,Yb | Fs,Fe)` in
//! shares of the picture, with the first and last picture it is seen in.
//!
//! [`strict`] reads the tags as the published program (`app.py`) does, oddities included; the lenient reader takes what
//! the paper and the models write besides: tags in any case and over several lines, module names for letters, space.

use super::{ProblemKind, Reading, Sent, plain, reading::MAX_LABEL_BYTES, reading::shortened, scan};

/// Instructions kept of one answer.
pub const MAX_INSTRUCTIONS: usize = 16;

/// One of VITRON's back-end modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Module {
    /// A.
    ImageGeneration,
    /// B.
    ImageSegmentation,
    /// C.
    ImageEditing,
    /// D.
    VideoGeneration,
    /// E; also tracking.
    VideoSegmentation,
    /// F.
    VideoEditing,
    /// G.
    ImageToVideo,
}

impl Module {
    /// All, A to G.
    pub const ALL: [Self; 7] = [
        Self::ImageGeneration,
        Self::ImageSegmentation,
        Self::ImageEditing,
        Self::VideoGeneration,
        Self::VideoSegmentation,
        Self::VideoEditing,
        Self::ImageToVideo,
    ];

    /// The letter the published program uses.
    pub fn letter(self) -> char {
        match self {
            Self::ImageGeneration => 'A',
            Self::ImageSegmentation => 'B',
            Self::ImageEditing => 'C',
            Self::VideoGeneration => 'D',
            Self::VideoSegmentation => 'E',
            Self::VideoEditing => 'F',
            Self::ImageToVideo => 'G',
        }
    }

    /// The name the paper uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::ImageGeneration => "image generation",
            Self::ImageSegmentation => "image segmentation",
            Self::ImageEditing => "image editing",
            Self::VideoGeneration => "video generation",
            Self::VideoSegmentation => "video segmentation",
            Self::VideoEditing => "video editing",
            Self::ImageToVideo => "image to video",
        }
    }

    fn from_letter(text: &str) -> Option<Self> {
        let mut chars = text.chars();
        let letter = chars.next().filter(|_| chars.next().is_none())?;
        Self::ALL.into_iter().find(|module| module.letter() == letter)
    }

    fn from_name(text: &str) -> Option<Self> {
        let words = text.replace(['-', '_'], " ").to_lowercase();
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        match words.as_str() {
            "text to image" => return Some(Self::ImageGeneration),
            "text to video" => return Some(Self::VideoGeneration),
            "image to video generation" | "image animation" => return Some(Self::ImageToVideo),
            "video tracking" | "object tracking" | "tracking" => return Some(Self::VideoSegmentation),
            _ => {}
        }
        Self::from_letter(&words.to_uppercase())
            .or_else(|| Self::ALL.into_iter().find(|module| module.name() == words))
    }
}

/// What VITRON asks to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// By whom.
    pub module: Module,
    /// In which words, without the head before the colon (`segmentation:`).
    pub instructions: Vec<String>,
    /// Where, as written.
    pub region: Option<String>,
}

/// What the published program makes of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strict {
    /// What is shown: every `<..>..<..>` within a line deleted.
    pub text: String,
    /// The first `<module>`, as written.
    pub module: Option<String>,
    /// Every `<instruction>`, what stands after its last colon, trimmed; `None` where there is none.
    pub instructions: Option<Vec<String>>,
    /// The first `<region>`, as written.
    pub region: Option<String>,
    /// Whether the module is exactly one of the letters A to G.
    pub dispatch: bool,
}

/// Reads an answer as the published program does.
pub fn strict(text: &str) -> Strict {
    let first = |name| scan::tag(text, 0, name, true).map(|(_, inner)| text[inner].to_owned());
    let instructions: Vec<String> = scan::tags(text, "instruction", true)
        .take(MAX_INSTRUCTIONS)
        .map(|(_, inner)| text[inner].rsplit(':').next().unwrap_or_default().trim().to_owned())
        .collect();
    let module = first("module");
    Strict {
        text: shown_strictly(text),
        dispatch: module.as_deref().and_then(Module::from_letter).is_some(),
        module,
        instructions: (!instructions.is_empty()).then_some(instructions),
        region: first("region"),
    }
}

/// Deletes every match of `<[^>]+>(.*?)<[^>]+>`.
fn shown_strictly(text: &str) -> String {
    let bytes = text.as_bytes();
    // For every byte, the next `>`, line end and beginning of a tag: one pass instead of a search at every `<`.
    let none = bytes.len();
    let (mut close, mut line_end, mut open) =
        (vec![none; none + 1], vec![none; none + 1], vec![none; none + 1]);
    for at in (0..none).rev() {
        let pick = |hit: bool, later: usize| if hit { at } else { later };
        close[at] = pick(bytes[at] == b'>', close[at + 1]);
        line_end[at] = pick(bytes[at] == b'\n', line_end[at + 1]);
        // `[^>]+` needs at least one character.
        let tag = bytes[at] == b'<' && bytes.get(at + 1) != Some(&b'>') && close[at] < none;
        open[at] = pick(tag, open[at + 1]);
    }
    let mut shown = String::with_capacity(text.len());
    let (mut kept, mut at) = (0, open[0]);
    while at < none {
        let inner = close[at] + 1;
        let second = open[inner];
        if second < none && second < line_end[inner] {
            shown.push_str(&text[kept..at]);
            kept = close[second] + 1;
            at = open[kept];
        } else {
            at = open[at + 1];
        }
    }
    shown.push_str(&text[kept..]);
    shown
}

pub(super) fn read_strict(text: &str, reading: &mut Reading) {
    let strict = strict(text);
    if strict.dispatch
        && let Some(module) = strict.module.as_deref().and_then(Module::from_letter)
    {
        reading.call = Some(Call {
            module,
            instructions: strict.instructions.unwrap_or_default(),
            region: strict.region,
        });
    } else if let Some(module) = strict.module {
        reading.problem(ProblemKind::Unknown, format_args!("module: expected one of A to G, got {module:?}"));
    }
    reading.text = strict.text;
    reading.verdict = plain::verdict(&reading.text);
}

pub(super) fn read(text: &str, sent: &Sent, reading: &mut Reading) {
    let lower = text.to_ascii_lowercase();
    let inner = |(_, inner): (_, std::ops::Range<usize>)| text[inner].trim();
    let module = scan::tag(&lower, 0, "module", false).map(inner);
    let region = scan::tag(&lower, 0, "region", false).map(inner);
    let instructions: Vec<String> = scan::tags(&lower, "instruction", false)
        .take(MAX_INSTRUCTIONS)
        .map(inner)
        .map(|words| without_head(words).to_owned())
        .collect();

    let mut parts: Vec<_> = ["module", "instruction", "region"]
        .iter()
        .flat_map(|name| scan::tags(&lower, name, false).map(|(whole, _)| whole))
        .collect();
    parts.sort_by_key(|part| part.start);
    // A tag inside another goes with it; what the two share is deleted once.
    let mut until = 0;
    parts.retain_mut(|part| {
        part.start = part.start.max(until);
        until = until.max(part.end);
        part.start < part.end
    });
    let prose = scan::prose(text, parts.iter());
    reading.text = prose.replace("</s>", "").split_whitespace().collect::<Vec<_>>().join(" ");
    plain::read_words(sent, reading);

    let label = instructions.first().map_or("", String::as_str);
    if let Some(region) = region
        && !groundings(region, label, sent, reading)
    {
        reading.problem(
            ProblemKind::Syntax,
            format_args!("region: expected (x0,y0,x1,y1) or (x0,y0,x1,y1 | first,last), got {region:?}"),
        );
    }
    groundings(&prose, "", sent, reading);
    match module.map(|name| (name, Module::from_name(name))) {
        Some((_, Some(module))) => {
            let region = region.map(|r| shortened(r, MAX_LABEL_BYTES).to_owned());
            reading.call = Some(Call { module, instructions, region });
        }
        Some((name, None)) => reading.problem(
            ProblemKind::Unknown,
            format_args!("module: expected one of A to G or its name, got {name:?}"),
        ),
        None => {}
    }
}

/// `segmentation: clock` is `clock`; `at 10:30: clock` has no head, for heads are words.
fn without_head(words: &str) -> &str {
    match words.split_once(':') {
        Some((head, rest))
            if head.len() <= 32 && head.chars().all(|c| c.is_alphabetic() || " -_".contains(c)) =>
        {
            rest.trim()
        }
        _ => words,
    }
}

/// Every `label: (x0,y0,x1,y1 | first,last)`; `label` names those without one of their own. Whether there was any.
fn groundings(text: &str, label: &str, sent: &Sent, reading: &mut Reading) -> bool {
    let mut any = false;
    let mut before = 0;
    let mut at = 0;
    while let Some(open) = text[at..].find('(').map(|offset| at + offset) {
        let Some(close) = text[open..].find(')').map(|offset| open + offset) else { break };
        // Of "((1,2,3,4)" the inner bracket counts.
        let open = text[open..close].rfind('(').map_or(open, |offset| open + offset);
        at = close + 1;
        let written = &text[open + 1..close];
        let (corners, span) = match written.split_once('|') {
            Some((corners, span)) => (corners, Some(span)),
            None => (written, None),
        };
        // Brackets are common in prose: only four numbers are a box.
        let Some(corners) = scan::numbers::<4>(corners) else { continue };
        let own = text[before..open]
            .trim_end()
            .strip_suffix(':')
            .map(|head| head.rsplit([',', ';', '.', '\n', ':']).next().unwrap_or_default().trim());
        before = at;
        any = true;
        let images = match span.map(|span| (span, scan::numbers::<2>(span))) {
            None => None,
            Some((_, Some([first, last])))
                if first >= 0.0 && last >= 0.0 && first.fract() + last.fract() == 0.0 =>
            {
                let Some(images) = reading.images(first as u64, last as u64, sent) else { continue };
                Some(images)
            }
            Some((span, _)) => {
                reading.problem(
                    ProblemKind::Syntax,
                    format_args!("grounding: expected | first,last, got {span:?}"),
                );
                continue;
            }
        };
        reading.boxed(own.unwrap_or(label), images, None, corners, sent.box_from_shares(corners));
    }
    any
}
