//! Just enough of a reader for the `.npz` files of `tests/golden`: stored, little-endian f32, C order.

use std::{collections::BTreeMap, fs, path::Path};

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes[at..at + len].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

/// Arrays by name, flat.
pub fn read(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let zip = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let end = zip.windows(4).rposition(|four| four == b"PK\x05\x06").expect("a zip file");
    let (count, mut at) = (number(&zip, end + 10, 2), number(&zip, end + 16, 4));
    let mut arrays = BTreeMap::new();
    for _ in 0..count {
        assert_eq!(&zip[at..at + 4], b"PK\x01\x02");
        assert_eq!(number(&zip, at + 10, 2), 0, "stored, not compressed");
        let (size, name_len) = (number(&zip, at + 20, 4), number(&zip, at + 28, 2));
        let more = number(&zip, at + 30, 2) + number(&zip, at + 32, 2);
        let local = number(&zip, at + 42, 4);
        let name = std::str::from_utf8(&zip[at + 46..at + 46 + name_len]).unwrap();
        let data = local + 30 + number(&zip, local + 26, 2) + number(&zip, local + 28, 2);
        arrays.insert(name.trim_end_matches(".npy").to_owned(), npy(&zip[data..data + size]));
        at += 46 + name_len + more;
    }
    arrays
}

fn npy(file: &[u8]) -> Vec<f32> {
    assert_eq!(&file[..6], b"\x93NUMPY");
    let header = 10 + number(file, 8, 2);
    let text = std::str::from_utf8(&file[10..header]).unwrap();
    assert!(text.contains("'<f4'") && text.contains("'fortran_order': False"), "{text}");
    file[header..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}
