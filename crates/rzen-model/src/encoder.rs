//! The embedding encoder: pictures and tokens in, unit vectors out.

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::kind::Autodiff;
use burn::tensor::{Bool, DType, Device, FloatDType, Int, Tensor};
use rzen_core::{Encode, Pullback};

use crate::adapter_config::AdapterConfig;
use crate::attention::Windows;
use crate::blocks::widened;
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::plan::Way;
use crate::rotary::Rotary;
use crate::trace::Trace;
use crate::vision::VisionTower;
use crate::weights::{Naming, TensorFiles, Weights};
use crate::{Companions, ModelError, PrefixCache};

/// Qwen2-VL as an embedding encoder.
///
/// Weights are frozen when they are loaded; [`Qwen2Vl::unfreeze_all`] or an adapter made by
/// [`Qwen2Vl::with_new_adapter`] makes some of them trainable. Fields carry the names of
/// checkpoint files.
#[derive(Module, Debug)]
pub struct Qwen2Vl {
    /// The vision tower.
    pub visual: VisionTower,
    /// The language model.
    pub model: Decoder,
    #[module(skip)]
    pub(crate) config: ModelConfig,
    #[module(skip)]
    pub(crate) adapter: Option<AdapterConfig>,
    /// How the adapter's file names modules.
    #[module(skip)]
    pub(crate) adapter_naming: Naming,
    #[module(skip)]
    pub(crate) companions: Arc<Companions>,
    /// bf16 weights are computed with as f32, see [`Qwen2Vl::load_to_embed`].
    #[module(skip)]
    pub(crate) widen: bool,
}

impl Qwen2Vl {
    /// Loads a Hugging Face folder as `dtype`, with the files that belong to it.
    ///
    /// # Errors
    /// Names the file and the tensor or setting that is missing, of another shape, not finite or
    /// has no place in the model. `lm_head` is ignored.
    pub fn load(folder: &Path, dtype: FloatDType, device: &Device) -> Result<Self, ModelError> {
        Self::load_with_table_on(device, folder, dtype, device)
    }

    /// Loads as [`Qwen2Vl::load`] does, but keeps the token table on `table_home`: rows are looked up there, and only
    /// those that a batch needs go to `device`.
    ///
    /// The table is a fifth of the 2B model, and larger than what a kernel can see as one buffer on some GPUs (128 MiB
    /// is all that WebGPU promises). On the CPU it stays in the file's pages.
    ///
    /// # Errors
    /// As [`Qwen2Vl::load`].
    pub fn load_with_table_on(
        table_home: &Device,
        folder: &Path,
        dtype: FloatDType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::load_as(table_home, folder, dtype, device, false)
    }

    /// As [`Qwen2Vl::load_with_table_on`], for [`Qwen2Vl::embed`] and for training an adapter by blocks
    /// ([`Encode::encode_by_blocks`]) alone: where fused kernels compute in f32, bf16 weights stay as they are stored
    /// and are computed with as f32 numbers. The vectors are the same to the rounding of f32. Keeping bf16 takes half
    /// the memory, and none is read before it is needed. What is saved from such a model is bf16 as well.
    ///
    /// # Errors
    /// As [`Qwen2Vl::load`].
    pub fn load_to_embed(
        table_home: &Device,
        folder: &Path,
        dtype: FloatDType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        if dtype != FloatDType::F32 || Way::of(dtype, is_main_memory(device)) != Way::Fused {
            return Self::load_with_table_on(table_home, folder, dtype, device);
        }
        let model = Self::load_as(table_home, folder, dtype, device, true)?;
        // Only if something was kept.
        Ok(Qwen2Vl { widen: model.dtype() == DType::BF16, ..model })
    }

