//! Runs of one recipe with several seeds, and what they say together.

use anyhow::{Result, bail};
use rzen_eval::{PairedDifference, bootstrap_of_tasks};

use super::compare::ComparedRun;
use super::measured::{ModelScores, ScoredTask, mean, same_queries};

/// Keys and values but the seed.
type Recipe<'a> = Vec<&'a (String, String)>;

/// Measured runs whose recipes are the same but for their seed.
pub struct SeedGroup<'a> {
    /// What the names of its runs begin with.
    pub name: String,
    /// The seed and the last model of each run, by seed.
    runs: Vec<(u64, &'a ModelScores)>,
}

/// What one group has more than another, over the seeds and tasks that both have.
pub struct GroupDifference {
    /// The mean over tasks and seeds, with the interval over the queries of each task.
    pub found: PairedDifference,
    /// The mean over tasks of each seed.
    pub by_seed: Vec<f64>,
    /// Tasks that both groups measured alike.
    pub tasks: usize,
}

impl<'a> SeedGroup<'a> {
    /// The groups, in the order of their first runs; none unless one has several runs.
    ///
    /// # Errors
    /// Two runs of one recipe and one seed.
    pub fn of(runs: &'a [ComparedRun]) -> Result<Vec<Self>> {
        let mut groups: Vec<(Recipe, Vec<&'a ComparedRun>)> = Vec::new();
        for run in runs.iter().filter(|run| run.model().is_some()) {
            let rest: Recipe = run.recipe.iter().filter(|(key, _)| key != "seed").collect();
            match groups.iter_mut().find(|(recipe, _)| *recipe == rest) {
                Some((_, members)) => members.push(run),
                None => groups.push((rest, vec![run])),
            }
        }
        if groups.iter().all(|(_, members)| members.len() == 1) {
            return Ok(Vec::new());
        }
        let starts: Vec<String> = groups.iter().map(|(_, members)| common_start(members)).collect();
        let alike = (1..starts.len()).any(|i| starts[..i].contains(&starts[i]));
        let mut found = Vec::new();
        for ((_, mut members), start) in groups.into_iter().zip(starts) {
            let name = if alike { members[0].name.clone() } else { start };
            members.sort_by_key(|run| seed(run));
            if let Some(pair) = members.windows(2).find(|pair| seed(pair[0]) == seed(pair[1])) {
                bail!(
                    "`{}` and `{}` are runs of the same recipe and seed; leave one out",
                    pair[0].name,
                    pair[1].name
                );
            }
            let runs = members.iter().filter_map(|run| Some((seed(run), run.model()?))).collect();
            found.push(SeedGroup { name, runs });
        }
        Ok(found)
    }

    /// How many runs it has.
    pub fn seeds(&self) -> usize {
        self.runs.len()
    }

    /// The mean over tasks and runs.
    pub fn mean(&self) -> f64 {
        mean(self.runs.iter().map(|(_, model)| model.mean()))
    }

    /// The standard deviation of the runs' means, with one degree of freedom less than runs; `None` for a single run.
    pub fn spread(&self) -> Option<f64> {
        let (mean, count) = (self.mean(), self.runs.len() as f64);
        let squares: f64 = self.runs.iter().map(|(_, model)| (model.mean() - mean).powi(2)).sum();
        (count > 1.0).then(|| (squares / (count - 1.0)).sqrt())
    }

    /// The mean of a task over the runs; `None` unless all have it.
    pub fn task(&self, task: &ScoredTask) -> Option<f64> {
        let value = |(_, model): &(u64, &ModelScores)| {
            model.task(&task.task).filter(|found| found.metric == task.metric).map(|found| found.value)
        };
        let values: Vec<f64> = self.runs.iter().map(value).collect::<Option<_>>()?;
        Some(mean(values.into_iter()))
    }

    /// The tasks of the first run.
    pub fn tasks(&self) -> &'a [ScoredTask] {
        self.runs.first().map_or(&[], |(_, model)| &model.tasks)
    }

