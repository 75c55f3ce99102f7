use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sightline_core::DType;
use sightline_engine_api::{Dim, GraphIo, Port};

use super::{Machine, PlanError, PlanFault, PlanKey};

const SCHEMA: u32 = 1;
/// Far above any sidecar, far below what would hurt to read.
const MAX_BYTES: u64 = 1 << 20;

/// An input or output as the sidecar has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRow {
    /// Its name.
    pub name: String,
    /// Element type, as `model.toml` writes it.
    pub dtype: String,
    /// Sizes, outermost first; -1 is open.
    pub shape: Vec<i64>,
}

impl From<&Port> for PortRow {
    fn from(port: &Port) -> Self {
        let shape = port.dims.iter().map(|dim| match dim {
            Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Dim::Dynamic => -1,
        });
        Self { name: port.name.clone(), dtype: port.dtype.to_string(), shape: shape.collect() }
    }
}

impl PortRow {
    fn port(&self) -> Option<Port> {
        let dtype = [DType::F32, DType::F16, DType::Bf16, DType::I64]
            .into_iter()
            .find(|known| known.as_str() == self.dtype)?;
        let dims = self.shape.iter().map(|size| usize::try_from(*size).map_or(Dim::Dynamic, Dim::Fixed));
        Some(Port { name: self.name.clone(), dtype, dims: dims.collect() })
    }
}

/// The JSON file beside a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    /// Version of this layout.
    schema: u32,
    /// What the plan was built from and for.
    pub key: PlanKey,
    /// The graph's inputs.
    pub inputs: Vec<PortRow>,
    /// The graph's outputs.
    pub outputs: Vec<PortRow>,
    /// SHA-256 of the plan, lower-case hex.
    pub plan_sha256: String,
    /// Size of the plan.
    pub plan_bytes: u64,
    /// The driver it was built under, if known. Only told: plans do not depend on it.
    pub driver: Option<String>,
    /// How long it took to build.
    pub build_seconds: f64,
    /// When it was built, seconds since 1970.
    pub built_unix_s: u64,
}

