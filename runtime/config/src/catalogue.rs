use std::{collections::BTreeMap, fmt, path::Path};

use serde::Deserialize;

use crate::{ConfigError, Kind};

/// The files of `configs/models`, built in.
const BUILT_IN: &[(&str, &str)] = &[
    ("edgetam.toml", include_str!("../../../configs/models/edgetam.toml")),
    ("sam2-base+.toml", include_str!("../../../configs/models/sam2-base+.toml")),
    ("sam2-large.toml", include_str!("../../../configs/models/sam2-large.toml")),
    ("sam2-small.toml", include_str!("../../../configs/models/sam2-small.toml")),
    ("sam2-tiny.toml", include_str!("../../../configs/models/sam2-tiny.toml")),
    ("sam2.1-base+.toml", include_str!("../../../configs/models/sam2.1-base+.toml")),
    ("sam2.1-large.toml", include_str!("../../../configs/models/sam2.1-large.toml")),
    ("sam2.1-small.toml", include_str!("../../../configs/models/sam2.1-small.toml")),
    ("sam2.1-tiny.toml", include_str!("../../../configs/models/sam2.1-tiny.toml")),
    ("sam3.1.toml", include_str!("../../../configs/models/sam3.1.toml")),
    ("sam3.toml", include_str!("../../../configs/models/sam3.toml")),
];

/// How a checkpoint's tensors are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// The publisher's own: a PyTorch file with `{"model": state_dict}`.
    Pt,
    /// That of the `transformers` package.
    Safetensors,
}

impl Layout {
    /// Its name, which is also the file's extension.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pt => "pt",
            Self::Safetensors => "safetensors",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A file that its publisher offers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// `https://...` (or `http://`, for a mirror in a house of its own).
    pub address: String,
    /// Its layout.
    pub layout: Layout,
    /// Its length, if that is known for certain.
    #[serde(rename = "bytes")]
    pub length_bytes: Option<u64>,
    /// Its hash, 64 lower case hexadecimal digits, if that is known for certain.
    pub sha256: Option<String>,
}

/// A published model: where its checkpoint is and what can be made of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueEntry {
    /// What to ask for; letters, digits and `.`, `-`, `_`, `+`.
    pub name: String,
    /// The exporter's `--family`.
    pub family: String,
    /// The exporter's `--config`; none for a family of one size.
    pub config: Option<String>,
    /// Parameters in millions.
    pub parameters_millions: Option<f64>,
    /// The licence its weights come under.
    pub licence: String,
    /// Where its publisher describes it.
    pub page: String,
    /// The first one is taken unless another layout is asked for.
    #[serde(default)]
    pub checkpoints: Vec<Checkpoint>,
    /// Sides of the square input it is usually exported for: multiples of 32.
    #[serde(default)]
    pub image_sizes_px: Vec<u32>,
    /// The one that is taken unless another is asked for.
    pub default_image_size_px: Option<u32>,
    /// Why it cannot be run yet; none for a model that can.
    pub not_runnable: Option<String>,
    /// One line for whoever chooses.
    pub note: Option<String>,
}

impl CatalogueEntry {
    /// Reads and checks one file's text; `subject` names it in errors.
    ///
    /// # Errors
    /// `Kind::Syntax` on anything that is not TOML, an unknown or missing key or a value of another type,
    /// `Kind::Value` on a value outside its range.
    pub fn from_toml(subject: &str, text: &str) -> Result<Self, ConfigError> {
        let entry: Self = toml::from_str(text).map_err(|error| {
            let got = format!("\n{}", error.to_string().trim_end());
            ConfigError::new(Kind::Syntax, subject, "the keys of a catalogue entry", got)
        })?;
        entry.check(subject)?;
        Ok(entry)
    }

    fn check(&self, subject: &str) -> Result<(), ConfigError> {
        let refuse = |key: &str, expected: &str, got: &dyn fmt::Display| {
            Err(ConfigError::new(Kind::Value, format_args!("{subject}, {key}"), expected, got))
        };
        if !is_name(&self.name) {
            return refuse("name", "a letter, then letters, digits and . - _ +", &format!("{:?}", self.name));
        }
        for (key, value) in [("family", &self.family), ("licence", &self.licence), ("page", &self.page)] {
            if value.trim().is_empty() {
                return refuse(key, "some text", &"\"\"");
            }
        }
        if let Some(millions) = self.parameters_millions.filter(|m| !(0.0..1e6).contains(m)) {
            return refuse("parameters_millions", "0 to 1000000", &millions);
        }
        if let Some(size) =
            self.image_sizes_px.iter().find(|size| !(64..=4096).contains(*size) || *size % 32 != 0)
        {
            return refuse("image_sizes_px", "multiples of 32 from 64 to 4096", size);
        }
        for checkpoint in &self.checkpoints {
            if !["https://", "http://"].iter().any(|scheme| checkpoint.address.starts_with(scheme)) {
                return refuse("address", "https://...", &format!("{:?}", checkpoint.address));
            }
            let digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
            if let Some(hash) = checkpoint.sha256.as_ref().filter(|h| h.len() != 64 || !h.chars().all(digit))
            {
                return refuse("sha256", "64 lower case hexadecimal digits", &format!("{hash:?}"));
            }
        }
        if self.not_runnable.is_some() {
            return Ok(());
        }
        match self.default_image_size_px {
            Some(size) if self.image_sizes_px.contains(&size) => {}
            Some(size) => return refuse("default_image_size_px", "one of image_sizes_px", &size),
            None => return refuse("default_image_size_px", "one of image_sizes_px", &"none"),
        }
        if self.checkpoints.is_empty() {
            return refuse("checkpoints", "one at least, or not_runnable with the reason", &"none");
        }
        Ok(())
    }
}

