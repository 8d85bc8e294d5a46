//! The recipe: what is trained on what, in which stages, and what becomes of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rzen_loss::InfoNceConfig;
use rzen_model::{AdapterConfig, ProcessorConfig, all_linear};
use rzen_train::StageConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::augment::Augment;
use crate::load_limits::LoadLimits;
use crate::scratch::Scratch;
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
    /// How content becomes tokens; travels with every checkpoint. Default what the model's folder says,
    /// for a model from scratch the settings of the release.
    pub processor: Option<ProcessorConfig>,
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
    /// What files may ask for before they are refused.
    pub load: LoadLimits,
}

impl Default for Data {
    fn default() -> Self {
        Data { folder: None, world: None, bad_row_limit: 0, prefetch: 2, load: LoadLimits::default() }
    }
}

/// What training starts from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// No checkpoint: first weights, and a tokenizer trained on the texts of the training rows.
    Scratch(Scratch),
    /// A Hugging Face folder.
    Checkpoint {
        /// The folder.
        folder: PathBuf,
    },
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
    /// Items in a micro-batch, at most.
    pub micro_batch_size: usize,
    /// Tokens in a micro-batch, padding included, at most, where it holds more than one item: long pictures and short
    /// texts share a recipe. Default without limit.
    pub micro_batch_tokens: Option<usize>,
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
    /// Rates, schedule, memory. `steps` follows from `epochs`; the key is refused.
    #[serde(default, serialize_with = "write_training", deserialize_with = "read_training")]
    pub training: StageConfig,
}

fn read_training<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StageConfig, D::Error> {
    let table = toml::Table::deserialize(deserializer)?;
    if table.contains_key("steps") {
        return Err(de::Error::custom("`training.steps` follows from `epochs` and the data; set `epochs`"));
    }
    table.try_into().map_err(de::Error::custom)
}

fn write_training<S: Serializer>(training: &StageConfig, serializer: S) -> Result<S::Ok, S::Error> {
    let mut table = toml::Table::try_from(training).map_err(ser::Error::custom)?;
    table.remove("steps");
    table.serialize(serializer)
}

fn yes() -> bool {
    true
}

/// What a stage trains.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Train {
    /// Every weight. (Without the braces serde would accept any key here.)
    Full {},
    /// A new adapter.
    Lora(AdapterConfig),
}

impl Train {
    fn full() -> Self {
        Train::Full {}
    }

    fn check(&self) -> Result<()> {
        let Train::Lora(AdapterConfig { rank, alpha, targets, .. }) = self else { return Ok(()) };
        ensure!(*rank >= 1, "`train.rank` is 0, expected 1 or more");
        ensure!(alpha.is_finite() && *alpha > 0.0, "`train.alpha` is {alpha}, expected a number above 0");
        ensure!(!targets.is_empty(), "`train.targets` is empty; leave it out for all linear layers");
        let known = all_linear();
        let ends = |name: &str, end: &str| {
            name.strip_suffix(end).is_some_and(|head| head.is_empty() || head.ends_with('.'))
        };
        let wrong = targets.iter().find(|target| {
            target.is_empty() || !known.iter().any(|known| ends(target, known) || ends(known, target))
        });
        match wrong {
            Some(target) => bail!(
                "`train.targets` names `{target}`, which is no linear layer; they are called {}",
                known.join(", ")
            ),
            None => Ok(()),
        }
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
    /// Random changes of its items.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soup {
    /// The stages whose adapters are combined; they start from the same stage.
    pub ingredients: Vec<String>,
    /// A weight for each; default equal shares.
    pub weights: Option<Vec<f64>>,
    /// How.
    #[serde(default)]
    pub method: SoupMethod,
    /// The rank that `svd` cuts to.
    pub rank: Option<usize>,
}

/// How adapters are combined; see `rzen soup --help`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoupMethod {
    /// The weighted sum of the updates; ranks add up.
    #[default]
    Exact,
    /// That sum, cut back to `rank`.
    Svd,
    /// The mean of the factors, which is not the mean of the updates.
    MeanAb,
    /// PEFT's `linear`.
    Linear,
    /// TIES.
    Ties,
    /// Magnitude pruning.
    MagnitudePrune,
}

impl SoupMethod {
    /// The name that `rzen soup --method` takes.
    pub fn name(self) -> &'static str {
        match self {
            SoupMethod::Exact => "exact",
            SoupMethod::Svd => "svd",
            SoupMethod::MeanAb => "mean-ab",
            SoupMethod::Linear => "linear",
            SoupMethod::Ties => "ties",
            SoupMethod::MagnitudePrune => "magnitude-prune",
        }
    }
}

impl Soup {
    fn check(&self) -> Result<()> {
        let count = self.ingredients.len();
        ensure!(count >= 2, "`ingredients` has {count} entries, expected two stages or more");
        if let Some(weights) = &self.weights {
            ensure!(
                weights.len() == count,
                "`weights` has {} entries for {count} ingredients; give one for each",
                weights.len()
            );
            let wrong = weights.iter().find(|weight| !weight.is_finite());
            ensure!(wrong.is_none(), "`weights` holds {}, expected numbers", wrong.unwrap_or(&0.0));
        }
        ensure!(self.rank != Some(0), "`rank` is 0, expected 1 or more");
        let cuts = self.method == SoupMethod::Svd || self.rank.is_none();
        ensure!(cuts, "`rank` is for `method = \"svd\"`, and the method is {}", self.method.name());
        Ok(())
    }
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

