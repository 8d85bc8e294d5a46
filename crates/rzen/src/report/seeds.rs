//! Runs of one recipe with several seeds, and what they say together.

use rzen_eval::{PairedDifference, bootstrap_of_tasks};

use super::compare::ComparedRun;
use super::measured::{ModelScores, ScoredTask};

/// Measured runs whose recipes are the same but for their seed.
pub struct SeedGroup<'a> {
    /// What the names of its runs begin with.
    pub name: String,
    /// The seed and the last model of each run, by seed.
    runs: Vec<(String, &'a ModelScores)>,
}

impl<'a> SeedGroup<'a> {
    /// The groups, in the order of their first runs; `None` unless one has several runs.
    pub fn of(runs: &'a [ComparedRun]) -> Option<Vec<Self>> {
        let mut groups: Vec<(Vec<&(String, String)>, Vec<&'a ComparedRun>)> = Vec::new();
        for run in runs.iter().filter(|run| run.model().is_some()) {
            let rest: Vec<_> = run.recipe.iter().filter(|(key, _)| key != "seed").collect();
            match groups.iter_mut().find(|(recipe, _)| *recipe == rest) {
                Some((_, members)) => members.push(run),
                None => groups.push((rest, vec![run])),
            }
        }
        let group = |(_, members): (_, Vec<&'a ComparedRun>)| {
            let names: Vec<&str> = members.iter().map(|run| run.name.as_str()).collect();
            let mut runs: Vec<(String, &ModelScores)> =
                members.iter().filter_map(|run| Some((seed(run), run.model()?))).collect();
            runs.sort_by(|a, b| a.0.cmp(&b.0));
            SeedGroup { name: common_start(&names), runs }
        };
        let groups: Vec<Self> = groups.into_iter().map(group).collect();
        groups.iter().any(|group| group.runs.len() > 1).then_some(groups)
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

    /// The mean of a task over the runs that have it.
    pub fn task(&self, task: &ScoredTask) -> Option<f64> {
        let values: Vec<f64> = self.scores_of(task).map(|found| found.value).collect();
        (!values.is_empty()).then(|| mean(values.into_iter()))
    }

    fn scores_of(&self, task: &ScoredTask) -> impl Iterator<Item = &'a ScoredTask> {
        let (name, metric) = (task.task.clone(), task.metric.clone());
        self.runs
            .iter()
            .filter_map(move |(_, model)| model.task(&name).filter(|found| found.metric == metric))
    }

    /// The tasks of the first run.
    pub fn tasks(&self) -> &'a [ScoredTask] {
        self.runs.first().map_or(&[], |(_, model)| &model.tasks)
    }

    /// The mean over tasks of what this group has more than `base`, over the seeds and tasks that both have, with its
    /// interval; `None` where they have none in common or didn't answer the same queries.
    pub fn difference(&self, base: &SeedGroup) -> Option<PairedDifference> {
        let pairs: Vec<(&ModelScores, &ModelScores)> = self
            .runs
            .iter()
            .filter_map(|(seed, here)| {
                let (_, there) = base.runs.iter().find(|(other, _)| other == seed)?;
                Some((*here, *there))
            })
            .collect();
        let of_task = |task: &ScoredTask| -> Option<Vec<Vec<f64>>> {
            let run = |(here, there): &(&ModelScores, &ModelScores)| {
                differences(here.task(&task.task)?, there.task(&task.task)?)
            };
            pairs.iter().map(run).collect()
        };
        let differences: Vec<Vec<Vec<f64>>> = base.tasks().iter().filter_map(of_task).collect();
        bootstrap_of_tasks(&differences, 2000, 1).ok()
    }
}

fn differences(here: &ScoredTask, there: &ScoredTask) -> Option<Vec<f64>> {
    let ids = |task: &ScoredTask| task.queries.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    let same = here.metric == there.metric && ids(here) == ids(there);
    same.then(|| here.queries.iter().zip(&there.queries).map(|((_, a), (_, b))| a - b).collect())
}

fn seed(run: &ComparedRun) -> String {
    run.recipe.iter().find(|(key, _)| key == "seed").map_or(String::new(), |(_, value)| value.clone())
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// What all names begin with, without separators at its end; the first name where that is nothing.
fn common_start(names: &[&str]) -> String {
    let Some((first, others)) = names.split_first() else { return String::new() };
    let common = |name: &&str| first.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
    let Some(length) = others.iter().map(common).min() else { return (*first).to_owned() };
    let start: String = first.chars().take(length).collect();
    let start = start.trim_end_matches(|c: char| !c.is_alphanumeric());
    if start.is_empty() { (*first).to_owned() } else { start.to_owned() }
}

/// The groups as lines of a Markdown table: means, spreads, differences to the first group, then task by task.
pub fn seed_lines(groups: &[SeedGroup]) -> Vec<String> {
    let Some((base, _)) = groups.split_first() else { return Vec::new() };
    let mut lines = vec![
        format!("| recipe | seeds | mean | deviation | against {} | 95 % interval |", base.name),
        "|---|--:|--:|--:|--:|--:|".to_owned(),
    ];
    lines.extend(groups.iter().enumerate().map(|(i, group)| {
        let [difference, interval] = match group.difference(base).filter(|_| i > 0) {
            Some(found) => {
                [format!("{:+.3}", found.mean_difference), format!("{:+.3} to {:+.3}", found.low, found.high)]
            }
            None => [String::new(), String::new()],
        };
        let spread = group.spread().map_or(String::new(), |spread| format!("{spread:.3}"));
        format!(
            "| {} | {} | {:.3} | {spread} | {difference} | {interval} |",
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
        let found = hard.difference(plain).unwrap();
        assert_eq!(found.mean_difference, 0.875);
        assert!(found.low > 0.4 && found.high <= 1.0, "{found:?}");
        // Of the seeds, both have the first alone.
        assert_eq!(alone.difference(plain).unwrap().mean_difference, 0.0);
        let lines = seed_lines(&groups);
        assert!(lines[3].starts_with("| hard | 2 | 1.000 | 0.000 | +0.875 | "), "{lines:#?}");
        assert_eq!(lines.last().unwrap(), "| task_1 | hit_rate@1 | 0.100 | 0.000 | 1.000 | 0.000 |");
    }

    #[test]
    fn without_seeds_there_are_no_groups() {
        let runs = [run("a", 1, "0", [&[0.0], &[0.0]]), run("b", 1, "9", [&[1.0], &[1.0]])];
        assert!(SeedGroup::of(&runs).is_none());
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
    }
}
