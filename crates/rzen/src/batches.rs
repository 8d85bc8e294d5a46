//! The batches of a stage: planned once, read and encoded ahead by a thread.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Result, anyhow};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rzen_core::{Batch, Ranks, Targets};
use rzen_model::{Collator, EncoderInput};
use rzen_train::{BoxError, Share, TrainBatch};

use crate::batch_reader::{BatchReader, ReadRows, read_share};
use crate::cut::{Tokens, cut};
use crate::host_batch::{BatchItem, HostBatch};
use crate::reader::Reader;
use crate::stage_data::StageData;

/// Hands out the batch of each step in order, this rank's share of it read ahead by a thread of its own.
pub struct BatchSource<'a> {
    shares: Receiver<(usize, ReadRows)>,
    rows: BatchReader<'a>,
    ranks: &'a dyn Ranks,
    collator: Collator,
    micro_batch_size: usize,
    micro_batch_tokens: usize,
    device: Device,
}

impl<'a> BatchSource<'a> {
    /// Starts reading at `first_step`; all `ranks` call it.
    ///
    /// # Errors
    /// If `run` can't hold the list of bad rows.
    pub fn start(
        data: Arc<StageData>,
        reader: Reader,
        collator: Collator,
        device: &Device,
        ranks: &'a dyn Ranks,
        settings: SourceSettings<'_>,
    ) -> Result<Self> {
        let SourceSettings { run, first_step, bad_row_limit, .. } = settings;
        let rows = BatchReader::open(Arc::clone(&data), reader.clone(), ranks, run, bad_row_limit)?;
        let (sender, shares) = sync_channel(settings.prefetch.max(1));
        let (rank, size) = (ranks.rank(), ranks.size());
        std::thread::Builder::new().name("read-ahead".into()).spawn(move || {
            for step in first_step..data.plan.len() {
                // The trainer has ended when nobody receives.
                if sender.send((step, read_share(&data, step, &reader, rank, size))).is_err() {
                    return;
                }
            }
        })?;
        Ok(BatchSource {
            shares,
            rows,
            ranks,
            collator,
            micro_batch_size: settings.micro_batch_size,
            micro_batch_tokens: settings.micro_batch_tokens,
            device: device.clone(),
        })
    }

    /// The batch of `step`; steps are asked for in order, by all ranks.
    ///
    /// # Errors
    /// What went wrong in reading it, on whatever rank.
    pub fn batch(&mut self, step: usize) -> Result<TrainBatch<EncoderInput>, BoxError> {
        let mine = match self.shares.recv() {
            Ok((of, rows)) if of == step => Ok(rows),
            Ok((of, _)) => Err(anyhow!("the batch of step {step} was asked for, and that of {of} was read")),
            Err(_) => Err(anyhow!("the thread that reads batches has ended")),
        };
        let batch = self.rows.whole(step, mine).map_err(|error| BoxError::from(format!("{error:#}")))?;
        let items = batch.queries.iter().chain(&batch.candidates);
        let tokens = items.map(|item| item.tokens).sum();
        let of = |items: &[BatchItem]| items.iter().map(|item| item.rank).collect();
        let share = (self.ranks.size() > 1)
            .then(|| Share { queries: of(&batch.queries), candidates: of(&batch.candidates) });
        Ok(TrainBatch { label: batch.label.clone(), batch: self.upload(&batch), share, tokens })
    }

