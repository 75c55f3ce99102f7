//! What no single room can test: the import law, parity, memory, whole pipelines.