    /// What must not change between stop and resume; the other keys are at their defaults.
    ///
    /// Free are how data is read (`bad_row_limit`, `prefetch`, `load`), what is made and measured after the
    /// stages (`soup`, `evaluation`), and what [`StageConfig::identity`] leaves out.
    pub fn identity(&self) -> Recipe {
        let data =
            Data { folder: self.data.folder.clone(), world: self.data.world.clone(), ..Data::default() };
        let stage = |stage: &Stage| Stage { training: stage.training.identity(), ..stage.clone() };
        Recipe {
            data,
            stages: self.stages.iter().map(stage).collect(),
            soup: None,
            evaluation: Evaluation::default(),
            ..self.clone()
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.stages.is_empty(), "the recipe has no [[stage]]");
        for (i, stage) in self.stages.iter().enumerate() {
            let name = &stage.name;
            ensure!(is_stage_name(name), "stage name `{name}`: use letters, digits, - and _");
            ensure!(!RESERVED.contains(&name.as_str()), "stage name `{name}` is taken; choose another");
            ensure!(!self.stages[..i].iter().any(|other| other.name == *name), "stage `{name}` occurs twice");
            self.base_of(stage)?;
            stage.check().with_context(|| format!("stage `{name}`"))?;
        }
        if let Some(soup) = &self.soup {
            soup.check().and_then(|()| self.check_ingredients(soup)).context("[soup]")?;
        }
        self.evaluation.check().context("[evaluation]")
    }

