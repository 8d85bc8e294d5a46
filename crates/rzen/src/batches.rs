//! The batches of a stage: planned once, read and encoded ahead by a thread.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rzen_core::{Batch, Item, LoadedItem, Origin, Part, Sample, Targets};
use rzen_data::{
    BadRow, BadRows, DatasetSpec, LoadOptions, LoadedSample, Loader, PlannedBatch, PlannedRow, RowKeys,
    epoch_plan, load_samples_with, row_keys, train_rows,
};
use rzen_model::{Collator, Encoded, EncoderInput, Processor};
use rzen_train::{BoxError, TrainBatch};

use crate::augment::Augment;
use crate::models;
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
#[derive(Debug)]
struct HostBatch {
    label: String,
    queries: Vec<Encoded>,
    candidates: Vec<Encoded>,
    positive: Vec<usize>,
    task: Vec<usize>,
    /// For each candidate the one query that may use it as a negative; `None` where all may use all.
    owner: Option<Vec<Option<usize>>>,
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

impl Reader {
    /// Reads as `processor` wants it, within `limits`; paths are absolute.
    pub fn new(processor: Processor, limits: LoadOptions) -> Self {
        let loader = Arc::new(models::loader(processor.config(), PathBuf::new(), limits));
        Reader { loader, processor: Arc::new(processor) }
    }
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
    /// Items in a micro-batch.
    pub micro_batch_size: usize,
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

/// A row that has been read, and what became of its query, positive and hard negatives.
type ReadRow<'a> = (&'a Sample, EncodedSample);

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

/// Decodes, changes and encodes each sample in one go, so that few decoded files are held at once.
pub(crate) fn read_samples(
    reader: &Reader,
    samples: &[&Sample],
    change: impl Fn(&mut LoadedSample) + Sync,
) -> (Vec<(usize, EncodedSample)>, Vec<BadRow>) {
    load_samples_with(&reader.loader, samples, |mut sample| {
        change(&mut sample);
        Ok((sample.place, encode_sample(&reader.processor, &sample)?))
    })
}

pub(crate) type EncodedSample = (Encoded, Encoded, Vec<Encoded>);

fn encode_sample(processor: &Processor, sample: &LoadedSample) -> Result<EncodedSample, String> {
    let encode = |item: &LoadedItem| processor.process(item).map_err(|error| error.to_string());
    let hard = sample.hard_negatives.iter().map(encode).collect::<Result<_, _>>()?;
    Ok((encode(&sample.query)?, encode(&sample.positive)?, hard))
}

/// Makes one batch of the rows that could be read.
fn assemble(label: String, rows: Vec<ReadRow>, tasks: &[String], share_hard_negatives: bool) -> HostBatch {
    let mut table = CandidateTable::default();
    let (mut queries, mut positive, mut task) = (Vec::new(), Vec::new(), Vec::new());
    for (source, (query, own, hard)) in rows {
        let row = queries.len();
        queries.push(query);
        positive.push(table.add(&source.positive, own, None));
        for (item, encoded) in source.hard_negatives.iter().zip(hard) {
            table.add(item, encoded, Some(row));
        }
        task.push(tasks.binary_search(&source.task.0).expect("the tasks of all rows were collected"));
    }
    let owner = (!share_hard_negatives).then_some(table.owner);
    HostBatch { label, queries, candidates: table.candidates, positive, task, owner }
}

/// Equal candidates of a batch are one row: queries that share a positive are not each other's negatives.
#[derive(Default)]
struct CandidateTable<'a> {
    places: HashMap<&'a Item, usize>,
    candidates: Vec<Encoded>,
    /// The query that a candidate is hard for, if it is so for one alone and nobody's positive.
    owner: Vec<Option<usize>>,
}

