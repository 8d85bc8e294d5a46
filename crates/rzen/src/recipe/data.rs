//! The table `[data]`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::load_limits::LoadLimits;
use crate::world::WorldConfig;

/// Where the rows come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// A corpus folder; `--data` takes precedence.
    pub folder: Option<PathBuf>,
    /// Draw a world of scenes, clips and pages instead, into the run folder.
    pub world: Option<WorldConfig>,
    /// Rows that may be unreadable before training stops; they are left out and listed in `bad_rows.jsonl`.
    pub bad_row_limit: usize,
    /// Batches that are decoded ahead.
    pub prefetch: usize,
    /// What files may ask for before they are refused.
    pub load: LoadLimits,
}

impl Default for Data {
    fn default() -> Self {
        Data { folder: None, world: None, bad_row_limit: 0, prefetch: 2, load: LoadLimits::default() }
    }
}

impl Data {
    /// Takes the rows from `folder` instead, where one is given.
    pub fn replace_by(&mut self, folder: Option<&Path>) {
        if let Some(folder) = folder {
            (self.folder, self.world) = (Some(folder.to_owned()), None);
        }
    }
}
