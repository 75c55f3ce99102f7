use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{PlanError, PlanFault, sha256_hex};

/// The builder flag of plans that later versions of TensorRT take too.
pub const VERSION_COMPATIBLE: &str = "version_compatible";

/// A version of TensorRT, `10.3.0.26`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version {
    /// Decides which functions the library has at all: 10 and 11 have nothing in common.
    pub major: u32,
    /// Within a major, later ones only add.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
    /// Build; 0 where it is not known.
    pub build: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch, build } = self;
        write!(f, "{major}.{minor}.{patch}.{build}")
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = PlanError;
    fn try_from(text: String) -> Result<Self, PlanError> {
        text.parse()
    }
}

impl FromStr for Version {
    type Err = PlanError;

    /// `10.3`, `10.3.0` or `10.3.0.26`; what is left out is 0.
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let refuse = || {
            PlanError::new(
                PlanFault::Unreadable,
                "TensorRT version",
                "MAJOR.MINOR[.PATCH[.BUILD]]",
                format_args!("{text:?}"),
            )
        };
        let parts: Vec<u32> =
            text.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| refuse())?;
        let part = |index: usize| parts.get(index).copied().unwrap_or(0);
        match parts.len() {
            2..=4 => Ok(Self { major: part(0), minor: part(1), patch: part(2), build: part(3) }),
            _ => Err(refuse()),
        }
    }
}

/// Which of NVIDIA's libraries: their plans are not each other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavor {
    /// `libnvinfer.so`.
    #[default]
    Full,
    /// `libnvinfer_lean.so`, which only runs version-compatible plans.
    Lean,
    /// TensorRT-RTX.
    Rtx,
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Lean => "lean",
            Self::Rtx => "rtx",
        })
    }
}

/// What the graph computes in; its ports stay as its manifest has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bit floats.
    Fp32,
    /// IEEE half; softmax, normalisation and heads in 32 bits.
    Fp16,
    /// bfloat16; softmax, normalisation and heads in 32 bits.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        [Self::Fp32, Self::Fp16, Self::Bf16].into_iter().find(|known| known.to_string() == text).ok_or_else(
            || {
                PlanError::new(
                    PlanFault::Unreadable,
                    "precision",
                    "fp32, fp16 or bf16",
                    format_args!("{text:?}"),
                )
            },
        )
    }
}

/// A kind of GPU, as far as a plan depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Compute capability, ten times the major plus the minor: 87 is 8.7.
    pub sm: u32,
    /// The driver's name for it.
    pub name: String,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (sm_{}, {} multiprocessors)", self.name, self.sm, self.multiprocessors)
    }
}

/// What plans are checked against: the TensorRT and the GPU that are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The library's version.
    pub tensorrt: Version,
    /// Which library.
    pub flavor: Flavor,
    /// The device that would run the plan.
    pub gpu: Gpu,
}

/// Sizes of one input that a profile covers, outermost first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least.
    pub min: Vec<usize>,
    /// Those it is fastest for.
    pub opt: Vec<usize>,
    /// The most.
    pub max: Vec<usize>,
}

impl Range {
    /// One size and no other: a bucket.
    pub fn exactly(dims: &[usize]) -> Self {
        Self { min: dims.to_vec(), opt: dims.to_vec(), max: dims.to_vec() }
    }
}

/// One optimisation profile: the inputs that have open sizes, by name.
pub type Profile = BTreeMap<String, Range>;

/// Everything that a plan's bytes depend on. Two plans of one key are interchangeable; anything else is another key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanKey {
    /// The graph's name in the contract, `memory_attention`.
    pub component: String,
    /// SHA-256 of the ONNX file, lower-case hex.
    pub onnx_sha256: String,
    /// The version of the TensorRT that built it.
    pub tensorrt: Version,
    /// Which library built it.
    pub flavor: Flavor,
    /// The GPU it was built on.
    pub gpu: Gpu,
    /// The deep learning accelerator it was built for, if any.
    pub dla_core: Option<u32>,
    /// What it computes in.
    pub precision: Precision,
    /// Its optimisation profiles, in order; none for a graph without open sizes.
    pub profiles: Vec<Profile>,
    /// Builder flags, sorted; [`VERSION_COMPATIBLE`] is the one that is looked at.
    pub builder_flags: Vec<String>,
    /// Builder optimisation level, 0 to 5.
    pub optimization_level: u8,
}

impl PlanKey {
    /// SHA-256 of all fields, lower-case hex.
    pub fn digest(&self) -> String {
        let mut sorted = self.clone();
        sorted.builder_flags.sort();
        // Fields are written in the order in which they are declared, maps by name: one text for one key. A key of
        // strings, numbers and maps of them cannot fail to be written.
        sha256_hex(&serde_json::to_vec(&sorted).unwrap_or_default())
    }

