//! What a stage draws from: the rows of its datasets, and which of them make the batch of each step.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rzen_core::{Origin, Part, Sample};
use rzen_data::{
    BadRows, DatasetSpec, LoadedSample, PlannedBatch, PlannedRow, RowKeys, TeacherFilter, draw_positive,
    each_positive, epoch_plan, picture_page_bytes, row_keys, train_manifests, train_rows_of,
};

use crate::augment::Augment;
use crate::reader::{Reader, read_samples};
use crate::recipe::Stage;

/// The rows of a stage's datasets, and which of them make the batch of each step.
pub struct StageData {
    pub(crate) samples: Vec<Vec<Sample>>,
    weights: Vec<f64>,
    augments: Vec<Augment>,
    seed: u64,
    tasks: Vec<String>,
    pub(crate) plan: Vec<PlannedBatch>,
    /// The first step of each epoch.
    pub(crate) epochs: Vec<usize>,
    pub(crate) share_hard_negatives: bool,
    false_negatives: usize,
    unused_negatives: usize,
    large_pages: Vec<(PathBuf, u64)>,
}

/// Bytes of a Parquet page from which on it takes longer to unpack than a picture in it to decode.
const LARGE_PAGE: u64 = 16 << 20;

impl StageData {
    /// Reads the manifests that `stage` names under `corpus` and plans every step of it.
    ///
    /// # Errors
    /// Names the manifest and the row, or the dataset that is too small.
    pub fn load(stage: &Stage, corpus: &Path, seed: u64) -> Result<Self> {
        let (mut samples, mut specs, mut augments) = (Vec::new(), Vec::new(), Vec::new());
        let (mut unused_negatives, mut large_pages, mut ends) = (0, Vec::new(), Vec::new());
        for row in &stage.datasets {
            let folder = corpus.join(&row.dataset);
            let manifests = train_manifests(&folder)?;
            let Named { mut by_name, unused } =
                rows_by_name(&manifests, corpus, stage, row.teacher.as_ref())?;
            unused_negatives += unused;
            for manifest in manifests {
                let bytes = picture_page_bytes(&manifest).with_context(|| manifest.display().to_string())?;
                if bytes > LARGE_PAGE {
                    large_pages.push((manifest, bytes));
                }
            }
            let wanted: Vec<String> = match &row.rows {
                Some(names) => names.clone(),
                None => by_name.iter().map(|(name, _)| name.clone()).collect(),
            };
            for (place, name) in wanted.iter().enumerate() {
                let Some((_, rows)) = by_name.iter_mut().find(|(other, _)| other == name) else {
                    let names: Vec<&str> = by_name.iter().map(|(name, _)| name.as_str()).collect();
                    bail!(
                        "{}: no row has the name `{name}`; there are {}",
                        folder.display(),
                        names.join(", ")
                    );
                };
                specs.push(DatasetSpec {
                    name: name.clone(),
                    len: rows.len(),
                    cap: row.cap,
                    weight: row.weight,
                    group: row.group.clone(),
                });
                // Millions of rows are not held twice.
                let is_last = !wanted[place + 1..].contains(name);
                samples.push(if is_last { std::mem::take(rows) } else { rows.clone() });
                augments.push(row.augment);
            }
            ends.push(specs.len());
        }
        deal_shares(stage, &mut specs, &ends)?;
        let mut tasks: Vec<String> = samples.iter().flatten().map(|sample| sample.task.0.clone()).collect();
        tasks.sort();
        tasks.dedup();
        let (plan, epochs) = plan(stage, &specs, &samples, seed)?;
        let weights = specs.iter().map(|spec| spec.weight).collect();
        let false_negatives = samples.iter().flatten().map(|sample| sample.false_negatives.len()).sum();
        Ok(StageData {
            samples,
            weights,
            augments,
            seed,
            tasks,
            plan,
            epochs,
            share_hard_negatives: stage.share_hard_negatives,
            false_negatives,
            unused_negatives,
            large_pages,
        })
    }

    /// Optimizer steps in the stage.
    pub fn steps(&self) -> usize {
        self.plan.len()
    }

    /// The tasks that occur, sorted; each gets a temperature.
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// Changes the items of a sample as its dataset wants it: a function of seed, step and place.
    pub(crate) fn augment(&self, sample: &mut LoadedSample, dataset: usize, step: usize, place: usize) {
        let augment = self.augments[dataset];
        let seed = self.seed ^ ((step as u64) << 32 | (place as u64) << 8);
        let items = [&mut sample.query, &mut sample.positive].into_iter().chain(&mut sample.hard_negatives);
        for (item, seed) in items.zip(seed..) {
            augment.apply(item, seed);
        }
    }

