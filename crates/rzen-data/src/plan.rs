//! Which rows make which batch of an epoch.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::RowKeys;
use crate::rng::Rng;

/// What the plan needs to know about a dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetSpec {
    /// Its name; decides its random numbers.
    pub name: String,
    /// Its rows.
    pub len: usize,
    /// Most rows that one pass takes; each pass draws them anew.
    pub cap: Option<usize>,
    /// Passes through its rows, or the capped part of them, in an epoch; a fraction is a part of a pass.
    pub weight: f64,
    /// Datasets of one group are mixed in their batches; others have batches of their own.
    pub group: Option<String>,
}

/// A row of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlannedRow {
    /// The place of the dataset in the list of specs.
    pub dataset: usize,
    /// The row, counted from 0.
    pub row: usize,
}

/// A global batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBatch {
    /// The name of the dataset, or of the group.
    pub source: String,
    /// The rows, in order.
    pub rows: Vec<PlannedRow>,
}

/// Why there is no plan.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// One row has no in-batch negatives.
    #[error("the batch size is {found}, expected at least 2: in-batch negatives are the other rows")]
    BatchSize {
        /// The batch size.
        found: usize,
    },
    /// A weight is no number of passes.
    #[error("dataset `{name}` has weight {found}, expected 0 or more, at most 1000")]
    Weight {
        /// The dataset.
        name: String,
        /// Its weight.
        found: f64,
    },
    /// The dataset or group is too small to learn from.
    #[error(
        "`{name}` gives {found} rows an epoch, expected at least 2 for a batch; \
         add rows, raise its weight, share or cap, or leave it out"
    )]
    TooFewRows {
        /// The dataset or group.
        name: String,
        /// Its rows in an epoch.
        found: usize,
    },
    /// All weights are 0.
    #[error("no dataset has a weight above 0; there is nothing to train on")]
    Nothing,
}

/// The batches of an epoch, in order: a pure function of its arguments.
///
/// - Each dataset, or group of datasets, has batches of its own; those of different ones are shuffled together.
/// - A pass visits each row at most once. Rows that don't fill a last batch are left out; a set smaller than
///   a batch gives one batch of all its rows.
/// - `keys[dataset][row]` are hashes of a row's contents ([`row_keys`](crate::row_keys)): rows that share a query,
///   a positive or a label are kept out of each other's batches where others are near in the order. Without keys,
///   only copies of the same row are.
/// - Rows of a dataset that share a group follow each other, so that they meet in a batch; the end of a batch may
///   cut a group in two, the end of a capped pass may too.
///
/// The random numbers of a dataset depend on seed, epoch and its name, so that another dataset doesn't
/// change its order.
///
/// # Errors
/// See [`PlanError`].
///
/// # Panics
/// If `keys` doesn't hold one entry for each row of each dataset.
pub fn epoch_plan(
    seed: u64,
    epoch: u64,
    datasets: &[DatasetSpec],
    batch_size: usize,
    keys: Option<&[Vec<RowKeys>]>,
) -> Result<Vec<PlannedBatch>, PlanError> {
    if batch_size < 2 {
        return Err(PlanError::BatchSize { found: batch_size });
    }
    if let Some(keys) = keys {
        let lengths: Vec<_> = keys.iter().map(Vec::len).collect();
        assert!(lengths.iter().eq(datasets.iter().map(|dataset| &dataset.len)), "keys for {lengths:?} rows");
    }
    let mut batches = Vec::new();
    for source in sources(datasets) {
        let mut rows = Vec::new();
        for &dataset in &source.datasets {
            let keys = keys.map(|keys| keys[dataset].as_slice());
            rows.extend(draw(seed, epoch, dataset, &datasets[dataset], keys)?);
        }
        // Datasets of a group lie side by side, each spread over the whole epoch.
        rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        if rows.len() < 2 {
            return Err(PlanError::TooFewRows { name: source.name, found: rows.len() });
        }
        let filled = fill(rows.into_iter().map(|(_, row)| row).collect(), batch_size, keys);
        batches.extend(filled.into_iter().map(|rows| PlannedBatch { source: source.name.clone(), rows }));
    }
    if batches.is_empty() {
        return Err(PlanError::Nothing);
    }
    Rng::new(seed, epoch, "order").shuffle(&mut batches);
    Ok(batches)
}

/// Datasets that share their batches.
struct Source {
    name: String,
    group: Option<String>,
    datasets: Vec<usize>,
}

/// Groups datasets, in the order of their first member; those of weight 0 take no part.
fn sources(datasets: &[DatasetSpec]) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for (index, dataset) in datasets.iter().enumerate().filter(|(_, dataset)| dataset.weight != 0.0) {
        let same = |source: &&mut Source| dataset.group.is_some() && source.group == dataset.group;
        match sources.iter_mut().find(same) {
            Some(source) => source.datasets.push(index),
            None => sources.push(Source {
                name: dataset.group.clone().unwrap_or_else(|| dataset.name.clone()),
                group: dataset.group.clone(),
                datasets: vec![index],
            }),
        }
    }
    sources
}