impl<'a> CandidateTable<'a> {
    /// Adds a candidate that only query `owner` brings along as hard, or that is a positive (`None`).
    fn add(&mut self, item: &'a Item, encoded: Encoded, owner: Option<usize>) -> usize {
        match self.places.entry(item) {
            Entry::Occupied(place) => {
                let place = *place.get();
                if self.owner[place] != owner {
                    self.owner[place] = None;
                }
                place
            }
            Entry::Vacant(place) => {
                self.candidates.push(encoded);
                self.owner.push(owner);
                *place.insert(self.candidates.len() - 1)
            }
        }
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
    let (query_place, candidate_place) = (places(&queries), places(&candidates));
    HostBatch {
        positive: queries.iter().map(|&old| candidate_place[batch.positive[old]]).collect(),
        task: queries.iter().map(|&old| batch.task[old]).collect(),
        owner: batch
            .owner
            .map(|owner| candidates.iter().map(|&old| owner[old].map(|query| query_place[query])).collect()),
        queries: take(batch.queries, &queries),
        candidates: take(batch.candidates, &candidates),
        label: batch.label,
    }
}

/// For each old place the new one, of an order that lists the old ones.
fn places(order: &[usize]) -> Vec<usize> {
    let mut places = vec![0; order.len()];
    order.iter().enumerate().for_each(|(new, old)| places[*old] = new);
    places
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

#[cfg(test)]
mod tests {
    use rzen_core::Task;

    use super::*;

    fn encoded(ids: &[u32]) -> Encoded {
        Encoded { input_ids: ids.to_vec(), pictures: Vec::new() }
    }

    fn row(line: usize, query: &str, positive: &str, hard: &[&str]) -> Sample {
        Sample {
            dataset: "d".into(),
            name: "d".into(),
            task: Task("b".into()),
            query: Item::text(query),
            positive: Item::text(positive),
            hard_negatives: hard.iter().copied().map(Item::text).collect(),
            origin: Origin { file: Path::new("train.jsonl").into(), line },
        }
    }

    /// Encodes a text as its bytes, so that longer texts are longer rows.
    fn batch(rows: &[Sample], share_hard_negatives: bool) -> HostBatch {
        let bytes = |item: &Item| match &item.content[0] {
            Part::Text(text) => encoded(&text.bytes().map(u32::from).collect::<Vec<_>>()),
            other => panic!("{other:?} is no text"),
        };
        let read = rows.iter().map(|row| {
            (row, (bytes(&row.query), bytes(&row.positive), row.hard_negatives.iter().map(bytes).collect()))
        });
        assemble("d".into(), read.collect(), &["a".into(), "b".into()], share_hard_negatives)
    }

    fn texts_of(items: &[Encoded]) -> Vec<String> {
        let text = |item: &Encoded| item.input_ids.iter().map(|id| *id as u8 as char).collect();
        items.iter().map(text).collect()
    }

    #[test]
    fn equal_candidates_are_one() {
        let rows =
            [row(1, "q", "cat", &["dog", "owl"]), row(2, "p", "cat", &["dog"]), row(3, "o", "owl", &[])];
        let batch = batch(&rows, true);
        assert_eq!(texts_of(&batch.candidates), ["cat", "dog", "owl"]);
        assert_eq!(batch.positive, [0, 0, 2]);
        assert_eq!(batch.task, [1, 1, 1]);
        assert_eq!(batch.owner, None);
    }

    #[test]
    fn a_negative_that_is_hard_for_one_row_alone_belongs_to_it() {
        let rows = [
            row(1, "q", "cat", &["dog", "owl", "fox"]),
            row(2, "p", "hen", &["dog", "ape", "ape"]),
            row(3, "o", "owl", &[]),
        ];
        let batch = batch(&rows, false);
        assert_eq!(texts_of(&batch.candidates), ["cat", "dog", "owl", "fox", "hen", "ape"]);
        // Two rows bring the dog, and the owl is a positive.
        assert_eq!(batch.owner, Some(vec![None, None, None, Some(0), None, Some(1)]));
    }

    #[test]
    fn sorting_keeps_what_belongs_to_what() {
        let rows =
            [row(1, "long query", "cats and dogs", &["fox"]), row(2, "q", "hen", &["a long negative"])];
        let (before, after) = (batch(&rows, false), sorted(batch(&rows, false)));
        assert_eq!(texts_of(&after.queries), ["q", "long query"]);
        assert_eq!(texts_of(&after.candidates), ["fox", "hen", "cats and dogs", "a long negative"]);
        let pairs = |batch: &HostBatch| {
            let (queries, candidates) = (texts_of(&batch.queries), texts_of(&batch.candidates));
            let mut positives: Vec<_> = queries
                .iter()
                .zip(&batch.positive)
                .map(|(q, c)| (q.clone(), candidates[*c].clone()))
                .collect();
            let owners = batch.owner.as_ref().unwrap().iter().zip(&candidates);
            let mut owned: Vec<_> =
                owners.filter_map(|(q, c)| q.map(|q| (queries[q].clone(), c.clone()))).collect();
            positives.sort();
            owned.sort();
            (positives, owned)
        };
        assert_eq!(pairs(&after), pairs(&before));
        assert_eq!(
            pairs(&after).1,
            [("long query", "fox"), ("q", "a long negative")].map(|(q, c)| (q.into(), c.into()))
        );
    }

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
        let processor = Processor::new(Default::default(), &tokenizer).unwrap();
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
        assert_eq!(texts_of(&again.queries), texts_of(&batch.queries));
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
