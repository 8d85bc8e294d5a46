//! The batches of a stage: planned once, read and encoded ahead by a thread.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Result, ensure};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rzen_core::{Batch, Sample, Targets};
use rzen_data::{BadRow, BadRows, PlannedRow};
use rzen_model::{Collator, Encoded, EncoderInput};
use rzen_train::{BoxError, TrainBatch};

use crate::cut::cut;
use crate::host_batch::{HostBatch, ReadRow, assemble, sorted};
use crate::reader::{EncodedSample, Reader, read_samples};
use crate::stage_data::StageData;

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
                exempt: self.exempt(batch),
            },
        }
    }

    /// `[queries, candidates]`, true where a candidate must not be a negative; `None` where there are none of these.
    fn exempt(&self, batch: &HostBatch) -> Option<Tensor<2, Bool>> {
        if batch.exempt.is_empty() {
            return None;
        }
        let [rows, columns] = [batch.queries.len(), batch.candidates.len()];
        let mut mask = vec![false; rows * columns];
        batch.exempt.iter().for_each(|(query, candidate)| mask[query * columns + candidate] = true);
        Some(Tensor::from_data(TensorData::new(mask, [rows, columns]), &self.device))
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
    Ok(sorted(assemble(planned.source.clone(), read, data.tasks(), data.share_hard_negatives)))
}

/// Reads rows in parallel; their places in the batch count from `first_place`.
fn read_rows<'a>(
    data: &'a StageData,
    step: usize,
    reader: &Reader,
    rows: &[PlannedRow],
    first_place: usize,
) -> (Vec<ReadRow<'a>>, Vec<BadRow>) {
    let mut samples: Vec<Option<Cow<Sample>>> =
        rows.iter().map(|row| Some(data.sample(*row, step))).collect();
    let plain: Vec<&Sample> = samples.iter().flatten().map(Cow::as_ref).collect();
    let (read, bad) = read_samples(reader, &plain, |sample| {
        let (dataset, place) = (rows[sample.place].dataset, first_place + sample.place);
        data.augment(sample, dataset, step, place);
    });
    let row = |(place, encoded): (usize, EncodedSample)| {
        (samples[place].take().expect("each row is read once"), encoded)
    };
    (read.into_iter().map(row).collect(), bad)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rzen_data::{PlannedBatch, TeacherFilter};

    use super::*;
    use crate::recipe::Stage;
    use crate::stage_data::rows_by_name;

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
            let manifest = folder.path().join("d/train.jsonl");
            let rows = rows_by_name(&manifest, folder.path(), stage, None).unwrap();
            rows[0].1.iter().map(|row| row.hard_negatives.len()).collect()
        };
        assert_eq!(numbers(&stage), [1; 6]);
        stage.hard_negatives = 9;
        assert_eq!(numbers(&stage), [2; 6]);
    }

    /// Rewrites the manifest's rows.
    fn rewrite(folder: &Path, change: impl Fn(&mut serde_json::Value)) {
        let path = folder.join("d/train.jsonl");
        let row = |line: &str| {
            let mut row = serde_json::from_str(line).unwrap();
            change(&mut row);
            row.to_string()
        };
        let rows: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(row).collect();
        std::fs::write(path, rows.join("\n")).unwrap();
    }

    #[test]
    fn each_epoch_uses_one_positive_and_the_others_are_no_negatives() {
        let (folder, mut stage) = corpus();
        // Every row has an answer of its own, and one that row 1 alone has in common with all.
        rewrite(folder.path(), |row| {
            row["query"] = row["positive"].clone();
            row["positives"] = serde_json::json!([row["positive"], [{ "text": "common" }]]);
            row.as_object_mut().unwrap().shift_remove("positive");
        });
        stage.batch_size = 6;
        stage.epochs = 8.0;
        let data = StageData::load(&stage, folder.path(), 7).unwrap();
        assert_eq!(data.epochs, (0..8).collect::<Vec<_>>());
        let mut used = HashSet::new();
        for step in 0..data.steps() {
            for row in &data.plan[step].rows {
                let sample = data.sample(*row, step);
                assert_eq!(sample, data.sample(*row, step));
                used.insert((row.row, format!("{:?}", sample.positive)));
            }
            let batch = read_batch(&data, step, &reader(), &mut BadRows::open(folder.path(), 0).unwrap());
            let batch = batch.unwrap();
            let rows: Vec<_> = data.plan[step].rows.iter().map(|row| data.sample(*row, step)).collect();
            let common = |sample: &&Cow<Sample>| sample.positive == rzen_core::Item::text("common");
            let number = rows.iter().filter(common).count();
            // The common answer is exempt for those that do not use it; where nobody does, it isn't there.
            assert_eq!(batch.exempt.len(), if number == 0 { 0 } else { 6 - number }, "step {step}");
        }
        // In eight epochs all rows use both.
        assert_eq!(used.len(), 12);
        let again = StageData::load(&stage, folder.path(), 7).unwrap();
        let rows = |data: &StageData| -> Vec<Sample> {
            let row = |step: usize| data.sample(data.plan[step].rows[0], step).into_owned();
            (0..data.steps()).map(row).collect()
        };
        assert_eq!(rows(&data), rows(&again));
    }

    #[test]
    fn a_teacher_takes_hard_negatives_out() {
        let (folder, mut stage) = corpus();
        rewrite(folder.path(), |row| {
            row["positive_scores"] = serde_json::json!([0.8]);
            row["negative_scores"] = serde_json::json!([0.79, 0.3]);
        });
        stage.datasets[0].teacher = Some(TeacherFilter { margin: Some(0.05), percent: None });
        let data = StageData::load(&stage, folder.path(), 7).unwrap();
        assert_eq!(data.false_negatives(), 6);
        for sample in data.drawn().flatten() {
            // The first one of the file is gone, and the second takes its place.
            assert_eq!(sample.hard_negatives, [rzen_core::Item::text("m")]);
            assert_eq!(sample.false_negatives, [rzen_core::Item::text("n")]);
        }
        rewrite(folder.path(), |row| drop(row.as_object_mut().unwrap().shift_remove("positive_scores")));
        let error = format!("{:#}", StageData::load(&stage, folder.path(), 7).err().unwrap());
        assert!(error.contains("train.jsonl:1") && error.contains("`positive_scores`"), "{error}");
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
