//! The recipe: what is trained on what, in which stages, and what becomes of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rzen_loss::InfoNceConfig;
use rzen_model::{AdapterConfig, ModelConfig, ProcessorConfig, TextConfig, VisionConfig};
use rzen_train::StageConfig;
use serde::{Deserialize, Serialize};

use crate::augment::Augment;
use crate::world::WorldConfig;

/// A whole training: one TOML file. Unknown keys are refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Decides the weights that training starts from, the order of the data and the world.
    pub seed: u64,
    /// Where the rows come from.
    #[serde(default)]
    pub data: Data,
    /// What training starts from.
    pub model: Start,
    /// How content becomes tokens; travels with every checkpoint.
    #[serde(default)]
    pub processor: ProcessorConfig,
    /// The stages, in order.
    #[serde(rename = "stage")]
    pub stages: Vec<Stage>,
    /// What is made of the stages' adapters.
    pub soup: Option<Soup>,
    /// What is measured at the end.
    #[serde(default)]
    pub evaluation: Evaluation,
}

/// Where the rows come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// A corpus folder; `--data` takes precedence.
    pub folder: Option<PathBuf>,
    /// Draw a world of scenes, clips and pages instead, into the run folder.
    pub world: Option<WorldConfig>,
    /// Rows that may be unreadable before training stops; they are left out and listed in `bad_rows.jsonl`.
    pub bad_row_limit: usize,
    /// Batches that are decoded ahead.
    pub prefetch: usize,
}

impl Default for Data {
    fn default() -> Self {
        Data { folder: None, world: None, bad_row_limit: 0, prefetch: 2 }
    }
}

/// What training starts from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// Random weights, and a tokenizer trained on the texts of the training rows.
    Scratch {
        /// Rows of the token table; the tokenizer has at most so many tokens.
        vocab_size: usize,
        /// The decoder.
        text: TextShape,
        /// The vision tower.
        vision: VisionShape,
    },
    /// A Hugging Face folder.
    Checkpoint {
        /// The folder.
        folder: PathBuf,
    },
}

/// The decoder of a model that starts from scratch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextShape {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
}

/// The vision tower of a model that starts from scratch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionShape {
    depth: usize,
    embed_dim: usize,
    num_heads: usize,
    #[serde(default = "four")]
    mlp_ratio: f64,
}

fn four() -> f64 {
    4.0
}

/// Builds the model's configuration from a recipe's shapes.
pub fn scratch_config(
    vocab_size: usize,
    text: &TextShape,
    vision: &VisionShape,
    processor: &ProcessorConfig,
    token_ids: BTreeMap<String, u64>,
) -> Result<ModelConfig> {
    let half_head = text.hidden_size / text.num_attention_heads.max(1) / 2;
    let side = (half_head * 3).div_ceil(8);
    let config = ModelConfig {
        text: TextConfig {
            hidden_size: text.hidden_size,
            intermediate_size: text.intermediate_size,
            num_hidden_layers: text.num_hidden_layers,
            num_attention_heads: text.num_attention_heads,
            num_key_value_heads: text.num_key_value_heads,
            vocab_size,
            rms_norm_eps: 1e-6,
            rope_theta: 1_000_000.0,
            // A quarter of the frequencies for time, the rest for height and width, as in Qwen2-VL.
            mrope_section: [half_head.saturating_sub(2 * side), side, side],
        },
        vision: VisionConfig {
            depth: vision.depth,
            embed_dim: vision.embed_dim,
            num_heads: vision.num_heads,
            mlp_ratio: vision.mlp_ratio,
            in_channels: 3,
            patch_size: processor.patch_size,
            spatial_merge_size: processor.merge_size,
            temporal_patch_size: processor.temporal_patch_size,
        },
        tie_word_embeddings: true,
        token_ids,
    };
    ModelConfig::from_json(&config.to_json("float32"))
        .map_err(|problem| anyhow::anyhow!("the recipe's `model`: {problem}"))
}

/// One stage of training.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Names its folder and its column in the results.
    pub name: String,
    /// The stage to start from; the first starts from `model`, others by default from the one before.
    pub from: Option<String>,
    /// What trains.
    #[serde(default = "Train::full")]
    pub train: Train,
    /// Queries in a batch.
    pub batch_size: usize,
    /// Items in a micro-batch.
    pub micro_batch_size: usize,
    /// Passes over the data; the number of steps follows.
    pub epochs: f64,
    /// Whether queries carry their instruction.
    #[serde(default = "yes")]
    pub instructions: bool,
    /// Hard negatives of its own that a row may bring, at most.
    #[serde(default)]
    pub hard_negatives: usize,
    /// Whether a row's hard negatives are negatives of the other rows of its batch as well.
    #[serde(default = "yes")]
    pub share_hard_negatives: bool,
    /// What is drawn from.
    pub datasets: Vec<DatasetRow>,
    /// The criterion.
    #[serde(default)]
    pub objective: Objective,
    /// Rates, schedule, memory. `steps` follows from `epochs` and is not set here.
    #[serde(default)]
    pub training: StageConfig,
}

