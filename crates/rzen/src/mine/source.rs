//! What is mined: rows of a corpus, pools of further candidates, and who may be whose negative.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Component, Path, PathBuf, absolute};

use anyhow::{Context, Result, ensure};
use rzen_core::{Item, Origin, Sample};
use rzen_data::{BadRow, Candidate, EvalCopy, candidates, forms_of_query, train_manifests, train_rows_of};

use super::evaluation::tasks;
use crate::files::is_temporary;
use crate::vectors::{Contents, Key, Unreadable};

/// The rows of a dataset's folder.
pub struct Dataset {
    /// The folder below the corpus.
    pub name: String,
    /// Its rows with whole paths, in the order of the manifest.
    pub rows: Vec<Sample>,
}

/// Everything that is read before the mining.
pub struct Source {
    /// The datasets, in the order asked for, or by name.
    pub datasets: Vec<Dataset>,
    /// Further candidates.
    pub pool: Vec<Candidate>,
    /// The tasks of the corpus.
    pub tasks: EvalCopy,
}

impl Source {
    /// Reads the manifests of `datasets`, default all there are, the pools, and the tasks of the corpus.
    ///
    /// # Errors
    /// Names the dataset, file or row that is wrong.
    pub fn read(corpus: &Path, datasets: Option<&[String]>, pools: &[PathBuf]) -> Result<Self> {
        // Rows are written to another folder, from where relative paths lead elsewhere.
        let corpus = absolute(corpus)?;
        ensure!(
            corpus.to_str().is_some(),
            "--corpus {}: rows name media by whole paths, and this one is not UTF-8; rename the folder",
            corpus.display()
        );
        let names = match datasets {
            Some(names) => names.to_vec(),
            None => datasets_of(&corpus)?,
        };
        let mut read = Vec::new();
        for name in names {
            let plain = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_)));
            ensure!(
                plain && !name.is_empty(),
                "--dataset `{name}` is no folder of the corpus; give its plain name"
            );
            ensure!(read.iter().all(|other: &Dataset| other.name != name), "--dataset names `{name}` twice");
            let rows = train_rows_of(&train_manifests(&corpus.join(&name))?, &corpus)?;
            read.push(Dataset { name, rows });
        }
        let mut pool = Vec::new();
        for file in pools {
            pool.extend(candidates(file, &corpus)?);
        }
        Ok(Source { datasets: read, pool, tasks: tasks(&corpus)? })
    }

    /// Every item, whose query, answer or negative it may be; an item may come several times.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        let rows = self.datasets.iter().flat_map(|dataset| &dataset.rows);
        rows.flat_map(items_of).chain(self.pool.iter().map(|candidate| &candidate.item))
    }
}

/// The items of a row.
fn items_of(row: &Sample) -> impl Iterator<Item = &Item> {
    std::iter::once(&row.query).chain(row.positives()).chain(&row.hard_negatives)
}

/// The folders of a corpus that hold a manifest.
fn datasets_of(corpus: &Path) -> Result<Vec<String>> {
    let advice = || format!("--corpus {}", corpus.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(corpus).with_context(advice)? {
        let entry = entry.with_context(advice)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What an import that was killed had begun.
        if !is_temporary(&name) && train_manifests(&entry.path())?[0].is_file() {
            names.push(name);
        }
    }
    names.sort();
    ensure!(
        !names.is_empty(),
        "--corpus {}: no folder there holds a train.jsonl or train.parquet",
        corpus.display()
    );
    Ok(names)
}

/// Rows that are batched together, and what their negatives are taken from.
pub struct Unit<'a> {
    /// The place of the dataset.
    pub dataset: usize,
    /// The rows' `name`.
    pub name: &'a str,
    /// The rows that can be read.
    pub rows: Vec<UnitRow<'a>>,
    /// The different answers and hard negatives of the rows, and those of the pools.
    pub candidates: Vec<UnitCandidate<'a>>,
}

