use super::{By, Colour, Count, Description, Motion, NotUnderstood, Place, Side, Size, Tone};

/// What a word stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Word {
    Filler,
    /// `to`, `towards`: a side after motion stays a way to go.
    Way,
    /// `on`, `in`, `at`: a side after it is a place.
    Where,
    From,
    Not,
    Most,
    /// `thing`, `things`.
    Noun(Count),
    Number(usize),
    Ordinal(usize),
    Colour(Colour),
    Tone(Tone),
    Size(Size),
    Side(Side),
    Middle,
    Motion(Motion),
    Rank(By),
}

fn look_up(word: &str) -> Option<Word> {
    use Word::{Filler, From, Most, Not, Noun, Way, Where};
    Some(match word {
        "the" | "a" | "an" | "that" | "which" | "is" | "are" | "of" | "and" | "with" | "please" | "find"
        | "track" | "follow" | "show" | "me" | "side" | "half" | "corner" | "edge" | "picture" | "image"
        | "frame" | "scene" | "view" | "colored" | "coloured" | "hand" | "part" => Filler,
        "to" | "toward" | "towards" => Way,
        "on" | "in" | "at" => Where,
        "from" => From,
        "not" => Not,
        "most" => Most,
        "thing" | "object" | "item" | "one" | "something" | "shape" => Noun(Count::One),
        "things" | "objects" | "items" | "ones" | "shapes" | "everything" | "all" | "every" | "each" => {
            Noun(Count::All)
        }
        "both" => Word::Number(2),
        "red" => Word::Colour(Colour::Red),
        "orange" => Word::Colour(Colour::Orange),
        "yellow" => Word::Colour(Colour::Yellow),
        "green" => Word::Colour(Colour::Green),
        "cyan" | "turquoise" | "teal" => Word::Colour(Colour::Cyan),
        "blue" => Word::Colour(Colour::Blue),
        "purple" | "violet" => Word::Colour(Colour::Purple),
        "pink" | "magenta" => Word::Colour(Colour::Pink),
        "brown" => Word::Colour(Colour::Brown),
        "black" => Word::Colour(Colour::Black),
        "white" => Word::Colour(Colour::White),
        "grey" | "gray" => Word::Colour(Colour::Grey),
        "dark" => Word::Tone(Tone::Dark),
        "bright" | "light" => Word::Tone(Tone::Bright),
        "large" | "big" | "huge" => Word::Size(Size::Large),
        "small" | "little" | "tiny" => Word::Size(Size::Small),
        "left" => Word::Side(Side::Left),
        "right" => Word::Side(Side::Right),
        "top" | "upper" | "up" | "upwards" => Word::Side(Side::Top),
        "bottom" | "lower" | "down" | "downwards" => Word::Side(Side::Bottom),
        "middle" | "center" | "centre" | "central" => Word::Middle,
        "moving" | "moves" | "motion" => Word::Motion(Motion::Moving),
        "still" | "static" | "stationary" | "unmoving" => Word::Motion(Motion::Still),
        "fast" | "quick" => Word::Motion(Motion::Fast),
        "slow" => Word::Motion(Motion::Slow),
        "largest" | "biggest" => Word::Rank(By::Largest),
        "smallest" | "tiniest" => Word::Rank(By::Smallest),
        "fastest" | "quickest" => Word::Rank(By::Fastest),
        "slowest" => Word::Rank(By::Slowest),
        "leftmost" => Word::Rank(By::Outermost(Side::Left)),
        "rightmost" => Word::Rank(By::Outermost(Side::Right)),
        "topmost" | "uppermost" | "highest" => Word::Rank(By::Outermost(Side::Top)),
        "bottommost" | "lowest" => Word::Rank(By::Outermost(Side::Bottom)),
        _ => return number(word),
    })
}

fn number(word: &str) -> Option<Word> {
    const NUMBERS: [&str; 10] =
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    const ORDINALS: [&str; 10] =
        ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
    let place = |words: &[&str]| words.iter().position(|other| *other == word).map(|at| at + 1);
    if let Some(n) = place(&NUMBERS) {
        return Some(Word::Number(n));
    }
    if let Some(n) = place(&ORDINALS) {
        return Some(Word::Ordinal(n));
    }
    let counts = |digits: &str| digits.parse::<usize>().ok().filter(|n| (1..=1000).contains(n));
    if let Some(n) = counts(word) {
        return Some(Word::Number(n));
    }
    let digits = ["st", "nd", "rd", "th"].iter().find_map(|ending| word.strip_suffix(ending))?;
    counts(digits).map(Word::Ordinal)
}

/// Understands a phrase such as "the second largest red thing on the left" or "everything moving".
///
/// # Errors
/// When a word is unknown, two words contradict each other, or nothing is described; the message names the vocabulary.
pub fn parse(phrase: &str) -> Result<Description, NotUnderstood> {
    let lower = phrase.to_lowercase();
    // A model's idea of the length of a phrase need not be ours.
    let texts: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).take(64).collect();
    let (mut words, mut unknown) = (Vec::new(), Vec::new());
    for text in texts {
        match look_up(text) {
            Some(word) => words.push(word),
            None => unknown.push(text.to_owned()),
        }
    }
    if !unknown.is_empty() {
        return Err(NotUnderstood::words(phrase, unknown));
    }
    let mut reader = Reader { phrase, ..Reader::default() };
    let mut rest = words.as_slice();
    while let Some((word, tail)) = rest.split_first() {
        rest = tail;
        // "left most", "left-most"
        if let (Word::Side(side), Some((Word::Most, tail))) = (word, tail.split_first()) {
            reader.rank(By::Outermost(*side))?;
            rest = tail;
        } else if let (Word::Not, Some((Word::Motion(Motion::Moving), tail))) = (word, tail.split_first()) {
            reader.motion(Motion::Still)?;
            rest = tail;
        } else {
            reader.take(*word)?;
        }
    }
    reader.finish()
}

