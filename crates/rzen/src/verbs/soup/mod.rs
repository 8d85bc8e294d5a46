//! `rzen soup`: several adapters, or several models, to one.

mod find;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rzen_merge::{Average, Checkpoint, Ingredient, Kind, Soup, SoupRecord, SoupSettings, StagedFolder};

use crate::card::{Card, Origin, SoupCard};
use crate::output::{check_apart, check_folder, existing};
use crate::soup::{SoupChoice, SoupMethod, alone_as_it_is, check_alike, joined};

/// Combine adapters of one base model into one adapter or one model, or average models
///
/// `exact` is the weighted sum of the updates themselves (ranks add up), `svd` cuts that sum to a rank, `slerp` goes from one
/// adapter to another along the sphere, `ties` and `dare` leave entries of the updates out. `mean-ab` and what begins with
/// `peft-` work on the factors, which is not the same. The report, and soup.json in the output, say how far the result is from
/// the weighted sum and what a rank kept. With --search the weights are found on held-out tasks. See docs/souping.md.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  rzen soup --adapter runs/world/adapter_a/adapter --adapter runs/world/adapter_b/adapter \
                  --base runs/world/stage_1/model --output soup\n  rzen soup --adapter A --adapter B --adapter C --base BASE --search weights \
                  --data CORPUS --tasks held_out --output soup"
)]
pub struct Args {
    /// Folder of a PEFT adapter; give two or more
    #[arg(long = "adapter", required_unless_present = "models", value_name = "DIR")]
    adapters: Vec<PathBuf>,
    /// Folder of a whole checkpoint, to be averaged with others
    #[arg(long = "model", conflicts_with_all = ["adapters", "base"], value_name = "DIR")]
    models: Vec<PathBuf>,
    /// Weights of the ingredients, separated by commas, also below 0; default equal shares
    #[arg(long, value_delimiter = ',', value_name = "W,W,…", allow_hyphen_values = true)]
    weights: Option<Vec<f64>>,
    /// How adapters are combined
    #[arg(long, value_enum, default_value = "exact")]
    method: SoupMethod,
    /// Rank that svd, slerp, ties and dare are cut to; default the largest of the adapters for svd, and for ties and dare
    /// without --base
    #[arg(long)]
    rank: Option<usize>,
    /// Instead of a rank, the share of the squared singular values that svd or slerp keeps, for example 0.99
    #[arg(long, value_name = "SHARE")]
    energy: Option<f64>,
    /// Share of numbers that ties, dare and their like of peft keep; default 0.5
    #[arg(long)]
    density: Option<f64>,
    /// Decides which numbers dare and peft-dare-linear keep; default 0
    #[arg(long)]
    seed: Option<u64>,
    /// Merge the soup into this checkpoint; --output is a model then
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Combine adapters though they were trained on different bases, and merge into another
    #[arg(long)]
    any_base: bool,
    /// Where the result goes
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    find: find::FindArgs,
}

impl Args {
    fn settings(&self) -> Result<SoupSettings> {
        let choice = SoupChoice {
            method: self.method,
            rank: self.rank,
            energy: self.energy,
            density: self.density,
            seed: self.seed,
        };
        if !self.models.is_empty() {
            ensure!(
                choice == SoupChoice::default() && !self.any_base,
                "models are averaged by their weights alone; leave --method, its settings and --any-base out"
            );
        }
        let settings = choice.settings(self.base.is_some() && !self.find.keep_adapter)?;
        Ok(SoupSettings { any_base: self.any_base, ..settings })
    }

    /// What is joined.
    fn folders(&self) -> &[PathBuf] {
        if self.models.is_empty() { &self.adapters } else { &self.models }
    }

    /// The base that the result goes into.
    fn merged_into(&self) -> Option<&Path> {
        self.base.as_deref().filter(|_| !self.find.keep_adapter)
    }

    /// The weights that are given, or equal ones.
    fn given_weights(&self, settings: SoupSettings) -> Result<Vec<f64>> {
        let count = self.folders().len();
        let weights = self.weights.clone().unwrap_or_else(|| vec![1.0 / count as f64; count]);
        let adapters = self.models.is_empty();
        let what = if adapters { "adapters" } else { "models" };
        ensure!(weights.len() == count, "{} weights for {count} {what}; give one for each", weights.len());
        if adapters {
            settings.check_weights(&weights)?
        } else {
            Average::check_weights(&weights)?
        }
        if let Some(note) = note(&weights).filter(|_| adapters) {
            eprintln!("{note}");
        }
        Ok(weights)
    }
}

