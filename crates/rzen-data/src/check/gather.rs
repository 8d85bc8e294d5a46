//! The rows of a corpus, each content once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rzen_core::{Item, Part, Sample, VideoSource};

use super::CheckError;
use super::finding::{Finding, FindingKind, FoundContent, Place, RowPlace};
use crate::eval_corpus::{check_query, each_candidate, each_query, each_task};
use crate::parquet_names::KnownPictures;
use crate::train_rows::each_train_row;
use crate::{Candidate, EvalQuery, EvalTask, ManifestError, train_manifests};

/// Everything that the rows of a corpus say, by number.
#[derive(Default)]
pub(super) struct Gathered {
    pub manifests: Vec<Manifest>,
    /// Training rows first.
    pub rows: Vec<Row>,
    /// Names of datasets, and labels.
    pub names: Numbers<String>,
    /// Texts of parts.
    pub texts: Numbers<String>,
    /// Parts that are read from one file; a clip that is a list of frames is several.
    pub media: Numbers<Part>,
    /// Queries and candidates.
    pub items: Numbers<Vec<Piece>>,
    /// Rows that can't be read.
    pub findings: Vec<Finding>,
}

/// A file of rows.
pub(super) struct Manifest {
    /// Its path under the corpus.
    pub file: String,
    /// Whether its rows are trained on.
    pub trains: bool,
    /// Rows, whether they can be read or not.
    pub rows: usize,
}

pub(super) struct Row {
    pub manifest: usize,
    pub line: usize,
    /// The dataset that the sampler takes it for.
    pub name: usize,
    pub instruction: Option<usize>,
    pub label: Option<usize>,
    pub contents: Vec<(Role, usize)>,
}

/// What an item is to its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Role {
    Query,
    Positive(usize),
    Negative(usize),
    /// A candidate of a pool.
    Candidate,
}

/// A part of an item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    Text(usize),
    Media(usize),
    Frames(Vec<usize>),
}