    /// What this group has more than `base`; `None` where they have no seed or no task in common.
    pub fn difference(&self, base: &SeedGroup) -> Option<GroupDifference> {
        let pairs: Vec<(&ModelScores, &ModelScores)> = self
            .runs
            .iter()
            .filter_map(|(seed, here)| {
                let (_, there) = base.runs.iter().find(|(other, _)| other == seed)?;
                Some((*here, *there))
            })
            .collect();
        // Of each task, a row of differences for each seed.
        let of_task = |task: &ScoredTask| -> Option<Vec<Vec<f64>>> {
            let run = |(here, there): &(&ModelScores, &ModelScores)| {
                differences(here.task(&task.task)?, there.task(&task.task)?)
            };
            pairs.iter().map(run).collect()
        };
        let tasks: Vec<Vec<Vec<f64>>> = base.tasks().iter().filter_map(of_task).collect();
        let over_seeds = |task: &Vec<Vec<f64>>| -> Vec<f64> {
            let query = |at: usize| mean(task.iter().map(|run| run.get(at).copied().unwrap_or(f64::NAN)));
            (0..task.first().map_or(0, Vec::len)).map(query).collect()
        };
        let by_seed = |seed: usize| mean(tasks.iter().map(|task| mean(task[seed].iter().copied())));
        Some(GroupDifference {
            found: bootstrap_of_tasks(&tasks.iter().map(over_seeds).collect::<Vec<_>>(), 2000, 1).ok()?,
            by_seed: (0..pairs.len()).map(by_seed).collect(),
            tasks: tasks.len(),
        })
    }
}

fn differences(here: &ScoredTask, there: &ScoredTask) -> Option<Vec<f64>> {
    let pairs = here.queries.iter().zip(&there.queries);
    same_queries(here, there).then(|| pairs.map(|((_, a), (_, b))| a - b).collect())
}

/// A recipe always has one.
fn seed(run: &ComparedRun) -> u64 {
    let seed = run.recipe.iter().find(|(key, _)| key == "seed");
    seed.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
}

/// What all names begin with, without a number that they share a part of and separators at its end; the first name where
/// that is nothing.
fn common_start(runs: &[&ComparedRun]) -> String {
    let [first, others @ ..] = runs else { return String::new() };
    let first = first.name.as_str();
    let common = |run: &&ComparedRun| first.chars().zip(run.name.chars()).take_while(|(a, b)| a == b).count();
    let Some(length) = others.iter().map(common).min() else { return first.to_owned() };
    let start: String = first.chars().take(length).collect();
    let start = start.trim_end_matches(|c: char| c.is_numeric());
    let start = start.trim_end_matches(|c: char| !c.is_alphanumeric());
    if start.is_empty() { first.to_owned() } else { start.to_owned() }
}

