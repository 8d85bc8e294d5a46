//! `rzen soup`: several adapters to one.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use rzen_merge::{Existing, Ingredient, Method, Soup, merge_into_base, soup_adapters};

use crate::card::{Card, Origin, SoupCard};
use crate::verbs::output::check_folder;

/// Combine adapters of one base model into one adapter or one model
///
/// `exact` is the weighted sum of the updates themselves (ranks add up); `svd` cuts that sum back to --rank;
/// `mean-ab` averages the factors, which is not the mean of the updates. The report says how far the result is
/// from the exact sum.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  rzen soup --adapter runs/world/adapter_a/adapter --adapter runs/world/adapter_b/adapter \
                  --base runs/world/stage_1/model --output soup"
)]
pub struct Args {
    /// Folder of a PEFT adapter; give two or more
    #[arg(long = "adapter", required = true, value_name = "DIR")]
    adapters: Vec<PathBuf>,
    /// Weights of the adapters, separated by commas, also below 0; default equal shares
    #[arg(long, value_delimiter = ',', value_name = "W,W,…", allow_hyphen_values = true)]
    weights: Option<Vec<f64>>,
    /// exact, svd, mean-ab, linear, ties or magnitude-prune
    #[arg(long, default_value = "exact")]
    method: String,
    /// Rank that `svd` cuts to
    #[arg(long)]
    rank: Option<usize>,
    /// Share of numbers that ties and magnitude-prune keep; default 0.5
    #[arg(long)]
    density: Option<f64>,
    /// Merge the soup into this checkpoint; --output is a model then
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Where the result goes
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
}

/// How adapters are combined.
pub struct SoupOptions {
    /// The name of the method, as `--method` takes it.
    pub method: String,
    /// Rank that `svd` cuts to.
    pub rank: Option<usize>,
    /// Share of numbers that the pruning methods keep.
    pub density: f64,
    /// Whether what is there is replaced.
    pub overwrite: bool,
}

impl Args {
    fn options(&self) -> Result<SoupOptions> {
        let prunes = ["ties", "magnitude-prune"].contains(&self.method.as_str());
        if let Some(density) = self.density
            && !prunes
        {
            bail!(
                "--density {density} is given, but method `{}` keeps every number; leave it out, or take ties or \
                 magnitude-prune",
                self.method
            );
        }
        Ok(SoupOptions {
            method: self.method.clone(),
            rank: self.rank,
            density: self.density.unwrap_or(DENSITY),
            overwrite: self.overwrite,
        })
    }
}

/// The density where none is given.
const DENSITY: f64 = 0.5;

impl SoupOptions {
    fn method(&self) -> Result<Method> {
        let method = self.named_method()?;
        match (self.rank, method) {
            (None, _) | (Some(_), Method::Svd { .. }) => Ok(method),
            (Some(rank), _) => bail!(
                "rank {rank} is given, but soup method `{}` doesn't cut ranks; leave it out or take svd",
                self.method
            ),
        }
    }

    fn named_method(&self) -> Result<Method> {
        match self.method.as_str() {
            "exact" => Ok(Method::Exact),
            "svd" => Ok(Method::Svd { rank: self.rank }),
            "mean-ab" => Ok(Method::MeanAb),
            "linear" => Ok(Method::Linear),
            "ties" => Ok(Method::Ties { density: self.density }),
            "magnitude-prune" => Ok(Method::MagnitudePrune { density: self.density }),
            other => bail!(
                "soup method `{other}` is unknown; give exact, svd, mean-ab, linear, ties or magnitude-prune"
            ),
        }
    }

    fn existing(&self) -> Existing {
        if self.overwrite { Existing::Replace } else { Existing::Refuse }
    }
}