/// A row with what it must not have as a negative.
pub struct UnitRow<'a> {
    /// As it was read.
    pub sample: &'a Sample,
    /// Of its query's vector.
    pub query: Key,
    /// Of its answers' vectors.
    pub positives: Vec<Key>,
    /// Of its present hard negatives' vectors.
    pub negatives: Vec<Key>,
    /// Candidates that are never its negatives, by place, sorted: its answers, those of rows that ask the same, what shows the
    /// same as its query or as the query's media alone, and the hard negatives that it has.
    never: Vec<usize>,
    label: Option<usize>,
}

/// A candidate.
pub struct UnitCandidate<'a> {
    /// Of the items that show the same, the one met first.
    pub item: &'a Item,
    /// Of its vector.
    pub key: Key,
    /// The labels of the rows that it answers, sorted.
    labels: Vec<usize>,
}

impl Unit<'_> {
    /// Whether a candidate may be a negative of a row.
    pub fn allows(&self, row: usize, candidate: usize) -> bool {
        let (row, labels) = (&self.rows[row], &self.candidates[candidate].labels);
        row.never.binary_search(&candidate).is_err()
            && row.label.is_none_or(|label| labels.binary_search(&label).is_err())
    }
}

/// The rows by dataset and name, without those that can't be read, which come second.
///
/// `refused` says what is wrong with items that can't be embedded, by the key of their vector. `keep` says whether rows keep
/// the hard negatives they have.
pub fn units<'a>(
    source: &'a Source,
    contents: &Contents,
    refused: &HashMap<Key, String>,
    keep: bool,
) -> (Vec<Unit<'a>>, Vec<BadRow>) {
    let vector_key = |item: &Item, origin: &Origin| -> Result<Key, BadRow> {
        let key = contents.vector_key(item).map_err(|problem| unreadable(origin, problem))?;
        match refused.get(&key) {
            None => Ok(key),
            Some(message) => {
                let file = item.content.iter().flat_map(|part| part.files(Path::new(""))).next();
                Err(BadRow { origin: origin.clone(), file, message: message.clone() })
            }
        }
    };
    let mut bad = Vec::new();
    let mut readable: Vec<Vec<ReadRow>> = Vec::new();
    for dataset in &source.datasets {
        let mut rows = Vec::new();
        for sample in &dataset.rows {
            match ReadRow::of(sample, contents, |item| vector_key(item, &sample.origin)) {
                Ok(row) => rows.push(row),
                Err(row) => bad.push(row),
            }
        }
        readable.push(rows);
    }
    let mut pool: Vec<(&Item, Key, Key)> = Vec::new();
    for candidate in &source.pool {
        match vector_key(&candidate.item, &candidate.origin) {
            Ok(key) => pool.push((&candidate.item, key, same(contents, &candidate.item, false))),
            Err(row) => bad.push(row),
        }
    }
    let rules = Rules::of(readable.iter().flatten());
    let mut units = Vec::new();
    for (dataset, rows) in readable.into_iter().enumerate() {
        let mut by_name: BTreeMap<&str, Vec<ReadRow>> = BTreeMap::new();
        for row in rows {
            by_name.entry(&row.sample.name).or_default().push(row);
        }
        let named = by_name.into_iter();
        units.extend(named.map(|(name, rows)| unit(dataset, name, rows, &pool, &rules, keep)));
    }
    (units, bad)
}

fn unreadable(origin: &Origin, Unreadable { file, message }: Unreadable) -> BadRow {
    let message = format!("can't read `{}`: {message}", file.display());
    BadRow { origin: origin.clone(), file: Some(file), message }
}

fn same(contents: &Contents, item: &Item, with_instruction: bool) -> Key {
    contents.sameness(item, with_instruction).unwrap_or_else(|_| unreachable!("the item's files were read"))
}

