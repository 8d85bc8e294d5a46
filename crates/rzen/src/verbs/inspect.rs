//! `rzen inspect`: what a checkpoint or an adapter holds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rzen_model::{AdapterConfig, ModelConfig, ProcessorConfig, TensorInfo, tensor_table};
use rzen_train::Checkpoint;

/// Say what a checkpoint or an adapter holds
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  rzen inspect runs/world/soup/adapter --tensors")]
pub struct Args {
    /// Folder of a checkpoint, of a PEFT adapter, or of a step of a training
    folder: PathBuf,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
}

/// Runs the verb.
///
/// # Errors
/// If the folder is neither, or a file of it is damaged.
pub fn run(args: &Args) -> Result<()> {
    let (folder, step) = training_step(&args.folder)?;
    let folder = &folder;
    let lines = if folder.join("adapter_config.json").is_file() {
        adapter(folder)?
    } else if folder.join("config.json").is_file() {
        checkpoint(folder)?
    } else {
        bail!(
            "{}: neither config.json (a checkpoint) nor adapter_config.json (an adapter) is there; a run keeps \
             them in STAGE/model and STAGE/adapter",
            folder.display()
        );
    };
    let table = tensor_table(folder).with_context(|| folder.display().to_string())?;
    for (name, value) in step.into_iter().chain(lines).chain(totals(&table)) {
        println!("{name:<18} {value}");
    }
    if args.tensors {
        println!();
        let width = table.iter().map(|tensor| tensor.stored_name.len()).max().unwrap_or(0);
        for tensor in &table {
            println!("{:width$}  {:<5} {:?}", tensor.stored_name, tensor.dtype, tensor.shape);
        }
    }
    Ok(())
}

type Line = (&'static str, String);

/// The folder of the weights, and the step where `folder` is a step of a training.
fn training_step(folder: &Path) -> Result<(PathBuf, Option<Line>)> {
    if !folder.join("state.json").is_file() {
        return Ok((folder.to_owned(), None));
    }
    let checkpoint = Checkpoint::open(folder)?;
    let (stage, step) = (&checkpoint.state.stage, checkpoint.state.step);
    let encoder = checkpoint.encoder();
    let line = format!("step {step} of stage `{stage}`; its weights are in {}", encoder.display());
    Ok((encoder, Some(("training", line))))
}

fn checkpoint(folder: &Path) -> Result<Vec<Line>> {
    let config = ModelConfig::load(folder)?;
    let (text, vision) = (&config.text, &config.vision);
    let mut lines = vec![
        ("kind", "Qwen2-VL checkpoint".to_owned()),
        ("embedding", format!("{} numbers", text.hidden_size)),
        (
            "decoder",
            format!(
                "{} layers, width {}, MLP {}, {} heads on {} key/value heads",
                text.num_hidden_layers,
                text.hidden_size,
                text.intermediate_size,
                text.num_attention_heads,
                text.num_key_value_heads
            ),
        ),
        ("token table", format!("{} rows", text.vocab_size)),
        (
            "vision tower",
            format!(
                "{} blocks, width {}, MLP {}, {} heads, patch {}",
                vision.depth,
                vision.embed_dim,
                vision.mlp_dim(),
                vision.num_heads,
                vision.patch_size
            ),
        ),
    ];
    lines.extend(processor(folder)?);
    Ok(lines)
}

fn adapter(folder: &Path) -> Result<Vec<Line>> {
    let config = AdapterConfig::load(folder)?;
    let kind = if config.rank_stabilized { "rank-stabilised LoRA adapter" } else { "LoRA adapter" };
    let mut lines = vec![
        ("kind", kind.to_owned()),
        ("rank", config.rank.to_string()),
        ("scale", format!("{} (alpha {})", config.scale(), config.alpha)),
        ("targets", config.targets.join(", ")),
    ];
    if folder.join("processor.json").is_file() {
        lines.extend(processor(folder)?);
    }
    Ok(lines)
}

fn processor(folder: &Path) -> Result<Vec<Line>> {
    let config = ProcessorConfig::load(folder)?;
    let source = if folder.join("processor.json").is_file() { "processor.json" } else { "defaults" };
    let range = |[low, high]: [usize; 2]| format!("{low}..{high}");
    Ok(vec![
        ("processor", source.to_owned()),
        ("  picture tokens", range(config.image_tokens)),
        ("  frame tokens", format!("{}, {} frames", range(config.frame_tokens), config.num_frames)),
        (
            "  transparency",
            match config.background {
                None => "dropped".to_owned(),
                Some([r, g, b]) => format!("on #{r:02x}{g:02x}{b:02x}"),
            },
        ),
        ("  most tokens", config.max_length.to_string()),
        ("  positions", format!("{:?}", config.positions).to_lowercase()),
        ("  system prompt", format!("{:?}", config.system_prompt)),
    ])
}

fn totals(table: &[TensorInfo]) -> Vec<Line> {
    let numbers: usize = table.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let bytes: usize = table.iter().map(|tensor| tensor.bytes).sum();
    let mut dtypes: Vec<&str> = table.iter().map(|tensor| tensor.dtype.as_str()).collect();
    dtypes.sort_unstable();
    dtypes.dedup();
    let mut files: Vec<&Path> = table.iter().map(|tensor| tensor.file.as_path()).collect();
    files.dedup();
    files.sort_unstable();
    files.dedup();
    vec![
        (
            "tensors",
            format!("{} in {} file{}", table.len(), files.len(), if files.len() == 1 { "" } else { "s" }),
        ),
        ("numbers", format!("{numbers} ({})", dtypes.join(", "))),
        ("size", format!("{:.1} MB", bytes as f64 / 1e6)),
    ]
}
