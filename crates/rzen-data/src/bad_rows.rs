//! Loading batches, and keeping count of rows that can't be loaded.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rzen_core::{Item, LoadedItem, Origin, Sample, Task};
use serde::{Deserialize, Serialize};

use crate::{LoadError, Loader};

/// A sample whose files have been read.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedSample {
    /// Its place in the slice that was asked for.
    pub place: usize,
    /// The dataset that the row belongs to.
    pub dataset: String,
    /// Decides the temperature.
    pub task: Task,
    /// The query.
    pub query: LoadedItem,
    /// The candidate that answers the query.
    pub positive: LoadedItem,
    /// Candidates that look right and are not.
    pub hard_negatives: Vec<LoadedItem>,
    /// Where the row stands.
    pub origin: Origin,
}

/// A row that could not be used.
#[derive(Clone, Debug, PartialEq)]
pub struct BadRow {
    /// Where the row stands.
    pub origin: Origin,
    /// The media file at fault, if it is one.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub message: String,
}

/// Loads samples in parallel, in order, and tells the bad ones apart.
///
/// A row is bad if any of its files is, hard negatives too. It is left out and nothing takes its place:
/// the batch is smaller, the same way in every run, as long as the files are the same. (Time limits are
/// the exception: a slow machine may lose a clip that a fast one loads.)
pub fn load_samples(loader: &Loader, samples: &[&Sample]) -> (Vec<LoadedSample>, Vec<BadRow>) {
    load_samples_with(loader, samples, Ok)
}

/// Loads samples as [`load_samples`] does and hands each to `finish` in the thread that loaded it, so that
/// no more decoded files are held at once than threads work on them. A row that `finish` refuses is bad.
pub fn load_samples_with<T: Send>(
    loader: &Loader,
    samples: &[&Sample],
    finish: impl Fn(LoadedSample) -> Result<T, String> + Sync,
) -> (Vec<T>, Vec<BadRow>) {
    let read = |(place, sample): (usize, &&Sample)| {
        let refused = |message| BadRow { origin: sample.origin.clone(), file: None, message };
        finish(load_sample(loader, place, sample)?).map_err(refused)
    };
    let results: Vec<Result<T, BadRow>> = samples.par_iter().enumerate().map(read).collect();
    let mut finished = Vec::with_capacity(samples.len());
    let mut bad = Vec::new();
    for result in results {
        match result {
            Ok(value) => finished.push(value),
            Err(row) => bad.push(row),
        }
    }
    (finished, bad)
}

fn load_sample(loader: &Loader, place: usize, sample: &Sample) -> Result<LoadedSample, BadRow> {
    let load = |item: &Item| loader.load(item).map_err(|error| BadRow::new(sample.origin.clone(), &error));
    Ok(LoadedSample {
        place,
        dataset: sample.dataset.clone(),
        task: sample.task.clone(),
        query: load(&sample.query)?,
        positive: load(&sample.positive)?,
        hard_negatives: sample.hard_negatives.iter().map(load).collect::<Result<_, _>>()?,
        origin: sample.origin.clone(),
    })
}

impl BadRow {
    /// A row that failed to load.
    pub fn new(origin: Origin, error: &LoadError) -> Self {
        BadRow { origin, file: error.path().map(Path::to_owned), message: error.to_string() }
    }
}

/// The count of bad rows in a run, kept in `bad_rows.jsonl`.
///
/// Each row counts once, however often it comes up, and a resumed run goes on from the file. What has
/// been mended meanwhile is struck off by [`keep`](BadRows::keep).
#[derive(Debug)]
pub struct BadRows {
    path: PathBuf,
    limit: usize,
    rows: Vec<ListRow>,
    seen: HashSet<(String, usize)>,
}

/// Why the run can't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadRowsError {
    /// There are more bad rows than the recipe allows.
    #[error(
        "{count} rows could not be loaded, more than the {limit} allowed; the last one is {origin}: {message}. \
         All are listed in `{}`; mend their files, take the rows out of the manifest, or raise `bad_row_limit` \
         in the recipe, then give the same command again to go on", path.display()
    )]
    TooMany {
        /// How many so far.
        count: usize,
        /// How many are allowed.
        limit: usize,
        /// The last one.
        origin: Origin,
        /// What is wrong with it.
        message: String,
        /// The list.
        path: PathBuf,
    },
    /// The list can't be read or written.
    #[error("can't keep the list of bad rows `{}`: {source}; check the run folder and the space on its disk", path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ListRow {
    manifest: String,
    line: usize,
    file: Option<String>,
    message: String,
}

