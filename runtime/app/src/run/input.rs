//! What `--input` means.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Where the pictures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A file on disk, as a URI.
    File(String),
    /// Something on the network that is played like a file.
    Stream(String),
    /// A network camera.
    NetworkCamera(String),
    /// A camera on this machine.
    Camera(PathBuf),
    /// A bouncing ball.
    Test,
}

impl Input {
    /// Reads the flag and looks whether a local file can be a video at all.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text == "test" {
            return Ok(Self::Test);
        }
        if text.starts_with("/dev/video") {
            let path = PathBuf::from(text);
            if !path.exists() {
                bail!("input {text:?}: expected a camera, got no such device; `ls /dev/video*` lists them");
            }
            return Ok(Self::Camera(path));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme {
                "file" => Self::file(Path::new(rest), text),
                "rtsp" | "rtsps" | "rtspt" | "rtspu" | "rtsph" => Ok(Self::NetworkCamera(text.to_owned())),
                "http" | "https" => Ok(Self::Stream(text.to_owned())),
                _ => bail!("input {text:?}: expected rtsp://, http://, https:// or file://, got {scheme}://"),
            };
        }
        Self::file(Path::new(text), text)
    }

    fn file(path: &Path, text: &str) -> Result<Self> {
        let found = match std::fs::metadata(path) {
            Ok(found) => found,
            Err(error) => bail!("input {text:?}: expected a video file, got: {error}"),
        };
        if found.is_dir() {
            bail!("input {text:?}: expected a video file, got a folder");
        }
        if found.is_file() && found.len() == 0 {
            bail!("input {text:?}: expected a video file, got an empty one (0 bytes)");
        }
        let absolute = std::path::absolute(path).with_context(|| format!("input {text:?}"))?;
        let uri = gst::glib::filename_to_uri(&absolute, None).with_context(|| format!("input {text:?}"))?;
        Ok(Self::File(uri.into()))
    }

    /// Whether frames come at their own pace whether or not anyone takes them.
    pub(crate) fn is_camera(&self) -> bool {
        matches!(self, Self::NetworkCamera(_) | Self::Camera(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a b.mp4");
        std::fs::write(&file, "x").unwrap();
        std::fs::write(folder.path().join("empty.mp4"), "").unwrap();
        let Input::File(uri) = Input::parse(file.to_str().unwrap()).unwrap() else { panic!("file") };
        assert!(uri.starts_with("file:///") && uri.ends_with("a%20b.mp4"), "{uri}");
        assert_eq!(Input::parse("test").unwrap(), Input::Test);
        assert!(Input::parse("rtsp://host/x").unwrap().is_camera());
        assert!(!Input::parse("http://host/x.mp4").unwrap().is_camera());
        for (case, text, part) in [
            ("empty", folder.path().join("empty.mp4"), "0 bytes"),
            ("folder", folder.path().to_owned(), "a folder"),
            ("missing", folder.path().join("no.mp4"), "No such file"),
            ("scheme", "gopher://x".into(), "expected rtsp://"),
            ("camera", "/dev/video97".into(), "no such device"),
        ] {
            let error = format!("{:#}", Input::parse(text.to_str().unwrap()).expect_err(case));
            assert!(error.contains(part), "{case}: {error}");
        }
    }
}
