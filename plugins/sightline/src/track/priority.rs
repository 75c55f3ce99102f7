//! Who gives way to whom.

/// Steps of niceness below the stream's own threads.
const NICE: i32 = 5;

/// Lets the calling thread, and every thread it starts from now on, give way to the stream's: on a machine with few
/// cores an engine would otherwise push the streaming thread aside for a scheduler's slice, a few milliseconds.
pub(crate) fn give_way() {
    // On Linux "process 0" is the calling thread. Where that is refused the results are the same, less evenly.
    let _ = rustix::process::setpriority_process(None, NICE);
}
