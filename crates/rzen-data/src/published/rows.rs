//! Rows of annotations, and cells as they are wanted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rzen_core::Origin;

use super::error::PublishedError;
use crate::cell::Cell;
use crate::import::Refusal;
use crate::import::record::{Record, records, text_of};

/// A row with its place, which errors name.
pub(crate) struct Annotation {
    pub record: Record,
    pub origin: Origin,
}

/// The rows of tables, in order; `needed` are the columns that there must be.
///
/// # Errors
/// If a table can't be read, lacks columns or holds no rows.
pub(crate) fn annotations(
    files: &[PathBuf],
    needed: &[&str],
    mut read: impl FnMut(&mut Annotation) -> Result<(), String>,
) -> Result<(), PublishedError> {
    for file in files {
        let path: Arc<Path> = file.as_path().into();
        let mut any = false;
        for (index, record) in records(file)?.enumerate() {
            let wrong = |problem| PublishedError::Row { path: file.clone(), row: index + 1, problem };
            let record = record.map_err(|refusal| match refusal {
                Refusal::Failed(error) => error.into(),
                Refusal::Row(problem) => wrong(problem),
            })?;
            if !any {
                check_columns(file, &record.names(), needed)?;
                any = true;
            }
            let origin = Origin { file: path.clone(), line: index + 1 };
            read(&mut Annotation { record, origin }).map_err(wrong)?;
        }
        if !any {
            return Err(PublishedError::Row {
                path: file.clone(),
                row: 1,
                problem: "the table holds no rows".into(),
            });
        }
    }
    Ok(())
}

/// Refuses a table without one of the columns that are needed.
pub(crate) fn check_columns(file: &Path, found: &[String], needed: &[&str]) -> Result<(), PublishedError> {
    let quoted =
        |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let missing: Vec<&str> =
        needed.iter().copied().filter(|name| !found.iter().any(|found| found == name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(PublishedError::Columns {
        path: file.to_owned(),
        missing: quoted(missing),
        found: quoted(found.iter().map(String::as_str).collect()),
    })
}

fn texts_of(cell: Cell, column: &str) -> Result<Vec<String>, String> {
    let text = |cell| Ok(text_of(cell, column)?.unwrap_or_default());
    match cell {
        Cell::List(cells) => cells.into_iter().map(text).collect(),
        cell => Ok(vec![text(cell)?]),
    }
}

impl Annotation {
    /// A text that may be empty or missing.
    pub fn text(&mut self, column: &str) -> Result<String, String> {
        Ok(self.record.text(column)?.unwrap_or_default())
    }

    /// A text that must not be empty.
    pub fn needed(&mut self, column: &str) -> Result<String, String> {
        self.record.required_text(column)
    }

    /// A list of texts, which may be empty ones; a text alone is a list of one.
    pub fn texts(&mut self, column: &str) -> Result<Vec<String>, String> {
        texts_of(self.record.required(column)?, column)
    }

    /// A list of texts, which may be empty ones; none where there is no list.
    pub fn texts_or_none(&mut self, column: &str) -> Result<Vec<String>, String> {
        match self.record.take(column) {
            None | Some(Cell::Null) => Ok(Vec::new()),
            Some(cell) => texts_of(cell, column),
        }
    }

    /// The first of a list of texts, or the text where it is one; empty where there is none.
    pub fn first_text(&mut self, column: &str) -> Result<String, String> {
        match self.record.take(column) {
            None => Ok(String::new()),
            Some(Cell::List(cells)) => {
                let first = cells.into_iter().next().unwrap_or(Cell::Null);
                Ok(text_of(first, column)?.unwrap_or_default())
            }
            Some(cell) => Ok(text_of(cell, column)?.unwrap_or_default()),
        }
    }
}