fn yes() -> bool {
    true
}

/// What a stage trains.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Train {
    /// Every weight.
    Full,
    /// A new adapter.
    Lora(AdapterConfig),
}

impl Train {
    fn full() -> Self {
        Train::Full
    }
}

/// A dataset of a stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetRow {
    /// The folder below the corpus that holds `train.jsonl`.
    pub dataset: String,
    /// The rows' `name`s that are taken; each is a dataset of its own to the sampler. Default all.
    pub rows: Option<Vec<String>>,
    /// How many times a pass draws the dataset.
    #[serde(default = "one")]
    pub weight: f64,
    /// Rows taken at most, of each name.
    pub cap: Option<usize>,
    /// Datasets of one group are merged before batches are cut (merged classification, paper §3.4.2).
    pub group: Option<String>,
    /// Random changes of the pictures.
    #[serde(default)]
    pub augment: Augment,
}

fn one() -> f64 {
    1.0
}

/// The criterion of a stage (paper §3.3); see [`InfoNceConfig`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objective {
    alpha: f64,
    delta: Option<f64>,
    differentiate_hardness: bool,
    symmetric: bool,
    initial_temperature: f64,
    learn_temperature: bool,
    temperature_min: Option<f64>,
    temperature_max: Option<f64>,
}

impl Default for Objective {
    fn default() -> Self {
        let config = InfoNceConfig::default();
        Objective {
            alpha: config.alpha,
            delta: config.delta,
            differentiate_hardness: config.differentiate_hardness,
            symmetric: config.symmetric,
            initial_temperature: config.initial_temperature,
            learn_temperature: config.learn_temperature,
            temperature_min: config.temperature_min,
            temperature_max: config.temperature_max,
        }
    }
}

impl Objective {
    /// The settings with a temperature for each of `tasks`.
    pub fn config(&self, tasks: Vec<String>) -> InfoNceConfig {
        InfoNceConfig {
            alpha: self.alpha,
            // TOML has no null: a delta of 2 or more masks nothing, cosines end at 1.
            delta: self.delta.filter(|delta| *delta < 2.0),
            differentiate_hardness: self.differentiate_hardness,
            symmetric: self.symmetric,
            tasks,
            initial_temperature: self.initial_temperature,
            learn_temperature: self.learn_temperature,
            temperature_min: self.temperature_min,
            temperature_max: self.temperature_max,
        }
    }
}

/// What is made of the stages' adapters.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soup {
    /// The stages whose adapters are combined; they start from the same stage.
    pub ingredients: Vec<String>,
    /// A weight for each; default equal shares.
    pub weights: Option<Vec<f64>>,
    /// How: `exact`, `svd` or `mean-ab`.
    #[serde(default = "exact")]
    pub method: String,
    /// The rank that `svd` cuts to.
    pub rank: Option<usize>,
}

fn exact() -> String {
    "exact".into()
}

/// What is measured at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluation {
    /// The tasks; default all of the corpus.
    pub tasks: Option<Vec<String>>,
    /// Items in a batch.
    pub batch_size: usize,
    /// Whether the untrained model is measured too.
    pub start: bool,
}