    /// As [`Qwen2Vl::load_with_table_on`], with weights as bf16 whatever they are stored as, for training an adapter by blocks
    /// and for [`Qwen2Vl::embed`]: where fused kernels compute in f32 they are computed with as f32 numbers, elsewhere as
    /// bf16. Adapters are f32 all the same.
    ///
    /// # Errors
    /// As of [`Qwen2Vl::load`].
    pub fn load_narrow(table_home: &Device, folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let model = Self::load_as(table_home, folder, FloatDType::BF16, device, false)?;
        Ok(Qwen2Vl { widen: Way::of(FloatDType::F32, is_main_memory(device)) == Way::Fused, ..model })
    }

    fn load_as(
        table_home: &Device,
        folder: &Path,
        dtype: FloatDType,
        device: &Device,
        keep_bf16: bool,
    ) -> Result<Self, ModelError> {
        let config = ModelConfig::load(folder)?;
        let files = TensorFiles::open_checkpoint(folder)?;
        let mut weights = Weights::from_files(&files, dtype, device);
        weights.keep_bf16 = keep_bf16;
        let model = Self::build(&config, &mut weights, table_home)?;
        let known = crate::save::names(&model);
        let extra: Vec<String> = files
            .names()
            .filter(|name| !known.contains(*name) && !name.starts_with("lm_head."))
            .map(|name| files.stored_name(name).to_owned())
            .collect();
        if !extra.is_empty() {
            return Err(ModelError::ExtraTensors { folder: folder.to_owned(), names: extra });
        }
        Ok(Qwen2Vl { companions: Arc::new(Companions::read(folder)?), ..model })
    }

    /// A model of this shape with random weights that depend on `seed` alone.
    pub fn random(config: &ModelConfig, seed: u64, dtype: FloatDType, device: &Device) -> Self {
        let mut weights = Weights::from_seed(seed, dtype, device);
        Self::build(config, &mut weights, device).expect("a seed has every tensor")
    }

