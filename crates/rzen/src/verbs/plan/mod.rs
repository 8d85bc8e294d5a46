//! `rzen plan`: what embedding or training will cost, before any of it is done.

mod training;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, FloatDType};
use rzen_model::{ItemShape, Memory, ModelConfig, Operations, Rates, Way};
use serde_json::{Value, json};

use crate::embedder::{EmbedSettings, Tokens};

/// Predict the operations, memory and time of embedding a mix of items, or of training by a recipe
///
/// Embedding: reads `config.json` alone: the weights needn't be there. A kind of item is text:TOKENS, picture:TOKENS or
/// frames:NxTOKENS. A text's tokens are all of its tokens; pictures and frames stand beside 40 tokens of template and
/// words, or as many as `+N` says. `=N` says how many there are of a kind. What all items of a batch begin with (system
/// prompt, instruction) is computed once: leave it out.
///
/// Operations count two for a multiplication and its addition. Time is operations at the device's rate in large
/// products, without reading files and without the small work between products, so the real time is longer. On a GPU,
/// weights and states lie on the device, and attention may need more there.
///
/// Training (`--config`): a line for each stage, from the recipe and some rows of each of its datasets; or, before the data are
/// there, from --rows and --mix, whose kinds stand for rows: query, positive and each hard negative are such an item. Memory is
/// that of the largest micro-batch of the rows that were looked at, and of all that wait for a gradient without `recompute`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  rzen plan --model runs/world/soup/model --mix text:128=8,picture:1225+60=1,frames:8x170=1\n  \
                  rzen plan --config recipes/corpus.toml --data CORPUS\n  \
                  rzen plan --config recipes/rzenembed-2b.toml --shape qwen2-vl-2b --rows 2000000 --mix text:64=1,picture:700=3 \
                  --gflops 400000 --devices 16"
)]
pub struct Args {
    /// Folder of a checkpoint, of which config.json is read
    #[arg(long, value_name = "DIR", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Training by this recipe
    #[arg(long, value_name = "RECIPE.toml", conflicts_with_all = ["dtype", "batch_size", "batch_tokens"])]
    config: Option<PathBuf>,
    /// Corpus folder whose rows are looked at, instead of the recipe's
    #[arg(long, value_name = "DIR", requires = "config")]
    data: Option<PathBuf>,
    /// Change a key of the recipe, for example stage.0.epochs=2
    #[arg(long, value_name = "KEY=VALUE", requires = "config")]
    set: Vec<String>,
    /// Rows of each dataset that are read to learn their sizes
    #[arg(long, value_name = "N", default_value_t = 32, requires = "config", conflicts_with = "rows")]
    sample: usize,
    /// Rows in a pass of each stage, of items as --mix says, instead of looking at a corpus
    #[arg(long, value_name = "N", requires_all = ["config", "mix"], conflicts_with = "data")]
    rows: Option<usize>,
    /// Devices that share each batch
    #[arg(long, value_name = "N", default_value_t = 1, requires = "config")]
    devices: usize,
    /// A released shape instead: qwen2-vl-2b or qwen2-vl-7b
    #[arg(long, value_name = "NAME")]
    shape: Option<String>,
    /// Kinds of items, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "text:128=100,picture:1280=100,frames:8x170=100",
        value_name = "KIND,KIND,…"
    )]
    mix: Vec<Kind>,
    /// Element type of the weights: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Items in a batch, at most
    #[arg(long, default_value_t = 64, value_name = "N")]
    batch_size: usize,
    /// Tokens in a batch, at most
    #[arg(long, default_value_t = EmbedSettings::BATCH_TOKENS, value_name = "N")]
    batch_tokens: usize,
    /// Device: cpu, wgpu or cuda, with :N for another than the first
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Rate of the device, instead of measuring it for a second or two
    #[arg(long, value_name = "GFLOP/s")]
    gflops: Option<f64>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A kind of item and how many of it there are.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    name: String,
    shape: ItemShape,
    count: usize,
}

/// Tokens of the template and a short text beside pictures.
const WORDS: usize = 40;

