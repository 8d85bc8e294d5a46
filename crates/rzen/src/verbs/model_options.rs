//! Options of every verb that runs a model.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use rzen_core::Embed;
use rzen_data::ProtocolSettings;
use rzen_merge::{BaseRecord, weights_sha256};
use rzen_model::{ModelConfig, PositionMode, Processor, ProcessorConfig, SpecialTokens, Template};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::embedder::{EmbedSettings, LocalEmbedder};
use crate::files::sha256;
use crate::load_limits::LoadLimits;
use crate::models::{self, Opened};
use crate::vectors::Model;

/// The model and how it is run; what is not given is as the checkpoint's `processor.json` says.
#[derive(clap::Args, Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOptions {
    /// Folder of a checkpoint in the Hugging Face layout
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Folder of a PEFT adapter to put on it
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Take the adapter even if it was trained on other weights than the model's
    #[arg(long)]
    #[serde(default)]
    pub any_base: bool,
    /// Positions of picture tokens: sequential (as released) or mrope
    #[arg(long, value_name = "MODE")]
    pub positions: Option<String>,
    /// Least and most tokens of a picture, for example 256..1280
    #[arg(long, value_name = "MIN..MAX")]
    pub image_tokens: Option<Range>,
    /// Least and most tokens of a frame of a clip, for example 160..180
    #[arg(long, value_name = "MIN..MAX")]
    pub frame_tokens: Option<Range>,
    /// Frames taken from a clip
    #[arg(long, value_name = "N")]
    pub num_frames: Option<usize>,
    /// Most tokens of an item
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Read control tokens inside texts, as the released code does, instead of taking them as plain text
    #[arg(long)]
    pub parse_special_tokens: bool,
    /// Turn pictures upright by their EXIF tag
    #[arg(long)]
    pub exif_orientation: bool,
    /// What shows through transparent pixels, for example ffffff; the released code drops alpha
    #[arg(long, value_name = "RRGGBB")]
    pub background: Option<Color>,
    /// A limit on what files may ask for, such as max_pixels=400000000, video_timeout_ms=600000 or
    /// incomplete_video=repeat; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub load: Vec<String>,
    /// Element type of the weights: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    pub dtype: String,
    /// Items in a batch, at most
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub batch_size: usize,
    /// Tokens in a batch, at most; on other devices than a CPU its items times the longest of them. An item alone may have more
    #[arg(long, default_value_t = EmbedSettings::BATCH_TOKENS, value_name = "N")]
    pub batch_tokens: usize,
    /// What the protocol of a benchmark asks of the processor, over the checkpoint's own settings.
    #[arg(skip)]
    #[serde(skip)]
    pub protocol: Option<ProtocolSettings>,
    /// Device: cpu, wgpu or cuda, with :N for another than the first
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

/// Two numbers with `..` between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range(pub [usize; 2]);

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no range; write for example 256..1280");
        let (low, high) = text.split_once("..").ok_or_else(wrong)?;
        let (low, high) = (low.parse().map_err(|_| wrong())?, high.parse().map_err(|_| wrong())?);
        match 0 < low && low <= high {
            true => Ok(Range([low, high])),
            false => Err(format!("`{text}`: the first number is above 0 and at most the second")),
        }
    }
}

/// Red, green and blue as six hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Color(pub [u8; 3]);

impl FromStr for Color {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('#').unwrap_or(text);
        let is_color = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u32::from_str_radix(digits, 16) {
            Ok(number) if is_color => Ok(Color([(number >> 16) as u8, (number >> 8) as u8, number as u8])),
            _ => Err(format!("`{text}` is no colour; write six digits, for example ffffff for white")),
        }
    }
}

impl ModelOptions {
    /// Opens the model with these options and makes it an embedder of items with whole paths.
    ///
    /// # Errors
    /// Names the option, or the file of the model, that is wrong.
    pub fn embedder(&self) -> Result<LocalEmbedder> {
        let limits = LoadLimits::parse(&self.load)?.options();
        Ok(self.open()?.embedder(PathBuf::new(), self.batch_size, self.batch_tokens, limits))
    }