/// A row whose files could be read.
struct ReadRow<'a> {
    sample: &'a Sample,
    query: Key,
    positives: Vec<Key>,
    negatives: Vec<Key>,
    /// What the query asks, with its instruction, and what it shows, with words and without.
    asked: Key,
    shown: Vec<Key>,
    /// What the answers and the hard negatives show.
    answers: Vec<Key>,
    wrong: Vec<Key>,
}

impl<'a> ReadRow<'a> {
    fn of(
        sample: &'a Sample,
        contents: &Contents,
        vector_key: impl Fn(&Item) -> Result<Key, BadRow>,
    ) -> Result<Self, BadRow> {
        let query = vector_key(&sample.query)?;
        let positives = sample.positives().map(&vector_key).collect::<Result<_, _>>()?;
        let negatives = sample.hard_negatives.iter().map(&vector_key).collect::<Result<_, _>>()?;
        let shown = |item: &Item| same(contents, item, false);
        Ok(ReadRow {
            sample,
            query,
            positives,
            negatives,
            asked: same(contents, &sample.query, true),
            shown: forms_of_query(&sample.query.content)
                .map(|content| shown(&Item { content, instruction: None }))
                .collect(),
            answers: sample.positives().map(shown).collect(),
            wrong: sample.hard_negatives.iter().map(shown).collect(),
        })
    }
}

/// What rows of all datasets say about each other.
struct Rules<'a> {
    /// What answers each query.
    answers: HashMap<Key, BTreeSet<Key>>,
    /// The labels of the rows that something answers.
    labels: HashMap<Key, BTreeSet<usize>>,
    numbers: HashMap<&'a str, usize>,
}

impl<'a> Rules<'a> {
    fn of<'b>(rows: impl Iterator<Item = &'b ReadRow<'a>>) -> Self
    where
        'a: 'b,
    {
        let mut rules = Rules { answers: HashMap::new(), labels: HashMap::new(), numbers: HashMap::new() };
        for row in rows {
            rules.answers.entry(row.asked).or_default().extend(&row.answers);
            if let Some(label) = &row.sample.label {
                let next = rules.numbers.len();
                let number = *rules.numbers.entry(label).or_insert(next);
                for answer in &row.answers {
                    rules.labels.entry(*answer).or_default().insert(number);
                }
            }
        }
        rules
    }
}

fn unit<'a>(
    dataset: usize,
    name: &'a str,
    rows: Vec<ReadRow<'a>>,
    pool: &[(&'a Item, Key, Key)],
    rules: &Rules,
    keep: bool,
) -> Unit<'a> {
    let mut places: HashMap<Key, usize> = HashMap::new();
    let mut candidates = Vec::new();
    let mut add = |item: &'a Item, key: Key, shows: Key| {
        places.entry(shows).or_insert_with(|| {
            let labels =
                rules.labels.get(&shows).map_or(Vec::new(), |labels| labels.iter().copied().collect());
            candidates.push(UnitCandidate { item, key, labels });
            candidates.len() - 1
        });
    };
    for row in &rows {
        for ((item, key), shows) in row.sample.positives().zip(&row.positives).zip(&row.answers) {
            add(item, *key, *shows);
        }
        for ((item, key), shows) in row.sample.hard_negatives.iter().zip(&row.negatives).zip(&row.wrong) {
            add(item, *key, *shows);
        }
    }
    pool.iter().for_each(|(item, key, shows)| add(item, *key, *shows));
    let rows = rows.into_iter().map(|row| {
        let mut never: HashSet<&Key> = rules.answers[&row.asked].iter().collect();
        never.extend(&row.shown);
        if keep {
            never.extend(&row.wrong);
        }
        let mut never: Vec<usize> =
            never.into_iter().filter_map(|shows| places.get(shows).copied()).collect();
        never.sort_unstable();
        UnitRow {
            sample: row.sample,
            query: row.query,
            positives: row.positives,
            negatives: row.negatives,
            never,
            label: row.sample.label.as_ref().map(|label| rules.numbers[label.as_str()]),
        }
    });
    let rows = rows.collect();
    Unit { dataset, name, rows, candidates }
}
