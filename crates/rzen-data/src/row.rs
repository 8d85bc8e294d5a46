//! JSON lines, read key by key so that an error names the file, the line and the key.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rzen_core::{Item, Origin, Part};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file can't be read.
    #[error("can't read `{}`: {source}; check the path", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// There are no rows.
    #[error("`{}` holds no rows; expected one JSON object on each line", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// The line is no text.
    #[error(
        "{origin}: not UTF-8 after byte {valid} of the line; expected a JSON object in UTF-8, save the file so"
    )]
    NotText {
        /// The row.
        origin: Origin,
        /// How many bytes can be read.
        valid: usize,
    },
    /// The line is no JSON object.
    #[error("{origin}: not a JSON object: {source}; expected one object on each line")]
    Json {
        /// The row.
        origin: Origin,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A key is missing.
    #[error("{origin}: key `{key}` is missing{strange}; expected keys are {allowed}")]
    MissingKey {
        /// The row.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// The keys that stand there and are not known, in words; empty where there are none.
        strange: String,
        /// The keys that may stand here.
        allowed: String,
    },
    /// A key is not known.
    #[error("{origin}: key `{key}` is not known here; expected keys are {allowed}")]
    UnknownKey {
        /// The row.
        origin: Origin,
        /// The key.
        key: String,
        /// The keys that may stand here.
        allowed: String,
    },
    /// A value has the wrong form.
    #[error("{origin}: key `{key}` can't be read: {source}")]
    Value {
        /// The row.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What was found and expected.
        #[source]
        source: serde_json::Error,
    },
    /// A list is empty.
    #[error("{origin}: key `{key}` is empty, expected at least one {expected}")]
    EmptyKey {
        /// The row.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A value is not possible.
    #[error("{origin}: key `{key}` is {found}, expected {expected}")]
    BadValue {
        /// The row.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// The value.
        found: String,
        /// What would do.
        expected: String,
    },
    /// An id or a name stands twice.
    #[error("{origin}: `{id}` stands here and in line {first} already; ids must differ")]
    Duplicate {
        /// The second row.
        origin: Origin,
        /// The id.
        id: String,
        /// The line of the first row.
        first: usize,
    },
    /// An id leads nowhere.
    #[error("{origin}: key `{key}` names `{id}`, which is not in {expected}")]
    UnknownId {
        /// The row.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// The id.
        id: String,
        /// Where it should be.
        expected: String,
    },
    /// A task of that name does not exist.
    #[error("`{}` has no task `{name}`; it has {found}", path.display())]
    NoSuchTask {
        /// The list of tasks.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The names there are.
        found: String,
    },
}

/// One JSON object; keys are taken out until none is left.
pub(crate) struct Row {
    pub origin: Origin,
    map: Map<String, Value>,
    allowed: &'static [&'static str],
}

/// Reads the rows of a file, skipping blank lines. `allowed` are the keys that may stand in a row.
pub(crate) fn rows(path: &Path, allowed: &'static [&'static str]) -> Result<Vec<Row>, ManifestError> {
    let unreadable = |source| ManifestError::Read { path: path.to_owned(), source };
    let file: Arc<Path> = path.into();
    let mut rows = Vec::new();
    let lines = BufReader::new(File::open(path).map_err(unreadable)?).split(b'\n');
    for (index, line) in lines.enumerate() {
        let origin = Origin { file: file.clone(), line: index + 1 };
        let line = match String::from_utf8(line.map_err(unreadable)?) {
            Ok(line) => line,
            Err(error) => {
                return Err(ManifestError::NotText { origin, valid: error.utf8_error().valid_up_to() });
            }
        };
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(&line) {
            Ok(map) => rows.push(Row { origin, map, allowed }),
            Err(source) => return Err(ManifestError::Json { origin, source }),
        }
    }
    if rows.is_empty() {
        return Err(ManifestError::NoRows { path: path.to_owned() });
    }
    Ok(rows)
}

impl Row {
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
        let id: String = self.required("id")?;
        self.not_empty("id", "character", id.is_empty())?;
        Ok(id)
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