    pub(crate) fn build(
        config: &ModelConfig,
        weights: &mut Weights,
        table_home: &Device,
    ) -> Result<Self, ModelError> {
        Ok(Qwen2Vl {
            visual: VisionTower::load(weights, &config.vision, config.text.hidden_size)?,
            model: Decoder::load(weights, &config.text, table_home)?,
            config: config.clone(),
            adapter: None,
            adapter_naming: Naming::default(),
            companions: Arc::default(),
            widen: false,
        })
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The adapter that is attached, if any.
    pub fn adapter(&self) -> Option<&AdapterConfig> {
        self.adapter.as_ref()
    }

    /// The same model with other files to write beside its weights (tokenizer, processor).
    pub fn with_companions(self, companions: Companions) -> Self {
        Qwen2Vl { companions: Arc::new(companions), ..self }
    }

    /// The files that are written beside the weights.
    pub fn companions(&self) -> &Companions {
        &self.companions
    }

    /// Makes every weight trainable, and brings the token table to where the others are. What was kept as bf16 to be
    /// computed with as f32 becomes f32.
    pub fn unfreeze_all(self) -> Self {
        let mut model = Qwen2Vl { widen: false, ..widened(&self, &self) };
        let here = model.model.norm.weight.val().device();
        let table = &mut model.model.embed_tokens;
        table.weight = table.weight.clone().map(|weight| weight.to_device(&here));
        model.set_require_grad(true)
    }

    /// The element type of the weights.
    pub fn dtype(&self) -> DType {
        self.model.embed_tokens.weight.val().dtype()
    }

    /// The embeddings of a micro-batch, `[batch, hidden_size]`, each of unit length, for use and not for
    /// training.
    ///
    /// What [`Encode::encode`] gives, to rounding. In main memory (feature `cpu`) it goes through fused
    /// kernels, without padding, with f32 states even where weights are bf16.
    pub fn embed(&self, input: &EncoderInput) -> Tensor<2> {
        self.embed_with(input, None)
    }

    /// As [`Qwen2Vl::embed`]; in main memory what the items of a batch begin with is not computed again where a batch before
    /// began with it. Vectors are the same to rounding, but for that they depend on what came before.
    ///
    /// `cache` must have been used with this model alone.
    pub fn embed_after(&self, input: &EncoderInput, cache: &PrefixCache) -> Tensor<2> {
        self.embed_with(input, Some(cache))
    }

    #[cfg_attr(not(feature = "cpu"), allow(unused_variables))]
    fn embed_with(&self, input: &EncoderInput, cache: Option<&PrefixCache>) -> Tensor<2> {
        #[cfg(feature = "cpu")]
        if let Some(pooled) = crate::fused::pooled(self, input, cache) {
            return unit_rows(pooled);
        }
        self.encode_traced(input, &mut Trace::off())
    }

    /// Runs the whole model and returns the embeddings with every inner state that `trace` keeps.
    ///
    /// The embeddings are those of [`Encode::encode`].
    ///
    /// # Panics
    /// If the model was [loaded to embed](Qwen2Vl::load_to_embed) with weights that have to be widened: neither
    /// [`Qwen2Vl::embed`] nor training by blocks needs all of them as f32 at once.
    pub fn encode_traced(&self, input: &EncoderInput, trace: &mut Trace) -> Tensor<2> {
        assert!(
            !self.widen,
            "a model that was loaded to embed doesn't encode: its weights may be narrower than asked for"
        );
        let x = self.inputs_embeds(input, trace);
        let pooled = match trace.is_on() {
            true => {
                let states = self.model.traced(x, &input.tokens, trace);
                let last = input.tokens.last_like(&states);
                states.select(0, last)
            }
            false => self.model.pooled(x, &input.tokens),
        };
        unit_rows(pooled)
    }

    /// Token rows with picture rows put in: `[batch · seq, hidden_size]`.
    fn inputs_embeds(&self, input: &EncoderInput, trace: &mut Trace) -> Tensor<2> {
        let pictures = input.patches.as_ref().map(|patches| self.visual.forward(patches, trace));
        join(self.words(&input.tokens), pictures, &input.tokens)
    }

    /// The table's row for each token, where all other weights are: `[batch · seq, hidden_size]`.
    pub(crate) fn words(&self, tokens: &TokenInput) -> Tensor<2> {
        let (table, near) = (self.model.embed_tokens.weight.val(), self.model.norm.weight.val());
        let (home, here) = (table.device().without_autodiff(), near.device().without_autodiff());
        if home == here {
            let words = self.model.embed_tokens.forward(tokens.ids_like(&table));
            return if self.widen { words.cast(FloatDType::F32) } else { words };
        }
        // Nothing trains a table that is elsewhere: `unfreeze_all` brings it here.
        let words = table.inner().select(0, tokens.ids.clone().to_device(&home)).to_device(&here);
        beside(&words, &near)
    }
}

impl Encode for Qwen2Vl {
    type Input = EncoderInput;

    fn encode(&self, input: EncoderInput) -> Tensor<2> {
        self.encode_traced(&input, &mut Trace::off())
    }

    fn encode_only(&self, input: EncoderInput) -> Tensor<2> {
        self.embed(&input)
    }

    fn encode_by_blocks(&self, input: EncoderInput) -> (Tensor<2>, Pullback) {
        crate::blocks::encode(self, input)
    }
}

/// Puts picture rows where they belong among the words: `[batch · seq, hidden_size]`.
pub(crate) fn join(words: Tensor<2>, pictures: Option<Tensor<2>>, tokens: &TokenInput) -> Tensor<2> {
    match pictures {
        None => words,
        Some(pictures) => {
            let order = tokens.order_like(&words);
            Tensor::cat(vec![words, pictures], 0).select(0, order)
        }
    }
}

fn is_main_memory(device: &Device) -> bool {
    #[cfg(feature = "cpu")]
    return *device == Device::flex();
    #[cfg(not(feature = "cpu"))]
    return {
        let _ = device;
        false
    };
}

/// Divides each row by its length in f32; a row of zeros stays zero.
pub(crate) fn unit_rows(x: Tensor<2>) -> Tensor<2> {
    let x = x.cast(FloatDType::F32);
    let length = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    x / length
}

/// A micro-batch on the device, made by [`Collator`](crate::Collator).
#[derive(Clone, Debug)]
pub struct EncoderInput {
    pub(crate) tokens: TokenInput,
    pub(crate) patches: Option<PatchInput>,
}

impl EncoderInput {
    /// Rows of the batch.
    pub fn batch(&self) -> usize {
        self.tokens.batch
    }

