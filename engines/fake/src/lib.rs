//! Deterministic engines for tests.
