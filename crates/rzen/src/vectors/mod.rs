//! Vectors that are computed once: kept on disk by the content of their items and by everything else that they depend on.
//!
//! ```text
//! items ─Contents─► keys ─embed_missing─► VectorStore ─rows─► vectors
//! ```

pub mod content;
mod embed;
pub mod store;

pub use content::{Contents, Key, Unreadable};
pub use embed::{Model, Refused, embed_in_runs, embed_missing};
pub use store::VectorStore;