/// Values, each with its number, in the order of their first appearance.
pub(super) struct Numbers<T> {
    numbers: HashMap<T, usize>,
    pub values: Vec<T>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Numbers { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Numbers<T> {
    pub fn of(&mut self, value: T) -> usize {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len();
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }
}

impl Numbers<String> {
    /// The number of a text that is there.
    pub fn get(&self, text: &str) -> Option<usize> {
        self.numbers.get(text).copied()
    }
}

/// Reads every manifest, task, query and pool of a corpus; paths stay as they are written.
pub(super) fn gather(corpus: &Path) -> Result<Gathered, CheckError> {
    let mut gathered = Gathered::default();
    for folder in folders(corpus)? {
        match train_manifests(&folder) {
            Ok(paths) => {
                let known = KnownPictures::default();
                let there = paths.iter().filter(|path| path.is_file());
                there.for_each(|path| gathered.train(corpus, path, &known));
            }
            Err(error) => gathered.unreadable(&error, &folder.join("train.jsonl"), corpus),
        }
    }
    if corpus.join("tasks.jsonl").is_file() {
        gathered.tasks(corpus);
    }
    match gathered.manifests.is_empty() && gathered.findings.is_empty() {
        true => Err(CheckError::Nothing { corpus: corpus.to_owned() }),
        false => Ok(gathered),
    }
}

/// The folders of a corpus, by name.
fn folders(corpus: &Path) -> Result<Vec<PathBuf>, CheckError> {
    let unreadable = |source| CheckError::Read { path: corpus.to_owned(), source };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(corpus).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

impl Gathered {
    /// The manifest of a row, under the corpus.
    pub fn file(&self, row: &Row) -> &Manifest {
        &self.manifests[row.manifest]
    }

    pub fn row_place(&self, row: usize) -> RowPlace {
        let row = &self.rows[row];
        RowPlace { file: self.file(row).file.clone(), row: row.line }
    }

    pub fn place(&self, row: usize, role: Role) -> Place {
        let RowPlace { file, row: line } = self.row_place(row);
        let positives = self.rows[row].contents.iter().filter(|(role, _)| matches!(role, Role::Positive(_)));
        let key = match role {
            Role::Query => "query".to_owned(),
            Role::Positive(_) if positives.count() == 1 => "positive".to_owned(),
            Role::Positive(number) => format!("positives[{number}]"),
            Role::Negative(number) => format!("negatives[{number}]"),
            Role::Candidate => "content".to_owned(),
        };
        Place { file, row: line, key }
    }

    pub fn trains(&self, row: usize) -> bool {
        self.file(&self.rows[row]).trains
    }

    /// An item as it is written.
    pub fn parts(&self, item: usize) -> Vec<Part> {
        let path = |number: &usize| match &self.media.values[*number] {
            Part::Image(path) => path.clone(),
            // Frames are pictures.
            _ => PathBuf::new(),
        };
        let part = |piece: &Piece| match piece {
            Piece::Text(number) => Part::Text(self.texts.values[*number].clone()),
            Piece::Media(number) => self.media.values[*number].clone(),
            Piece::Frames(frames) => Part::Video(VideoSource::Frames(frames.iter().map(path).collect())),
        };
        self.items.values[item].iter().map(part).collect()
    }

    fn train(&mut self, corpus: &Path, path: &Path, known: &KnownPictures) {
        self.read(
            corpus,
            path,
            true,
            |path| each_train_row(path, corpus, Path::new(""), known),
            |gathered, sample| {
                let row = gathered.sample(&sample);
                gathered.rows.push(row);
            },
        );
    }

    fn sample(&mut self, sample: &Sample) -> Row {
        let mut contents = vec![(Role::Query, self.item(&sample.query))];
        for (number, item) in sample.positives().enumerate() {
            contents.push((Role::Positive(number), self.item(item)));
        }
        for (number, item) in sample.hard_negatives.iter().enumerate() {
            contents.push((Role::Negative(number), self.item(item)));
        }
        Row {
            manifest: self.manifests.len() - 1,
            line: sample.origin.line,
            name: self.names.of(sample.name.clone()),
            instruction: sample.query.instruction.clone().map(|text| self.names.of(text)),
            label: sample.label.clone().map(|label| self.names.of(label)),
            contents,
        }
    }

    /// Reads what tasks name; a file that several of them name, once.
    fn tasks(&mut self, corpus: &Path) {
        let mut tasks: Vec<EvalTask> = Vec::new();
        let list = corpus.join("tasks.jsonl");
        self.read(corpus, &list, false, |_| each_task(corpus), |_, task| tasks.push(task));
        self.unique(tasks.iter().map(|task| (task.name.as_str(), task.origin.line)), &list, corpus);
        let mut ids: BTreeMap<PathBuf, HashSet<String>> = BTreeMap::new();
        let mut read = HashSet::new();
        for task in &tasks {
            if !ids.contains_key(&task.pool) {
                let pool = self.pool(corpus, task);
                ids.insert(task.pool.clone(), pool);
            }
            if read.insert((task.queries.clone(), task.pool.clone())) {
                let pool: HashSet<&str> = ids[&task.pool].iter().map(String::as_str).collect();
                self.queries(corpus, task, &pool);
            }
        }
    }

    /// Reads a pool and gives its ids.
    fn pool(&mut self, corpus: &Path, task: &EvalTask) -> HashSet<String> {
        let mut pool: Vec<(String, usize)> = Vec::new();
        let none = Path::new("");
        let each = |path: &Path| each_candidate(path, none);
        self.read(corpus, &task.pool, false, each, |gathered, Candidate { id, item, origin }| {
            gathered.push(origin.line, Role::Candidate, &item);
            pool.push((id, origin.line));
        });
        self.unique(pool.iter().map(|(id, line)| (id.as_str(), *line)), &task.pool, corpus);
        pool.into_iter().map(|(id, _)| id).collect()
    }

    fn queries(&mut self, corpus: &Path, task: &EvalTask, pool: &HashSet<&str>) {
        let mut queries: Vec<(String, usize)> = Vec::new();
        let none = Path::new("");
        let mut wrong = Vec::new();
        let each = |path: &Path| each_query(path, none);
        self.read(corpus, &task.queries, false, each, |gathered, query: EvalQuery| {
            wrong.extend(check_query(&query, task, pool).err());
            gathered.push(query.origin.line, Role::Query, &query.item);
            queries.push((query.id, query.origin.line));
        });
        wrong.iter().for_each(|error| self.unreadable(error, &task.queries, corpus));
        self.unique(queries.iter().map(|(id, line)| (id.as_str(), *line)), &task.queries, corpus);
    }

    fn push(&mut self, line: usize, role: Role, item: &Item) {
        let item = self.item(item);
        let (manifest, name) = (self.manifests.len() - 1, self.names.of(String::new()));
        self.rows.push(Row {
            manifest,
            line,
            name,
            instruction: None,
            label: None,
            contents: vec![(role, item)],
        });
    }

    /// Adds a manifest and takes its rows; what can't be read is a finding, and those behind it are read.
    fn read<T, R: Iterator<Item = Result<T, ManifestError>>>(
        &mut self,
        corpus: &Path,
        path: &Path,
        trains: bool,
        each: impl FnOnce(&Path) -> Result<R, ManifestError>,
        mut take: impl FnMut(&mut Self, T),
    ) {
        self.manifests.push(Manifest { file: under(path, corpus), trains, rows: 0 });
        let number = self.manifests.len() - 1;
        let rows = match each(path) {
            Ok(rows) => rows,
            Err(error) => return self.unreadable(&error, path, corpus),
        };
        for row in rows {
            self.manifests[number].rows += 1;
            match row {
                Ok(row) => take(self, row),
                Err(error) => {
                    self.unreadable(&error, path, corpus);
                    // What isn't wrong with a row goes on for ever.
                    if error.origin().is_none() {
                        return;
                    }
                }
            }
        }
        if self.manifests[number].rows == 0 {
            self.unreadable(&ManifestError::NoRows { path: path.to_owned() }, path, corpus);
        }
    }

    fn unreadable(&mut self, error: &ManifestError, path: &Path, corpus: &Path) {
        let file = under(path, corpus);
        let row = error.origin().map_or(0, |origin| origin.line);
        let trains = self.manifests.last().is_some_and(|manifest| manifest.trains && manifest.file == file);
        let rows = match trains && row > 0 {
            true => vec![RowPlace { file: file.clone(), row }],
            false => Vec::new(),
        };
        // The place is named beside it; the whole path would only be longer.
        let message = error.to_string().replace(&format!("{}:{row}: ", path.display()), "");
        let places = vec![Place { file, row, key: String::new() }];
        self.findings.push(Finding {
            kind: FindingKind::UnreadableRow,
            message: message.replace(&format!("{}/", corpus.display()), ""),
            advice: FindingKind::UnreadableRow.advice(),
            contents: vec![FoundContent { content: Vec::new(), places }],
            rows,
        });
    }

    fn unique<'a>(&mut self, ids: impl Iterator<Item = (&'a str, usize)>, path: &Path, corpus: &Path) {
        let mut first = HashMap::new();
        for (id, line) in ids {
            if let Some(first) = first.insert(id, line) {
                let origin = rzen_core::Origin { file: path.into(), line };
                self.unreadable(&ManifestError::Duplicate { origin, id: id.to_owned(), first }, path, corpus);
            }
        }
    }

    fn item(&mut self, item: &Item) -> usize {
        let pieces = item.content.iter().map(|part| match part {
            Part::Text(text) => Piece::Text(self.texts.of(text.clone())),
            Part::Video(VideoSource::Frames(frames)) => {
                Piece::Frames(frames.iter().map(|frame| self.media.of(Part::Image(frame.clone()))).collect())
            }
            media => Piece::Media(self.media.of(media.clone())),
        });
        let pieces = pieces.collect();
        self.items.of(pieces)
    }
}

/// A path as it is written in reports: under the corpus, with slashes.
fn under(path: &Path, corpus: &Path) -> String {
    path.strip_prefix(corpus).unwrap_or(path).to_string_lossy().replace('\\', "/")
}