    fn upload(&self, batch: &HostBatch) -> Batch<EncoderInput> {
        let micro_batches = |items: &[BatchItem]| -> Vec<EncoderInput> {
            let own: Vec<_> = items.iter().filter_map(|item| item.encoded.as_ref()).collect();
            let collate = |batch: Range<usize>| self.collator.collate(&own[batch]);
            let batches =
                cut(own.iter().copied(), self.micro_batch_size, self.micro_batch_tokens, Tokens::Padded);
            batches.into_iter().map(collate).collect()
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use std::borrow::Cow;

    use rzen_core::{Sample, Solo};
    use rzen_data::{BadRows, PlannedBatch, TeacherFilter};

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

    /// The batch of a step of `folder`'s rows, of which `limit` may be bad.
    fn read_batch(data: &Arc<StageData>, step: usize, folder: &Path, limit: usize) -> Result<HostBatch> {
        let mut rows = BatchReader::open(Arc::clone(data), reader(), &Solo, folder, limit)?;
        rows.whole(step, Ok(read_share(data, step, &reader(), 0, 1)))
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
            let rows = rows_by_name(&[manifest], folder.path(), stage, None).unwrap().by_name;
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
        let data = Arc::new(StageData::load(&stage, folder.path(), 7).unwrap());
        assert_eq!(data.epochs, (0..8).collect::<Vec<_>>());
        let mut used = HashSet::new();
        for step in 0..data.steps() {
            for row in &data.plan[step].rows {
                let sample = data.sample(*row, step);
                assert_eq!(sample, data.sample(*row, step));
                used.insert((row.row, format!("{:?}", sample.positive)));
            }
            let batch = read_batch(&data, step, folder.path(), 0).unwrap();
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
        let data = Arc::new(StageData::load(&stage, folder.path(), 7).unwrap());
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
    fn shares_count_rows_whatever_the_sizes_of_datasets() {
        let (folder, mut stage) = corpus();
        let rows = std::fs::read_to_string(folder.path().join("d/train.jsonl")).unwrap();
        std::fs::create_dir(folder.path().join("large")).unwrap();
        // 18 rows of two names, beside the six.
        let named = |(place, row): (usize, &str)| {
            row.replace(
                "{\"dataset\": \"d\"",
                &format!("{{\"name\": \"n{}\", \"dataset\": \"large\"", place % 2),
            )
        };
        let large: Vec<String> =
            std::iter::repeat_n(rows.lines(), 3).flatten().enumerate().map(named).collect();
        std::fs::write(folder.path().join("large/train.jsonl"), large.join("\n")).unwrap();
        let mut count = |shares: [f64; 2], cap: Option<usize>| {
            let row = |dataset: &str, share| crate::recipe::DatasetRow {
                dataset: dataset.into(),
                share: Some(share),
                ..stage.datasets[0].clone()
            };
            let datasets = vec![row("d", shares[0]), row("large", shares[1])];
            stage.datasets = datasets;
            stage.datasets[1].cap = cap;
            let planned = StageData::load(&stage, folder.path(), 7)?;
            // At the end of an epoch there may be no other row.
            assert!(planned.batches_with_copies() <= 1);
            let mut counts = [0; 3];
            planned.plan.iter().flat_map(|batch| &batch.rows).for_each(|row| counts[row.dataset] += 1);
            anyhow::Ok(counts)
        };
        assert_eq!(count([1.0, 1.0], None).unwrap(), [12, 6, 6]);
        assert_eq!(count([3.0, 1.0], None).unwrap(), [18, 2, 2]);
        assert_eq!(count([0.25, 0.75], None).unwrap(), [6, 8, 8]);
        // Of a capped dataset, what the cap leaves counts.
        assert_eq!(count([1.0, 2.0], Some(3)).unwrap(), [4, 4, 4]);
        assert_eq!(count([1.0, 0.0], None).unwrap(), [6, 0, 0]);
        stage.datasets.truncate(1);
        (stage.datasets[0].share, stage.datasets[0].weight, stage.batch_size) = (None, 4.0, 12);
        assert_eq!(StageData::load(&stage, folder.path(), 7).unwrap().batches_with_copies(), 2);
    }

    #[test]
    fn a_share_of_too_few_rows_is_refused() {
        let (folder, mut stage) = corpus();
        std::fs::create_dir(folder.path().join("e")).unwrap();
        std::fs::copy(folder.path().join("d/train.jsonl"), folder.path().join("e/train.jsonl")).unwrap();
        let row = |dataset: &str, share| crate::recipe::DatasetRow {
            dataset: dataset.into(),
            share: Some(share),
            ..stage.datasets[0].clone()
        };
        stage.datasets = vec![row("d", 1.0), row("e", 1e-4)];
        let error = format!("{:#}", StageData::load(&stage, folder.path(), 7).err().unwrap());
        assert!(error.contains("`d` gives 0 rows an epoch") && error.contains("share"), "{error}");
    }

    #[test]
    fn fillers_are_the_rows_of_the_steps_to_come() {
        let (folder, stage) = corpus();
        let data = Arc::new(StageData::load(&stage, folder.path(), 7).unwrap());
        let rows = |steps: [usize; 2]| steps.map(|step| data.plan[step].rows.clone()).concat();
        assert_eq!(data.fillers(0).collect::<Vec<_>>(), rows([1, 2]));
        assert_eq!(data.fillers(1).collect::<Vec<_>>(), rows([2, 0]));
        assert_eq!(data.fillers(2).collect::<Vec<_>>(), rows([0, 1]));
    }

    #[test]
    fn a_bad_row_of_a_small_batch_is_stood_in_for() {
        let (folder, stage) = corpus();
        let data = Arc::new(StageData::load(&stage, folder.path(), 7).unwrap());
        let step = step_of_bad_row(&data);
        let read = |limit| read_batch(&data, step, folder.path(), limit);
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
        let data = Arc::new(StageData::load(&stage, folder.path(), 7).unwrap());
        let error = format!("{:#}", read_batch(&data, 0, folder.path(), 9).unwrap_err());
        for part in ["step 0", "`d`", "0 can be read", "bad_rows.jsonl", "mend"] {
            assert!(error.contains(part), "`{error}` doesn't say `{part}`");
        }
    }

    #[test]
    fn mended_rows_are_forgotten() {
        let (folder, stage) = corpus();
        let data = Arc::new(StageData::load(&stage, folder.path(), 7).unwrap());
        let reader = reader();
        read_batch(&data, step_of_bad_row(&data), folder.path(), 1).unwrap();
        let mut bad_rows = BadRows::open(folder.path(), 1).unwrap();
        data.forget_mended(&reader, &mut bad_rows).unwrap();
        assert_eq!(bad_rows.count(), 1);
        image::RgbImage::new(32, 32).save(folder.path().join("gone.png")).unwrap();
        data.forget_mended(&reader, &mut bad_rows).unwrap();
        assert_eq!(bad_rows.count(), 0);
    }
}
