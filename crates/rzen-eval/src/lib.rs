//! Retrieval metrics and benchmark runs over any embedder.