    /// A row with the positive that the epoch of `step` uses.
    pub(crate) fn sample(&self, row: PlannedRow, step: usize) -> Cow<'_, Sample> {
        let epoch = self.epochs.partition_point(|first| *first <= step) - 1;
        draw_positive(&self.samples[row.dataset][row.row], self.seed, epoch as u64)
    }

    /// Rows of the same source as the batch of `step` that are not in it, in the order of the steps to
    /// come; after the last step comes the first.
    pub(crate) fn fillers(&self, step: usize) -> impl Iterator<Item = PlannedRow> {
        let planned = &self.plan[step];
        let others = self.plan.iter().cycle().skip(step + 1).take(self.plan.len() - 1);
        let rows = others.filter(|other| other.source == planned.source).flat_map(|other| &other.rows);
        let mut seen: HashSet<PlannedRow> = planned.rows.iter().copied().collect();
        rows.copied().filter(move |row| seen.insert(*row))
    }

    /// Strikes the rows off the list that are gone from the manifests or can be read by now.
    pub(crate) fn forget_mended(&self, reader: &Reader, bad_rows: &mut BadRows) -> Result<()> {
        if bad_rows.count() == 0 {
            return Ok(());
        }
        let key = |origin: &Origin| (origin.file.display().to_string(), origin.line);
        let known: HashMap<_, _> =
            self.samples.iter().flatten().map(|sample| (key(&sample.origin), sample)).collect();
        let is_bad = |manifest: &str, line: usize| match known.get(&(manifest.to_owned(), line)) {
            Some(sample) => {
                each_positive(sample).any(|sample| !read_samples(reader, &[&sample], |_| {}).1.is_empty())
            }
            None => false,
        };
        Ok(bad_rows.keep(is_bad)?)
    }

    /// The rows of each dataset that takes part.
    pub fn drawn(&self) -> impl Iterator<Item = &[Sample]> {
        let drawn = self.samples.iter().zip(&self.weights).filter(|(_, weight)| **weight > 0.0);
        drawn.map(|(rows, _)| rows.as_slice())
    }

    /// The rows of each dataset that some step draws, with how often: a place for each time.
    pub fn planned_rows(&self) -> Vec<(&[Sample], Vec<usize>)> {
        let mut planned: Vec<(&[Sample], Vec<usize>)> =
            self.samples.iter().map(|rows| (rows.as_slice(), Vec::new())).collect();
        for row in self.plan.iter().flat_map(|batch| &batch.rows) {
            planned[row.dataset].1.push(row.row);
        }
        planned.retain(|(_, rows)| !rows.is_empty());
        planned
    }

    /// Hard negatives that a teacher takes for answers and that are therefore none.
    pub fn false_negatives(&self) -> usize {
        self.false_negatives
    }

    /// Hard negatives of rows that the stage takes none, or no more, of.
    pub fn unused_negatives(&self) -> usize {
        self.unused_negatives
    }

    /// Batches that hold a row several times, which gives fewer negatives than the batch size says.
    pub fn batches_with_copies(&self) -> usize {
        let has_copies = |batch: &&PlannedBatch| {
            let mut seen = HashSet::new();
            !batch.rows.iter().all(|row| seen.insert(row))
        };
        self.plan.iter().filter(has_copies).count()
    }

    /// Parquet files whose pictures take long to find, with the bytes that are unpacked for one of them.
    pub fn large_pages(&self) -> &[(PathBuf, u64)] {
        &self.large_pages
    }

    /// Each dataset's folder with its rows, and the different ones of them that some step draws.
    pub fn folders(&self) -> Vec<(&Path, usize, usize)> {
        let different: HashSet<PlannedRow> =
            self.plan.iter().flat_map(|batch| &batch.rows).copied().collect();
        let mut drawn = vec![0; self.samples.len()];
        different.iter().for_each(|row| drawn[row.dataset] += 1);
        let mut found: Vec<(&Path, usize, usize)> = Vec::new();
        for (rows, drawn) in self.samples.iter().zip(drawn) {
            let Some(first) = rows.first() else { continue };
            let folder = first.origin.file.parent().unwrap_or(Path::new(""));
            match found.iter_mut().find(|(other, _, _)| *other == folder) {
                Some(entry) => (entry.1, entry.2) = (entry.1 + rows.len(), entry.2 + drawn),
                None => found.push((folder, rows.len(), drawn)),
            }
        }
        found
    }

    /// Rows that the stage may draw from.
    pub fn num_rows(&self) -> usize {
        self.samples.iter().map(Vec::len).sum()
    }
}

