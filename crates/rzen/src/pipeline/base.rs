//! What stages start from: whole models, and the adapters of earlier stages merged into them.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::{Device, FloatDType};
use rzen_merge::{BaseRecord, WeightsHasher, weights_sha256};
use rzen_model::{ProcessorConfig, Qwen2Vl};

use super::Job;
use crate::files::{hex, sha256};
use crate::models::{self, Opened};
use crate::recipe::{BaseType, Stage, Train};
use crate::run_folder::Run;

/// The model that training starts from.
pub(super) struct Base {
    pub folder: PathBuf,
    /// As the recipe says, else as the folder does; travels with everything that is written.
    pub processor: ProcessorConfig,
    /// Of the files in the folder; gigabytes are hashed once.
    weights: OnceCell<String>,
}

impl Base {
    pub fn new(folder: PathBuf, processor: ProcessorConfig) -> Self {
        Base { folder, processor, weights: OnceCell::new() }
    }

    fn weights(&self) -> Result<String> {
        if let Some(known) = self.weights.get() {
            return Ok(known.clone());
        }
        let read = weights_sha256(&self.folder)?;
        Ok(self.weights.get_or_init(|| read).clone())
    }
}

/// What a stage leaves: `model/`, or `adapter/` on what it started from.
pub(super) fn result_folder(run: &Run, stage: &Stage) -> PathBuf {
    match stage.train {
        Train::Full {} => run.join(&stage.name).join("model"),
        Train::Lora(_) => run.join(&stage.name).join("adapter"),
    }
}

/// How a model's folder is opened where weights are f32: [`models::open`] or [`models::open_to_embed`].
pub(super) type Open = fn(&Path, Option<&Path>, FloatDType, &Device) -> Result<Opened>;

/// Opens the weights that `stage` (or the start, for `None`) left, adapters attached.
pub(super) fn open_result(job: &Job, stage: Option<&Stage>, start: &Base, open: Open) -> Result<Opened> {
    let Some(stage) = stage else { return open_folder(job, &start.folder, start, open) };
    let folder = result_folder(job.run, stage);
    match stage.train {
        Train::Full {} => open_folder(job, &folder, start, open),
        Train::Lora(_) => {
            let base = open_base(job, stage, start, open)?;
            Ok(Opened { model: base.model.with_adapter(&folder)?, ..base })
        }
    }
}

/// Opens a whole model with the processor of the training.
pub(super) fn open_folder(job: &Job, folder: &Path, start: &Base, open: Open) -> Result<Opened> {
    let opened = match job.recipe.model.base_type() {
        BaseType::F32 => open(folder, None, FloatDType::F32, job.device),
        BaseType::Bf16 => models::open_narrow(folder, job.device),
    };
    opened?.with_processor(folder, start.processor.clone())
}

/// Opens what `stage` starts from, adapters merged.
pub(super) fn open_base(job: &Job, stage: &Stage, start: &Base, open: Open) -> Result<Opened> {
    let base = open_result(job, job.recipe.base_of(stage)?, start, open)?;
    Ok(Opened { model: merged(job, base.model), ..base })
}

/// The model with its adapter in its weights, of the type that the recipe says.
pub(super) fn merged(job: &Job, model: Qwen2Vl) -> Qwen2Vl {
    match job.recipe.model.base_type() {
        BaseType::F32 => model.merge_adapter(),
        BaseType::Bf16 => model.merge_adapter_rounded(),
    }
}

/// The hashes of the files that `stage` starts from: a whole model, and the adapters of the stages that lie on it. Of files, since
/// sums may differ in the last bits from device to device.
pub(super) fn weights_below(job: &Job, stage: &Stage, start: &Base) -> Result<Vec<String>> {
    let Some(below) = job.recipe.base_of(stage)? else {
        return Ok(vec![start.weights()?]);
    };
    let folder = result_folder(job.run, below);
    match below.train {
        Train::Full {} => Ok(vec![weights_sha256(&folder)?]),
        Train::Lora(_) => {
            let mut hashes = weights_below(job, below, start)?;
            let adapter = folder.join("adapter_model.safetensors");
            hashes.push(hex(&sha256(&adapter).with_context(|| adapter.display().to_string())?));
            Ok(hashes)
        }
    }
}

pub(super) fn weights_hash(model: &Qwen2Vl) -> String {
    let mut hasher = WeightsHasher::default();
    model.visit_weights(|name, shape, dtype, bytes| hasher.add(name, shape, dtype, bytes));
    hasher.finish()
}

/// The same model, whose adapters say what they were trained on.
pub(super) fn with_base_record(base: Opened, hash: &str) -> Opened {
    let record = BaseRecord::new(hash.to_owned()).to_json().into_bytes();
    let companions = base.model.companions().clone().with(BaseRecord::FILE, record);
    Opened { model: base.model.with_companions(companions), ..base }
}
