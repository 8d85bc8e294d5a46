//! An index of folders: which files are there, and the vectors of what they show.
//!
//! ```text
//! folders ─find─► files ─update─► Catalog + VectorStore ─search─► hits
//! ```
//!
//! The catalog is one file that is replaced as a whole; vectors are found by content, so that a file that moved, or came a second
//! time, is not embedded again, and an update that was stopped goes on.

mod catalog;
mod find;
mod search;
mod served;
mod update;

pub use catalog::{CATALOG, Catalog, Entry, Header, Stamp};
pub use find::{Found, FoundFile, Kind, Trouble, find};
pub use search::{Hit, LoadedIndex, Place, search};
pub use served::ServedIndex;
pub use update::{How, Outcome, Wrong, update};
