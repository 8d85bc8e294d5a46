//! Opening a model: its folder, an adapter on it, and everything that turns items into its input.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, FloatDType};
use rzen_data::{LoadOptions, Loader};
use rzen_model::{Collator, ModelConfig, ModelError, Processor, ProcessorConfig, Qwen2Vl, Way, check_fit};

use crate::device::{is_cpu, table_home};
use crate::embedder::{EmbedSettings, LocalEmbedder, Tokens};
use crate::reader::Reader;

/// A model with its processor.
pub struct Opened {
    /// The network, frozen.
    pub model: Qwen2Vl,
    /// What turns items into its input.
    pub processor: Processor,
    /// Where it computes.
    pub device: Device,
}

/// Opens a Hugging Face folder, and a PEFT adapter on it. An adapter's own processor settings go first.
///
/// The token table stays on the CPU, where that is compiled in.
///
/// # Errors
/// Names the folder, the file and what is wrong with it.
pub fn open(folder: &Path, adapter: Option<&Path>, dtype: FloatDType, device: &Device) -> Result<Opened> {
    let load = |folder: &Path| Qwen2Vl::load_with_table_on(&table_home(device), folder, dtype, device);
    open_with(folder, adapter, load, device)
}

/// The same for a model that is to embed and nothing else, see [`Qwen2Vl::load_to_embed`].
///
/// # Errors
/// As of [`open`].
pub fn open_to_embed(
    folder: &Path,
    adapter: Option<&Path>,
    dtype: FloatDType,
    device: &Device,
) -> Result<Opened> {
    let load = |folder: &Path| Qwen2Vl::load_to_embed(&table_home(device), folder, dtype, device);
    open_with(folder, adapter, load, device)
}

/// The same with weights of bf16 under adapters to train, see [`Qwen2Vl::load_narrow`].
///
/// # Errors
/// As of [`open`].
pub fn open_narrow(folder: &Path, device: &Device) -> Result<Opened> {
    open_with(folder, None, |folder| Qwen2Vl::load_narrow(&table_home(device), folder, device), device)
}

fn open_with(
    folder: &Path,
    adapter: Option<&Path>,
    load: impl FnOnce(&Path) -> Result<Qwen2Vl, ModelError>,
    device: &Device,
) -> Result<Opened> {
    ensure!(
        folder.join("config.json").is_file(),
        "model {}: no `config.json` there; give the folder of a Hugging Face checkpoint",
        folder.display()
    );
    let model = load(folder).with_context(|| format!("model {}", folder.display()))?;
    let model = match adapter {
        Some(adapter) => {
            model.with_adapter(adapter).with_context(|| format!("adapter {}", adapter.display()))?
        }
        None => model,
    };
    let processor = Processor::load_with(folder, processor_config(folder, adapter)?)?;
    check_fit(model.config(), &processor, folder, settings_folder(folder, adapter))?;
    Ok(Opened { model, processor, device: device.clone() })
}

/// The processor's settings of a model with an adapter; those of the adapter go first.
///
/// # Errors
/// Names the file that can't be read, and the setting in it.
pub fn processor_config(folder: &Path, adapter: Option<&Path>) -> Result<ProcessorConfig> {
    Ok(ProcessorConfig::load(settings_folder(folder, adapter))?)
}

fn settings_folder<'a>(folder: &'a Path, adapter: Option<&'a Path>) -> &'a Path {
    adapter.filter(|adapter| adapter.join(ProcessorConfig::FILE).is_file()).unwrap_or(folder)
}

impl Opened {
    /// The same model with other processor settings, which are written beside its weights from now on.
    ///
    /// # Errors
    /// Names the setting that can't be used, or what is wrong with the tokenizer in `folder`.
    pub fn with_processor(self, folder: &Path, config: ProcessorConfig) -> Result<Self> {
        let companions = self.model.companions().clone();
        let companions = companions.with(ProcessorConfig::FILE, config.to_json().into_bytes());
        let processor = Processor::load_with(folder, config)
            .with_context(|| format!("the processor of {}", folder.display()))?;
        Ok(Opened { model: self.model.with_companions(companions), processor, ..self })
    }

    /// What makes micro-batches for this model.
    pub fn collator(&self) -> Collator {
        let special = self.processor.special();
        Collator::new(self.model.config(), special, self.processor.config().positions, &self.device)
    }

    /// What reads training rows for this model, within `limits`.
    pub fn reader(self, limits: LoadOptions) -> Reader {
        Reader::new(self.processor, limits)
    }

    /// The model as an embedder of items whose relative paths count from `root`, read within `limits`.
    pub fn embedder(
        self,
        root: PathBuf,
        batch_size: usize,
        batch_tokens: usize,
        limits: LoadOptions,
    ) -> LocalEmbedder {
        let way = Way::of(FloatDType::from(self.model.dtype()), is_cpu(&self.device));
        let threads = threads(&self.device, way, self.model.config());
        let tokens = if way == Way::Fused { Tokens::Packed } else { Tokens::Padded };
        let settings = EmbedSettings { batch_size, batch_tokens, tokens, threads };
        let (loader, collator) = (loader(self.processor.config(), root, limits), self.collator());
        LocalEmbedder::new(self.model, loader, self.processor, collator, settings)
    }
}

/// What reads files as a processor wants them within `limits`, relative paths counted from `root`.
pub fn loader(config: &ProcessorConfig, root: PathBuf, limits: LoadOptions) -> Loader {
    Loader::new(LoadOptions {
        root,
        num_frames: config.num_frames,
        exif_orientation: config.exif_orientation,
        background: config.background,
        pdf_dpi: config.pdf_dpi,
        ..limits
    })
}

/// Batches worth computing side by side: one on a GPU, or where kernels use all threads and products are large
/// enough for that; otherwise as many as there are threads.
pub fn threads(device: &Device, way: Way, config: &ModelConfig) -> usize {
    let small = config.text.hidden_size < 512 || way == Way::Tensors;
    match is_cpu(device) && small {
        true => std::thread::available_parallelism().map_or(1, usize::from),
        false => 1,
    }
}
