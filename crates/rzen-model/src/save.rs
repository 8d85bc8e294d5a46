//! Writing a model: full weights in the Hugging Face layout, adapters in PEFT's.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use rzen_core::SaveWeights;
use safetensors::{Dtype, SafeTensorError, View};

use crate::encoder::Qwen2Vl;
use crate::weights::PEFT_PREFIX;
use crate::{ModelConfig, ModelError, ProcessorConfig};

/// Files of a checkpoint other than its weights: tokenizer, processor, templates.
///
/// They are kept as bytes and written again beside every checkpoint, so that a folder that was
/// written can be opened by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Companions {
    files: Vec<(String, Vec<u8>)>,
}

impl Companions {
    /// The names that are taken along when a folder has them.
    pub const NAMES: [&'static str; 13] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
        "chat_template.json",
        "chat_template.jinja",
        "generation_config.json",
        "processor.json",
    ];

    /// Reads those of [`Companions::NAMES`] that `folder` has.
    ///
    /// # Errors
    /// If a file is there but can't be read.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let mut files = Vec::new();
        for name in Self::NAMES {
            let path = folder.join(name);
            if path.is_file() {
                files.push((name.to_owned(), std::fs::read(&path).map_err(ModelError::io(&path))?));
            }
        }
        Ok(Companions { files })
    }

    /// The same files with `name` put in or replaced.
    pub fn with(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.files.retain(|(other, _)| other != name);
        self.files.push((name.to_owned(), bytes));
        self
    }

    /// The same files with these processor settings as `processor.json`, so that whoever opens the
    /// folder encodes items in the same way.
    pub fn with_processor(self, config: &ProcessorConfig) -> Self {
        self.with(ProcessorConfig::FILE, config.to_json().into_bytes())
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), ModelError> {
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(ModelError::write(&path))?;
        }
        Ok(())
    }
}

impl Qwen2Vl {
    /// Calls `visit` with the name that each of the model's own tensors has in a checkpoint, its shape, its format and its
    /// bytes, little-endian; factors of an adapter are left out.
    pub fn visit_weights(&self, mut visit: impl FnMut(&str, &[usize], Dtype, &[u8])) {
        for (name, stored) in model_tensors(self) {
            visit(&name, &stored.shape, View::dtype(&stored), &(stored.read)());
        }
    }
}

impl SaveWeights for Qwen2Vl {
    /// Writes the adapter where there is one (`adapter_config.json`, `adapter_model.safetensors`),
    /// otherwise the whole model (`config.json`, `model.safetensors`); with either, the companions.
    fn save_weights(&self, folder: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
        match &self.adapter {
            Some(adapter) => {
                let config = folder.join("adapter_config.json");
                write_json(&config, &adapter.to_json(""))?;
                write_tensors(&folder.join("adapter_model.safetensors"), adapter_tensors(self), &config)?;
            }
            None => {
                let config = folder.join("config.json");
                // `lm_head` is not kept: untied, transformers would put a random one in its place.
                let tied = ModelConfig { tie_word_embeddings: true, ..self.config.clone() };
                write_json(&config, &tied.to_json(dtype_name(self.dtype())))?;
                write_tensors(&folder.join("model.safetensors"), model_tensors(self), &config)?;
            }
        }
        self.companions.write(folder)?;
        Ok(())
    }
}

/// How `config.json` names the element type of weights.
pub(crate) fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ModelError> {
    let text = serde_json::to_string_pretty(value).map_err(ModelError::json(path))?;
    std::fs::write(path, text + "\n").map_err(ModelError::write(path))
}

/// Writes a safetensors file that may be read by whoever may read its neighbour `config`.
fn write_tensors(path: &Path, tensors: Vec<(String, Stored)>, config: &Path) -> Result<(), ModelError> {
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|source| match source {
        SafeTensorError::IoError(source) => ModelError::write(path)(source),
        source => ModelError::Safetensors { path: path.to_owned(), source },
    })?;
    // The format's writer goes through a temporary file, which is its owner's alone.
    let permissions = std::fs::metadata(config).map_err(ModelError::io(config))?.permissions();
    std::fs::set_permissions(path, permissions).map_err(ModelError::write(path))
}

/// The names that a whole checkpoint of this model has, `lm_head` aside.
pub(crate) fn names(model: &Qwen2Vl) -> BTreeSet<String> {
    model_tensors(model).into_iter().map(|(name, _)| name).collect()
}

fn model_tensors(model: &Qwen2Vl) -> Vec<(String, Stored)> {
    let (vision, text) = (&model.config.vision, &model.config.text);
    let mut tensors = collect(model);
    tensors.retain(|(name, _)| !name.contains(".lora."));
    for (name, stored) in &mut tensors {
        if name == "visual.patch_embed.proj.weight" {
            stored.shape = vision.kernel_shape().to_vec();
        }
    }
    debug_assert!(tensors.iter().any(|(_, stored)| stored.shape == [text.vocab_size, text.hidden_size]));
    tensors
}

fn adapter_tensors(model: &Qwen2Vl) -> Vec<(String, Stored)> {
    let mut tensors = collect(model);
    tensors.retain(|(name, _)| name.contains(".lora."));
    tensors
        .into_iter()
        .map(|(name, stored)| {
            (format!("{PEFT_PREFIX}{}", model.adapter_naming.apply(&peft_name(&name))), stored)
        })
        .collect()
}

/// `…q_proj.lora.lora_a` here is `…q_proj.lora_A.weight` in files.
fn peft_name(name: &str) -> String {
    name.replace(".lora.lora_a", ".lora_A.weight").replace(".lora.lora_b", ".lora_B.weight")
}

/// A tensor on its way to a file; its numbers leave the device when they are asked for.
struct Stored {
    shape: Vec<usize>,
    dtype: DType,
    read: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            _ => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (self.read)().into()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// All parameters with their names in files, adapter factors as `…lora_a` and `…lora_b`.
fn collect(model: &Qwen2Vl) -> Vec<(String, Stored)> {
    let mut visitor = Collect { path: Vec::new(), tensors: Vec::new() };
    model.visit(&mut visitor);
    visitor.tensors.sort_by(|a, b| a.0.cmp(&b.0));
    visitor.tensors
}

struct Collect {
    path: Vec<String>,
    tensors: Vec<(String, Stored)>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // The merger's second layer stands behind an activation that has no weights.
        let name = self.path.join(".").replace("merger.mlp.1.", "merger.mlp.2.");
        let tensor = param.val().inner();
        let stored = Stored {
            shape: tensor.dims().to_vec(),
            dtype: tensor.dtype(),
            read: Box::new(move || tensor.clone().into_data().into_bytes().to_vec()),
        };
        self.tensors.push((name, stored));
    }
}
