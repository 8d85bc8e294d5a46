//! `rzen init`: a checkpoint of random weights in the shape of a released model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::tensor::DType;
use rzen_merge::Existing;
use rzen_model::{
    Companions, ModelConfig, Processor, ProcessorConfig, RandomCheckpoint, check_fit, train_tokenizer,
};

use crate::files::whole_folder;
use crate::output::{check_folder, check_space};
use crate::scratch::token_ids;
use crate::world::WorldConfig;

/// Write a checkpoint of random weights in the shape of a released model
///
/// It loads, embeds, trains and takes as long as the released one, and its vectors mean nothing: for measuring
/// speed and memory, and for trying a pipeline out. The same options give the same files.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  rzen init --shape qwen2-vl-2b --decoder-layers 2 --vision-blocks 2 --output models/short-2b"
)]
pub struct Args {
    /// qwen2-vl-2b or qwen2-vl-7b
    #[arg(long, value_name = "NAME")]
    shape: String,
    /// Where the checkpoint goes, a folder that is not there yet
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Blocks of the decoder, instead of the shape's
    #[arg(long, value_name = "N")]
    decoder_layers: Option<usize>,
    /// Blocks of the vision tower, instead of the shape's
    #[arg(long, value_name = "N")]
    vision_blocks: Option<usize>,
    /// Element type of the weights in the files: bf16, f32 or f16
    #[arg(long, default_value = "bf16")]
    dtype: String,
    /// Decides the numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Most gigabytes of weights in a file
    #[arg(long, default_value_t = 2.0, value_name = "GB")]
    shard_size: f64,
    /// Take tokenizer and processor files from this checkpoint; default a small tokenizer of its own
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// Names the option that is wrong, or the file that can't be written. No output is left then.
pub fn run(args: &Args) -> Result<()> {
    let config = args.config()?;
    let dtype = crate::device::dtype(&args.dtype)?;
    let shard_size = args.shard_bytes()?;
    // Nothing tells a folder of random weights from one that somebody needs.
    ensure!(
        std::fs::symlink_metadata(&args.output).is_err(),
        "--output {} exists; choose another name, or remove it",
        args.output.display()
    );
    check_folder(&args.output, true)?;
    check_space(&args.output, (config.num_parameters() * DType::from(dtype).size()) as u64)?;
    let (processor, companions) = match &args.tokenizer {
        Some(folder) => taken(folder)?,
        None => made(config.text.vocab_size)?,
    };
    let config = ModelConfig { token_ids: token_ids(processor.special()), ..config };
    let source = args.tokenizer.as_deref().unwrap_or(&args.output);
    check_fit(&config, &processor, source, source)?;
    let checkpoint = RandomCheckpoint { config: &config, seed: args.seed, dtype, shard_size };
    let mut bytes = 0;
    whole_folder(&args.output, Existing::Refuse, |folder| {
        bytes = checkpoint.write(folder, &companions)?;
        Ok(())
    })?;
    println!("{} numbers, {:.2} GB: {}", config.num_parameters(), bytes as f64 / 1e9, args.output.display());
    Ok(())
}

impl Args {
    fn config(&self) -> Result<ModelConfig> {
        let unknown = || format!("--shape {}: give one of {}", self.shape, ModelConfig::PRESETS.join(", "));
        let mut config = ModelConfig::preset(&self.shape).with_context(unknown)?;
        config.text.num_hidden_layers = self.decoder_layers.unwrap_or(config.text.num_hidden_layers);
        config.vision.depth = self.vision_blocks.unwrap_or(config.vision.depth);
        ensure!(config.text.num_hidden_layers > 0, "--decoder-layers is 0, expected 1 or more");
        ensure!(config.vision.depth > 0, "--vision-blocks is 0, expected 1 or more");
        Ok(config)
    }

    fn shard_bytes(&self) -> Result<u64> {
        let size = self.shard_size;
        ensure!(size > 0.0 && size.is_finite(), "--shard-size is {size}, expected gigabytes above 0");
        Ok((size * 1e9) as u64)
    }
}

/// Tokenizer and processor of a checkpoint, and their files.
fn taken(folder: &Path) -> Result<(Processor, Companions)> {
    ensure!(
        folder.join("tokenizer.json").is_file(),
        "--tokenizer {}: no `tokenizer.json` there; give the folder of a Hugging Face checkpoint",
        folder.display()
    );
    let processor = Processor::load(folder).with_context(|| format!("--tokenizer {}", folder.display()))?;
    Ok((processor, Companions::read(folder)?))
}

/// Words of the drawn world, which any text can be spelt with.
const OWN_TOKENS: usize = 640;

/// A tokenizer trained on the texts of the drawn world, and the published processor settings.
fn made(rows: usize) -> Result<(Processor, Companions)> {
    let config = ProcessorConfig::default();
    let texts = WorldConfig::default().texts()?;
    let tokenizer = train_tokenizer(texts.into_iter(), rows.min(OWN_TOKENS))?;
    let json = tokenizer.to_string(true).map_err(anyhow::Error::from_boxed)?;
    let companions = Companions::default().with("tokenizer.json", json.into_bytes()).with_processor(&config);
    Ok((Processor::new(config, &tokenizer)?, companions))
}