impl BadRows {
    /// The name of the list.
    pub const FILE: &'static str = "bad_rows.jsonl";

    /// Starts or continues the list in `folder`, which exists. More than `limit` rows are an error.
    ///
    /// # Errors
    /// [`BadRowsError::List`].
    pub fn open(folder: &Path, limit: usize) -> Result<Self, BadRowsError> {
        let path = folder.join(Self::FILE);
        let list = read_list(&path).map_err(|source| BadRowsError::List { path: path.clone(), source })?;
        let mut bad_rows = BadRows { path, limit, rows: Vec::new(), seen: HashSet::new() };
        list.into_iter().for_each(|row| bad_rows.count_once(row));
        Ok(bad_rows)
    }

    /// Strikes rows off the list of which `is_bad` (manifest, line) says that they are bad no more.
    ///
    /// # Errors
    /// [`BadRowsError::List`].
    pub fn keep(&mut self, is_bad: impl Fn(&str, usize) -> bool) -> Result<(), BadRowsError> {
        let (kept, mended): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.rows).into_iter().partition(|row| is_bad(&row.manifest, row.line));
        self.rows = kept;
        self.seen = self.rows.iter().map(ListRow::key).collect();
        if mended.is_empty() { Ok(()) } else { self.rewrite().map_err(|source| self.list_error(source)) }
    }

    /// How many rows have been bad so far.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// The list of bad rows; not there as long as there are none.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the rows that are not in the list yet.
    ///
    /// # Errors
    /// [`BadRowsError::TooMany`] at any bad row, new or known, once the limit is passed; the list is
    /// complete then.
    pub fn record(&mut self, rows: &[BadRow]) -> Result<(), BadRowsError> {
        for row in rows {
            let row = ListRow::new(row);
            if !self.seen.contains(&row.key()) {
                self.append(&row).map_err(|source| self.list_error(source))?;
                self.count_once(row);
            }
        }
        match rows.last() {
            Some(row) if self.count() > self.limit => Err(BadRowsError::TooMany {
                count: self.count(),
                limit: self.limit,
                origin: row.origin.clone(),
                message: row.message.clone(),
                path: self.path.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn count_once(&mut self, row: ListRow) {
        if self.seen.insert(row.key()) {
            self.rows.push(row);
        }
    }

    fn append(&self, row: &ListRow) -> std::io::Result<()> {
        OpenOptions::new().create(true).append(true).open(&self.path)?.write_all(row.to_line()?.as_bytes())
    }

    /// Writes the whole list beside the old one and puts it in its place.
    fn rewrite(&self) -> std::io::Result<()> {
        let list: String = self.rows.iter().map(ListRow::to_line).collect::<Result<_, _>>()?;
        let part = self.path.with_extension("jsonl.part");
        fs::write(&part, list)?;
        fs::rename(&part, &self.path)
    }

    fn list_error(&self, source: std::io::Error) -> BadRowsError {
        BadRowsError::List { path: self.path.clone(), source }
    }
}

impl ListRow {
    fn new(row: &BadRow) -> Self {
        ListRow {
            manifest: row.origin.file.display().to_string(),
            line: row.origin.line,
            file: row.file.as_ref().map(|file| file.display().to_string()),
            message: row.message.clone(),
        }
    }

    fn key(&self) -> (String, usize) {
        (self.manifest.clone(), self.line)
    }

    fn to_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self).map(|line| line + "\n")
    }
}

/// A line that was cut off when a run died is closed and no row; it is counted again when its row comes up.
fn read_list(path: &Path) -> std::io::Result<Vec<ListRow>> {
    let list = match fs::read(path) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if list.last().is_some_and(|byte| *byte != b'\n') {
        OpenOptions::new().append(true).open(path)?.write_all(b"\n")?;
    }
    Ok(list.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}
