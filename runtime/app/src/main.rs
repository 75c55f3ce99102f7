//! Say what to watch; it finds it in the live picture and keeps a mask on it.
fn main() {}
