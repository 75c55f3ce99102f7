//! NumPy's `.npz`: a zip archive of `.npy` files, version 1.0, little-endian f32 in C order.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// An archive being written.
pub(crate) struct NpzWriter {
    archive: ZipWriter<BufWriter<File>>,
}

impl NpzWriter {
    /// Creates the file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {path:?}"))?;
        Ok(Self { archive: ZipWriter::new(BufWriter::new(file)) })
    }

    /// Adds an array under `name`.
    pub(crate) fn add(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        let expected: usize = shape.iter().product();
        if values.len() != expected {
            bail!("array {name}: expected {expected} values for shape {shape:?}, got {}", values.len());
        }
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        self.archive.start_file(format!("{name}.npy"), options)?;
        self.archive.write_all(&header(shape))?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(self.archive.write_all(&bytes)?)
    }

    /// Writes the directory and flushes.
    pub(crate) fn finish(self) -> Result<()> {
        Ok(self.archive.finish()?.flush()?)
    }
}

/// Magic, version, length, and a Python dictionary padded so that the data starts at a multiple of 64.
fn header(shape: &[usize]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    // A tuple of one keeps its comma; longer ones read better without, and NumPy takes both.
    let sizes = if shape.len() == 1 { sizes.trim_end() } else { sizes.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}");
    const PREFIX: usize = 10;
    let padding = (64 - (PREFIX + text.len() + 1) % 64) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn headers_are_numpys_own() {
        for (shape, tuple) in [(&[1][..], "(1,)"), (&[64, 48], "(64, 48)"), (&[], "()")] {
            let bytes = header(shape);
            assert_eq!(bytes.len() % 64, 0, "{shape:?}");
            assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
            assert_eq!(usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), bytes.len() - 10);
            let text = String::from_utf8(bytes[10..].to_vec()).unwrap();
            assert!(text.contains(&format!("'shape': {tuple}")), "{text}");
            assert!(text.ends_with('\n'));
        }
    }

    #[test]
    fn arrays_can_be_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let mut writer = NpzWriter::create(&path).unwrap();
        writer.add("logits_0_1", &[2, 3], &[0.0, 1.0, -2.5, 3.0, 4.0, 5.0]).unwrap();
        assert!(writer.add("short", &[4], &[0.0]).is_err());
        writer.finish().unwrap();
        let mut archive = zip::ZipArchive::new(File::open(&path).unwrap()).unwrap();
        let mut bytes = Vec::new();
        archive.by_name("logits_0_1.npy").unwrap().read_to_end(&mut bytes).unwrap();
        let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!(bytes.len(), start + 6 * 4);
        assert_eq!(f32::from_le_bytes(bytes[start + 8..start + 12].try_into().unwrap()), -2.5);
    }
}