impl Default for Evaluation {
    fn default() -> Self {
        Evaluation { tasks: None, batch_size: 32, start: true }
    }
}

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// Names the file and the key.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("recipe {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("recipe {}", path.display()))
    }

    /// Reads and checks the text of a recipe.
    ///
    /// # Errors
    /// Names the key.
    pub fn parse(text: &str) -> Result<Self> {
        let recipe: Recipe = toml::from_str(text)?;
        recipe.check()?;
        Ok(recipe)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.stages.is_empty(), "the recipe has no [[stage]]");
        for (i, stage) in self.stages.iter().enumerate() {
            let name = &stage.name;
            let fine =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
            ensure!(fine, "stage name `{name}`: use letters, digits, - and _");
            ensure!(!RESERVED.contains(&name.as_str()), "stage name `{name}` is taken; choose another");
            ensure!(!self.stages[..i].iter().any(|other| other.name == *name), "stage `{name}` occurs twice");
            self.base_of(stage)?;
            ensure!(
                stage.batch_size >= 2,
                "stage `{name}`: `batch_size` is {}, expected 2 or more",
                stage.batch_size
            );
            ensure!(
                stage.micro_batch_size >= 1,
                "stage `{name}`: `micro_batch_size` is 0, expected 1 or more"
            );
            ensure!(
                stage.epochs > 0.0,
                "stage `{name}`: `epochs` is {}, expected a number above 0",
                stage.epochs
            );
            ensure!(!stage.datasets.is_empty(), "stage `{name}` has no `datasets`");
            for row in &stage.datasets {
                let wrong = |problem| anyhow::anyhow!("stage `{name}`, dataset `{}`: {problem}", row.dataset);
                row.augment.check().map_err(wrong)?;
            }
            stage.training.validate().with_context(|| format!("stage `{name}`, [stage.training]"))?;
        }
        let Some(soup) = &self.soup else { return Ok(()) };
        for name in &soup.ingredients {
            let Some(stage) = self.stages.iter().find(|stage| stage.name == *name) else {
                bail!(
                    "[soup]: ingredient `{name}` is no stage; the stages are {}",
                    self.stage_names().join(", ")
                );
            };
            ensure!(matches!(stage.train, Train::Lora(_)), "[soup]: stage `{name}` trains no adapter");
            let first = self.base_of(&self.stages[self.index(&soup.ingredients[0])])?;
            ensure!(self.base_of(stage)? == first, "[soup]: ingredients start from different stages");
        }
        ensure!(soup.ingredients.len() >= 2, "[soup]: give two or more `ingredients`");
        Ok(())
    }

    fn stage_names(&self) -> Vec<&str> {
        self.stages.iter().map(|stage| stage.name.as_str()).collect()
    }

    fn index(&self, name: &str) -> usize {
        self.stages.iter().position(|stage| stage.name == *name).unwrap_or(0)
    }

    /// The stage that `stage` starts from; `None` is the recipe's `model`.
    ///
    /// # Errors
    /// If it names no earlier stage.
    pub fn base_of(&self, stage: &Stage) -> Result<Option<&Stage>> {
        let before = &self.stages[..self.index(&stage.name)];
        match &stage.from {
            None => Ok(before.last()),
            Some(from) => match before.iter().find(|other| other.name == *from) {
                Some(base) => Ok(Some(base)),
                None => bail!("stage `{}`: `from` is `{from}`, which is no earlier stage", stage.name),
            },
        }
    }
}

/// Names of columns and folders that a stage can't have.
const RESERVED: [&str; 3] = ["start", "soup", "world"];

impl PartialEq for Stage {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = r#"
        seed = 1
        [model]
        kind = "checkpoint"
        folder = "base"
        [[stage]]
        name = "one"
        batch_size = 8
        micro_batch_size = 4
        epochs = 1
        datasets = [{ dataset = "emoji" }]
        [[stage]]
        name = "two"
        train = { kind = "lora", rank = 4, alpha = 8 }
        batch_size = 8
        micro_batch_size = 4
        epochs = 0.5
        datasets = [{ dataset = "emoji", rows = ["emoji_t2i"], weight = 2, cap = 10, group = "labels" }]
    "#;

    fn refusal(from: &str, to: &str) -> String {
        format!("{:#}", Recipe::parse(&RECIPE.replace(from, to)).unwrap_err())
    }

    #[test]
    fn stages_start_from_the_one_before() {
        let recipe = Recipe::parse(RECIPE).unwrap();
        assert!(recipe.base_of(&recipe.stages[0]).unwrap().is_none());
        assert_eq!(recipe.base_of(&recipe.stages[1]).unwrap().unwrap().name, "one");
    }

    #[test]
    fn a_resolved_recipe_reads_back() {
        let recipe = Recipe::parse(RECIPE).unwrap();
        let text = toml::to_string(&recipe).unwrap();
        assert_eq!(toml::to_string(&Recipe::parse(&text).unwrap()).unwrap(), text);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(
            refusal("batch_size = 8\n        micro", "batch_sise = 8\n        micro").contains("batch_sise")
        );
        assert!(refusal("weight = 2", "wait = 2").contains("wait"));
        assert!(refusal("name = \"two\"", "name = \"one\"").contains("occurs twice"));
        assert!(refusal("name = \"two\"", "name = \"two\"\nfrom = \"three\"").contains("`three`"));
        assert!(refusal("epochs = 0.5", "epochs = 0").contains("`epochs` is 0"));
        assert!(refusal("kind = \"lora\"", "kind = \"dora\"").contains("dora"));
    }
}
