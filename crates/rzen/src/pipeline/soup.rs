//! The soup of a training: made of its stages' adapters, and told what it scored.

use std::path::PathBuf;

use anyhow::Result;
use rzen_core::SaveWeights;
use rzen_merge::{Existing, Ingredient, IngredientScore, Kind, ScoresRecord, SoupRecord, StagedFolder};

use super::base::{Base, merged, open_base, result_folder};
use super::{Column, Job};
use crate::files::whole_folder;
use crate::models;
use crate::recipe::Soup;
use crate::run_cards::RunCards;
use crate::soup::write_record;

/// Makes `soup/adapter` and `soup/model`; returns the model's folder.
pub(super) fn soup_adapters(job: &Job, soup: &Soup, start: &Base, cards: &RunCards) -> Result<PathBuf> {
    let model = job.run.join("soup/model");
    if model.is_dir() {
        return Ok(model);
    }
    let stages = job.recipe.ingredients(soup);
    let adapters = stages.iter().map(|stage| result_folder(job.run, stage));
    let mut ingredients = Ingredient::uniform(adapters);
    if let Some(weights) = &soup.weights {
        ingredients.iter_mut().zip(weights).for_each(|(one, weight)| one.weight = *weight);
    }
    let folder = job.run.join("soup/adapter");
    let joined = rzen_merge::Soup::new(&ingredients, soup.settings()?)?;
    let staged = StagedFolder::create(&folder, Existing::Replace)?;
    let record = joined.write(staged.path())?;
    start.processor.save(staged.path())?;
    cards.soup(soup, true, None)?.write(staged.path())?;
    staged.commit()?;
    let error =
        record.relative_error.map_or("none, the sum is zero".to_owned(), |error| format!("{error:.2e}"));
    eprintln!("soup: relative error {error}, kept energy {:.6}", record.kept_energy);
    let base = open_base(job, stages[0], start, models::open)?;
    let merged = merged(job, base.model.with_adapter(&folder)?);
    let card = cards.soup(soup, false, None)?;
    whole_folder(&model, Existing::Refuse, |part| {
        merged.save_weights(part).map_err(anyhow::Error::from_boxed)?;
        SoupRecord { output: Kind::Model, ..record }.write(part)?;
        card.write(part)
    })?;
    Ok(model)
}

/// Puts the scores of the soup and its ingredients into its records.
pub(super) fn score_soup(job: &Job, soup: &Soup, columns: &[Column]) -> Result<()> {
    let mean = |name: &str| columns.iter().find(|column| column.name == name)?.scores.results.mean();
    let Some(measured) = columns.iter().find(|column| column.name == "soup") else { return Ok(()) };
    let Some(score) = mean("soup") else { return Ok(()) };
    let ingredients = job.recipe.ingredients(soup).into_iter().filter_map(|stage| {
        let path = result_folder(job.run, stage).display().to_string();
        Some(IngredientScore { path, score: mean(&stage.name)? })
    });
    let scores = ScoresRecord {
        metric: "each task's own".to_owned(),
        tasks: measured.scores.results.tasks().iter().map(|task| task.task.clone()).collect(),
        ingredients: ingredients.collect(),
        uniform: None,
        soup: score,
    };
    for folder in ["soup/adapter", "soup/model"].map(|name| job.run.join(name)) {
        // A run of an older version has none.
        if let Some(record) = SoupRecord::read(&folder)? {
            write_record(&SoupRecord { scores: Some(scores.clone()), ..record }, &folder)?;
        }
    }
    Ok(())
}