/// Most tokens, pictures or items of a kind, and items of a batch; more is a slip of the pen.
const MOST: usize = 1_000_000;

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no kind of item; write text:TOKENS, picture:TOKENS or frames:NxTOKENS, with +WORDS and \
                 =COUNT behind where needed, numbers from 1 to {MOST}"
            )
        };
        let number = |text: &str| match text.parse::<usize>() {
            Ok(number) if (1..=MOST).contains(&number) => Ok(number),
            _ => Err(wrong()),
        };
        let (name, count) = text.split_once('=').unwrap_or((text, "1"));
        let (sort, sizes) = name.split_once(':').ok_or_else(wrong)?;
        let (sizes, words) = match sizes.split_once('+') {
            Some((sizes, words)) => (sizes, Some(number(words)?)),
            None => (sizes, None),
        };
        let shape = match (sort, sizes.split_once('x'), words) {
            ("text", None, None) => ItemShape { words: number(sizes)?, pictures: Vec::new() },
            ("picture", None, _) => {
                ItemShape { words: words.unwrap_or(WORDS), pictures: vec![number(sizes)?] }
            }
            ("frames", Some((frames, tokens)), _) => {
                ItemShape { words: words.unwrap_or(WORDS), pictures: vec![number(tokens)?; number(frames)?] }
            }
            _ => return Err(wrong()),
        };
        Ok(Kind { name: name.to_owned(), shape, count: number(count)? })
    }
}

/// Runs the verb.
///
/// # Errors
/// Names the option that is wrong, or what is wrong with `config.json`.
pub fn run(args: &Args) -> Result<()> {
    if let Some(gflops) = args.gflops {
        ensure!(gflops > 0.0 && gflops.is_finite(), "--gflops is {gflops}, expected a number above 0");
    }
    let (json, lines) = match &args.config {
        None => {
            let plan = Plan::make(args)?;
            (plan.to_json(), plan.lines())
        }
        Some(recipe) => {
            let rows = args.rows.unwrap_or(1);
            for (option, value, most) in [
                ("--sample", args.sample, MOST),
                ("--devices", args.devices, MOST),
                ("--rows", rows, usize::MAX),
            ] {
                ensure!((1..=most).contains(&value), "{option} is {value}, expected 1 to {most}");
            }
            let plan = training::plan(args, recipe)?;
            (plan.to_json(), plan.lines())
        }
    };
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&json)?),
        false => lines.iter().for_each(|line| println!("{line}")),
    }
    Ok(())
}

struct Plan {
    numbers: usize,
    dtype: String,
    device: String,
    kinds: Vec<(Kind, Operations)>,
    settings: EmbedSettings,
    memory: Memory,
    rates: Rates,
    measured: bool,
}

impl Plan {
    fn make(args: &Args) -> Result<Self> {
        for (option, value) in [("--batch-size", args.batch_size), ("--batch-tokens", args.batch_tokens)] {
            ensure!((1..=MOST).contains(&value), "{option} is {value}, expected 1 to {MOST}");
        }
        let config = args.config()?;
        let dtype = crate::device::dtype(&args.dtype)?;
        let device = crate::device::open(&args.device)?;
        let way = Way::of(dtype, crate::device::is_cpu(&device));
        // What is stored as bf16 stays so where kernels widen it on the way.
        let stored = match way {
            Way::Fused if args.stored_as_bf16()? => FloatDType::BF16,
            _ => dtype,
        };
        let rates = match args.gflops {
            Some(gflops) => Rates::even(gflops * 1e9),
            None => Rates::measure(&config, dtype, stored, &device),
        };
        let settings = EmbedSettings {
            batch_size: args.batch_size,
            batch_tokens: args.batch_tokens,
            // The mix has items of one length each.
            tokens: Tokens::Packed,
            threads: crate::models::threads(&device, way, &config),
        };
        Ok(Plan {
            numbers: config.num_parameters(),
            dtype: args.dtype.clone(),
            device: args.device.clone(),
            kinds: args.mix.iter().map(|kind| (kind.clone(), config.operations(&kind.shape))).collect(),
            settings,
            memory: most_memory(&config, way, DType::from(stored).size(), &args.mix, settings),
            rates,
            measured: args.gflops.is_none(),
        })
    }

    fn operations(&self) -> Operations {
        self.kinds.iter().fold(Operations::default(), |sum, (kind, one)| sum + *one * kind.count as f64)
    }

    fn items(&self) -> usize {
        self.kinds.iter().map(|(kind, _)| kind.count).sum()
    }

    fn seconds(&self) -> f64 {
        self.rates.seconds(&self.operations())
    }

