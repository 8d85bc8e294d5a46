//! Which base an adapter was trained on: `base.json` beside it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::MergeError;
use crate::record::read_beside;

/// The content of [`BaseRecord::FILE`], which training writes beside an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// The format of the file.
    pub format: u32,
    /// What [`WeightsHasher`](crate::WeightsHasher) makes of the base's weights.
    pub weights_sha256: String,
}

impl BaseRecord {
    /// The file's name.
    pub const FILE: &str = "base.json";

    /// A record of this hash.
    pub fn new(weights_sha256: String) -> Self {
        BaseRecord { format: 1, weights_sha256 }
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a record is plain") + "\n"
    }

    /// Reads the record of an adapter's folder, where it has one.
    ///
    /// # Errors
    /// If it is there and can't be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, MergeError> {
        read_beside(folder, Self::FILE)
    }
}
