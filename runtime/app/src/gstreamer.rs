//! Starting GStreamer with our elements in it.

use anyhow::{Context as _, Result};

/// Initialises GStreamer and registers the elements that are linked into this binary.
pub(crate) fn init() -> Result<()> {
    gst::init().context("cannot start GStreamer")?;
    gstsightline::plugin_register_static().context("cannot register the sightline elements")
}

#[cfg(test)]
mod tests {
    /// Elements of NVIDIA's that few machines have, and who does the same on a processor.
    const NVIDIA: [(&str, &str); 6] = [
        ("cudaconvertscale", "videoconvertscale"),
        ("nvarguscamerasrc", "videotestsrc"),
        ("nvh264dec", "avdec_h264"),
        ("nvh264enc", "x264enc"),
        ("nvv4l2decoder", "avdec_h264"),
        ("nvvidconv", "videoconvertscale"),
    ];

    /// What `configs/pipelines/*.txt` holds can be built as it stands; what asks for NVIDIA's elements and memories, with others
    /// in their place, and then the file says that nobody ran it.
    #[test]
    fn shipped_pipelines_parse() {
        super::init().unwrap();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/pipelines");
        let (mut seen, mut strange) = (0, 0);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "txt") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let line: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            let mut line = line.join(" ");
            if NVIDIA.iter().any(|(name, _)| line.contains(name)) {
                assert!(text.contains("Not run by us"), "{path:?}");
                strange += 1;
                line = NVIDIA.iter().fold(line, |line, (name, twin)| line.replace(name, twin));
                line = line.replace("(memory:NVMM)", "").replace("(memory:CUDAMemory)", "");
            }
            gst::parse::launch(&line).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            seen += 1;
        }
        assert!(seen - strange >= 2 && strange >= 3, "{seen}, {strange}");
    }
}
