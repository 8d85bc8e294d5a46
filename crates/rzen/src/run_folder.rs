//! The folder of a training run: what lies where.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::recipe::Recipe;

/// A training run on disk.
///
/// ```text
/// RUN/recipe.toml          the recipe as it was resolved
/// RUN/world/               the drawn corpus, where the recipe asks for one
/// RUN/start/               the model that training starts from (random weights, own tokenizer)
/// RUN/STAGE/               metrics.jsonl, bad_rows.jsonl, checkpoints/, model/ or adapter/ (the result)
/// RUN/soup/                adapter/ and model/ (adapter merged into its base)
/// RUN/results/NAME.json    scores of start, each stage and the soup
/// RUN/report.html
/// ```
#[derive(Clone, Debug)]
pub struct Run {
    /// The folder.
    pub folder: PathBuf,
}

impl Run {
    /// Begins a run in `folder`, or goes on with the one that is there when its recipe is the same.
    ///
    /// # Errors
    /// If another recipe's run is there and `overwrite` is not set.
    pub fn open(folder: &Path, recipe: &Recipe, overwrite: bool) -> Result<Self> {
        let resolved = toml::to_string(recipe).context("the resolved recipe")?;
        let file = folder.join("recipe.toml");
        if overwrite && file.is_file() {
            fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        match fs::read_to_string(&file) {
            Ok(there) if there == resolved => {}
            Ok(_) => bail!(
                "{}: a run of another recipe is there; give --overwrite to replace it or --output for another folder",
                folder.display()
            ),
            Err(_) => fs::write(&file, resolved).with_context(|| file.display().to_string())?,
        }
        Ok(Run { folder: folder.to_owned() })
    }

    /// A path below the run.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join(path)
    }
}
