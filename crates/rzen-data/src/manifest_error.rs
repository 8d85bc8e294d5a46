//! What can be wrong with a manifest.

use std::path::PathBuf;

use rzen_core::Origin;

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
    /// Two keys stand side by side where one may.
    #[error("{origin}: keys `{first}` and `{second}` exclude each other; keep one")]
    Both {
        /// The row.
        origin: Origin,
        /// One key.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A list has the wrong length.
    #[error("{origin}: key `{key}` has {found} entries for {expected} {of}s; give one for each")]
    Length {
        /// The row.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// How many it has.
        found: usize,
        /// How many it should have.
        expected: usize,
        /// What it should have one for each of.
        of: &'static str,
    },
    /// A filter by a teacher's scores meets a row without scores.
    #[error(
        "{origin}: the row has hard negatives and no scores, but its dataset has a `teacher`; give the row          `positive_scores` and `negative_scores`, or leave `teacher` out of the recipe"
    )]
    NoScores {
        /// The row.
        origin: Origin,
    },
    /// A dataset has manifests of several kinds, or two sets of them.
    #[error("`{}` holds {first} and {second}; keep what is to be trained on", folder.display())]
    TwoManifests {
        /// The dataset's folder.
        folder: PathBuf,
        /// One of them.
        first: String,
        /// One of another kind.
        second: String,
    },
    /// Of a numbered set of manifests some are not there.
    #[error(
        "`{}` lacks some of its {count} files train-00000-of-{count:05}.parquet and on: number {missing}; fetch them, or rename \
         those that are there so that they don't count",
        folder.display()
    )]
    MissingShards {
        /// The dataset's folder.
        folder: PathBuf,
        /// How many there should be.
        count: usize,
        /// The numbers of those that are missing.
        missing: String,
    },
    /// A Parquet file can't be read.
    #[error(
        "can't read `{}` as Parquet: {source}; is the file whole? (zstd and brotli are not built in: write it again with snappy)",
        path.display()
    )]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A Parquet column holds bytes.
    #[error(
        "{origin}: column `{column}` holds bytes that are neither an `image` nor a frame of a `video`; write them to files, \
         and name those"
    )]
    Bytes {
        /// The row.
        origin: Origin,
        /// The column.
        column: String,
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

impl ManifestError {
    /// The row that is wrong, where it is one.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            ManifestError::NotText { origin, .. }
            | ManifestError::Json { origin, .. }
            | ManifestError::MissingKey { origin, .. }
            | ManifestError::UnknownKey { origin, .. }
            | ManifestError::Value { origin, .. }
            | ManifestError::EmptyKey { origin, .. }
            | ManifestError::BadValue { origin, .. }
            | ManifestError::Duplicate { origin, .. }
            | ManifestError::UnknownId { origin, .. }
            | ManifestError::Both { origin, .. }
            | ManifestError::Length { origin, .. }
            | ManifestError::NoScores { origin }
            | ManifestError::Bytes { origin, .. } => Some(origin),
            ManifestError::Read { .. }
            | ManifestError::NoRows { .. }
            | ManifestError::TwoManifests { .. }
            | ManifestError::MissingShards { .. }
            | ManifestError::Parquet { .. }
            | ManifestError::NoSuchTask { .. } => None,
        }
    }
}
