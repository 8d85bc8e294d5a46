//! A stage of a training: what it begins with, its rows, its steps, its result.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use burn::tensor::FloatDType;
use rzen_loss::{InfoNce, TEMPERATURES_FILE};
use rzen_model::Qwen2Vl;
use rzen_train::{
    Checkpoint, Checkpointing, Contrastive, Control, Observer, RunFolder, StageConfig, latest, train_stage_on,
};
use serde_json::json;

use super::base::{Base, open_base, result_folder, weights_below, weights_hash, with_base_record};
use super::rows::Rows;
use super::{Job, save};
use crate::batches::{BatchSource, SourceSettings};
use crate::files::whole_file;
use crate::models;
use crate::progress::StageProgress;
use crate::ranks::{agreed, as_first, count, first, same_everywhere};
use crate::recipe::{Stage, Train};
use crate::run_cards::RunCards;
use crate::stage_data::StageData;
use crate::tensorboard::EventFile;

/// Trains a stage, from its newest checkpoint on, and writes its result.
pub(super) fn train_one(job: &Job, stage: &Stage, start: &Base, rows: Rows, cards: &RunCards) -> Result<()> {
    let result = result_folder(job.run, stage);
    let path = job.run.join(&stage.name);
    let resume = newest_checkpoint(job, &path)?;
    let data = rows.data;
    let config = StageConfig { steps: data.steps(), ..stage.training.clone() };
    // By blocks, no frozen weight is needed wider than it is stored but for its block's turn.
    let open = match (&stage.train, stage.training.checkpointing) {
        (Train::Lora(_), Checkpointing::Blocks) => models::open_to_embed,
        _ => models::open,
    };
    let opened = open_base(job, stage, start, open).and_then(|base| {
        let weights = weights_below(job, stage, start)?;
        let base = match (&stage.train, &weights[..]) {
            (Train::Full {}, _) => base,
            // What lies on the disk, not what it was rounded to.
            (Train::Lora(_), [whole]) => with_base_record(base, whole),
            (Train::Lora(_), _) => {
                let merged = weights_hash(&base.model);
                with_base_record(base, &merged)
            }
        };
        let model = trainable(job, stage, base.model.clone(), &data, resume.as_ref())?;
        Ok((base, weights, model))
    });
    let (base, weights, model) = agreed(job.ranks, opened)?;
    same_everywhere(job.ranks, "base model", &weights.join(" "))?;
    let mut settings = json!({
        "model": job.recipe.model,
        "stage": stage_settings(stage),
        "processor": start.processor,
        "manifests": rows.manifests,
    });
    // Another model may have come under the same name. Checkpoints of before don't say.
    if resume.as_ref().is_none_or(|there| there.state.settings.get(WEIGHTS).is_some()) {
        settings[WEIGHTS] = json!(weights);
    }
    let run = RunFolder { path, stage: stage.name.clone(), seed: job.recipe.seed, settings };
    let first_step = resume.as_ref().map_or(0, |checkpoint| checkpoint.state.step);
    announce(job, stage, &data, first_step);
    let settings = SourceSettings {
        run: &run.path,
        first_step,
        micro_batch_size: stage.micro_batch_size,
        micro_batch_tokens: stage.micro_batch_tokens.unwrap_or(usize::MAX),
        prefetch: job.recipe.data.prefetch,
        bad_row_limit: job.recipe.data.bad_row_limit,
    };
    let collator = base.collator();
    let reader = base.reader(job.recipe.data.load.options());
    let source = BatchSource::start(data, reader, collator, job.device, job.ranks, settings);
    let mut source = agreed(job.ranks, source)?;
    let watch = || {
        let events = EventFile::create(&run.path, first_step)
            .with_context(|| format!("a TensorBoard file in {}", run.path.display()))?;
        Ok(StageProgress::new(&stage.name, first_step, config.steps, events))
    };
    let mut progress = first(job.ranks, watch)?;
    let mut nobody = ();
    let observer: &mut dyn Observer = match &mut progress {
        Some(progress) => progress,
        None => &mut nobody,
    };
    let control = Control { ranks: job.ranks, observer, stop: job.stop };
    let trained = train_stage_on(model, &config, &mut |step| source.batch(step), &run, resume, control)?;
    let keep = || {
        if let Some(progress) = &progress {
            progress.finish();
        }
        let temperatures = trained.objective.temperatures_json()?;
        whole_file(&run.path.join(TEMPERATURES_FILE), |file| Ok(file.write_all(temperatures.as_bytes())?))?;
        save(&trained.encoder, &result, Some(&cards.stage(stage, None)?))
    };
    first(job.ranks, keep)?;
    if count(job.ranks, job.stop.load(Ordering::SeqCst)) > 0 {
        bail!("stopped after stage `{}`; give the same command again to go on", stage.name);
    }
    Ok(())
}

