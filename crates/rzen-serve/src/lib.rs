//! Embeddings over HTTP, and search in an index.
//!
//! ```text
//! request ─► Asked ─read (several threads)─► Waiting ─queue─► batch ─embed (one thread)─► vector ─► response
//! ```
//!
//! - [`ServedModel`] is what is served, [`Search`] an index beside it; the program brings both.
//! - [`serve`] answers requests until it is told to [`Stop`].
//!
//! Nothing in a request is an address that is opened or a path that is read: media come as bytes.
#![warn(missing_docs)]

mod asked;
mod body;
mod cohere;
mod connections;
mod engine;
mod field;
mod log;
mod media;
mod metrics;
mod model;
mod openai;
mod page;
mod probe;
mod queue;
mod refusal;
mod routes;
mod search;
mod search_route;
mod server;
mod settings;
#[cfg(test)]
mod stub;
mod tei;

pub use log::log;
pub use model::{ReadError, ServedModel};
pub use queue::BatchLimits;
pub use search::{Hit, Kind, Place, Search, Wanted};
pub use server::{Ended, Opened, Ready, ServeError, Stop, serve};
pub use settings::Settings;
