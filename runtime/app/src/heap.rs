//! The C library's allocator, set for a process of many threads that lives long.
//!
//! By itself glibc has up to eight arenas a core, and holds on to what is freed the more, the larger it was: every reconnect
//! of a camera has threads of its own, and their decoder's frames stay behind in one arena after another, for months on a
//! large machine. `mallopt` cannot be called without unsafe code, so the program is begun anew, once, with what it should
//! say in `GLIBC_TUNABLES`; process id, files and arguments stay.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

const VARIABLE: &str = "GLIBC_TUNABLES";
/// Two arenas; and the thresholds that glibc begins with, which no longer slide upwards: what is larger goes back to the
/// system when it is freed.
const TUNABLES: &str =
    "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072";

/// Begins the program anew with these settings; comes back when they are there, the user has others, or it cannot be.
pub(crate) fn settle() {
    let is_glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
    if !is_glibc || is_told(std::env::vars_os().map(|(name, _)| name)) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut again = Command::new(&program);
    again.arg0(arguments.next().unwrap_or_else(|| program.clone().into()));
    let error = again.args(arguments).env(VARIABLE, TUNABLES).exec();
    tracing::debug!("goes on with the allocator as it is: {error}");
}

/// Whether the environment says something of the allocator, or may: glibc up to 2.38 cuts the variable off behind its first
/// part, so what else it said cannot be known, nor that we were here unless by the variable itself.
fn is_told(mut names: impl Iterator<Item = OsString>) -> bool {
    names.any(|name| name == VARIABLE || name.as_encoded_bytes().starts_with(b"MALLOC_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_says_of_the_allocator_stays() {
        for (environment, expected) in [
            (&["PATH", "HOME"][..], false),
            (&["PATH", VARIABLE], true),
            (&["MALLOC_ARENA_MAX", "PATH"], true),
            (&["SIGHTLINE_MALLOC_", "MY_GLIBC_TUNABLES"], false),
        ] {
            assert_eq!(is_told(environment.iter().map(OsString::from)), expected, "{environment:?}");
        }
    }
}