/// Says what a stage is about to do, and what it makes no use of.
fn announce(job: &Job, stage: &Stage, data: &StageData, first_step: usize) {
    job.say(&format!(
        "{}: {} rows, {} steps of {}, from {first_step}",
        stage.name,
        data.num_rows(),
        data.steps(),
        stage.batch_size
    ));
    if data.false_negatives() > 0 {
        job.say(&format!(
            "{}: {} hard negatives left out, too near their positives by the teacher's scores",
            stage.name,
            data.false_negatives()
        ));
    }
    if data.unused_negatives() > 0 {
        job.say(&format!(
            "{}: {} hard negatives of the rows are not used; `hard_negatives` is {}",
            stage.name,
            data.unused_negatives(),
            stage.hard_negatives
        ));
    }
    let with_copies = data.batches_with_copies();
    // The end of an epoch may have one.
    if with_copies * 10 > data.steps() {
        job.say(&format!(
            "{}: {with_copies} of {} batches hold a row several times, because few rows are drawn often (`weight`, `share`); such \
             batches have fewer negatives",
            stage.name,
            data.steps()
        ));
    }
    for (manifest, bytes) in data.large_pages() {
        job.say(&format!(
            "{}: for each picture in {} a page of {} MB is unpacked; `rzen data import parquet` writes them out, or write the \
             file with smaller pages (pyarrow: write_batch_size=4)",
            stage.name,
            manifest.display(),
            bytes >> 20
        ));
    }
}

/// The newest whole checkpoint of a stage, whose folder is made where it isn't there.
fn newest_checkpoint(job: &Job, stage: &Path) -> Result<Option<Checkpoint>> {
    let look = || {
        std::fs::create_dir_all(stage).with_context(|| stage.display().to_string())?;
        let found = latest(stage)?;
        for problem in &found.skipped {
            eprintln!("left alone: {problem}");
        }
        Ok(found.checkpoint.map(|checkpoint| checkpoint.folder))
    };
    let folder: Option<PathBuf> = as_first(job.ranks, look)?;
    agreed(job.ranks, folder.map(|folder| Ok(Checkpoint::open(&folder)?)).transpose())
}

/// What decides a stage's numbers besides its training settings, which the checkpoint holds itself.
fn stage_settings(stage: &Stage) -> serde_json::Value {
    let mut settings = json!(stage);
    if let Some(settings) = settings.as_object_mut() {
        settings.remove("training");
    }
    settings
}

/// The model and objective of a stage, with the weights of the checkpoint that it resumes from.
fn trainable(
    job: &Job,
    stage: &Stage,
    base: Qwen2Vl,
    data: &StageData,
    resume: Option<&Checkpoint>,
) -> Result<Contrastive<Qwen2Vl, InfoNce>> {
    let objective = stage.objective.config(data.tasks().to_vec()).init(job.device)?;
    let Some(checkpoint) = resume else {
        let encoder = match &stage.train {
            Train::Full {} => base.unfreeze_all(),
            Train::Lora(adapter) => base.with_new_adapter(adapter, job.recipe.seed)?,
        };
        return Ok(Contrastive { encoder, objective });
    };
    let encoder = match &stage.train {
        Train::Full {} => Qwen2Vl::load(&checkpoint.encoder(), FloatDType::F32, job.device)?.unfreeze_all(),
        Train::Lora(_) => base.with_adapter(&checkpoint.encoder())?.train_adapter_only(),
    };
    Ok(Contrastive { encoder, objective: objective.load_weights(&checkpoint.objective())? })
}

/// The key of a checkpoint's settings for [`weights_below`].
const WEIGHTS: &str = "weights_sha256";
