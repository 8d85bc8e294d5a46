//! The batches of a stage: planned once, read and encoded ahead by a thread.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;
use rzen_core::{Batch, Item, LoadedItem, Part, Sample, Targets};
use rzen_data::{
    BadRow, BadRows, DatasetSpec, LoadedSample, Loader, PlannedBatch, RowKeys, epoch_plan, load_samples,
    row_keys, train_rows,
};
use rzen_model::{Collator, Encoded, EncoderInput, Processor};
use rzen_train::{BoxError, TrainBatch};

use crate::augment::Augment;
use crate::recipe::Stage;

/// The rows of a stage's datasets, and which of them make the batch of each step.
pub struct StageData {
    samples: Vec<Vec<Sample>>,
    augments: Vec<Augment>,
    seed: u64,
    tasks: Vec<String>,
    plan: Vec<PlannedBatch>,
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
        Ok(StageData { samples, augments, seed, tasks, plan })
    }

    /// Optimizer steps in the stage.
    pub fn steps(&self) -> usize {
        self.plan.len()
    }

    /// The tasks that occur, sorted; each gets a temperature.
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// Changes the pictures of a sample as its dataset wants it: a function of seed, step and place.
    fn augment(&self, sample: &mut LoadedSample, step: usize, planned: &PlannedBatch) {
        let augment = self.augments[planned.rows[sample.place].dataset];
        let seed = self.seed ^ ((step as u64) << 32 | (sample.place as u64) << 8);
        let items = [&mut sample.query, &mut sample.positive].into_iter().chain(&mut sample.hard_negatives);
        for (item, seed) in items.zip(seed..) {
            augment.apply(item, seed);
        }
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

/// A batch on the host: distinct candidates, each row of queries knowing its own.
struct HostBatch {
    label: String,
    queries: Vec<Encoded>,
    candidates: Vec<Encoded>,
    positive: Vec<usize>,
    task: Vec<usize>,
}

/// Hands out the batch of each step in order, read ahead by a thread of its own.
pub struct BatchSource {
    steps: Receiver<(usize, Result<HostBatch>)>,
    collator: Collator,
    micro_batch_size: usize,
    device: Device,
}

/// What reading needs besides the rows.
#[derive(Clone)]
pub struct Reader {
    /// Decodes files.
    pub loader: Arc<Loader>,
    /// Encodes what was decoded.
    pub processor: Arc<Processor>,
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
        let (sender, steps) = sync_channel(settings.prefetch.max(1));
        let first = settings.first_step;
        std::thread::Builder::new().name("read-ahead".into()).spawn(move || {
            for (step, batch) in data.plan.iter().enumerate().skip(first) {
                let read = read_batch(&data, step, batch, &reader, &mut bad_rows);
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
        Ok(TrainBatch { label: batch.label.clone(), batch: self.upload(&batch) })
    }

    fn upload(&self, batch: &HostBatch) -> Batch<EncoderInput> {
        let micro_batches = |items: &[Encoded]| -> Vec<EncoderInput> {
            let items: Vec<&Encoded> = items.iter().collect();
            items.chunks(self.micro_batch_size).map(|items| self.collator.collate(items)).collect()
        };
        let ints = |values: &[usize]| -> Tensor<1, Int> {
            let values: Vec<i64> = values.iter().map(|x| *x as i64).collect();
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), &self.device)
        };
        Batch {
            queries: micro_batches(&batch.queries),
            candidates: micro_batches(&batch.candidates),
            targets: Targets { positive: ints(&batch.positive), task: ints(&batch.task), owner: None },
        }
    }
}

/// How a stage is read.
pub struct SourceSettings<'a> {
    /// The folder that holds the list of bad rows.
    pub run: &'a Path,
    /// The step to begin with.
    pub first_step: usize,
    /// Items in a micro-batch.
    pub micro_batch_size: usize,
    /// Batches read ahead.
    pub prefetch: usize,
    /// Rows that may be bad.
    pub bad_row_limit: usize,
}

