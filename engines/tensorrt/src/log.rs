use std::{
    collections::VecDeque,
    ffi::{CStr, c_char, c_void},
    panic,
    sync::{Mutex, PoisonError},
};

/// Enough for the reasons of one failure.
const KEPT: usize = 32;

/// TensorRT says why only in its log: the newest errors are kept, everything goes to `tracing`.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// How many errors there were, kept or not.
    count: u64,
    newest: VecDeque<String>,
}

impl Sink {
    /// The present, for [`Sink::since`].
    pub(crate) fn mark(&self) -> u64 {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// The errors logged after a mark, oldest first.
    pub(crate) fn since(&self, mark: u64) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = usize::try_from(lines.count - mark).unwrap_or(KEPT);
        lines.newest.iter().skip(lines.newest.len().saturating_sub(wanted)).cloned().collect()
    }

    fn add(&self, severity: i32, text: &str) {
        match severity {
            // Internal errors and errors.
            ..=1 => {
                tracing::error!(message = text, "tensorrt");
                let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.count += 1;
                if lines.newest.len() == KEPT {
                    lines.newest.pop_front();
                }
                lines.newest.push_back(text.trim().to_owned());
            }
            2 => tracing::warn!(message = text, "tensorrt"),
            3 => tracing::debug!(message = text, "tensorrt"),
            _ => tracing::trace!(message = text, "tensorrt"),
        }
    }
}

/// Errors as one line.
pub(crate) fn joined(lines: &[String]) -> Option<String> {
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// What the shim's logger calls.
#[allow(unsafe_code)]
pub(crate) unsafe extern "C" fn on_log(user: *mut c_void, severity: i32, text: *const c_char) {
    if user.is_null() || text.is_null() {
        return;
    }
    // SAFETY: `user` is the sink that `checked::Logger` owns in a box and outlives the logger; it is only shared, and
    // `Sink` may be used from any thread, as TensorRT logs from any.
    let sink = unsafe { &*user.cast_const().cast::<Sink>() };
    // SAFETY: TensorRT passes a string that ends in zero and lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // A subscriber that panics must not unwind into C++.
    let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| sink.add(severity, &text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_since_a_mark_are_told_and_no_others() {
        let sink = Sink::default();
        sink.add(1, "before");
        let mark = sink.mark();
        assert_eq!(joined(&sink.since(mark)), None);
        sink.add(0, "first\n");
        sink.add(2, "a warning");
        sink.add(1, "second");
        assert_eq!(joined(&sink.since(mark)).as_deref(), Some("first; second"));
        for index in 0..100 {
            sink.add(1, &index.to_string());
        }
        assert_eq!(sink.since(mark).len(), KEPT);
    }
}