    /// Tokens of a row, padding included.
    pub fn seq(&self) -> usize {
        self.tokens.seq
    }
}

/// The decoder's side of a micro-batch.
#[derive(Clone, Debug)]
pub(crate) struct TokenInput {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    /// Tokens of each row, padding left out.
    pub(crate) lengths: Vec<usize>,
    /// `[batch · seq]`.
    pub(crate) ids: Tensor<1, Int>,
    /// `[batch · seq]`: where each token's row stands in token rows followed by picture rows.
    pub(crate) order: Tensor<1, Int>,
    /// `[batch]`: where each row's last token stands in `[batch · seq]`.
    pub(crate) last: Tensor<1, Int>,
    /// `[batch, 1, 1, seq]`: true on padding.
    pub(crate) padding: Tensor<4, Bool>,
    /// A row for each of `[batch · seq]`.
    pub(crate) rotary: Rotary,
    /// A row for each of `[batch]`: the last token's.
    pub(crate) last_rotary: Rotary,
}

/// `x`, which nothing trains, on the same side of autodiff as the numbers that it meets, and kept as they are.
pub(crate) fn beside<const D: usize, const E: usize, K: Autodiff>(
    x: &Tensor<D, K>,
    numbers: &Tensor<E>,
) -> Tensor<D, K> {
    match numbers.gradient_checkpointing_strategy() {
        Some(strategy) => x.clone().autodiff().with_gradient_checkpointing_strategy(strategy),
        None => x.clone(),
    }
}

impl TokenInput {
    pub(crate) fn ids_like<const D: usize>(&self, floats: &Tensor<D>) -> Tensor<1, Int> {
        beside(&self.ids, floats)
    }

    pub(crate) fn order_like<const D: usize>(&self, floats: &Tensor<D>) -> Tensor<1, Int> {
        beside(&self.order, floats)
    }

    pub(crate) fn last_like<const D: usize>(&self, floats: &Tensor<D>) -> Tensor<1, Int> {
        beside(&self.last, floats)
    }

    /// Tokens see themselves and those before them.
    pub(crate) fn windows(&self) -> Windows<'_> {
        Windows { count: self.batch, queries: self.seq, keys: self.seq, causal: true, hidden: None }
    }

    /// The last token of each row sees all that is no padding.
    pub(crate) fn last_windows(&self) -> Windows<'_> {
        Windows { queries: 1, causal: false, hidden: Some(&self.padding), ..self.windows() }
    }
}

/// The vision tower's side of a micro-batch.
#[derive(Clone, Debug)]
pub struct PatchInput {
    /// `[patches, channels · frames · patch · patch]`, one frame only where all are equal.
    pub(crate) pixels: Tensor<2>,
    pub(crate) still: bool,
    /// Runs of equally long windows: how many, and their patches. Patches see their window alone.
    pub(crate) windows: Vec<(usize, usize)>,
    pub(crate) rotary: Rotary,
}

impl PatchInput {
    pub(crate) fn still(&self) -> bool {
        self.still
    }

    /// Patches see their window alone.
    pub(crate) fn attention_windows(&self) -> Vec<Windows<'static>> {
        let run = |&(count, length): &(usize, usize)| Windows {
            count,
            queries: length,
            keys: length,
            causal: false,
            hidden: None,
        };
        self.windows.iter().map(run).collect()
    }

    pub(crate) fn pixels_like(&self, weight: &Tensor<2>) -> Tensor<2> {
        beside(&self.pixels, weight)
    }
}
