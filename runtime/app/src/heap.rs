//! The C library's allocator, set for a process of many threads that lives long.
//!
//! By itself glibc has up to eight arenas a core, and holds on to what is freed the more, the larger it was: every reconnect
//! of a camera has threads of its own, and their decoder's frames stay behind in one arena after another, for months on a
//! large machine. `mallopt` cannot be called without unsafe code, so the program is begun anew, once, with what it should
//! say in `GLIBC_TUNABLES`; process id, files and arguments stay.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
    process::Command,
};

const VARIABLE: &str = "GLIBC_TUNABLES";
const PREFIX: &str = "glibc.malloc.";
/// Two arenas; and the thresholds that glibc begins with, which no longer slide upwards: what is larger goes back to the
/// system when it is freed.
const TUNABLES: &str =
    "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072";

/// Begins the program anew with these settings; comes back when they are there, the user has others, or it cannot be.
pub(crate) fn settle() {
    if !cfg!(all(target_os = "linux", target_env = "gnu")) {
        return;
    }
    let Some(tunables) = wanted(std::env::vars_os()) else { return };
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut again = Command::new(&program);
    again.arg0(arguments.next().unwrap_or_else(|| program.clone().into()));
    let error = again.args(arguments).env(VARIABLE, tunables).exec();
    tracing::debug!("goes on with the allocator as it is: {error}");
}

/// What the variable should be; `None` where something was said of the allocator already.
fn wanted(environment: impl Iterator<Item = (OsString, OsString)>) -> Option<OsString> {
    let mut others = None;
    for (name, value) in environment {
        let told = name.as_encoded_bytes().starts_with(b"MALLOC_");
        if told || name == VARIABLE && value.to_string_lossy().contains(PREFIX) {
            return None;
        }
        if name == VARIABLE && !value.is_empty() {
            others = Some(value);
        }
    }
    let parts = others.iter().map(OsString::as_os_str).chain([OsStr::new(TUNABLES)]);
    Some(parts.collect::<Vec<_>>().join(OsStr::new(":")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_says_of_the_allocator_stays() {
        for (name, environment, expected) in [
            ("nothing", &[("PATH", "/bin")][..], Some(TUNABLES.to_owned())),
            ("empty", &[(VARIABLE, "")], Some(TUNABLES.to_owned())),
            (
                "of something else",
                &[(VARIABLE, "glibc.rtld.nns=8")],
                Some(format!("glibc.rtld.nns=8:{TUNABLES}")),
            ),
            ("of the same", &[(VARIABLE, "glibc.malloc.check=1")], None),
            ("ours", &[(VARIABLE, TUNABLES)], None),
            ("by the older names", &[("PATH", "/bin"), ("MALLOC_ARENA_MAX", "8")], None),
        ] {
            let pairs = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
            assert_eq!(wanted(pairs), expected.map(OsString::from), "{name}");
        }
    }
}