/// The rows that a dataset gives in this epoch, pass after pass, each with its time in it (0 to 1).
fn draw(
    seed: u64,
    epoch: u64,
    index: usize,
    dataset: &DatasetSpec,
    keys: Option<&[RowKeys]>,
) -> Result<Vec<(f64, PlannedRow)>, PlanError> {
    const MAX_WEIGHT: f64 = 1000.0;
    if !(0.0..=MAX_WEIGHT).contains(&dataset.weight) {
        return Err(PlanError::Weight { name: dataset.name.clone(), found: dataset.weight });
    }
    let pass_len = dataset.cap.map_or(dataset.len, |cap| cap.min(dataset.len));
    let last_len = (dataset.weight.fract() * pass_len as f64).round() as usize;
    let whole = std::iter::repeat_n(pass_len, dataset.weight as usize);
    let mut rng = Rng::new(seed, epoch, &format!("draw {}", dataset.name));
    let mut rows = Vec::new();
    for length in whole.chain([last_len]) {
        let mut pass: Vec<_> = (0..dataset.len).collect();
        rng.shuffle(&mut pass);
        if let Some(keys) = keys {
            pass = groups_together(pass, keys);
        }
        rows.extend(pass.into_iter().take(length).map(|row| PlannedRow { dataset: index, row }));
    }
    let total = rows.len() as f64;
    let time = |(place, row)| ((place as f64 + rng.unit()) / total, row);
    let mut rows: Vec<(f64, PlannedRow)> = rows.into_iter().enumerate().map(time).collect();
    // Rows of a group share the time of the first, so that no other dataset's rows come between them.
    let group = |row: PlannedRow| keys.and_then(|keys| keys[row.row].group);
    for place in 1..rows.len() {
        if group(rows[place].1).is_some() && group(rows[place].1) == group(rows[place - 1].1) {
            rows[place].0 = rows[place - 1].0;
        }
    }
    Ok(rows)
}

/// Moves the rows of each group up to the first of them.
fn groups_together(pass: Vec<usize>, keys: &[RowKeys]) -> Vec<usize> {
    let mut members: HashMap<u64, Vec<usize>> = HashMap::new();
    for &row in &pass {
        if let Some(group) = keys[row].group {
            members.entry(group).or_default().push(row);
        }
    }
    let mut together = Vec::with_capacity(pass.len());
    for row in pass {
        match keys[row].group {
            Some(group) => together.extend(members.remove(&group).unwrap_or_default()),
            None => together.push(row),
        }
    }
    together
}

/// Cuts rows into batches. A row that shares a key with the batch waits for the next one, as long as
/// another can be found within a few batches' reach.
fn fill(
    mut rows: VecDeque<PlannedRow>,
    batch_size: usize,
    keys: Option<&[Vec<RowKeys>]>,
) -> Vec<Vec<PlannedRow>> {
    const REACH: usize = 16;
    let size = batch_size.min(rows.len());
    let mut batches = Vec::new();
    while rows.len() >= size {
        let mut taken = Taken::default();
        let mut waiting = VecDeque::new();
        while taken.rows.len() < size && waiting.len() < REACH * size {
            let Some(row) = rows.pop_front() else { break };
            if !taken.take(row, keys) {
                waiting.push_back(row);
            }
        }
        let rest = (size - taken.rows.len()).min(waiting.len());
        taken.rows.extend(waiting.drain(..rest));
        waiting.into_iter().rev().for_each(|row| rows.push_front(row));
        batches.push(taken.rows);
    }
    batches
}

#[derive(Default)]
struct Taken {
    rows: Vec<PlannedRow>,
    same: HashSet<PlannedRow>,
    queries: HashSet<u64>,
    positives: HashSet<u64>,
    labels: HashSet<u64>,
}

impl Taken {
    /// Takes a row unless it shares a key with one that was taken.
    fn take(&mut self, row: PlannedRow, keys: Option<&[Vec<RowKeys>]>) -> bool {
        let keys = keys.map(|keys| keys[row.dataset][row.row]);
        if keys.is_some_and(|keys| self.shares(&keys)) || !self.same.insert(row) {
            return false;
        }
        if let Some(keys) = keys {
            self.queries.insert(keys.query);
            self.positives.insert(keys.positive);
            self.labels.extend(keys.label);
        }
        self.rows.push(row);
        true
    }

    fn shares(&self, keys: &RowKeys) -> bool {
        self.queries.contains(&keys.query)
            || self.positives.contains(&keys.positive)
            || keys.label.is_some_and(|label| self.labels.contains(&label))
    }
}
