//! NumPy's `.npz`: a zip archive of `.npy` files, version 1.0, little-endian f32 in C order.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, BufWriter, Read as _, Write},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

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

/// Reads the f32 arrays of an archive of ours or of NumPy's by name, each flat in C order.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, Vec<f32>>> {
    read_arrays(path).with_context(|| format!("cannot read arrays {path:?}"))
}

fn read_arrays(path: &Path) -> Result<BTreeMap<String, Vec<f32>>> {
    let mut archive = ZipArchive::new(BufReader::new(File::open(path)?))?;
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let name = entry.name()?.trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        let values = parse(&bytes).with_context(|| format!("array {name}"))?;
        arrays.insert(name, values);
    }
    Ok(arrays)
}

fn parse(bytes: &[u8]) -> Result<Vec<f32>> {
    ensure!(
        bytes.starts_with(b"\x93NUMPY\x01\x00") && bytes.len() >= 10,
        "expected .npy version 1.0, got another"
    );
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (Some(text), Some(data)) = (bytes.get(10..start), bytes.get(start..)) else {
        bail!("expected a header of {start} bytes, got {}", bytes.len())
    };
    let text = String::from_utf8_lossy(text);
    ensure!(text.contains("'<f4'"), "expected little-endian f32, got {text}");
    let tuple =
        text.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(tuple, _)| tuple);
    let shape: Vec<usize> = tuple.split(',').filter_map(|side| side.trim().parse().ok()).collect();
    let count = shape.iter().try_fold(1_usize, |count, side| count.checked_mul(*side));
    ensure!(
        data.len() % 4 == 0 && count == Some(data.len() / 4),
        "expected values for shape {shape:?}, got {} bytes",
        data.len()
    );
    let values = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if !text.contains("'fortran_order': True") {
        return Ok(values.collect());
    }
    // NumPy writes an array as it lies in memory, column by column too.
    let by_columns: Vec<f32> = values.collect();
    match shape[..] {
        [rows, columns] => {
            Ok((0..by_columns.len()).map(|at| by_columns[at % columns * rows + at / columns]).collect())
        }
        [] | [_] => Ok(by_columns),
        _ => bail!("expected C order for shape {shape:?}, got Fortran order"),
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
    use super::*;

    /// A file as NumPy writes it.
    fn npy(dtype: &str, fortran: &str, shape: &str, values: &[f32]) -> Vec<u8> {
        let text = format!("{{'descr': '{dtype}', 'fortran_order': {fortran}, 'shape': ({shape}), }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    #[test]
    fn numpys_forms_are_read() {
        let six = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(parse(&npy("<f4", "False", "2, 3", &six)).unwrap(), six);
        assert_eq!(parse(&npy("<f4", "True", "2, 3", &six)).unwrap(), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        assert_eq!(parse(&npy("<f4", "False", "", &[7.0])).unwrap(), [7.0], "a scalar has no sides");
        for (case, bytes, part) in [
            ("not one", b"PK".to_vec(), "expected .npy"),
            ("type", npy("<f8", "False", "1,", &[1.0]), "expected little-endian f32"),
            ("short", npy("<f4", "False", "2, 3", &six[..5]), "got 20 bytes"),
            ("cut", npy("<f4", "False", "1,", &[1.0])[..20].to_vec(), "expected a header"),
        ] {
            let error = format!("{:#}", parse(&bytes).expect_err(case));
            assert!(error.contains(part), "{case}: {error}");
        }
    }

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
        let arrays = read(&path).unwrap();
        assert_eq!(arrays.keys().collect::<Vec<_>>(), ["logits_0_1"], "{arrays:?}");
        assert_eq!(arrays["logits_0_1"], [0.0, 1.0, -2.5, 3.0, 4.0, 5.0]);
        let mut archive = zip::ZipArchive::new(File::open(&path).unwrap()).unwrap();
        let mut bytes = Vec::new();
        archive.by_name("logits_0_1.npy").unwrap().read_to_end(&mut bytes).unwrap();
        let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!(bytes.len(), start + 6 * 4);
        assert_eq!(f32::from_le_bytes(bytes[start + 8..start + 12].try_into().unwrap()), -2.5);
    }
}
