//! The rows of stages, and whether all that a recipe names is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rzen_data::train_manifests;

use crate::files::{hex, sha256};
use crate::recipe::{Recipe, Stage};
use crate::stage_data::StageData;

/// Refuses a corpus that lacks data sets of the recipe, and names all of them.
pub(super) fn check_datasets(recipe: &Recipe, corpus: &Path) -> Result<()> {
    let named: BTreeSet<&str> =
        recipe.stages.iter().flat_map(|stage| &stage.datasets).map(|row| row.dataset.as_str()).collect();
    let mut missing = Vec::new();
    for dataset in &named {
        if !train_manifests(&corpus.join(dataset))?[0].is_file() {
            missing.push(*dataset);
        }
    }
    ensure!(
        missing.is_empty(),
        "{} of the {} data sets of the recipe are not in {}: {}; each is a folder with a train.jsonl or train.parquet, as \
         `rzen data import` makes them",
        missing.len(),
        named.len(),
        corpus.display(),
        missing.join(", ")
    );
    Ok(())
}

/// The rows of a stage, and the hashes of the manifests that they stand in.
pub(super) struct Rows {
    pub data: Arc<StageData>,
    pub manifests: BTreeMap<String, String>,
}

impl Rows {
    pub fn load(stage: &Stage, corpus: &Path, seed: u64) -> Result<Self> {
        let mut manifests = BTreeMap::new();
        for row in &stage.datasets {
            let paths = train_manifests(&corpus.join(&row.dataset))?;
            for path in &paths {
                let hash = sha256(path).with_context(|| {
                    format!("stage `{}`, dataset `{}`: {}", stage.name, row.dataset, path.display())
                })?;
                let name = match path.file_name().filter(|_| paths.len() > 1) {
                    Some(file) => format!("{}/{}", row.dataset, file.display()),
                    None => row.dataset.clone(),
                };
                manifests.insert(name, hex(&hash));
            }
        }
        let data = StageData::load(stage, corpus, seed).with_context(|| format!("stage `{}`", stage.name))?;
        Ok(Rows { data: Arc::new(data), manifests })
    }

    /// As [`load`](Self::load), of the manifests that were looked at before.
    pub fn load_again(
        stage: &Stage,
        corpus: &Path,
        seed: u64,
        manifests: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let rows = Self::load(stage, corpus, seed)?;
        let names = rows.manifests.keys().chain(manifests.keys());
        if let Some(dataset) =
            names.into_iter().find(|name| rows.manifests.get(*name) != manifests.get(*name))
        {
            bail!(
                "stage `{}`: the manifest of dataset `{dataset}` changed while the run trained; put it back, and the same \
                 command goes on, or give --output for another run",
                stage.name
            );
        }
        Ok(rows)
    }
}
