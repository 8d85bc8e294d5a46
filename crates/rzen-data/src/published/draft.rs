//! A set on its way from rows to queries and candidates.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rzen_core::{Item, Origin, Part, VideoSource};

use super::names::Protocol;
use crate::import::media::frames;
use crate::{Candidate, EvalQuery, EvalSet, sample_frames};

/// What is read, and how its items are made.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// The set's name.
    pub name: &'a str,
    /// The benchmark's files.
    pub data: &'a Path,
    /// Where pages are written to that are not in `data`.
    pub pages: &'a Path,
    /// Whose texts items have.
    pub protocol: Protocol,
    /// Frames taken of a clip.
    pub num_frames: usize,
}

/// What has been read of a set.
#[derive(Default)]
pub(crate) struct Draft {
    num_frames: usize,
    /// What to do where media can't be used.
    pub advice: &'static str,
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
    /// Queries whose lists hold nothing but answers.
    pub answers_only: usize,
    /// What one should know of, though it hinders nothing.
    pub notes: Vec<String>,
}

/// A query as a row gives it.
pub(crate) struct Query {
    pub id: String,
    pub item: Item,
    /// Its own candidates, by id; an id that stands twice counts once.
    pub candidates: Option<Vec<String>>,
    /// Of all candidates, one that is not ranked.
    pub excluded: Option<String>,
    pub relevant: Vec<(String, f64)>,
    pub origin: Origin,
}

impl Reading<'_> {
    /// A draft with nothing in it.
    pub fn draft(&self) -> Draft {
        let advice = "unpack the archives of TIGER-Lab/MMEB-V2 there";
        Draft { num_frames: self.num_frames, advice, ..Draft::default() }
    }
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
        let Query { id, item, candidates, excluded, relevant, origin } = query;
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
        if let Some(ids) = &candidates
            && ids.iter().all(|id| relevant.iter().any(|(answer, grade)| answer == id && *grade > 0.0))
        {
            self.answers_only += 1;
        }
        let pool = pool.to_owned();
        self.queries.push(EvalQuery { id, item, pool, candidates, excluded, relevant, origin });
        Ok(())
    }

    /// A clip of the frames in a folder: all, or as many evenly spread ones as are taken of a clip.
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
        let taken: Vec<PathBuf> = sample_frames(found.len(), self.num_frames)
            .into_iter()
            .map(|place| found[place].clone())
            .collect();
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