/// Sets the weights of datasets that have shares, so that an epoch has as many rows as if each were drawn once. `ends` says for
/// each dataset of the stage where its specs end.
fn deal_shares(stage: &Stage, specs: &mut [DatasetSpec], ends: &[usize]) -> Result<()> {
    let share = |place: usize| stage.datasets[place].share.unwrap_or(0.0);
    let sum: f64 = (0..ends.len()).map(share).sum();
    if sum == 0.0 {
        return Ok(());
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let ranges: Vec<_> = starts.zip(ends).map(|(start, end)| start..*end).collect();
    let rows_of = |spec: &DatasetSpec| spec.cap.map_or(spec.len, |cap| cap.min(spec.len));
    let rows: Vec<usize> =
        ranges.iter().map(|range| specs[range.clone()].iter().map(rows_of).sum()).collect();
    let total: usize = (0..rows.len()).filter(|place| share(*place) > 0.0).map(|place| rows[place]).sum();
    for (place, range) in ranges.into_iter().enumerate() {
        let weight = total as f64 * share(place) / sum / rows[place] as f64;
        ensure!(
            weight <= 1000.0,
            "stage `{}`, dataset `{}`: its share of an epoch of {total} rows is {weight:.0} times its {} rows, more than 1000; \
             lower `share`",
            stage.name,
            stage.datasets[place].dataset,
            rows[place]
        );
        specs[range].iter_mut().for_each(|spec| spec.weight = weight);
    }
    Ok(())
}

/// The rows of a dataset.
pub(crate) struct Named {
    /// By their `name`, in the order of the files.
    pub by_name: Vec<(String, Vec<Sample>)>,
    /// Hard negatives beyond those that the stage takes.
    pub unused: usize,
}

pub(crate) fn rows_by_name(
    manifests: &[PathBuf],
    corpus: &Path,
    stage: &Stage,
    teacher: Option<&TeacherFilter>,
) -> Result<Named> {
    let mut by_name: Vec<(String, Vec<Sample>)> = Vec::new();
    let mut unused = 0;
    for mut sample in train_rows_of(manifests, corpus)? {
        if !stage.instructions {
            sample.query.instruction = None;
        }
        if let Some(teacher) = teacher {
            teacher.apply(&mut sample)?;
        }
        unused += sample.hard_negatives.len().saturating_sub(stage.hard_negatives);
        sample.hard_negatives.truncate(stage.hard_negatives);
        sample.hard_negatives.shrink_to_fit();
        match by_name.iter_mut().find(|(other, _)| *other == sample.name) {
            Some((_, rows)) => rows.push(sample),
            None => by_name.push((sample.name.clone(), vec![sample])),
        }
    }
    Ok(Named { by_name, unused })
}

/// Epoch after epoch until `epochs` are full, and the first step of each.
fn plan(
    stage: &Stage,
    specs: &[DatasetSpec],
    samples: &[Vec<Sample>],
    seed: u64,
) -> Result<(Vec<PlannedBatch>, Vec<usize>)> {
    let keys_of = |e: u64| -> Vec<Vec<RowKeys>> {
        let key = |sample: &Sample| row_keys(&draw_positive(sample, seed, e));
        samples.iter().map(|rows| rows.iter().map(key).collect()).collect()
    };
    let epoch = |e: u64, keys: &[Vec<RowKeys>]| {
        epoch_plan(seed, e, specs, stage.batch_size, Some(keys))
            .with_context(|| format!("stage `{}`", stage.name))
    };
    // Every epoch has the same where each row has one positive.
    let vary = samples.iter().flatten().any(|sample| !sample.other_positives.is_empty());
    let mut keys = keys_of(0);
    let mut batches = epoch(0, &keys)?;
    let mut firsts = vec![0];
    let steps = ((batches.len() as f64 * stage.epochs).round() as usize).max(1);
    for e in 1.. {
        if batches.len() >= steps {
            break;
        }
        firsts.push(batches.len());
        if vary {
            keys = keys_of(e);
        }
        batches.extend(epoch(e, &keys)?);
    }
    batches.truncate(steps);
    Ok((batches, firsts))
}

/// Every text of the rows of a dataset's manifests, with the instructions.
///
/// # Errors
/// Names the manifest and the row.
pub fn texts(manifests: &[PathBuf], corpus: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for sample in train_rows_of(manifests, corpus)? {
        for item in std::iter::once(&sample.query).chain(sample.positives()).chain(&sample.hard_negatives) {
            texts.extend(item.instruction.clone());
            texts.extend(item.content.iter().filter_map(|part| match part {
                Part::Text(text) => Some(text.clone()),
                _ => None,
            }));
        }
    }
    Ok(texts)
}