    /// Refuses an adapter that was trained on another base, where its training wrote down which. Reads all weights.
    ///
    /// # Errors
    /// Names the two, or the file that can't be read.
    pub fn check_base(&self) -> Result<()> {
        let Some(adapter) = self.adapter.as_deref().filter(|_| !self.any_base) else { return Ok(()) };
        let Some(record) = BaseRecord::read(adapter)? else { return Ok(()) };
        let found = weights_sha256(&self.model)?;
        anyhow::ensure!(
            found == record.weights_sha256,
            "--adapter {} was trained on weights with the SHA-256 {:.12}…, and those of --model {} have {found:.12}…; give the model that \
             it was trained on, or --any-base",
            adapter.display(),
            record.weights_sha256,
            self.model.display()
        );
        Ok(())
    }

    /// The same as an embedder of any kind, for [`stored`](Self::stored).
    ///
    /// # Errors
    /// As of [`embedder`](Self::embedder).
    pub fn boxed(&self) -> Result<Box<dyn Embed>> {
        Ok(Box::new(self.embedder()?))
    }

    /// The model as one whose vectors are kept; `open` opens it. Reads all weights.
    ///
    /// # Errors
    /// Names the option, or the file of the model, that is wrong; also where the adapter is another base's.
    pub fn stored<'a>(&self, open: &'a dyn Fn() -> Result<Box<dyn Embed>>) -> Result<Model<'a>> {
        self.check()?;
        self.check_base()?;
        Ok(Model::new(self.key()?, self.chunk(), open))
    }

    /// Items given to the embedder at a time: enough for it to sort them by length.
    pub fn chunk(&self) -> usize {
        self.batch_size.saturating_mul(16)
    }

    /// Looks at all options without reading weights or opening the device, which vectors that are kept don't need; gives the model's
    /// config.
    ///
    /// # Errors
    /// Names the option, or the file of the model, that is wrong.
    pub fn check(&self) -> Result<ModelConfig> {
        self.check_batches()?;
        anyhow::ensure!(
            self.model.join("config.json").is_file(),
            "model {}: no `config.json` there; give the folder of a Hugging Face checkpoint",
            self.model.display()
        );
        if let Some(adapter) = &self.adapter {
            anyhow::ensure!(
                adapter.join("adapter_config.json").is_file(),
                "--adapter {}: no `adapter_config.json` there; give the folder of a PEFT adapter",
                adapter.display()
            );
        }
        anyhow::ensure!(
            self.adapter.is_some() || !self.any_base,
            "--any-base is said of an adapter; name it by --adapter"
        );
        crate::device::check_name(&self.device)?;
        crate::device::dtype(&self.dtype)?;
        LoadLimits::parse(&self.load)?;
        self.processor_config()?.check()?;
        Ok(ModelConfig::load(&self.model)?)
    }

    fn check_batches(&self) -> Result<()> {
        anyhow::ensure!(self.batch_size > 0, "--batch-size is 0, expected 1 or more");
        anyhow::ensure!(self.batch_tokens > 0, "--batch-tokens is 0, expected 1 or more");
        Ok(())
    }

    /// Opens the model with these options over its own settings.
    ///
    /// # Errors
    /// Names the option, or the file of the model, that is wrong.
    pub fn open(&self) -> Result<Opened> {
        self.check_batches()?;
        let device = crate::device::open(&self.device)?;
        let dtype = crate::device::dtype(&self.dtype)?;
        let opened = models::open_to_embed(&self.model, self.adapter.as_deref(), dtype, &device)?;
        let processor = Processor::load_with(&self.model, self.processor_config()?)?;
        Ok(Opened { processor, ..opened })
    }

    /// The processor's settings with these options over them.
    ///
    /// # Errors
    /// Names the option, or the file of the model, that is wrong.
    pub fn processor_config(&self) -> Result<ProcessorConfig> {
        let mut config = models::processor_config(&self.model, self.adapter.as_deref())?;
        if let Some(protocol) = &self.protocol {
            follow(&mut config, protocol);
        }
        if let Some(mode) = &self.positions {
            config.positions = match mode.as_str() {
                "sequential" => PositionMode::Sequential,
                "mrope" => PositionMode::Mrope,
                _ => anyhow::bail!("--positions {mode}: give sequential or mrope"),
            };
        }
        if let Some(Range(range)) = self.image_tokens {
            config.image_tokens = range;
        }
        if let Some(Range(range)) = self.frame_tokens {
            config.frame_tokens = range;
        }
        config.num_frames = self.num_frames.unwrap_or(config.num_frames);
        config.max_length = self.max_length.unwrap_or(config.max_length);
        config.exif_orientation |= self.exif_orientation;
        config.background = self.background.map(|Color(rgb)| rgb).or(config.background);
        if self.parse_special_tokens {
            config.special_tokens = SpecialTokens::Parse;
        }
        Ok(config)
    }

    /// The same options for another model, as its own settings say.
    pub fn of_model(&self, model: PathBuf) -> Self {
        ModelOptions {
            model,
            adapter: None,
            any_base: false,
            positions: None,
            image_tokens: None,
            frame_tokens: None,
            num_frames: None,
            max_length: None,
            parse_special_tokens: false,
            exif_orientation: false,
            background: None,
            ..self.clone()
        }
    }

    /// The files of the model and those of the adapter that decide what they compute, by name.
    ///
    /// # Errors
    /// If a folder can't be read.
    pub fn files(&self) -> Result<[Vec<PathBuf>; 2]> {
        let adapter = self.adapter.as_deref().map_or(Ok(Vec::new()), model_files)?;
        Ok([model_files(&self.model)?, adapter])
    }

    /// A SHA-256 of all that a vector depends on besides its item: the files of model and adapter, settings, limits of files,
    /// element type, device, the program's version, and a number that is raised with every change of what it computes. Sizes of
    /// batches change no more than the last bits, and don't count.
    ///
    /// # Errors
    /// Names the option, or the file of the model, that is wrong.
    pub fn key(&self) -> Result<[u8; 32]> {
        self.key_by(&|path| sha256(path).with_context(|| path.display().to_string()))
    }

    /// The same with `hash` for the SHA-256 of a file of the model.
    ///
    /// # Errors
    /// As of [`key`](Self::key), and those of `hash`.
    pub fn key_by(&self, hash: &dyn Fn(&Path) -> Result<[u8; 32]>) -> Result<[u8; 32]> {
        let mut hasher = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        put(env!("CARGO_PKG_VERSION").as_bytes());
        put(&VECTORS_REVISION.to_le_bytes());
        for files in self.files()? {
            put(&files.len().to_le_bytes());
            for path in files {
                put(path.file_name().unwrap_or_default().as_encoded_bytes());
                put(&hash(&path)?);
            }
        }
        put(self.processor_config()?.to_json().as_bytes());
        put(&serde_json::to_vec(&LoadLimits::parse(&self.load)?)?);
        put(self.dtype.as_bytes());
        put(self.device.as_bytes());
        Ok(hasher.finalize().into())
    }
}

