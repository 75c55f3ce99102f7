//! Starting GStreamer with our elements in it.

use anyhow::{Context as _, Result};

/// Initialises GStreamer and registers the elements that are linked into this binary.
pub(crate) fn init() -> Result<()> {
    gst::init().context("cannot start GStreamer")?;
    gstsightline::plugin_register_static().context("cannot register the sightline elements")
}

#[cfg(test)]
mod tests {
    /// What `configs/pipelines/*.txt` holds can be built as it stands.
    #[test]
    fn shipped_pipelines_parse() {
        super::init().unwrap();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/pipelines");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "txt") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let line: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            gst::parse::launch(&line.join(" ")).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            seen += 1;
        }
        assert!(seen >= 2, "{seen}");
    }
}
