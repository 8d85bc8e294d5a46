//! The recipe: what is trained on what, in which stages, and what becomes of it.

mod changes;
mod data;
mod dataset;
mod evaluation;
mod objective;
mod soup;
mod stage;
mod start;
#[cfg(test)]
mod tests;
mod train;

use anyhow::{Context, Result, bail, ensure};
use rzen_model::ProcessorConfig;
use serde::{Deserialize, Serialize};

pub use data::Data;
pub use dataset::DatasetRow;
pub use evaluation::Evaluation;
pub use objective::Objective;
pub use soup::Soup;
pub use stage::Stage;
pub use start::{BaseType, Start};
pub use train::Train;

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

impl Recipe {
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
    /// stages (`soup`, `evaluation`), and what [`identity`](rzen_train::StageConfig::identity) of its
    /// settings leaves out.
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
            if self.model.base_type() == BaseType::Bf16 {
                stage.check_narrow().with_context(|| format!("stage `{name}`"))?;
            }
        }
        if let Some(soup) = &self.soup {
            soup.check().and_then(|()| self.check_ingredients(soup)).context("[soup]")?;
        }
        self.evaluation.check().context("[evaluation]")
    }

    fn check_ingredients(&self, soup: &Soup) -> Result<()> {
        for name in &soup.ingredients {
            let Some(stage) = self.stage(name) else {
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

    /// The stage of this name.
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// The stages whose adapters go into the soup, in its order.
    pub fn ingredients(&self, soup: &Soup) -> Vec<&Stage> {
        soup.ingredients.iter().filter_map(|name| self.stage(name)).collect()
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