/// Runs the verb.
///
/// # Errors
/// Names the adapter, module or option that is wrong. No output is left then.
pub fn run(args: &Args) -> Result<()> {
    // All that options alone can get wrong comes before any file.
    let settings = args.settings()?;
    let given = args.given_weights(settings)?;
    args.find.check(args)?;
    check_folder(&args.output, args.overwrite)?;
    check_apart(&args.output, args.folders().iter().chain(&args.base))?;
    check_alike(&args.models)?;
    let found = args.find.weights(args, settings)?;
    let weights = found.as_ref().map_or(given, |found| found.weights.clone());
    // What a search leaves out is no ingredient.
    let ingredients = match &found {
        Some(_) => joined(args.folders(), &weights),
        None => {
            let pairs = args.folders().iter().zip(&weights);
            pairs.map(|(path, weight)| Ingredient { path: path.clone(), weight: *weight }).collect()
        }
    };
    let staged = StagedFolder::create(&args.output, existing(args.overwrite))?;
    let mut record = match args.models.is_empty() {
        true => {
            let settings = if found.is_some() { alone_as_it_is(settings, &ingredients) } else { settings };
            let soup = Soup::new(&ingredients, settings)?;
            match args.merged_into() {
                Some(base) => soup.write_merged(&Checkpoint::open(base)?, staged.path())?,
                None => soup.write(staged.path())?,
            }
        }
        false => Average::new(&ingredients)?.write(staged.path())?,
    };
    if let Some(found) = found {
        (record.search, record.scores) = (Some(found.search), Some(found.scores));
        record.write(staged.path())?;
    }
    card(args, &record).write(staged.path())?;
    staged.commit()?;
    tell(&record);
    println!("{}", args.output.display());
    Ok(())
}

/// What is known of a soup of ingredients from anywhere.
fn card(args: &Args, record: &SoupRecord) -> Card {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ingredients = record.ingredients.iter().map(|one| (one.path.clone(), one.weight));
    let method = if record.of == Kind::Model { "average of all weights" } else { args.method.name() };
    Card {
        name: name(&args.output),
        adapter: record.output == Kind::Adapter,
        base: match (args.merged_into(), record.of) {
            (Some(base), _) => format!("the checkpoint `{}`", name(base)),
            (None, Kind::Adapter) => "that of the adapters below".to_owned(),
            (None, Kind::Model) => "those averaged below".to_owned(),
        },
        origin: args
            .base
            .as_deref()
            .or(args.models.first().map(PathBuf::as_path))
            .map(Origin::of)
            .unwrap_or_default(),
        soup: Some(SoupCard { method: method.to_owned(), ingredients: ingredients.collect() }),
        ..Card::default()
    }
}

fn tell(record: &SoupRecord) {
    let line = |name: &str, error: Option<f64>, kept: f64| {
        let error = error.map_or("none: the weighted sum is zero".to_owned(), |error| format!("{error:.2e}"));
        println!("{name:<40} relative error {error:<10} kept energy {kept:.6}");
    };
    for (module, error, kept) in worst(record, 3) {
        line(module, error, kept);
    }
    let rank = record.rank.map_or(String::new(), |rank| format!(", rank {rank}"));
    line(&format!("all modules{rank}"), record.relative_error, record.kept_energy);
    if let Some(rounding) = record.rounding_error {
        let of = if record.of == Kind::Model { "of the average" } else { "of the update" };
        println!("{:<40} {rounding:.2e} {of}", "rounded off by the format of the weights");
    }
    record.notes.iter().for_each(|note| eprintln!("note: {note}"));
}

/// The modules that the result is furthest off in, where it is off at all.
fn worst(record: &SoupRecord, count: usize) -> Vec<(&str, Option<f64>, f64)> {
    let modules = record.modules.iter();
    let mut modules: Vec<_> =
        modules.map(|(name, module)| (name.as_str(), module.relative_error, module.kept_energy)).collect();
    modules.retain(|(_, error, _)| *error != Some(0.0));
    let size = |error: Option<f64>| error.unwrap_or(f64::INFINITY);
    modules.sort_by(|a, b| size(b.1).total_cmp(&size(a.1)));
    modules.truncate(count);
    modules
}

/// What weights that don't add up to 1 do, as a sentence.
fn note(weights: &[f64]) -> Option<String> {
    let sum: f64 = weights.iter().sum();
    ((sum - 1.0).abs() > 1e-6).then(|| {
        format!("note: the weights add up to {sum:.6}, not 1; the soup is that much stronger than a mean")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_weights_that_scale_the_soup_are_noted() {
        assert_eq!(note(&[0.1; 10]), None);
        assert_eq!(note(&[-0.2, 1.2]), None);
        assert!(note(&[1.0, 0.5]).unwrap().contains("1.5"));
    }
}