    fn lines(&self) -> Vec<String> {
        let Memory { weights, activations, waiting } = self.memory;
        let mut lines = vec![format!(
            "{:<20} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9} {:>10} {:>6}",
            "item", "count", "tokens", "TFLOP", "tower", "attention", "decoder", "seconds", "time"
        )];
        lines.extend(self.kinds.iter().map(|(kind, one)| self.line(kind, one)));
        let source = if self.measured { "measured" } else { "as given" };
        lines.extend([
            String::new(),
            format!(
                "weights      {} numbers, {}, computed with as {}",
                self.numbers,
                giga(weights),
                self.dtype
            ),
            format!(
                "memory       {}: weights, {} for states of {} batch{} at once, {} for items that wait",
                giga(self.memory.total()),
                giga(activations),
                self.settings.threads,
                if self.settings.threads == 1 { "" } else { "es" },
                giga(waiting)
            ),
            format!(
                "device       {}: {:.0} GFLOP/s in products with weights, {:.0} in attention, {source}",
                self.device,
                self.rates.linear / 1e9,
                self.rates.attention / 1e9
            ),
            format!(
                "time         {:.4} s for {} items, {:.4} items/s",
                self.seconds(),
                self.items(),
                self.items() as f64 / self.seconds()
            ),
        ]);
        lines
    }

    fn line(&self, kind: &Kind, one: &Operations) -> String {
        let tera = |x: f64| format!("{:.4}", x / 1e12);
        let seconds = self.rates.seconds(one);
        format!(
            "{:<20} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9} {:>10.4} {:>5.1}%",
            kind.name,
            kind.count,
            kind.shape.tokens(),
            tera(one.total()),
            tera(one.tower_linear),
            tera(one.attention()),
            tera(one.decoder_linear),
            seconds,
            100.0 * seconds * kind.count as f64 / self.seconds()
        )
    }

    fn to_json(&self) -> Value {
        let operations = |of: &Operations| {
            json!({
                "total": of.total(), "tower_linear": of.tower_linear, "tower_attention": of.tower_attention,
                "decoder_linear": of.decoder_linear, "decoder_attention": of.decoder_attention,
            })
        };
        let kinds = self.kinds.iter().map(|(kind, one)| {
            json!({
                "item": kind.name, "count": kind.count, "tokens": kind.shape.tokens(),
                "operations": operations(one), "seconds": self.rates.seconds(one),
            })
        });
        let Memory { weights, activations, waiting } = self.memory;
        json!({
            "parameters": self.numbers,
            "dtype": self.dtype,
            "items": kinds.collect::<Vec<_>>(),
            "operations": operations(&self.operations()),
            "memory_bytes": {
                "weights": weights, "activations": activations, "waiting": waiting, "total": self.memory.total(),
            },
            "batch_size": self.settings.batch_size,
            "batch_tokens": self.settings.batch_tokens,
            "batches_at_once": self.settings.threads,
            "device": self.device,
            "flops": {
                "linear": self.rates.linear, "attention": self.rates.attention, "measured": self.measured,
            },
            "seconds": self.seconds(),
            "items_per_second": self.items() as f64 / self.seconds(),
        })
    }
}

impl Args {
    /// Whether the weights' files hold bf16, as released ones do.
    fn stored_as_bf16(&self) -> Result<bool> {
        self.model.as_deref().map_or(Ok(true), stored_as_bf16)
    }

    fn config(&self) -> Result<ModelConfig> {
        match (&self.model, &self.shape) {
            (Some(folder), _) => {
                ModelConfig::load(folder).with_context(|| format!("model {}", folder.display()))
            }
            (None, Some(name)) => ModelConfig::preset(name)
                .with_context(|| format!("--shape {name}: give one of {}", ModelConfig::PRESETS.join(", "))),
            (None, None) => bail!("which model? Give --model DIR, or --shape NAME of a released one"),
        }
    }
}

/// `4.42 GB`.
fn giga(bytes: f64) -> String {
    format!("{:.2} GB", bytes / 1e9)
}

/// Whether a checkpoint's files hold bf16.
fn stored_as_bf16(folder: &Path) -> Result<bool> {
    let path = folder.join("config.json");
    let place = || format!("{}", path.display());
    let config: Value =
        serde_json::from_slice(&std::fs::read(&path).with_context(place)?).with_context(place)?;
    let dtype = ["dtype", "torch_dtype"].into_iter().find_map(|key| config.get(key)?.as_str());
    Ok(dtype == Some("bfloat16"))
}

