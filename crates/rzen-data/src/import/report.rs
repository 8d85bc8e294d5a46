//! What became of an import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rzen_core::Origin;
use serde::Serialize;

use crate::ManifestError;

/// What became of the rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ImportReport {
    /// Rows of the input that were read.
    pub read: usize,
    /// Rows written; a row of the input may give several.
    pub rows: usize,
    /// Whether the cap ended the import before the input did.
    pub capped: bool,
    /// Pictures written out of the input; equal ones are one file.
    pub media_files: usize,
    /// Columns that were not used.
    pub unused: BTreeSet<String>,
    /// How often something was left out or read in a way that one should know of.
    pub notes: BTreeMap<String, usize>,
    /// The rows that were refused.
    pub bad_rows: Vec<ImportBadRow>,
}

/// A row that was refused.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImportBadRow {
    /// The file.
    pub file: PathBuf,
    /// Its row, counted from 1; blank lines are no rows.
    pub row: usize,
    /// Why.
    pub message: String,
}

impl std::fmt::Display for ImportBadRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, row {}: {}", self.file.display(), self.row, self.message)
    }
}

impl ImportReport {
    /// Counts something that one should know of.
    pub(crate) fn note(&mut self, what: &str) {
        self.note_many(what, 1);
    }

    /// Counts several of them.
    pub(crate) fn note_many(&mut self, what: &str, count: usize) {
        if count > 0 {
            *self.notes.entry(what.to_owned()).or_default() += count;
        }
    }

    /// Names a row that is refused.
    ///
    /// # Errors
    /// If that is one more than allowed.
    pub(crate) fn refuse(&mut self, row: &Origin, message: String, limit: usize) -> Result<(), ImportError> {
        self.bad_rows.push(ImportBadRow { file: row.file.to_path_buf(), row: row.line, message });
        match self.bad_rows.len() > limit {
            true => Err(ImportError::TooMany { limit, bad_rows: self.bad_rows.clone() }),
            false => Ok(()),
        }
    }
}

/// Why there is no import.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file can't be read.
    #[error(transparent)]
    Read(#[from] ManifestError),
    /// A file can't be written.
    #[error("can't write `{}`: {source}; is there room on the disk?", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The ending of a file says nothing.
    #[error("`{}` ends in none of .jsonl, .ndjson, .json and .parquet; name a file of one of these kinds", path.display())]
    Ending {
        /// The file.
        path: PathBuf,
    },
    /// A file that begins with a list isn't one.
    #[error("`{}` begins with [ and is no list of JSON objects: {source}; is the file whole?", path.display())]
    NoList {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A folder lacks what its layout needs.
    #[error("`{}` {problem}", path.display())]
    Layout {
        /// The folder or file.
        path: PathBuf,
        /// What is found and expected.
        problem: String,
    },
    /// Nothing here cuts films.
    #[error(
        "there is no ffmpeg to cut films with; install it (Debian and Ubuntu: `apt install ffmpeg`, macOS: \
         `brew install ffmpeg`), or name the program in RZEN_FFMPEG"
    )]
    NoFfmpeg,
    /// More rows are refused than allowed.
    #[error(
        "{} rows can't be taken, more than the {limit} allowed: {}; mend the input, or raise the \
         bad-row limit to leave them out", bad_rows.len(), listed(bad_rows)
    )]
    TooMany {
        /// How many are allowed.
        limit: usize,
        /// The rows.
        bad_rows: Vec<ImportBadRow>,
    },
    /// No row is left.
    #[error("none of {read} rows can be taken{}", because(bad_rows))]
    Nothing {
        /// How many there are.
        read: usize,
        /// Those that were refused.
        bad_rows: Vec<ImportBadRow>,
    },
}

/// The rows in a sentence.
fn listed(rows: &[ImportBadRow]) -> String {
    rows.iter().map(ImportBadRow::to_string).collect::<Vec<_>>().join("; ")
}

fn because(rows: &[ImportBadRow]) -> String {
    if rows.is_empty() { "; is it the right file?".to_owned() } else { format!(": {}", listed(rows)) }
}