fn read_batch(
    data: &StageData,
    step: usize,
    planned: &PlannedBatch,
    reader: &Reader,
    bad_rows: &mut BadRows,
) -> Result<HostBatch> {
    let samples: Vec<&Sample> = planned.rows.iter().map(|row| &data.samples[row.dataset][row.row]).collect();
    let (loaded, mut bad) = load_samples(&reader.loader, &samples);
    let mut table = CandidateTable::default();
    let (mut queries, mut positive, mut task) = (Vec::new(), Vec::new(), Vec::new());
    let encoded: Vec<_> = loaded
        .into_par_iter()
        .map(|mut sample| {
            data.augment(&mut sample, step, planned);
            let encoded =
                encode_sample(&reader.processor, &sample.query, &sample.positive, &sample.hard_negatives);
            (sample.place, sample.origin, encoded)
        })
        .collect();
    for (place, origin, encoded) in encoded {
        let source = samples[place];
        let (query, own, hard) = match encoded {
            Ok(encoded) => encoded,
            Err(message) => {
                bad.push(BadRow { origin, file: None, message });
                continue;
            }
        };
        queries.push(query);
        positive.push(table.add(&source.positive, own));
        for (item, encoded) in source.hard_negatives.iter().zip(hard) {
            table.add(item, encoded);
        }
        let known = data.tasks.binary_search(&source.task.0).expect("the tasks of all rows were collected");
        task.push(known);
    }
    bad_rows.record(&bad)?;
    ensure!(
        queries.len() >= 2,
        "batch of `{}`: {} of its {} rows can be read, a batch needs 2; see {}",
        planned.source,
        queries.len(),
        samples.len(),
        bad_rows.path().display()
    );
    Ok(sorted(HostBatch {
        label: planned.source.clone(),
        queries,
        candidates: table.candidates,
        positive,
        task,
    }))
}

type EncodedSample = (Encoded, Encoded, Vec<Encoded>);

fn encode_sample(
    processor: &Processor,
    query: &LoadedItem,
    positive: &LoadedItem,
    hard: &[LoadedItem],
) -> Result<EncodedSample, String> {
    let encode = |item: &LoadedItem| processor.process(item).map_err(|error| error.to_string());
    let hard = hard.iter().map(encode).collect::<Result<_, _>>()?;
    Ok((encode(query)?, encode(positive)?, hard))
}

/// Equal candidates of a batch are one row: queries that share a positive are not each other's negatives.
#[derive(Default)]
struct CandidateTable<'a> {
    places: HashMap<&'a Item, usize>,
    candidates: Vec<Encoded>,
}

impl<'a> CandidateTable<'a> {
    fn add(&mut self, item: &'a Item, encoded: Encoded) -> usize {
        *self.places.entry(item).or_insert_with(|| {
            self.candidates.push(encoded);
            self.candidates.len() - 1
        })
    }
}

/// Puts items of about the same length into the same micro-batch, so that there is little padding.
fn sorted(batch: HostBatch) -> HostBatch {
    let order = |items: &[Encoded]| -> Vec<usize> {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&i| (items[i].pictures.len(), items[i].input_ids.len(), i));
        order
    };
    let (queries, candidates) = (order(&batch.queries), order(&batch.candidates));
    let mut place = vec![0; candidates.len()];
    for (new, old) in candidates.iter().enumerate() {
        place[*old] = new;
    }
    HostBatch {
        positive: queries.iter().map(|&old| place[batch.positive[old]]).collect(),
        task: queries.iter().map(|&old| batch.task[old]).collect(),
        queries: take(batch.queries, &queries),
        candidates: take(batch.candidates, &candidates),
        label: batch.label,
    }
}

fn take(items: Vec<Encoded>, order: &[usize]) -> Vec<Encoded> {
    let mut items: Vec<Option<Encoded>> = items.into_iter().map(Some).collect();
    order.iter().map(|&i| items[i].take().expect("an order names each place once")).collect()
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
