//! JSON lines, read key by key so that an error names the file, the line and the key.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use rzen_core::{Item, Origin, Part};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ManifestError;

/// One JSON object; keys are taken out until none is left.
pub(crate) struct Row {
    pub origin: Origin,
    map: Map<String, Value>,
    allowed: &'static [&'static str],
}

/// Reads the rows of a file, skipping blank lines. `allowed` are the keys that may stand in a row.
pub(crate) fn rows(path: &Path, allowed: &'static [&'static str]) -> Result<Vec<Row>, ManifestError> {
    all_rows(path, each_row(path, allowed)?)
}

/// All of the rows, of which there must be some.
pub(crate) fn all_rows(
    path: &Path,
    rows: impl Iterator<Item = Result<Row, ManifestError>>,
) -> Result<Vec<Row>, ManifestError> {
    let rows: Vec<Row> = rows.collect::<Result<_, _>>()?;
    match rows.is_empty() {
        true => Err(ManifestError::NoRows { path: path.to_owned() }),
        false => Ok(rows),
    }
}

/// Reads the rows of a file one by one; after a wrong one come those behind it.
pub(crate) fn each_row(
    path: &Path,
    allowed: &'static [&'static str],
) -> Result<impl Iterator<Item = Result<Row, ManifestError>> + use<>, ManifestError> {
    let file: Arc<Path> = path.into();
    let unreadable = |path: &Path, source| ManifestError::Read { path: path.to_owned(), source };
    let lines = BufReader::new(File::open(path).map_err(|source| unreadable(path, source))?).split(b'\n');
    Ok(lines.enumerate().filter_map(move |(index, line)| {
        let origin = Origin { file: file.clone(), line: index + 1 };
        let line = match line.map_err(|source| unreadable(&file, source)).map(String::from_utf8) {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => {
                let valid = error.utf8_error().valid_up_to();
                return Some(Err(ManifestError::NotText { origin, valid }));
            }
            Err(error) => return Some(Err(error)),
        };
        if line.trim().is_empty() {
            return None;
        }
        Some(match serde_json::from_str(&line) {
            Ok(map) => Ok(Row::new(origin, map, allowed)),
            Err(source) => Err(ManifestError::Json { origin, source }),
        })
    }))
}

impl Row {
    /// A row of its keys and values; `allowed` are the keys that may stand in it.
    pub fn new(origin: Origin, map: Map<String, Value>, allowed: &'static [&'static str]) -> Self {
        Row { origin, map, allowed }
    }

    /// Takes a key that must stand there.
    pub fn required<T: DeserializeOwned>(&mut self, key: &'static str) -> Result<T, ManifestError> {
        self.optional(key)?.ok_or_else(|| ManifestError::MissingKey {
            origin: self.origin.clone(),
            key,
            strange: self.strange_keys(),
            allowed: self.allowed_keys(),
        })
    }

    /// `, and … is not known`, or nothing: a key that is missing is often one that was misspelt.
    fn strange_keys(&self) -> String {
        let strange: Vec<String> = self
            .map
            .keys()
            .filter(|key| !self.allowed.contains(&key.as_str()))
            .map(|key| format!("`{key}`"))
            .collect();
        match strange.len() {
            0 => String::new(),
            1 => format!(", and {} is not known", strange[0]),
            _ => format!(", and {} are not known", strange.join(", ")),
        }
    }

    /// Takes a key that may be missing; `null` counts as missing.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &'static str) -> Result<Option<T>, ManifestError> {
        match self.map.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|source| ManifestError::Value {
                origin: self.origin.clone(),
                key,
                source,
            }),
        }
    }

    /// Takes a list of parts that isn't empty, with `root` put before relative paths.
    pub fn content(
        &mut self,
        key: &'static str,
        root: &Path,
        instruction: Option<String>,
    ) -> Result<Item, ManifestError> {
        let content: Vec<Part> = self.required(key)?;
        self.not_empty(key, "part", content.is_empty())?;
        Ok(Item { content, instruction }.under(root))
    }

    /// Takes an id that isn't the empty string.
    pub fn id(&mut self) -> Result<String, ManifestError> {
        self.text("id")
    }

    /// Takes a text that must stand there and isn't empty.
    pub fn text(&mut self, key: &'static str) -> Result<String, ManifestError> {
        let text: String = self.required(key)?;
        self.not_empty(key, "character", text.is_empty())?;
        Ok(text)
    }

    /// Takes a text that may be missing and isn't empty where it stands.
    pub fn optional_text(&mut self, key: &'static str) -> Result<Option<String>, ManifestError> {
        let text: Option<String> = self.optional(key)?;
        self.not_empty(key, "character", text.as_deref() == Some(""))?;
        Ok(text)
    }

    /// Refuses `other` beside `key`, which was taken.
    pub fn not_beside(&mut self, other: &'static str, key: &'static str) -> Result<(), ManifestError> {
        match self.map.shift_remove(other) {
            None | Some(Value::Null) => Ok(()),
            Some(_) => Err(ManifestError::Both { origin: self.origin.clone(), first: other, second: key }),
        }
    }

    /// Refuses a list that hasn't one entry for each of `expected` things.
    pub fn has_length(
        &self,
        key: &'static str,
        of: &'static str,
        found: usize,
        expected: usize,
    ) -> Result<(), ManifestError> {
        match found == expected {
            true => Ok(()),
            false => Err(ManifestError::Length { origin: self.origin.clone(), key, found, expected, of }),
        }
    }

    /// Refuses an empty value.
    pub fn not_empty(
        &self,
        key: &'static str,
        expected: &'static str,
        is_empty: bool,
    ) -> Result<(), ManifestError> {
        match is_empty {
            true => Err(ManifestError::EmptyKey { origin: self.origin.clone(), key, expected }),
            false => Ok(()),
        }
    }

    /// Refuses keys that nobody took.
    pub fn finish(self) -> Result<Origin, ManifestError> {
        match self.map.keys().next() {
            Some(key) => Err(ManifestError::UnknownKey {
                key: key.clone(),
                allowed: self.allowed_keys(),
                origin: self.origin,
            }),
            None => Ok(self.origin),
        }
    }

    fn allowed_keys(&self) -> String {
        self.allowed.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
    }
}

/// Refuses ids that stand twice.
pub(crate) fn check_unique<'a>(
    ids: impl Iterator<Item = (&'a str, &'a Origin)>,
) -> Result<(), ManifestError> {
    let mut first = std::collections::HashMap::new();
    for (id, origin) in ids {
        if let Some(line) = first.insert(id, origin.line) {
            return Err(ManifestError::Duplicate { origin: origin.clone(), id: id.to_owned(), first: line });
        }
    }
    Ok(())
}
