//! The batches of a stage: planned once, read and encoded ahead by a thread.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rzen_core::{Batch, Origin, Part, Sample, Targets};
use rzen_data::{
    BadRow, BadRows, DatasetSpec, LoadedSample, PlannedBatch, PlannedRow, RowKeys, epoch_plan, row_keys,
    train_rows,
};
use rzen_model::{Collator, Encoded, EncoderInput};
use rzen_train::{BoxError, TrainBatch};

use crate::augment::Augment;
use crate::cut::cut;
use crate::host_batch::{HostBatch, ReadRow, assemble, sorted};
use crate::reader::{Reader, read_samples};
use crate::recipe::Stage;

/// The rows of a stage's datasets, and which of them make the batch of each step.
pub struct StageData {
    samples: Vec<Vec<Sample>>,
    weights: Vec<f64>,
    augments: Vec<Augment>,
    seed: u64,
    tasks: Vec<String>,
    plan: Vec<PlannedBatch>,
    share_hard_negatives: bool,
}

impl StageData {
    /// Reads the manifests that `stage` names under `corpus` and plans every step of it.
    ///
    /// # Errors
    /// Names the manifest and the row, or the dataset that is too small.
    pub fn load(stage: &Stage, corpus: &Path, seed: u64) -> Result<Self> {
        let (mut samples, mut specs, mut augments) = (Vec::new(), Vec::new(), Vec::new());
        for row in &stage.datasets {
            let manifest = corpus.join(&row.dataset).join("train.jsonl");
            let by_name = rows_by_name(&manifest, corpus, stage)?;
            let wanted: Vec<String> = match &row.rows {
                Some(names) => names.clone(),
                None => by_name.iter().map(|(name, _)| name.clone()).collect(),
            };
            for name in wanted {
                let Some((_, rows)) = by_name.iter().find(|(other, _)| *other == name) else {
                    let names: Vec<&str> = by_name.iter().map(|(name, _)| name.as_str()).collect();
                    bail!(
                        "{}: no row has the name `{name}`; there are {}",
                        manifest.display(),
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
                samples.push(rows.clone());
                augments.push(row.augment);
            }
        }
        let mut tasks: Vec<String> = samples.iter().flatten().map(|sample| sample.task.0.clone()).collect();
        tasks.sort();
        tasks.dedup();
        let keys: Vec<Vec<RowKeys>> =
            samples.iter().map(|rows| rows.iter().map(row_keys).collect()).collect();
        let plan = plan(stage, &specs, &keys, seed)?;
        let weights = specs.iter().map(|spec| spec.weight).collect();
        Ok(StageData {
            samples,
            weights,
            augments,
            seed,
            tasks,
            plan,
            share_hard_negatives: stage.share_hard_negatives,
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
    fn augment(&self, sample: &mut LoadedSample, dataset: usize, step: usize, place: usize) {
        let augment = self.augments[dataset];
        let seed = self.seed ^ ((step as u64) << 32 | (place as u64) << 8);
        let items = [&mut sample.query, &mut sample.positive].into_iter().chain(&mut sample.hard_negatives);
        for (item, seed) in items.zip(seed..) {
            augment.apply(item, seed);
        }
    }

    fn sample(&self, row: PlannedRow) -> &Sample {
        &self.samples[row.dataset][row.row]
    }

    /// Rows of the same source as the batch of `step` that are not in it, in the order of the steps to
    /// come; after the last step comes the first.
    fn fillers(&self, step: usize) -> impl Iterator<Item = PlannedRow> {
        let planned = &self.plan[step];
        let others = self.plan.iter().cycle().skip(step + 1).take(self.plan.len() - 1);
        let rows = others.filter(|other| other.source == planned.source).flat_map(|other| &other.rows);
        let mut seen: HashSet<PlannedRow> = planned.rows.iter().copied().collect();
        rows.copied().filter(move |row| seen.insert(*row))
    }

    /// Strikes the rows off the list that are gone from the manifests or can be read by now.
    fn forget_mended(&self, reader: &Reader, bad_rows: &mut BadRows) -> Result<()> {
        if bad_rows.count() == 0 {
            return Ok(());
        }
        let key = |origin: &Origin| (origin.file.display().to_string(), origin.line);
        let known: HashMap<_, _> =
            self.samples.iter().flatten().map(|sample| (key(&sample.origin), sample)).collect();
        let is_bad = |manifest: &str, line: usize| match known.get(&(manifest.to_owned(), line)) {
            Some(sample) => !read_samples(reader, &[sample], |_| {}).1.is_empty(),
            None => false,
        };
        Ok(bad_rows.keep(is_bad)?)
    }

    /// The rows of each dataset that takes part.
    pub fn drawn(&self) -> impl Iterator<Item = &[Sample]> {
        let drawn = self.samples.iter().zip(&self.weights).filter(|(_, weight)| **weight > 0.0);
        drawn.map(|(rows, _)| rows.as_slice())
    }

    /// Each manifest with its rows, and the different ones of them that some step draws.
    pub fn manifests(&self) -> Vec<(&Path, usize, usize)> {
        let drawn: HashSet<PlannedRow> = self.plan.iter().flat_map(|batch| &batch.rows).copied().collect();
        let mut found: Vec<(&Path, usize, usize)> = Vec::new();
        for (dataset, rows) in self.samples.iter().enumerate() {
            let Some(first) = rows.first() else { continue };
            let drawn = drawn.iter().filter(|row| row.dataset == dataset).count();
            match found.iter_mut().find(|(manifest, _, _)| **manifest == *first.origin.file) {
                Some(entry) => (entry.1, entry.2) = (entry.1 + rows.len(), entry.2 + drawn),
                None => found.push((&first.origin.file, rows.len(), drawn)),
            }
        }
        found
    }

    /// Rows that the stage may draw from.
    pub fn num_rows(&self) -> usize {
        self.samples.iter().map(Vec::len).sum()
    }
}

/// The rows of a manifest, by their `name`, in the order of the file.
fn rows_by_name(manifest: &Path, corpus: &Path, stage: &Stage) -> Result<Vec<(String, Vec<Sample>)>> {
    let mut by_name: Vec<(String, Vec<Sample>)> = Vec::new();
    for mut sample in train_rows(manifest, corpus)? {
        if !stage.instructions {
            sample.query.instruction = None;
        }
        sample.hard_negatives.truncate(stage.hard_negatives);
        match by_name.iter_mut().find(|(other, _)| *other == sample.name) {
            Some((_, rows)) => rows.push(sample),
            None => by_name.push((sample.name.clone(), vec![sample])),
        }
    }
    Ok(by_name)
}

/// Epoch after epoch until `epochs` are full.
fn plan(stage: &Stage, specs: &[DatasetSpec], keys: &[Vec<RowKeys>], seed: u64) -> Result<Vec<PlannedBatch>> {
    let epoch = |e: u64| {
        epoch_plan(seed, e, specs, stage.batch_size, Some(keys))
            .with_context(|| format!("stage `{}`", stage.name))
    };
    let mut batches = epoch(0)?;
    let steps = ((batches.len() as f64 * stage.epochs).round() as usize).max(1);
    for e in 1.. {
        if batches.len() >= steps {
            break;
        }
        batches.extend(epoch(e)?);
    }
    batches.truncate(steps);
    Ok(batches)
}

/// Hands out the batch of each step in order, read ahead by a thread of its own.
pub struct BatchSource {
    steps: Receiver<(usize, Result<HostBatch>)>,
    collator: Collator,
    micro_batch_size: usize,
    micro_batch_tokens: usize,
    device: Device,
}

impl BatchSource {
    /// Starts reading at `first_step`.
    ///
    /// # Errors
    /// If `run` can't hold the list of bad rows.
    pub fn start(
        data: Arc<StageData>,
        reader: Reader,
        collator: Collator,
        device: &Device,
        settings: SourceSettings<'_>,
    ) -> Result<Self> {
        let mut bad_rows = BadRows::open(settings.run, settings.bad_row_limit)?;
        data.forget_mended(&reader, &mut bad_rows)?;
        let (sender, steps) = sync_channel(settings.prefetch.max(1));
        let first = settings.first_step;
        std::thread::Builder::new().name("read-ahead".into()).spawn(move || {
            for step in first..data.plan.len() {
                let read = read_batch(&data, step, &reader, &mut bad_rows);
                let failed = read.is_err();
                // The trainer has ended when nobody receives.
                if sender.send((step, read)).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(BatchSource {
            steps,
            collator,
            micro_batch_size: settings.micro_batch_size,
            micro_batch_tokens: settings.micro_batch_tokens,
            device: device.clone(),
        })
    }

    /// The batch of `step`; steps are asked for in order.
    ///
    /// # Errors
    /// What went wrong in reading it.
    pub fn batch(&mut self, step: usize) -> Result<TrainBatch<EncoderInput>, BoxError> {
        let (read_step, batch) = self.steps.recv().map_err(|_| "the thread that reads batches has ended")?;
        assert_eq!(read_step, step, "batches are asked for in order");
        let batch = batch.map_err(|error| BoxError::from(format!("{error:#}")))?;
        let items = batch.queries.iter().chain(&batch.candidates);
        let tokens = items.map(|item| item.input_ids.len()).sum();
        Ok(TrainBatch { label: batch.label.clone(), batch: self.upload(&batch), tokens })
    }

    fn upload(&self, batch: &HostBatch) -> Batch<EncoderInput> {
        let micro_batches = |items: &[Encoded]| -> Vec<EncoderInput> {
            let collate =
                |batch: Range<usize>| self.collator.collate(&items[batch].iter().collect::<Vec<_>>());
            cut(items, self.micro_batch_size, self.micro_batch_tokens).into_iter().map(collate).collect()
        };
        let tensor = |values: Vec<i64>| -> Tensor<1, Int> {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), &self.device)
        };
        let ints = |values: &[usize]| tensor(values.iter().map(|x| *x as i64).collect());
        let owners = |owner: &Vec<Option<usize>>| {
            tensor(owner.iter().map(|query| query.map_or(-1, |query| query as i64)).collect())
        };
        Batch {
            queries: micro_batches(&batch.queries),
            candidates: micro_batches(&batch.candidates),
            targets: Targets {
                positive: ints(&batch.positive),
                task: ints(&batch.task),
                owner: batch.owner.as_ref().map(owners),
            },
        }
    }
}

/// How a stage is read.
pub struct SourceSettings<'a> {
    /// The folder that holds the list of bad rows.
    pub run: &'a Path,
    /// The step to begin with.
    pub first_step: usize,
    /// Items in a micro-batch, at most.
    pub micro_batch_size: usize,
    /// Tokens in a micro-batch, padding included, at most, where it holds more than one item.
    pub micro_batch_tokens: usize,
    /// Batches read ahead.
    pub prefetch: usize,
    /// Rows that may be bad.
    pub bad_row_limit: usize,
}

/// A batch needs another row, or there is nothing to tell the positive from.
const FEWEST_ROWS: usize = 2;

/// Reads the rows planned for `step`. Bad ones are left out; where fewer than two are left, rows of later
/// steps stand in, so that the batch stays a function of the step and the files.
fn read_batch(data: &StageData, step: usize, reader: &Reader, bad_rows: &mut BadRows) -> Result<HostBatch> {
    let planned = &data.plan[step];
    let (mut read, bad) = read_rows(data, step, reader, &planned.rows, 0);
    bad_rows.record(&bad)?;
    let fillers = if bad.is_empty() { None } else { Some(data.fillers(step)) };
    for (extra, row) in fillers.into_iter().flatten().enumerate() {
        if read.len() >= FEWEST_ROWS {
            break;
        }
        let (more, bad) = read_rows(data, step, reader, &[row], planned.rows.len() + extra);
        bad_rows.record(&bad)?;
        read.extend(more);
    }
    ensure!(
        read.len() >= FEWEST_ROWS,
        "step {step}: of all rows of `{}`, {} can be read, a batch needs {FEWEST_ROWS}; mend the files listed \
         in {} or leave the dataset out of the stage, then give the same command again",
        planned.source,
        read.len(),
        bad_rows.path().display()
    );
    Ok(sorted(assemble(planned.source.clone(), read, &data.tasks, data.share_hard_negatives)))
}

/// Reads rows in parallel; their places in the batch count from `first_place`.
fn read_rows<'a>(
    data: &'a StageData,
    step: usize,
    reader: &Reader,
    rows: &[PlannedRow],
    first_place: usize,
) -> (Vec<ReadRow<'a>>, Vec<BadRow>) {
    let samples: Vec<&Sample> = rows.iter().map(|row| data.sample(*row)).collect();
    let (read, bad) = read_samples(reader, &samples, |sample| {
        let (dataset, place) = (rows[sample.place].dataset, first_place + sample.place);
        data.augment(sample, dataset, step, place);
    });
    (read.into_iter().map(|(place, encoded)| (samples[place], encoded)).collect(), bad)
}

/// Every text of a manifest's rows, with the instructions.
///
/// # Errors
/// Names the manifest and the row.
pub fn texts(manifest: &Path, corpus: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for sample in train_rows(manifest, corpus)? {
        for item in [&sample.query, &sample.positive].into_iter().chain(&sample.hard_negatives) {
            texts.extend(item.instruction.clone());
            texts.extend(item.content.iter().filter_map(|part| match part {
                Part::Text(text) => Some(text.clone()),
                _ => None,
            }));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A corpus of one dataset `d` of six rows; the fourth needs a picture that isn't there.
    fn corpus() -> (tempfile::TempDir, Stage) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        let row = |line: usize| {
            let query = if line == 4 {
                r#"{"image": "gone.png"}"#.into()
            } else {
                format!(r#"{{"text": "q{line}"}}"#)
            };
            format!(
                r#"{{"dataset": "d", "task": "t", "query": [{query}], "positive": [{{"text": "p{line}"}}],
                "negatives": [[{{"text": "n"}}], [{{"text": "m"}}]]}}"#
            )
            .replace('\n', "")
        };
        let rows: Vec<String> = (1..=6).map(row).collect();
        std::fs::write(folder.path().join("d/train.jsonl"), rows.join("\n")).unwrap();
        let recipe = r#"
            seed = 1
            model = { kind = "checkpoint", folder = "base" }
            [[stage]]
            name = "one"
            batch_size = 2
            micro_batch_size = 2
            epochs = 1
            hard_negatives = 1
            datasets = [{ dataset = "d" }]
        "#;
        let stage = crate::recipe::Recipe::parse(recipe).unwrap().stages.remove(0);
        (folder, stage)
    }

    fn reader() -> Reader {
        let words = (0..50).map(|i| format!("word {i} of these"));
        let tokenizer = rzen_model::train_tokenizer(words, 300).unwrap();
        let processor = rzen_model::Processor::new(Default::default(), &tokenizer).unwrap();
        Reader { loader: Arc::default(), processor: Arc::new(processor) }
    }

    fn step_of_bad_row(data: &StageData) -> usize {
        let has = |batch: &PlannedBatch| batch.rows.iter().any(|row| row.row == 3);
        data.plan.iter().position(has).unwrap()
    }

    #[test]
    fn rows_bring_no_more_hard_negatives_than_the_stage_takes() {
        let (folder, mut stage) = corpus();
        let numbers = |stage: &Stage| -> Vec<usize> {
            let rows = rows_by_name(&folder.path().join("d/train.jsonl"), folder.path(), stage).unwrap();
            rows[0].1.iter().map(|row| row.hard_negatives.len()).collect()
        };
        assert_eq!(numbers(&stage), [1; 6]);
        stage.hard_negatives = 9;
        assert_eq!(numbers(&stage), [2; 6]);
    }

    #[test]
    fn fillers_are_the_rows_of_the_steps_to_come() {
        let (folder, stage) = corpus();
        let data = StageData::load(&stage, folder.path(), 7).unwrap();
        let rows = |steps: [usize; 2]| steps.map(|step| data.plan[step].rows.clone()).concat();
        assert_eq!(data.fillers(0).collect::<Vec<_>>(), rows([1, 2]));
        assert_eq!(data.fillers(1).collect::<Vec<_>>(), rows([2, 0]));
        assert_eq!(data.fillers(2).collect::<Vec<_>>(), rows([0, 1]));
    }

    #[test]
    fn a_bad_row_of_a_small_batch_is_stood_in_for() {
        let (folder, stage) = corpus();
        let data = StageData::load(&stage, folder.path(), 7).unwrap();
        let (step, reader) = (step_of_bad_row(&data), reader());
        let read = |limit| {
            let mut bad_rows = BadRows::open(folder.path(), limit).unwrap();
            read_batch(&data, step, &reader, &mut bad_rows)
        };
        let batch = read(1).unwrap();
        assert_eq!(batch.queries.len(), 2);
        // Two positives and the hard negative that they share.
        assert_eq!(batch.candidates.len(), 3);
        let again = read(1).unwrap();
        assert_eq!(again.queries, batch.queries);
        let error = format!("{:#}", read(0).unwrap_err());
        assert!(error.contains("train.jsonl:4") && error.contains("`bad_row_limit`"), "{error}");
    }

    #[test]
    fn nothing_left_to_read_says_what_to_do() {
        let (folder, stage) = corpus();
        let text = std::fs::read_to_string(folder.path().join("d/train.jsonl")).unwrap();
        let broken = text.replace(r#""text": "q"#, r#""image": "q"#);
        std::fs::write(folder.path().join("d/train.jsonl"), broken).unwrap();
        let data = StageData::load(&stage, folder.path(), 7).unwrap();
        let mut bad_rows = BadRows::open(folder.path(), 9).unwrap();
        let error = format!("{:#}", read_batch(&data, 0, &reader(), &mut bad_rows).unwrap_err());
        for part in ["step 0", "`d`", "0 can be read", "bad_rows.jsonl", "mend"] {
            assert!(error.contains(part), "`{error}` doesn't say `{part}`");
        }
    }

    #[test]
    fn mended_rows_are_forgotten() {
        let (folder, stage) = corpus();
        let data = StageData::load(&stage, folder.path(), 7).unwrap();
        let reader = reader();
        let mut bad_rows = BadRows::open(folder.path(), 1).unwrap();
        read_batch(&data, step_of_bad_row(&data), &reader, &mut bad_rows).unwrap();
        data.forget_mended(&reader, &mut bad_rows).unwrap();
        assert_eq!(bad_rows.count(), 1);
        image::RgbImage::new(32, 32).save(folder.path().join("gone.png")).unwrap();
        data.forget_mended(&reader, &mut bad_rows).unwrap();
        assert_eq!(bad_rows.count(), 0);
    }
}
