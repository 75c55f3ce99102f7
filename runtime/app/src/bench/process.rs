//! What this process costs, as Linux has it.

use std::{fs, time::Duration};

/// Processor time of all threads, in user and kernel, those that ended included.
pub(super) fn cpu_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name that may hold anything but ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// A field of `/proc/self/status` in MiB: `VmHWM`, the peak, or `VmRSS`, what is resident.
pub(super) fn memory_mib(field: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(super::figures::rounded(kib / 1024.0))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_costs_time_and_memory() {
        let (before, begun) = (cpu_time().unwrap(), Instant::now());
        let mut sum = 0_u64;
        while begun.elapsed() < Duration::from_millis(150) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(cpu_time().unwrap() > before, "{sum}");
        assert!(memory_mib("VmHWM").unwrap() >= memory_mib("VmRSS").unwrap() * 0.9);
        assert_eq!(memory_mib("VmNothing"), None);
    }
}
