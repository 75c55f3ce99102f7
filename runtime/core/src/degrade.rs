use std::{fmt, str::FromStr};

use crate::{Kind, ValueError};

/// What is given up where the machine is too slow for the camera, in the order in which it is.
///
/// Each holds together with those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Degrade {
    /// Nothing.
    #[default]
    Full,
    /// Most tracked frames are not written to memory.
    SkipMemory,
    /// Between the frames that are looked at, masks are carried on by optical flow.
    Coast,
    /// A smaller model looks.
    Smaller,
    /// The engines rest as long as they have worked on a frame, a quarter of a second at most.
    Fewer,
    /// Questions are refused and what is late waits.
    DropQueries,
}

impl Degrade {
    /// Every step, from nothing to all.
    pub const ALL: [Self; 6] =
        [Self::Full, Self::SkipMemory, Self::Coast, Self::Smaller, Self::Fewer, Self::DropQueries];

    /// Lower-case name used in settings, metadata, messages, metrics and JSONL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::SkipMemory => "skip-memory",
            Self::Coast => "coast",
            Self::Smaller => "smaller",
            Self::Fewer => "fewer",
            Self::DropQueries => "drop-queries",
        }
    }

    /// Its place on the ladder, 0 to 5.
    pub fn level(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for Degrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Degrade {
    type Err = ValueError;

    fn from_str(name: &str) -> Result<Self, ValueError> {
        Self::ALL.into_iter().find(|step| step.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            ValueError::new(
                Kind::Encoding,
                "degrade step",
                format_args!("one of {names}"),
                format_args!("{name:?}"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_places_agree() {
        for (place, step) in Degrade::ALL.into_iter().enumerate() {
            assert_eq!(step.level() as usize, place);
            assert_eq!(step.as_str().parse::<Degrade>().unwrap(), step);
        }
        assert!("slower".parse::<Degrade>().unwrap_err().to_string().contains("skip-memory"));
    }
}
