use sightline_core::ImageSpec;
use sightline_engine_api::{DeviceBuffer, Stream};

use crate::{
    CudaDevice, CudaError, Taps,
    memory::{Block, Region},
    reference,
};

/// Tables for one size of picture and one model, on the device.
#[derive(Debug)]
pub(crate) struct Plan {
    spec: ImageSpec,
    from: (usize, usize),
    tables: Region,
    columns: [usize; 3],
    rows: [usize; 3],
    levels: [usize; 2],
}

/// Addresses of one direction's tables.
pub(crate) struct TapAddresses {
    pub(crate) starts: u64,
    pub(crate) counts: u64,
    pub(crate) weights: u64,
}

impl Plan {
    pub(crate) fn new(
        device: &CudaDevice,
        spec: &ImageSpec,
        from: (usize, usize),
    ) -> Result<Self, CudaError> {
        let mut bytes = Vec::new();
        let columns = put_taps(&mut bytes, &Taps::new(from.0, spec.width_px, spec.filter));
        let rows = put_taps(&mut bytes, &Taps::new(from.1, spec.height_px, spec.filter));
        let levels = reference::levels(spec);
        let wide = put(&mut bytes, levels.iter().flat_map(|value| value.to_le_bytes()));
        let halves = levels.iter().map(|value| half::f16::from_f32(*value));
        let half = put(&mut bytes, halves.flat_map(|value| value.to_le_bytes()));
        let tables = Block::new(&device.context, bytes.len())?.region(0, bytes.len())?;
        let mut pinned = device.staging.take(&device.context, bytes.len())?;
        pinned.bytes()?[..bytes.len()].copy_from_slice(&bytes);
        // Once a size: waiting here is simpler than ordering every stream behind it.
        pinned.send(&*device.stream(Stream::COPY)?, &[(0, tables.address(), bytes.len())])?;
        device.synchronize(Stream::COPY)?;
        device.staging.put(pinned);
        Ok(Self { spec: spec.clone(), from, tables, columns, rows, levels: [wide, half] })
    }

    pub(crate) fn is_for(&self, spec: &ImageSpec, from: (usize, usize)) -> bool {
        self.from == from && self.spec == *spec
    }

    fn at(&self, offset: usize) -> u64 {
        self.tables.address() + offset as u64
    }

    pub(crate) fn columns(&self) -> TapAddresses {
        let [starts, counts, weights] = self.columns.map(|offset| self.at(offset));
        TapAddresses { starts, counts, weights }
    }
    pub(crate) fn rows(&self) -> TapAddresses {
        let [starts, counts, weights] = self.rows.map(|offset| self.at(offset));
        TapAddresses { starts, counts, weights }
    }
    /// `[3,256]` f32.
    pub(crate) fn levels(&self) -> u64 {
        self.at(self.levels[0])
    }
    /// `[3,256]` f16.
    pub(crate) fn half_levels(&self) -> u64 {
        self.at(self.levels[1])
    }
}

/// Appends at a multiple of 16 bytes; gives the offset.
fn put(bytes: &mut Vec<u8>, table: impl Iterator<Item = u8>) -> usize {
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let start = bytes.len();
    bytes.extend(table);
    start
}

fn put_taps(bytes: &mut Vec<u8>, taps: &Taps) -> [usize; 3] {
    [
        put(bytes, taps.starts.iter().flat_map(|value| value.to_le_bytes())),
        put(bytes, taps.counts.iter().flat_map(|value| value.to_le_bytes())),
        put(bytes, taps.weights.iter().flat_map(|value| value.to_le_bytes())),
    ]
}