/// Names become folders: no `/`, nothing hidden.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_+".contains(c))
}

/// The published models that are known, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    entries: BTreeMap<String, CatalogueEntry>,
}

impl Catalogue {
    /// The one in this binary: the files of `configs/models` when it was built.
    ///
    /// # Errors
    /// As [`CatalogueEntry::from_toml`]; a test sees to it that there are none.
    pub fn built_in() -> Result<Self, ConfigError> {
        let mut catalogue = Self { entries: BTreeMap::new() };
        for (file, text) in BUILT_IN {
            catalogue.add(CatalogueEntry::from_toml(&format!("configs/models/{file}"), text)?);
        }
        Ok(catalogue)
    }

    /// Lays every `*.toml` of a folder over this catalogue: an entry of the same name is replaced, others are added.
    ///
    /// # Errors
    /// `Kind::File` when the folder or one of its files cannot be read, else as [`CatalogueEntry::from_toml`].
    pub fn overlaid(mut self, folder: &Path) -> Result<Self, ConfigError> {
        let unread = |path: &Path, error: std::io::Error| {
            ConfigError::new(
                Kind::File,
                format_args!("catalogue {path:?}"),
                "a folder of readable files",
                error,
            )
        };
        for entry in std::fs::read_dir(folder).map_err(|error| unread(folder, error))? {
            let path = entry.map_err(|error| unread(folder, error))?.path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(|error| unread(&path, error))?;
            self.add(CatalogueEntry::from_toml(&format!("catalogue file {path:?}"), &text)?);
        }
        Ok(self)
    }

    fn add(&mut self, entry: CatalogueEntry) {
        self.entries.insert(entry.name.clone(), entry);
    }

    /// An entry by its name.
    pub fn get(&self, name: &str) -> Option<&CatalogueEntry> {
        self.entries.get(name)
    }

    /// All of them, by name.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogueEntry> {
        self.entries.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"
name = "m-1.0+"
family = "sam2.1"
config = "tiny"
parameters_millions = 1.5
licence = "MIT"
page = "https://example.org"
image_sizes_px = [64, 512]
default_image_size_px = 64
[[checkpoints]]
address = "https://example.org/m.pt"
layout = "pt"
bytes = 10
"#;

    #[test]
    fn the_built_in_ones_are_all_files_of_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/models");
        let catalogue = Catalogue::built_in().unwrap();
        assert_eq!(catalogue, catalogue.clone().overlaid(&folder).unwrap(), "a file that is not built in");
        assert_eq!(catalogue.entries().count(), BUILT_IN.len(), "a name that is used twice");
        for (file, text) in BUILT_IN {
            let entry = CatalogueEntry::from_toml(file, text).unwrap();
            assert_eq!(*file, format!("{}.toml", entry.name));
        }
        assert!(catalogue.get("sam3").unwrap().not_runnable.is_some());
        let tiny = catalogue.get("sam2.1-tiny").unwrap();
        assert!(tiny.checkpoints[0].address.ends_with("/sam2.1_hiera_tiny.pt"), "{tiny:?}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        CatalogueEntry::from_toml("e", SOUND).unwrap();
        for (case, from, to, part) in [
            ("unknown key", "licence", "license", "license"),
            ("unknown layout", "\"pt\"", "\"bin\"", "bin"),
            ("a path as name", "m-1.0+", "../m", "e, name: expected"),
            ("hidden", "m-1.0+", ".m", "e, name: expected"),
            ("size", "512]", "500]", "image_sizes_px: expected multiples of 32 from 64 to 4096, got 500"),
            (
                "default",
                "_px = 64",
                "_px = 96",
                "default_image_size_px: expected one of image_sizes_px, got 96",
            ),
            ("address", "https://example.org/m.pt", "ftp://x", "address: expected https://"),
            ("hash", "bytes = 10", "sha256 = \"AB\"", "sha256: expected 64 lower case"),
            ("count", "1.5", "-1.0", "parameters_millions: expected"),
        ] {
            let text = SOUND.replace(from, to);
            let error = CatalogueEntry::from_toml("e", &text).expect_err(case);
            assert!(error.to_string().contains(part), "{case}: {error}");
        }
        let text = SOUND.split("[[").next().unwrap();
        let error = CatalogueEntry::from_toml("e", text).expect_err("no checkpoint");
        assert!(error.to_string().contains("or not_runnable with the reason"), "{error}");
    }
}
