//! A set on its way from rows to queries and candidates.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rzen_core::{Item, Origin, Part, VideoSource};

use super::names::NUM_FRAMES;
use crate::import::media::frames;
use crate::{Candidate, EvalQuery, EvalSet, sample_frames};

/// What has been read of a set.
#[derive(Default)]
pub(crate) struct Draft {
    queries: Vec<EvalQuery>,
    query_ids: HashSet<String>,
    pool: Vec<Candidate>,
    places: HashMap<String, usize>,
    /// Length of a query's own list as the file has it -> how many queries have such a list.
    pub lists: BTreeMap<usize, usize>,
    /// Folders of frames that are missing or empty, with what is wrong; and how many were looked at.
    pub folders: (Vec<String>, usize),
    /// What of each folder of frames is taken.
    frames: HashMap<PathBuf, Vec<PathBuf>>,
    /// Files that need not be there yet: they stand in a table.
    pub embedded: HashSet<PathBuf>,
    /// What one should know of, though it hinders nothing.
    pub notes: Vec<String>,
}

/// A query as a row gives it.
pub(crate) struct Query {
    pub id: String,
    pub item: Item,
    /// Its own candidates, by id; an id that stands twice counts once.
    pub candidates: Option<Vec<String>>,
    pub relevant: Vec<(String, f64)>,
    pub origin: Origin,
}

impl Draft {
    /// Takes a candidate, unless there is one of this id: the first is kept.
    pub fn candidate(&mut self, id: &str, origin: &Origin, item: impl FnOnce(&mut Self) -> Item) {
        if !self.places.contains_key(id) {
            let item = item(self);
            self.places.insert(id.to_owned(), self.pool.len());
            self.pool.push(Candidate { id: id.to_owned(), item, origin: origin.clone() });
        }
    }

    /// Whether there is a candidate of this id.
    pub fn has(&self, id: &str) -> bool {
        self.places.contains_key(id)
    }

    /// Takes a query; `pool` is the name of the set.
    pub fn query(&mut self, pool: &str, query: Query) -> Result<(), String> {
        let Query { id, item, candidates, relevant, origin } = query;
        if !self.query_ids.insert(id.clone()) {
            return Err(format!("query `{id}` stands there already; ids must differ"));
        }
        if !relevant.iter().any(|(_, grade)| *grade > 0.0) {
            return Err(format!("query `{id}` has no answer"));
        }
        let candidates = candidates.map(|mut ids| {
            *self.lists.entry(ids.len()).or_default() += 1;
            // The order must not tell which is the answer.
            ids.sort();
            ids.dedup();
            ids
        });
        if let Some(ids) = &candidates
            && let Some((lost, _)) = relevant.iter().find(|(answer, _)| ids.binary_search(answer).is_err())
        {
            return Err(format!("the answer `{lost}` is not among the candidates"));
        }
        self.queries.push(EvalQuery { id, item, pool: pool.to_owned(), candidates, relevant, origin });
        Ok(())
    }

    /// A clip of the frames in a folder: all, or as many evenly spread ones as either protocol takes.
    pub fn clip(&mut self, folder: PathBuf) -> Part {
        if let Some(frames) = self.frames.get(&folder) {
            return Part::Video(VideoSource::Frames(frames.clone()));
        }
        self.folders.1 += 1;
        let found = frames(&folder).unwrap_or_default();
        if found.is_empty() {
            let what = if folder.is_dir() { "holds no pictures" } else { "is missing" };
            self.folders.0.push(format!("`{}` {what}", folder.display()));
        }
        let taken: Vec<PathBuf> =
            sample_frames(found.len(), NUM_FRAMES).into_iter().map(|place| found[place].clone()).collect();
        self.frames.insert(folder, taken.clone());
        Part::Video(VideoSource::Frames(taken))
    }

    /// An id for a query whose row has none: its number, from 1.
    pub fn next_id(&self) -> String {
        (self.queries.len() + 1).to_string()
    }

    /// How many queries there are.
    pub fn num_queries(&self) -> usize {
        self.queries.len()
    }

    /// How many candidates there are.
    pub fn num_candidates(&self) -> usize {
        self.pool.len()
    }

    /// Every file that a query or candidate names, once, but for those that stand in a table.
    pub fn files(&self) -> Vec<PathBuf> {
        let items = self.queries.iter().map(|query| &query.item);
        let items = items.chain(self.pool.iter().map(|candidate| &candidate.item));
        let mut seen = HashSet::new();
        let files = items.flat_map(|item| &item.content).flat_map(|part| part.files(Path::new("")));
        files.filter(|file| !self.embedded.contains(file) && seen.insert(file.clone())).collect()
    }

    /// The set, its candidates in the order of their ids.
    pub fn finish(mut self) -> EvalSet {
        self.pool.sort_by(|one, other| one.id.cmp(&other.id));
        EvalSet { queries: self.queries, pool: self.pool }
    }
}
