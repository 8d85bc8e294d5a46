//! The vocabulary of rzen: items, samples, batches, and the traits between stages.
//!
//! ```text
//! file ─► Sample ─► Batch ─Encode─► embeddings ─Objective─► Loss ─► Checkpoint ─► soup ─Embed─► scores
//! ```
//!
//! Every other crate of the workspace depends on this one and on no sibling: a loader, an encoder,
//! a loss and a trainer meet only through the types and traits below. Nothing here reads a file,
//! knows a model or carries a configuration.
//!
//! Five traits are the seams, each because some function is generic over it and more than one
//! implementor exists: [`Encode`] (input → embeddings on a device), [`Objective`] (embeddings →
//! loss), [`Embed`] (raw items → host vectors), [`SaveWeights`] (weights → a folder) and [`Ranks`]
//! (one process among those that train together).
#![warn(missing_docs)]

mod batch;
mod item;
mod media;
mod pages;
mod ranks;
mod traits;

pub use batch::{Batch, Loss, Targets};
pub use item::{Item, Origin, Part, Sample, Task, TeacherScores, VideoSource};
pub use media::{LoadedItem, Media, Picture};
pub use pages::prefer_large_pages;
pub use ranks::{Ranks, Solo, agree, on_first};
pub use traits::{
    Embed, EmbedError, Encode, Objective, Pullback, SaveWeights, check_unit_vector, encode_with_graph,
};
