//! Criterion benches of the workspace; see `benches/`. Nothing depends on this crate.
#![warn(missing_docs)]
