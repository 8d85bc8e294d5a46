//! Soups: how adapters are combined, and the search for weights.

mod alike;
mod choice;
mod scorer;
mod search;
mod trials;

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use rzen_merge::SoupRecord;

use crate::files::whole_file;

pub(crate) use alike::check_alike;
pub use choice::{SoupChoice, SoupMethod};
pub use scorer::{Scorer, ScorerOptions, What};
pub(crate) use scorer::{alone_as_it_is, joined};
pub use search::{Found, Search, check_count, search};
pub use trials::Trials;

/// Writes `soup.json` over the one that is there.
///
/// # Errors
/// If it can't be written.
pub fn write_record(record: &SoupRecord, folder: &Path) -> Result<()> {
    let text = record.to_json();
    whole_file(&folder.join(SoupRecord::FILE), |file| Ok(file.write_all(text.as_bytes())?))
}