#[derive(Default)]
struct Reader<'a> {
    phrase: &'a str,
    description: Description,
    ordinal: Option<usize>,
    number: Option<usize>,
    by: Option<By>,
    after_motion: bool,
    after_from: bool,
    any: bool,
}

impl Reader<'_> {
    fn take(&mut self, word: Word) -> Result<(), NotUnderstood> {
        let (after_motion, after_from) = (self.after_motion, self.after_from);
        if !matches!(word, Word::Filler | Word::Way) {
            (self.after_motion, self.after_from) = (false, false);
        }
        match word {
            Word::Filler | Word::Way | Word::Where => return Ok(()),
            Word::From => self.after_from = true,
            Word::Not | Word::Most => {
                return Err(
                    self.senseless("\"not\" before \"moving\", \"most\" behind a side", "another use")
                );
            }
            Word::Noun(count) => {
                if count == Count::All {
                    self.description.count = count;
                }
            }
            Word::Number(n) => set(self.phrase, &mut self.number, n, "number")?,
            Word::Ordinal(n) => set(self.phrase, &mut self.ordinal, n, "ordinal")?,
            Word::Colour(colour) => set(self.phrase, &mut self.description.colour, colour, "colour")?,
            Word::Tone(tone) => set(self.phrase, &mut self.description.tone, tone, "brightness")?,
            Word::Size(size) => set(self.phrase, &mut self.description.size, size, "size")?,
            Word::Motion(motion) => self.motion(motion)?,
            Word::Rank(by) => self.rank(by)?,
            Word::Side(side) if after_from => {
                if self.ordinal.is_none() {
                    return Err(self.senseless("an ordinal before \"from\"", "none"));
                }
                self.rank(By::Outermost(side))?;
            }
            Word::Side(side) if after_motion => {
                // "moving" said that it moves, this says where to.
                self.description.motion = Some(Motion::Towards(side));
            }
            Word::Side(side @ (Side::Left | Side::Right)) => {
                set(self.phrase, &mut self.description.across, Place::At(side), "place")?;
            }
            Word::Side(side) => set(self.phrase, &mut self.description.down, Place::At(side), "place")?,
            // "top middle" is the middle of the top.
            Word::Middle if self.description.down.is_some() => {
                set(self.phrase, &mut self.description.across, Place::Middle, "place")?;
            }
            Word::Middle if self.description.across.is_some() => {
                set(self.phrase, &mut self.description.down, Place::Middle, "place")?;
            }
            Word::Middle => {
                self.description.across = Some(Place::Middle);
                self.description.down = Some(Place::Middle);
            }
        }
        self.any = true;
        Ok(())
    }

    fn motion(&mut self, motion: Motion) -> Result<(), NotUnderstood> {
        self.any = true;
        self.after_motion = motion != Motion::Still;
        // "fast moving" is fast.
        match (self.description.motion, motion) {
            (Some(Motion::Fast | Motion::Slow), Motion::Moving) => Ok(()),
            (Some(Motion::Moving), Motion::Fast | Motion::Slow) => {
                self.description.motion = Some(motion);
                Ok(())
            }
            _ => set(self.phrase, &mut self.description.motion, motion, "motion"),
        }
    }

    fn rank(&mut self, by: By) -> Result<(), NotUnderstood> {
        self.any = true;
        set(self.phrase, &mut self.by, by, "order")
    }

    fn finish(mut self) -> Result<Description, NotUnderstood> {
        if !self.any {
            return Err(NotUnderstood::words(self.phrase, Vec::new()));
        }
        if self.after_from {
            return Err(self.senseless("a side behind \"from\"", "none"));
        }
        self.description.rank = match (self.by, self.ordinal) {
            (Some(by), ordinal) => Some((by, ordinal.unwrap_or(1))),
            (None, Some(_)) => {
                return Err(
                    self.senseless("an order to count in: from the left, largest", "an ordinal alone")
                );
            }
            (None, None) => None,
        };
        match (self.number, self.description.count) {
            (Some(n), _) => self.description.count = Count::Exactly(n),
            (None, Count::All) if self.by.is_some() => {
                return Err(self.senseless("how many: a superlative picks one or a stated number", "all"));
            }
            _ => {}
        }
        Ok(self.description)
    }

    fn senseless(&self, expected: &str, got: &str) -> NotUnderstood {
        NotUnderstood::sense(self.phrase, expected, got)
    }
}

fn set<T: PartialEq + std::fmt::Debug>(
    phrase: &str,
    slot: &mut Option<T>,
    value: T,
    what: &str,
) -> Result<(), NotUnderstood> {
    if let Some(other) = slot.as_ref().filter(|other| **other != value) {
        return Err(NotUnderstood::sense(
            phrase,
            format_args!("one {what}"),
            format_args!("{other:?} and {value:?}"),
        ));
    }
    *slot = Some(value);
    Ok(())
}
