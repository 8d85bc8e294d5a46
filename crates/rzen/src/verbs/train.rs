//! `rzen train`: a recipe from its first stage to its report.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rzen_core::Ranks;

use crate::pipeline::{self, Job};
use crate::ranks::{self, Company, agreed, count, first, same_everywhere};
use crate::recipe::Recipe;
use crate::run_folder::Run;

/// The recipe of a run without arguments.
const WORLD_RECIPE: &str = include_str!("../../../../recipes/world.toml");

/// Train by a recipe: stages, soup, scores, report
///
/// Without arguments: draws a small world of pictures, clips, pages and texts, trains a small model on it from
/// scratch in two stages, soups two adapters and measures everything. A run that was stopped goes on where it
/// was when the same command is given again.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  rzen train\n  rzen train --config recipes/corpus.toml --data ../shared/corpus \
                  --output runs/corpus\n  rzen train --set seed=2 --set stage.0.epochs=1"
)]
pub struct Args {
    /// The recipe; default the built-in world
    #[arg(long, value_name = "RECIPE.toml")]
    config: Option<PathBuf>,
    /// Corpus folder to train on and to measure with
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of the run; default runs/NAME-OF-THE-RECIPE
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Device: cpu, wgpu or cuda, with :N for another than the first; of several processes on a machine each takes
    /// its own where there is no :N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Change a key of the recipe, for example stage.0.epochs=2
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Remove the run that is in the folder and begin anew
    #[arg(long)]
    overwrite: bool,
    /// The processes that train together; they are started with mpirun or srun, see docs/scaling.md
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    ranks: Company,
}

/// Set by Ctrl-C; the stage ends after its step and keeps a checkpoint.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the verb.
///
/// # Errors
/// Names the recipe's key, the row, file or step that is wrong, or where the run was stopped.
pub fn run(args: &Args) -> Result<()> {
    let ranks = ranks::join(args.ranks)?;
    let outcome = train(args, &*ranks);
    ranks::end(ranks, outcome)
}

fn train(args: &Args, ranks: &dyn Ranks) -> Result<()> {
    let (recipe, name) = agreed(ranks, recipe(args))?;
    // First of all: what ranks do next depends on it.
    let text = agreed(ranks, toml::to_string(&recipe).context("the resolved recipe"))?;
    same_everywhere(ranks, "version of rzen", env!("CARGO_PKG_VERSION"))?;
    same_everywhere(ranks, "recipe", &text)?;
    let device = agreed(ranks, crate::device::open_for(&args.device, ranks.local_rank()))?;
    let folder = args.output.clone().unwrap_or_else(|| Path::new("runs").join(&name));
    let opened = first(ranks, || Run::open(&folder, &recipe, args.overwrite))?;
    let run = opened.unwrap_or_else(|| Run::unlocked(&folder));
    agreed(ranks, on_interrupt())?;
    let machines = count(ranks, ranks.local_rank() == 0);
    if ranks.size() > 1 && ranks.rank() == 0 {
        eprintln!("{} ranks, machines: {machines}", ranks.size());
    }
    let job =
        Job { recipe: &recipe, run: &run, device: &device, device_name: &args.device, stop: &STOP, ranks };
    pipeline::train(&job, &name)
}

/// The recipe as it is to be followed, and its name.
fn recipe(args: &Args) -> Result<(Recipe, String)> {
    let (mut recipe, name) = match &args.config {
        Some(path) => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (Recipe::load(path, &args.set)?, name)
        }
        None => {
            let recipe =
                Recipe::parse_with(WORLD_RECIPE, &args.set).context("recipe world.toml (built in)")?;
            (recipe, "world".to_owned())
        }
    };
    recipe.data.replace_by(args.data.as_deref());
    Ok((recipe, name))
}

/// The first Ctrl-C or SIGTERM (as a cluster sends before it takes a machine back) asks for a checkpoint and an orderly
/// end, the second ends at once.
fn on_interrupt() -> Result<()> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step, with a checkpoint; a second Ctrl-C or SIGTERM stops at once");
    })
    .or_else(|error| match error {
        ctrlc::Error::MultipleHandlers => Ok(()),
        other => Err(other),
    })?;
    ensure!(!STOP.load(Ordering::SeqCst), "stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_recipe_is_valid() {
        Recipe::parse_with(WORLD_RECIPE, &[]).unwrap();
    }
}