    fn check_ingredients(&self, soup: &Soup) -> Result<()> {
        for name in &soup.ingredients {
            let Some(stage) = self.stages.iter().find(|stage| stage.name == *name) else {
                bail!("ingredient `{name}` is no stage; the stages are {}", self.stage_names().join(", "));
            };
            ensure!(matches!(stage.train, Train::Lora(_)), "stage `{name}` trains no adapter");
            let first = self.base_of(&self.stages[self.index(&soup.ingredients[0])])?;
            ensure!(self.base_of(stage)? == first, "the ingredients start from different stages");
        }
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
const RESERVED: [&str; 4] = ["start", "soup", "world", "results"];

/// Whether a stage may have this name, which becomes a folder.
pub fn is_stage_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

impl Stage {
    fn check(&self) -> Result<()> {
        ensure!(self.batch_size >= 2, "`batch_size` is {}, expected 2 or more", self.batch_size);
        ensure!(self.micro_batch_size >= 1, "`micro_batch_size` is 0, expected 1 or more");
        ensure!(self.micro_batch_tokens != Some(0), "`micro_batch_tokens` is 0, expected 1 or more");
        ensure!(
            self.epochs.is_finite() && self.epochs > 0.0,
            "`epochs` is {}, expected a number above 0",
            self.epochs
        );
        ensure!(!self.datasets.is_empty(), "there are no `datasets`");
        for row in &self.datasets {
            let wrong = |problem| anyhow::anyhow!("dataset `{}`: {problem}", row.dataset);
            row.augment.check().map_err(wrong)?;
        }
        self.train.check()?;
        self.objective.config(vec!["task".to_owned()]).validate().context("`objective`")?;
        self.training.validate().context("`training`")
    }
}

impl Evaluation {
    fn check(&self) -> Result<()> {
        ensure!(self.batch_size >= 1, "`batch_size` is 0, expected 1 or more");
        let tasks = self.tasks.as_ref().is_none_or(|tasks| !tasks.is_empty());
        ensure!(tasks, "`tasks` is empty; leave it out for all tasks of the corpus");
        Ok(())
    }
}

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

    /// Refuses each change of a recipe, and names what is wrong.
    fn check_refused(cases: &[(&str, &str, &str)]) {
        for (from, to, named) in cases {
            assert!(RECIPE.contains(from), "{from}");
            let message = refusal(from, to);
            assert!(message.contains(named), "{to}: {message}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let stage = "epochs = 0.5";
        let soup = "name = \"three\"\nfrom = \"one\"\ntrain = { kind = \"lora\", rank = 4, alpha = 8 }\n\
                    batch_size = 8\nmicro_batch_size = 4\nepochs = 1\ndatasets = [{ dataset = \"x\" }]\n[soup]";
        let recipe = format!("{RECIPE}\n[[stage]]\n{soup}\ningredients = [\"two\", \"three\"]\n");
        Recipe::parse(&recipe).unwrap();
        for (more, named) in [
            ("method = \"magic\"", "magnitude-prune"),
            ("weights = [1.0]", "`weights` has 1 entries for 2"),
            ("weights = [nan, 1.0]", "`weights` holds NaN"),
            ("method = \"svd\"\nrank = 0", "`rank` is 0"),
            ("rank = 4", "`rank` is for"),
        ] {
            let message = format!("{:#}", Recipe::parse(&format!("{recipe}{more}")).unwrap_err());
            assert!(message.contains(named), "{more}: {message}");
        }
        let one = recipe.replace(", \"three\"]", "]");
        assert!(format!("{:#}", Recipe::parse(&one).unwrap_err()).contains("`ingredients` has 1"));

        let with = |text: &str| format!("{stage}\n{text}");
        check_refused(&[
            ("name = \"two\"", "name = \"one\"", "occurs twice"),
            ("name = \"two\"", "name = \"results\"", "`results` is taken"),
            ("name = \"two\"", "name = \"../two\"", "letters, digits"),
            ("name = \"two\"", "name = \"two\"\nfrom = \"three\"", "`three`"),
            (stage, "epochs = 0", "`epochs` is 0"),
            (stage, "epochs = inf", "`epochs` is inf"),
            ("batch_size = 8\n        micro", "batch_size = 1\n        micro", "`batch_size` is 1"),
            (
                "micro_batch_size = 4\n        epochs = 1",
                "micro_batch_size = 0\nepochs = 1",
                "`micro_batch_size` is 0",
            ),
            ("kind = \"lora\"", "kind = \"dora\"", "dora"),
            ("rank = 4", "rank = 0", "`train.rank` is 0"),
            ("alpha = 8", "alpha = nan", "`train.alpha` is NaN"),
            ("alpha = 8", "alpha = 8, targets = [\"q_prog\"]", "`q_prog`"),
            ("alpha = 8", "alpha = 8, targets = []", "`train.targets` is empty"),
            (stage, &with("objective = { alpha = nan }"), "`alpha`"),
            (stage, &with("objective = { initial_temperature = 0 }"), "`initial_temperature`"),
            (stage, &with("training = { learning_rate = -1 }"), "`learning_rate`"),
            (stage, &with("training = { steps = 5 }"), "set `epochs`"),
            ("seed = 1", "seed = 1\nevaluation = { batch_size = 0 }", "`batch_size` is 0"),
            ("seed = 1", "seed = 1\nevaluation = { tasks = [] }", "`tasks` is empty"),
        ]);
    }

    #[test]
    fn unknown_keys_are_refused_everywhere() {
        let scratch = |more: &str| {
            format!(
                "kind = \"scratch\"\nvocab_size = 400\nvision = {{ depth = 1, embed_dim = 32, num_heads = 2 }}\n\
                 text = {{ hidden_size = 32, intermediate_size = 48, num_hidden_layers = 2, \
                 num_attention_heads = 2, num_key_value_heads = 1{more} }}\n"
            )
        };
        let checkpoint = "kind = \"checkpoint\"\n        folder = \"base\"";
        Recipe::parse(&RECIPE.replace(checkpoint, &scratch(""))).unwrap();
        let at_stage = |text: &str| format!("epochs = 0.5\n{text}");
        let at_root = |text: &str| format!("seed = 1\n{text}");
        let root = "seed = 1";
        let stage = "epochs = 0.5";
        check_refused(&[
            (root, &at_root("wrong = 1"), "wrong"),
            (root, &at_root("data = { wrong = 1 }"), "wrong"),
            (root, &at_root("data = { world = { wrong = 1 } }"), "wrong"),
            (root, &at_root("data = { load = { wrong = 1 } }"), "wrong"),
            (root, &at_root("processor = { wrong = 1 }"), "wrong"),
            (root, &at_root("evaluation = { wrong = 1 }"), "wrong"),
            (root, &at_root("soup = { ingredients = [], wrong = 1 }"), "wrong"),
            (checkpoint, "kind = \"checkpoint\"\nfolder = \"base\"\nwrong = 1", "wrong"),
            (checkpoint, &(scratch("") + "weights = \"strutured\"\n"), "structured"),
            (checkpoint, &scratch(", wrong = 1"), "wrong"),
            (checkpoint, &(scratch("") + "wrong = 1\n"), "wrong"),
            (stage, &at_stage("wrong = 1"), "wrong"),
            (stage, &at_stage("objective = { wrong = 1 }"), "wrong"),
            (stage, &at_stage("training = { wrong = 1 }"), "wrong"),
            ("kind = \"lora\"", "wrong = 1, kind = \"lora\"", "wrong"),
            ("name = \"one\"", "name = \"one\"\ntrain = { kind = \"full\", rank = 64 }", "rank"),
            ("weight = 2", "wait = 2", "wait"),
            ("weight = 2", "augment = { wrong = 1 }", "wrong"),
        ]);
    }

    #[test]
    fn no_number_of_steps_stands_in_a_resolved_recipe() {
        let text = RECIPE.replace("epochs = 0.5", "epochs = 0.5\ntraining = { warmup = 7, eps = 1e-7 }");
        let text = toml::to_string(&Recipe::parse(&text).unwrap()).unwrap();
        assert!(!text.contains("steps") && text.contains("warmup = 7"), "{text}");
        let training = &Recipe::parse(&text).unwrap().stages[1].training;
        assert_eq!((training.warmup, training.eps), (rzen_train::Warmup::Steps(7), 1e-7));
    }
}