    /// `memory_attention-1f0c2d3e-trt10.3.0-sm87-fp16-9a8b7c6d.plan`.
    pub fn file_name(&self) -> String {
        let Version { major, minor, patch, .. } = self.tensorrt;
        format!(
            "{}-{}-trt{major}.{minor}.{patch}-sm{}-{}-{}.plan",
            self.component,
            short(&self.onnx_sha256),
            self.gpu.sm,
            self.precision,
            short(&self.digest()),
        )
    }

    /// Whether later versions of TensorRT take the plan.
    pub fn is_version_compatible(&self) -> bool {
        self.builder_flags.iter().any(|flag| flag == VERSION_COMPATIBLE)
    }

    /// What of the plan does not fit a machine, in words, built for first; empty if all fits.
    pub(super) fn misfits(&self, machine: &Machine) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let later = self.is_version_compatible() && machine.tensorrt >= self.tensorrt;
        let lean =
            self.is_version_compatible() && machine.flavor == Flavor::Lean && self.flavor == Flavor::Full;
        if machine.tensorrt != self.tensorrt && !later {
            found.push((format!("TensorRT {}", self.tensorrt), format!("TensorRT {}", machine.tensorrt)));
        }
        if machine.flavor != self.flavor && !lean {
            found.push((format!("the {} library", self.flavor), format!("the {} library", machine.flavor)));
        }
        if machine.gpu != self.gpu {
            found.push((self.gpu.to_string(), machine.gpu.to_string()));
        }
        // Transformers fall back to the GPU for most of their layers: nobody here runs them on an accelerator.
        if let Some(core) = self.dla_core {
            found.push((format!("DLA core {core}"), "the GPU itself".to_owned()));
        }
        found
    }
}

pub(super) fn short(hex: &str) -> &str {
    hex.get(..8).unwrap_or(hex)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn orin() -> Gpu {
        Gpu { sm: 87, name: "Orin".into(), multiprocessors: 16 }
    }

    pub(in super::super) fn key() -> PlanKey {
        PlanKey {
            component: "memory_attention".into(),
            onnx_sha256: "0123456789abcdef".repeat(4),
            tensorrt: "10.3.0.26".parse().unwrap(),
            flavor: Flavor::Full,
            gpu: orin(),
            dla_core: None,
            precision: Precision::Fp16,
            profiles: vec![Profile::from([("mem".to_owned(), Range::exactly(&[1, 7, 4096, 64]))])],
            builder_flags: vec!["b".into(), "a".into()],
            optimization_level: 4,
        }
    }

    #[test]
    fn the_name_tells_what_it_is() {
        let name = key().file_name();
        assert!(name.starts_with("memory_attention-01234567-trt10.3.0-sm87-fp16-"), "{name}");
        assert!(name.ends_with(".plan"), "{name}");
        // A digest of another release of ours would orphan every plan there is.
        assert_eq!(&key().digest()[..8], "6c46d45b", "the key of a plan changed");
    }

    #[test]
    fn every_field_makes_another_key() {
        type Change = fn(&mut PlanKey);
        let changes: [(&str, Change); 10] = [
            ("component", |key| key.component.push('x')),
            ("onnx", |key| key.onnx_sha256 = "f".repeat(64)),
            ("build", |key| key.tensorrt.build += 1),
            ("flavor", |key| key.flavor = Flavor::Rtx),
            ("multiprocessors", |key| key.gpu.multiprocessors = 8),
            ("dla", |key| key.dla_core = Some(0)),
            ("precision", |key| key.precision = Precision::Bf16),
            ("profile", |key| key.profiles.clear()),
            ("flags", |key| key.builder_flags.push(VERSION_COMPATIBLE.into())),
            ("level", |key| key.optimization_level = 5),
        ];
        for (case, change) in changes {
            let mut other = key();
            change(&mut other);
            assert_ne!(other.digest(), key().digest(), "{case}");
        }
        let mut reordered = key();
        reordered.builder_flags.reverse();
        assert_eq!(reordered.digest(), key().digest(), "the order of flags says nothing");
    }

    #[test]
    fn versions_read_back() {
        for (text, shown) in [("10.3", "10.3.0.0"), ("10.16.1", "10.16.1.0"), ("11.4.0.2", "11.4.0.2")] {
            assert_eq!(text.parse::<Version>().unwrap().to_string(), shown);
        }
        for wrong in ["", "10", "10.x", "1.2.3.4.5", "10.-3"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong:?}");
        }
    }
}
