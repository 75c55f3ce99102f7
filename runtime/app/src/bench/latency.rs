use anyhow::{Result, bail};

use crate::cli::LatencyArgs;

pub(super) fn run(args: &LatencyArgs) -> Result<()> {
    bail!("bench latency: not built yet: {args:?}")
}