/// Runs the verb.
///
/// # Errors
/// Names the adapter, module or option that is wrong. No output is left then.
pub fn run(args: &Args) -> Result<()> {
    let options = args.options()?;
    check_folder(&args.output, args.overwrite)?;
    let soup = combine(&args.adapters, args.weights.as_deref(), &options)?;
    match &args.base {
        Some(base) => merge_into_base(base, &soup.adapter, &args.output, options.existing())?,
        None => soup.adapter.save(&args.output, options.existing())?,
    }
    card(args).write(&args.output)?;
    for (module, error) in worst(&soup, 3) {
        println!("{module:<40} relative error {error:.2e}");
    }
    println!("all modules {:<28} relative error {:.2e}", "", soup.report.relative_error);
    println!("{}", args.output.display());
    Ok(())
}

/// What is known of a soup of adapters from anywhere.
fn card(args: &Args) -> Card {
    let share = 1.0 / args.adapters.len() as f64;
    let weight = |i: usize| args.weights.as_ref().map_or(share, |weights| weights[i]);
    let ingredients =
        args.adapters.iter().enumerate().map(|(i, path)| (path.display().to_string(), weight(i)));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Card {
        name: name(&args.output),
        adapter: args.base.is_none(),
        base: match &args.base {
            Some(base) => format!("the checkpoint `{}`", name(base)),
            None => "that of the adapters below".to_owned(),
        },
        origin: args.base.as_deref().map(Origin::of).unwrap_or_default(),
        soup: Some(SoupCard { method: args.method.clone(), ingredients: ingredients.collect() }),
        ..Card::default()
    }
}

/// Combines adapters into the adapter folder `output`; returns the relative error against the exact sum.
///
/// # Errors
/// Names the adapter, module or option that is wrong. No output is left then.
pub fn make_soup(
    adapters: &[PathBuf],
    weights: Option<&[f64]>,
    options: &SoupOptions,
    output: &Path,
) -> Result<f64> {
    let soup = combine(adapters, weights, options)?;
    soup.adapter.save(output, options.existing())?;
    Ok(soup.report.relative_error)
}

/// What weights that don't add up to 1 do, as a sentence.
fn note(weights: &[f64]) -> Option<String> {
    let sum: f64 = weights.iter().sum();
    ((sum - 1.0).abs() > 1e-6).then(|| {
        format!("note: the weights add up to {sum:.6}, not 1; the soup is that much stronger than a mean")
    })
}

fn combine(adapters: &[PathBuf], weights: Option<&[f64]>, options: &SoupOptions) -> Result<Soup> {
    let ingredients = match weights {
        None => Ingredient::uniform(adapters.to_vec()),
        Some(weights) => {
            ensure!(
                weights.len() == adapters.len(),
                "{} weights for {} adapters; give one for each",
                weights.len(),
                adapters.len()
            );
            if let Some(note) = note(weights) {
                eprintln!("{note}");
            }
            let pairs = adapters.iter().zip(weights);
            pairs.map(|(path, weight)| Ingredient { path: path.clone(), weight: *weight }).collect()
        }
    };
    Ok(soup_adapters(&ingredients, options.method()?)?)
}

/// The modules that the result is furthest off in, where it is off at all.
fn worst(soup: &Soup, count: usize) -> Vec<(&str, f64)> {
    let modules = soup.report.per_module.iter().map(|(module, error)| (module.as_str(), *error));
    let mut modules: Vec<(&str, f64)> = modules.filter(|(_, error)| *error > 0.0).collect();
    modules.sort_by(|a, b| b.1.total_cmp(&a.1));
    modules.truncate(count);
    modules
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

    #[test]
    fn settings_of_other_methods_are_refused() {
        let method = |method: &str, rank| {
            let options = SoupOptions { method: method.into(), rank, density: 0.3, overwrite: false };
            options.method().map_err(|error| error.to_string())
        };
        assert_eq!(method("svd", Some(4)), Ok(Method::Svd { rank: Some(4) }));
        assert_eq!(method("ties", None), Ok(Method::Ties { density: 0.3 }));
        let error = method("exact", Some(4)).unwrap_err();
        assert!(error.contains("rank 4") && error.contains("`exact`") && error.contains("svd"), "{error}");
    }
}