/// The memory with the batch of one kind that takes most, and items that wait in the proportions of the mix:
/// those of the part that is computed, and of the one that is read meanwhile.
fn most_memory(
    config: &ModelConfig,
    way: Way,
    weight_size: usize,
    mix: &[Kind],
    settings: EmbedSettings,
) -> Memory {
    let sum = |f: fn(&Kind) -> usize| mix.iter().map(f).sum::<usize>();
    let (all, tokens) = (sum(|kind| kind.count), sum(|kind| kind.count * kind.shape.tokens()));
    let within_tokens = (settings.part_tokens().saturating_mul(all)).div_ceil(tokens);
    // One for each thread at least, and no more than there are.
    let part = settings.part_size().min(within_tokens.max(rayon::current_num_threads()));
    let ahead = all.min(2 * part);
    let share = |kind: &Kind| (ahead * kind.count).div_ceil(all);
    let waiting: Vec<_> = mix.iter().map(|kind| (&kind.shape, share(kind))).collect();
    let of = |kind: &Kind| {
        let fits = (settings.batch_tokens / kind.shape.tokens()).clamp(1, settings.batch_size);
        config.memory(way, weight_size, (&kind.shape, fits.min(kind.count)), settings.threads, &waiting)
    };
    let most = mix.iter().map(of).max_by(|a, b| a.total().total_cmp(&b.total()));
    most.expect("a mix has at least one kind")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_items() {
        let kind = |text: &str| {
            let Kind { name, shape, count } = text.parse().unwrap();
            (name, shape.words, shape.pictures, count)
        };
        assert_eq!(kind("text:128=8"), ("text:128".into(), 128, vec![], 8));
        assert_eq!(kind("picture:1225"), ("picture:1225".into(), 40, vec![1225], 1));
        assert_eq!(kind("picture:64+9=2"), ("picture:64+9".into(), 9, vec![64], 2));
        assert_eq!(kind("frames:3x170=5"), ("frames:3x170".into(), 40, vec![170; 3], 5));
        for wrong in [
            "text",
            "text:",
            "text:0",
            "text:4=0",
            "text:4+4",
            "text:2x3",
            "film:3",
            "frames:8",
            "picture:2x9",
            "text:9999999",
        ] {
            assert!(wrong.parse::<Kind>().unwrap_err().contains(&format!("`{wrong}`")), "{wrong}");
        }
    }

    fn args(mix: &[&str]) -> Args {
        Args {
            model: None,
            shape: Some("qwen2-vl-2b".into()),
            config: None,
            data: None,
            set: Vec::new(),
            sample: 1,
            rows: None,
            devices: 1,
            mix: mix.iter().map(|kind| kind.parse().unwrap()).collect(),
            dtype: "bf16".into(),
            batch_size: 4,
            batch_tokens: 8192,
            device: "cpu".into(),
            gflops: Some(100.0),
            json: false,
        }
    }

    #[test]
    fn a_mix_is_the_sum_of_its_items() {
        let plan = |mix: &[&str]| Plan::make(&args(mix)).unwrap();
        let (text, picture) = (plan(&["text:128"]), plan(&["picture:1280"]));
        let pictures = plan(&["picture:1280=2"]);
        let both = plan(&["text:128=3", "picture:1280=2"]);
        assert_eq!(both.operations(), text.operations() * 3.0 + picture.operations() * 2.0);
        let expected = 3.0 * text.seconds() + 2.0 * picture.seconds();
        assert!((both.seconds() - expected).abs() < 1e-9 * expected);
        // 0.325 TF at 100 GF/s.
        assert!((text.seconds() - 3.25).abs() < 0.02, "{}", text.seconds());
        // The largest batch, and all that wait.
        assert_eq!(both.memory.activations, pictures.memory.activations);
        assert_eq!(both.memory.waiting, 2.0 * picture.memory.waiting);
        // 6 of 1320 tokens are a batch, or 4 items; 13 are 2 batches of 8192 tokens and are read at once, and twice.
        let many = plan(&["picture:1280=1000"]);
        assert_eq!(many.memory.activations, plan(&["picture:1280=4"]).memory.activations);
        let read = 2 * rayon::current_num_threads().clamp(13, 32);
        assert_eq!(many.memory.waiting, read as f64 * picture.memory.waiting);
        assert_eq!(text.memory.waiting.to_bits(), 0.0f64.to_bits(), "no minus");
    }

    #[test]
    fn the_table_and_the_json_say_the_same() {
        let plan = Plan::make(&args(&["text:128=3", "frames:8x170"])).unwrap();
        let (table, json) = (plan.lines().join("\n"), plan.to_json());
        for words in [
            "text:128 ",
            "frames:8x170 ",
            "2208985600 numbers, 4.42 GB, computed with as bf16",
            "100 GFLOP/s",
            "4 items",
        ] {
            assert!(table.contains(words), "{words}: {table}");
        }
        assert_eq!(json["parameters"], 2_208_985_600u64);
        assert_eq!(json["operations"]["total"], plan.operations().total());
        let sum: f64 = json["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["seconds"].as_f64().unwrap() * item["count"].as_f64().unwrap())
            .sum();
        assert!((sum - json["seconds"].as_f64().unwrap()).abs() < 1e-6);
    }
}