/// Raised with every change of what an item's vector is, by more than rounding: how media are decoded, sized or cut, texts are
/// made, a layer is computed. Vectors that were kept before are not used then.
const VECTORS_REVISION: u32 = 2;

fn follow(config: &mut ProcessorConfig, protocol: &ProtocolSettings) {
    config.template = if protocol.plain { Template::Plain } else { Template::Chat };
    config.positions = if protocol.mrope { PositionMode::Mrope } else { PositionMode::Sequential };
    config.image_tokens = protocol.image_tokens;
    config.frame_tokens = protocol.frame_tokens;
    config.num_frames = protocol.num_frames;
    config.max_length = protocol.max_length;
}

/// The files of a model's folder that decide what it computes, by name.
fn model_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("model {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    files.retain(|path| {
        path.is_file() && path.extension().is_some_and(|ending| ending == "json" || ending == "safetensors")
    });
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors() {
        assert_eq!("ff8000".parse(), Ok(Color([255, 128, 0])));
        assert_eq!("#FFFFFF".parse(), Ok(Color([255; 3])));
        for wrong in ["white", "fff", "+fffff", "ffffff0"] {
            assert!(wrong.parse::<Color>().unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn ranges() {
        assert_eq!("4..16".parse(), Ok(Range([4, 16])));
        for wrong in ["4", "4..", "16..4", "0..4", "a..b"] {
            assert!(wrong.parse::<Range>().unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
