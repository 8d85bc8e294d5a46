//! A small world of its own to learn from: drawn pictures, clips, pages and sentences.
//!
//! ```text
//! dice + held_out ─► scene, clip, page ─► album (what each file shows) ─► draw, clip, pdf
//!                          └─► caption, question, edit ─► stage1, stage2, evaluation ─► write
//! ```
//!
//! Everything is made of a closed vocabulary: eight shapes in eight colours, two sizes, a few
//! places, backgrounds, motions, numbers and titles. Some combinations of those words
//! (`HeldOut`) are kept from training altogether, and evaluation asks for just these.
//!
//! A world is a folder in the corpus format: `tasks.jsonl`, `<dataset>/train.jsonl`,
//! `<dataset>/eval_*.jsonl`, `<dataset>/pool_*.jsonl`, real media files, and besides them
//! `media.jsonl` (what each file shows) and `world.json` (how the world was made, written last).

mod album;
mod caption;
mod clip;
mod dice;
mod draw;
mod edit;
mod evaluation;
mod held_out;
mod lesson;
mod outline;
mod page;
mod pdf;
mod question;
mod rows;
mod scene;
mod spread;
mod stage1;
mod stage2;
mod words;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use album::Album;
use evaluation::Exam;
use held_out::HeldOut;
use rows::TrainRow;

pub use write::training_texts;

/// Changes whenever the same configuration would draw another world.
const VERSION: u32 = 1;

/// The largest number of queries for which there are enough titles to give each page its own.
const MAX_QUERIES: usize = 64;

/// How to draw a world: its seed, and how many rows of each sort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorldConfig {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Stage 1: rows of caption → picture, and as many of picture → caption.
    pub captions: usize,
    /// Stage 1: rows of picture + change → picture.
    pub edits: usize,
    /// Stage 1: rows of description → PDF page.
    pub pages: usize,
    /// Stage 1: rows of caption → clip.
    pub clips: usize,
    /// Stage 1: rows of text → text.
    pub texts: usize,
    /// Stage 2: rows of each dataset that is not a set of labels (at most 192 of `page_titles`).
    pub instructed: usize,
    /// Stage 2: rows of each of the four sets of labels.
    pub labels: usize,
    /// Queries of each evaluation task, 4 to 64.
    pub queries: usize,
}

impl Default for WorldConfig {
    fn default() -> Self {
        WorldConfig {
            seed: 7,
            captions: 1200,
            edits: 600,
            pages: 800,
            clips: 700,
            texts: 500,
            instructed: 240,
            labels: 150,
            queries: 64,
        }
    }
}

/// What a world holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldSummary {
    /// True where the folder already held this world and nothing was drawn.
    #[serde(skip)]
    pub reused: bool,
    /// Training rows by dataset, of stage 1 (no instructions).
    pub stage1: BTreeMap<String, usize>,
    /// Training rows by dataset, of stage 2.
    pub stage2: BTreeMap<String, usize>,
    /// Queries by evaluation task.
    pub queries: BTreeMap<String, usize>,
    /// Picture files, crops included.
    pub pictures: usize,
    /// Clips.
    pub clips: usize,
    /// PDF files.
    pub documents: usize,
}

/// Why a world could not be drawn or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// A number in the configuration makes no world.
    #[error("`{key}` of the world is {found}, expected {expected}")]
    Config {
        /// The key.
        key: &'static str,
        /// Its value.
        found: usize,
        /// What would do.
        expected: &'static str,
    },
    /// The folder belongs to something else.
    #[error(
        "{folder} holds files but no `world.json`, so it is not a world; name another folder or empty this one"
    )]
    Occupied {
        /// The folder.
        folder: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error("{path}: {source}; is there room, and may it be written?")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The folder could not be put in its place.
    #[error(transparent)]
    Folder(#[from] rzen_merge::MergeError),
    /// A picture or clip could not be encoded.
    #[error("{path} could not be encoded: {source}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: image::ImageError,
    },
    /// A manifest is not what this program writes.
    #[error("{path}, line {line}: {source}; remove the folder to have the world drawn again")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// What went wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// Draws the world into `folder`, complete or not at all; a folder that holds the same world already
/// is left as it is, and one that holds another world is replaced.
///
/// The same configuration gives the same files, byte for byte.
///
/// # Errors
/// [`WorldError::Config`] where the configuration makes no world, [`WorldError::Occupied`] where the
/// folder holds something else, and what stopped the writing otherwise.
pub fn draw_world(config: &WorldConfig, folder: &Path) -> Result<WorldSummary, WorldError> {
    config.check()?;
    match write::standing(config, folder)? {
        Some(summary) => Ok(summary),
        None => write::write_world(config, &World::compose(config), folder),
    }
}

impl WorldConfig {
    /// What [`training_texts`] finds in the folder of this world, without drawing it.
    ///
    /// # Errors
    /// [`WorldError::Config`] where the configuration makes no world.
    pub fn texts(&self) -> Result<Vec<String>, WorldError> {
        self.check()?;
        let mut sets = World::compose(self).datasets;
        sets.sort_by_key(|set| set.name);
        let rows = sets.into_iter().flat_map(|set| set.rows);
        Ok(rows.flat_map(TrainRow::into_texts).collect())
    }

    fn check(&self) -> Result<(), WorldError> {
        let rows = [
            ("captions", self.captions),
            ("edits", self.edits),
            ("pages", self.pages),
            ("clips", self.clips),
            ("texts", self.texts),
            ("instructed", self.instructed),
            ("labels", self.labels),
        ];
        if let Some(&(key, found)) = rows.iter().find(|(_, rows)| *rows == 0) {
            return Err(WorldError::Config { key, found, expected: "at least 1" });
        }
        if !(4..=MAX_QUERIES).contains(&self.queries) {
            let expected = "4 to 64, for there are 64 titles that training does not use";
            return Err(WorldError::Config { key: "queries", found: self.queries, expected });
        }
        Ok(())
    }
}

/// The training rows of a dataset.
struct Dataset {
    name: &'static str,
    stage: u8,
    rows: Vec<TrainRow>,
}

/// A world before it is written.
struct World {
    album: Album,
    datasets: Vec<Dataset>,
    exams: Vec<Exam>,
}

impl World {
    fn compose(config: &WorldConfig) -> Self {
        let held = HeldOut::draw(config.seed);
        let mut album = Album::new(config.seed);
        let mut datasets = stage1::datasets(config, &held, &mut album);
        datasets.extend(stage2::datasets(config, &held, &mut album));
        let exams = evaluation::exams(config.seed, config.queries, &held, &mut album);
        World { album, datasets, exams }
    }
}

#[cfg(test)]
mod tests;
