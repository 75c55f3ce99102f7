//! The streaming SAM2-style tracker: one step a frame, constant memory.
