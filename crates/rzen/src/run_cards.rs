//! The model cards of a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rzen_loss::TEMPERATURES_FILE;
use serde_json::Value;

use crate::card::{Card, DataUse, Origin, SoupCard, StageCard, licence_of};
use crate::recipe::{Recipe, Soup, Stage, Start, Train};
use crate::report::ModelScores;
use crate::run_folder::Run;
use crate::stage_data::StageData;

/// What the cards of a run are made from.
pub struct RunCards<'a> {
    /// The run's recipe.
    pub recipe: &'a Recipe,
    /// Its folder.
    pub run: &'a Run,
    /// Its name.
    pub name: &'a str,
    /// What each stage draws, by the stage's name.
    pub data: BTreeMap<String, Vec<DataUse>>,
}

impl RunCards<'_> {
    /// The card of what a stage leaves.
    ///
    /// # Errors
    /// If the temperatures of a stage can't be read.
    pub fn stage(&self, stage: &Stage, scores: Option<&ModelScores>) -> Result<Card> {
        let base = match self.recipe.base_of(stage)? {
            None => self.start(),
            Some(base) => match base.train {
                Train::Full {} => format!("the model of stage `{}`", base.name),
                Train::Lora(_) => format!("the adapter of stage `{}`, merged into its base", base.name),
            },
        };
        Ok(Card {
            name: format!("{}: {}", self.name, stage.name),
            adapter: matches!(stage.train, Train::Lora(_)),
            base,
            stages: self.stages(&[stage])?,
            ..self.common(scores)?
        })
    }

    /// The card of the souped adapter, or of the model that it is merged into.
    ///
    /// # Errors
    /// If the temperatures of a stage can't be read.
    pub fn soup(&self, soup: &Soup, adapter: bool, scores: Option<&ModelScores>) -> Result<Card> {
        let stages = self.recipe.ingredients(soup);
        let share = 1.0 / soup.ingredients.len() as f64;
        let weight = |i: usize| soup.weights.as_ref().map_or(share, |weights| weights[i]);
        let ingredients = soup.ingredients.iter().enumerate().map(|(i, name)| (name.clone(), weight(i)));
        Ok(Card {
            name: format!("{}: soup", self.name),
            adapter,
            base: self.stage(stages[0], None)?.base,
            stages: self.stages(&stages)?,
            soup: Some(SoupCard {
                method: soup.method.name().to_owned(),
                ingredients: ingredients.collect(),
            }),
            ..self.common(scores)?
        })
    }

    fn common(&self, scores: Option<&ModelScores>) -> Result<Card> {
        let origin = match &self.recipe.model {
            Start::Checkpoint { folder, .. } => Origin::of(folder),
            Start::Scratch(_) => Origin::default(),
        };
        let recipe = toml::to_string(self.recipe).context("the recipe")?;
        Ok(Card { origin, recipe: Some(recipe), scores: scores.cloned(), ..Card::default() })
    }

    fn start(&self) -> String {
        match &self.recipe.model {
            Start::Checkpoint { folder, .. } => match Origin::of(folder).id {
                Some(id) => format!("[{id}](https://huggingface.co/{id})"),
                None => {
                    format!("the checkpoint `{}`", folder.file_name().unwrap_or_default().to_string_lossy())
                }
            },
            Start::Scratch(_) => format!("first weights drawn by rzen, seed {}", self.recipe.seed),
        }
    }

    /// `last` and all that they build on, in the order of the recipe.
    fn stages(&self, last: &[&Stage]) -> Result<Vec<StageCard>> {
        let mut names: Vec<&str> = Vec::new();
        for stage in last {
            let mut next = Some(*stage);
            while let Some(stage) = next {
                names.push(&stage.name);
                next = self.recipe.base_of(stage)?;
            }
        }
        let led_here = self.recipe.stages.iter().filter(|stage| names.contains(&stage.name.as_str()));
        led_here
            .map(|stage| {
                Ok(StageCard {
                    name: stage.name.clone(),
                    data: self.data.get(&stage.name).cloned().unwrap_or_default(),
                    temperatures: temperatures(&self.run.join(&stage.name).join(TEMPERATURES_FILE))?,
                })
            })
            .collect()
    }
}

fn temperatures(path: &PathBuf) -> Result<Vec<(String, f64)>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let tasks: serde_json::Map<String, Value> =
        serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    Ok(tasks.iter().filter_map(|(task, value)| Some((task.clone(), value["tau"].as_f64()?))).collect())
}

/// What a stage draws from each dataset of the corpus.
pub fn data_uses(data: &StageData, corpus: &Path, recipe: &Recipe) -> Vec<DataUse> {
    let licence = |dataset: &str| match recipe.data.world {
        Some(_) => Some("drawn by rzen itself".to_owned()),
        None => licence_of(corpus, dataset),
    };
    let uses = data.folders().into_iter().map(|(folder, rows, drawn)| {
        let dataset = folder.strip_prefix(corpus).unwrap_or(folder).display().to_string();
        DataUse { licence: licence(&dataset), dataset, rows, drawn }
    });
    uses.collect()
}