impl Sidecar {
    /// Describes a plan that has just been built.
    pub fn new(key: PlanKey, io: &GraphIo, plan: &[u8], build_seconds: f64) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            key,
            inputs: io.inputs.iter().map(PortRow::from).collect(),
            outputs: io.outputs.iter().map(PortRow::from).collect(),
            plan_sha256: sha256_hex(plan),
            plan_bytes: plan.len() as u64,
            driver: None,
            build_seconds,
            built_unix_s: now.map_or(0, |since| since.as_secs()),
        }
    }

    /// Where the sidecar of a plan is: `NAME.plan.json`.
    pub fn path_of(plan: &Path) -> PathBuf {
        let mut name = plan.as_os_str().to_owned();
        name.push(".json");
        name.into()
    }

    /// Reads the sidecar of `plan`; the plan itself is not opened.
    ///
    /// # Errors
    /// [`PlanFault::NoSidecar`] when there is none, [`PlanFault::Unreadable`] when it is not one of ours.
    pub fn read(plan: &Path) -> Result<Self, PlanError> {
        let path = Self::path_of(plan);
        let subject = format!("sidecar {:?}", path.display().to_string());
        let unreadable =
            |expected: &str, got: String| PlanError::new(PlanFault::Unreadable, &subject, expected, got);
        let size = fs::metadata(&path).map_err(|error| {
            PlanError::new(
                PlanFault::NoSidecar,
                format_args!("plan {:?}", plan.display().to_string()),
                format_args!("its sidecar {:?}, which `sightline engines build` writes", path.display()),
                error,
            )
        })?;
        if size.len() > MAX_BYTES {
            return Err(unreadable("at most 1 MiB", format!("{} bytes", size.len())));
        }
        let text = fs::read(&path).map_err(|error| unreadable("a readable file", error.to_string()))?;
        // The number first: of another layout, only that much is known.
        #[derive(Deserialize)]
        struct Schema {
            schema: u32,
        }
        let json =
            |error: serde_json::Error| unreadable("JSON of `sightline engines build`", error.to_string());
        let Schema { schema } = serde_json::from_slice(&text).map_err(json)?;
        if schema != SCHEMA {
            return Err(unreadable(&format!("schema {SCHEMA}"), format!("schema {schema}")));
        }
        serde_json::from_slice(&text).map_err(json)
    }

    /// Writes the sidecar of `plan`: whole or not at all.
    ///
    /// # Errors
    /// [`PlanFault::Write`].
    pub fn write(&self, plan: &Path) -> Result<(), PlanError> {
        let path = Self::path_of(plan);
        let part = path.with_extension("json.part");
        let written = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            let mut file = fs::File::create(&part)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&part, &path)
        });
        written.map_err(|error| {
            // Best effort: the error that matters is the first one.
            let _ = fs::remove_file(&part);
            PlanError::new(
                PlanFault::Write,
                format_args!("sidecar {:?}", path.display().to_string()),
                "to be written",
                error,
            )
        })
    }

    /// Refuses a plan that was built for another TensorRT or another GPU. `plan` is only named.
    ///
    /// # Errors
    /// [`PlanFault::Foreign`], listing everything that differs.
    pub fn check(&self, plan: &Path, machine: &Machine) -> Result<(), PlanError> {
        let misfits = self.key.misfits(machine);
        if misfits.is_empty() {
            return Ok(());
        }
        let (theirs, ours): (Vec<_>, Vec<_>) = misfits.into_iter().unzip();
        Err(PlanError::new(
            PlanFault::Foreign,
            format_args!("plan {:?}", plan.display().to_string()),
            format_args!("one built for {} (`sightline engines build` makes it)", ours.join(" and ")),
            format_args!("one built for {}", theirs.join(" and ")),
        ))
    }

    /// Refuses a plan that was built from another graph.
    ///
    /// # Errors
    /// [`PlanFault::Foreign`].
    pub fn check_source(&self, plan: &Path, component: &str, onnx_sha256: &str) -> Result<(), PlanError> {
        if self.key.component == component && self.key.onnx_sha256 == onnx_sha256 {
            return Ok(());
        }
        Err(PlanError::new(
            PlanFault::Foreign,
            format_args!("plan {:?}", plan.display().to_string()),
            format_args!("one built from {component} with sha256 {onnx_sha256}"),
            format_args!("one built from {} with sha256 {}", self.key.component, self.key.onnx_sha256),
        ))
    }

    /// Refuses bytes that are not those that were written.
    ///
    /// # Errors
    /// [`PlanFault::Corrupt`].
    pub fn check_bytes(&self, plan: &Path, bytes: &[u8]) -> Result<(), PlanError> {
        let refuse = |expected: String, got: String| {
            let subject = format!("plan {:?}", plan.display().to_string());
            Err(PlanError::new(PlanFault::Corrupt, subject, expected, got))
        };
        if bytes.len() as u64 != self.plan_bytes {
            return refuse(format!("{} bytes", self.plan_bytes), format!("{}", bytes.len()));
        }
        let found = sha256_hex(bytes);
        if found != self.plan_sha256 {
            return refuse(format!("sha256 {}", self.plan_sha256), found);
        }
        Ok(())
    }

    /// The ports it declares.
    ///
    /// # Errors
    /// [`PlanFault::Unreadable`] for an element type that we do not know.
    pub fn io(&self, plan: &Path) -> Result<GraphIo, PlanError> {
        let ports = |rows: &[PortRow]| {
            rows.iter()
                .map(|row| {
                    row.port().ok_or_else(|| {
                        PlanError::new(
                            PlanFault::Unreadable,
                            format_args!("sidecar of {:?}: port {:?}", plan.display().to_string(), row.name),
                            "f32, f16, bf16 or i64",
                            &row.dtype,
                        )
                    })
                })
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(GraphIo { inputs: ports(&self.inputs)?, outputs: ports(&self.outputs)? })
    }
}

/// SHA-256, lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