/// The groups as lines of Markdown tables: means, deviations and differences to the first group, then task by task.
pub fn seed_lines(groups: &[SeedGroup]) -> Vec<String> {
    let Some((base, _)) = groups.split_first() else { return Vec::new() };
    let mut lines = vec![
        format!(
            "| recipe | seeds | mean | deviation | against {} | by seed | 95 % interval over queries |",
            base.name
        ),
        "|---|--:|--:|--:|--:|--:|--:|".to_owned(),
    ];
    lines.extend(groups.iter().enumerate().map(|(i, group)| {
        let [difference, seeds, interval] = match group.difference(base).filter(|_| i > 0) {
            Some(GroupDifference { found, by_seed, tasks }) => {
                let seeds: Vec<String> = by_seed.iter().map(|value| format!("{value:+.3}")).collect();
                let note = match base.tasks().len() {
                    all if all == tasks => String::new(),
                    all => format!(" ({tasks} of {all} tasks)"),
                };
                [
                    format!("{:+.3}{note}", found.mean_difference),
                    seeds.join(", "),
                    format!("{:+.3} to {:+.3}", found.low, found.high),
                ]
            }
            None => Default::default(),
        };
        let spread = group.spread().map_or(String::new(), |spread| format!("{spread:.3}"));
        format!(
            "| {} | {} | {:.3} | {spread} | {difference} | {seeds} | {interval} |",
            group.name,
            group.seeds(),
            group.mean()
        )
    }));
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    lines.extend([
        String::new(),
        format!("| task | metric | chance | {} |", names.join(" | ")),
        format!("|---|---|--:|{}", "--:|".repeat(groups.len())),
    ]);
    lines.extend(base.tasks().iter().map(|task| {
        let cells: Vec<String> = groups
            .iter()
            .map(|group| group.task(task).map_or("–".to_owned(), |value| format!("{value:.3}")))
            .collect();
        format!("| {} | {} | {:.3} | {} |", task.task, task.metric, task.chance, cells.join(" | "))
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::Measurements;
    use super::*;

    fn run(name: &str, seed: u32, alpha: &str, values: [&[f64]; 2]) -> ComparedRun {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let task = |(i, values): (usize, &[f64])| ScoredTask {
            task: format!("task_{i}"),
            kind: "image_retrieval".into(),
            metric: "hit_rate@1".into(),
            value: mean(values),
            chance: 0.1,
            hit: None,
            hit_chance: 0.1,
            queries: values.iter().enumerate().map(|(at, value)| (at.to_string(), *value)).collect(),
        };
        let model =
            ModelScores { name: "one".into(), tasks: values.into_iter().enumerate().map(task).collect() };
        ComparedRun {
            name: name.into(),
            recipe: vec![("seed".into(), seed.to_string()), ("alpha".into(), alpha.into())],
            stages: Vec::new(),
            measured: Some(Measurements { models: vec![model], ..Measurements::default() }),
        }
    }

    #[test]
    fn runs_that_differ_in_their_seed_are_a_group() {
        let runs = [
            run("plain-2", 2, "0", [&[0.0, 1.0], &[0.0]]),
            run("hard-1", 1, "9", [&[1.0, 1.0], &[1.0]]),
            run("plain-1", 1, "0", [&[0.0, 0.0], &[0.0]]),
            run("hard-2", 2, "9", [&[1.0, 1.0], &[1.0]]),
            run("alone", 1, "3", [&[0.0, 0.0], &[0.0]]),
        ];
        let groups = SeedGroup::of(&runs).unwrap();
        let names: Vec<(&str, usize)> =
            groups.iter().map(|group| (group.name.as_str(), group.seeds())).collect();
        assert_eq!(names, [("plain", 2), ("hard", 2), ("alone", 1)]);
        let [plain, hard, alone] = &groups[..] else { panic!() };
        assert_eq!((plain.mean(), hard.mean()), (0.125, 1.0));
        // Means 0 and 0.25.
        assert!((plain.spread().unwrap() - 0.03125f64.sqrt()).abs() < 1e-12);
        assert_eq!((alone.spread(), hard.spread()), (None, Some(0.0)));
        assert_eq!(plain.task(&plain.tasks()[0]), Some(0.25));
        let GroupDifference { found, by_seed, tasks } = hard.difference(plain).unwrap();
        assert_eq!((found.mean_difference, by_seed, tasks), (0.875, vec![1.0, 0.75], 2));
        assert!(found.low > 0.7 && found.high <= 1.0, "{found:?}");
        // Of the seeds, both have the first alone.
        assert_eq!(alone.difference(plain).unwrap().by_seed, [0.0]);
        let lines = seed_lines(&groups);
        assert!(
            lines[3].starts_with("| hard | 2 | 1.000 | 0.000 | +0.875 | +1.000, +0.750 | "),
            "{lines:#?}"
        );
        assert_eq!(lines.last().unwrap(), "| task_1 | hit_rate@1 | 0.100 | 0.000 | 1.000 | 0.000 |");
    }

    #[test]
    fn groups_are_named_by_what_their_runs_share() {
        let named = |names: [&str; 2]| {
            let runs = names.map(|name| run(name, 1, "0", [&[0.0], &[0.0]]));
            common_start(&runs.iter().collect::<Vec<_>>())
        };
        assert_eq!(named(["mask-1", "mask-2"]), "mask");
        assert_eq!(named(["s11", "s12"]), "s");
        assert_eq!(named(["one", "two"]), "one");
        // Where these would be the same, each is called by its first run.
        let of = |name: &str, seed, alpha| run(name, seed, alpha, [&[0.0], &[0.0]]);
        let runs =
            [of("runs/1/a", 1, "0"), of("runs/2/a", 2, "0"), of("runs/1/b", 1, "9"), of("runs/2/b", 2, "9")];
        let groups = SeedGroup::of(&runs).unwrap();
        assert_eq!(
            groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(),
            ["runs/1/a", "runs/1/b"]
        );
    }

    #[test]
    fn a_seed_counts_once() {
        let runs = ["a", "b"].map(|name| run(name, 1, "0", [&[0.0], &[0.0]]));
        let error = SeedGroup::of(&runs).err().unwrap().to_string();
        assert!(error.contains("`a` and `b`"), "{error}");
    }

    #[test]
    fn without_seeds_there_are_no_groups() {
        let runs = [run("a", 1, "0", [&[0.0], &[0.0]]), run("b", 1, "9", [&[1.0], &[1.0]])];
        assert!(SeedGroup::of(&runs).unwrap().is_empty());
    }

    #[test]
    fn other_queries_are_not_compared() {
        let runs = [
            run("a-1", 1, "0", [&[0.0, 1.0], &[0.0]]),
            run("a-2", 2, "0", [&[0.0, 1.0], &[0.0]]),
            run("b-1", 1, "9", [&[1.0], &[1.0, 0.0]]),
        ];
        let groups = SeedGroup::of(&runs).unwrap();
        assert!(groups[1].difference(&groups[0]).is_none());
        assert!(seed_lines(&groups)[3].contains("| b-1 | 1 |"));
    }
}
