//! `rzen report`: the page of a run, or one page that compares several.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use toml::Value;

use crate::recipe::Recipe;
use crate::report::{ComparedRun, Measurements, SeedGroup, seed_lines, write_comparison, write_report};
use crate::run_folder::Run;
use crate::summary::{report_input, stage_curves};

/// Write the report of a run, or one page that compares several
///
/// One run: its report.html again, from what its folder holds, also while it trains. Several: scores with differences to the
/// first run and their intervals, curves over each other, temperatures, speed, and the keys of the recipes that differ. Runs that
/// differ in nothing but their seed are also taken together, on the page and as tables on the terminal: means, their deviation,
/// and differences to the first of these groups.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  rzen report runs/world runs/world_seed_2 --output comparison.html")]
pub struct Args {
    /// Folder of a run; several are compared with the first
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Where the page goes; default report.html in the run, for several comparison.html here
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// Names the folder that is no run, or the file that can't be read or written.
pub fn run(args: &Args) -> Result<()> {
    let default = match &args.runs[..] {
        [one] => one.join("report.html"),
        _ => PathBuf::from("comparison.html"),
    };
    let output = args.output.clone().unwrap_or(default);
    match &args.runs[..] {
        [one] => {
            let (run, recipe) = Run::look_at(one)?;
            let measured = Measurements::load(&run.folder)?;
            let title = || format!("rzen: {}", one.display());
            let measured =
                measured.unwrap_or_else(|| Measurements { title: title(), ..Measurements::default() });
            write_report(&report_input(stage_curves(&recipe, &run.folder)?, measured), &output)?;
        }
        several => {
            let names = short_names(several);
            let runs = several.iter().zip(names).map(|(folder, name)| {
                let (run, recipe) = Run::look_at(folder)?;
                Ok(ComparedRun {
                    name,
                    recipe: keys(&recipe)?,
                    stages: stage_curves(&recipe, &run.folder)?,
                    measured: Measurements::load(&run.folder)?,
                })
            });
            let runs: Vec<ComparedRun> = runs.collect::<Result<_>>()?;
            for i in 1..several.len() {
                ensure!(!several[..i].contains(&several[i]), "{} is given twice", several[i].display());
            }
            let groups = SeedGroup::of(&runs)?;
            write_comparison(&runs, &groups, &output)?;
            seed_lines(&groups).iter().for_each(|line| println!("{line}"));
        }
    }
    println!("report: {}", output.display());
    Ok(())
}

/// The last part of each path, or the whole paths where those are not all different.
fn short_names(runs: &[PathBuf]) -> Vec<String> {
    let last = |run: &PathBuf| run.file_name().map(|name| name.to_string_lossy().into_owned());
    let names: Vec<String> = runs.iter().filter_map(last).collect();
    let unlike = names.len() == runs.len() && (1..names.len()).all(|i| !names[..i].contains(&names[i]));
    if unlike { names } else { runs.iter().map(|run| run.display().to_string()).collect() }
}

/// The recipe's keys and values: `stage.one.training.learning_rate`, `0.0001`.
fn keys(recipe: &Recipe) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    flatten("", &Value::Table(toml::Table::try_from(recipe).context("the recipe")?), &mut found);
    Ok(found)
}

fn flatten(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Table(table) => table.iter().for_each(|(key, value)| flatten(&join(key), value, found)),
        Value::Array(items) if items.iter().all(Value::is_table) && !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                let name = ["name", "dataset"].iter().find_map(|key| item.get(key)?.as_str());
                let twice = |name: &str| {
                    items
                        .iter()
                        .filter(|item| {
                            ["name", "dataset"]
                                .iter()
                                .any(|key| item.get(key).and_then(Value::as_str) == Some(name))
                        })
                        .count()
                        > 1
                };
                let name = name.filter(|name| !twice(name)).map_or(at.to_string(), str::to_owned);
                flatten(&join(&name), item, found);
            }
        }
        other => found.push((path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_a_list_go_by_name() {
        let text = "seed = 1\n[[stage]]\nname = \"one\"\ndatasets = [{ dataset = \"a\", cap = 2 }, { dataset = \"a\" }]\n";
        let mut found = Vec::new();
        flatten("", &Value::Table(text.parse().unwrap()), &mut found);
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        let expected = [
            "seed",
            "stage.one.datasets.0.cap",
            "stage.one.datasets.0.dataset",
            "stage.one.datasets.1.dataset",
        ];
        assert!(expected.iter().all(|key| keys.contains(key)), "{keys:?}");
        assert!(found.contains(&("stage.one.datasets.0.cap".into(), "2".into())), "{found:?}");
    }

    #[test]
    fn runs_of_one_name_go_by_path() {
        let names = |runs: [&str; 2]| short_names(&runs.map(PathBuf::from));
        assert_eq!(names(["runs/a", "runs/b"]), ["a", "b"]);
        assert_eq!(names(["x/run", "y/run"]), ["x/run", "y/run"]);
    }
}
