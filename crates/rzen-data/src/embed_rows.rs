//! Rows to embed.

use std::path::Path;

use rzen_core::{Item, Origin};

use crate::ManifestError;
use crate::row::{check_unique, rows};

const KEYS: &[&str] = &["id", "content", "instruction"];

/// A row to embed.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedRow {
    /// Unique in its file.
    pub id: String,
    /// The content, with its instruction if it has one.
    pub item: Item,
    /// Where the row stands.
    pub origin: Origin,
}

/// Reads rows `{"id", "content": [parts], "instruction"?}`, one JSON object on each line, in order.
///
/// `root` is put before relative paths; give an empty one to leave them as they are.
///
/// # Errors
/// The first row that is wrong, with file, line and key; an id that stands twice.
pub fn embed_rows(manifest: &Path, root: &Path) -> Result<Vec<EmbedRow>, ManifestError> {
    let mut all = Vec::new();
    for mut row in rows(manifest, KEYS)? {
        let id = row.id()?;
        let instruction = row.optional("instruction")?;
        let item = row.content("content", root, instruction)?;
        all.push(EmbedRow { id, item, origin: row.finish()? });
    }
    check_unique(all.iter().map(|row| (row.id.as_str(), &row.origin)))?;
    Ok(all)
}
