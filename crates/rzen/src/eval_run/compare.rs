//! Two evaluations beside each other: which differences are real.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Result, bail, ensure};
use rzen_eval::{PairedDifference, bootstrap_of_tasks};
use serde::Serialize;
use serde_json::{Value, json};

use super::Scored;
use super::scored::ScoredQueries;

/// The second evaluation against the first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Tasks that both have, in the order of the first.
    pub tasks: Vec<ComparedTask>,
    /// Groups of these, by name, with the number of their tasks.
    pub groups: Vec<ComparedGroup>,
    /// Over all of these.
    pub overall: PairedDifference,
    /// Tasks that only the first has.
    pub only_first: Vec<String>,
    /// Tasks that only the second has.
    pub only_second: Vec<String>,
    /// What the two were not measured alike in.
    pub notes: Vec<String>,
}

/// A task of both evaluations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedTask {
    /// Its name.
    pub task: String,
    /// Its metric.
    pub metric: String,
    /// The mean of the first.
    pub first: f64,
    /// The mean of the second.
    pub second: f64,
    /// The second minus the first.
    pub difference: PairedDifference,
    /// The p value after Holm's correction for the number of tasks: below 0.05 the difference is taken to be real.
    pub corrected_p: f64,
}

/// A group of tasks of both evaluations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedGroup {
    /// Its name.
    pub name: String,
    /// Its tasks.
    pub tasks: usize,
    /// The second minus the first.
    pub difference: PairedDifference,
    /// The p value after the same correction for the number of groups.
    pub corrected_p: f64,
}

/// Resamples; enough that p stays below 0.05 after correction for a hundred tasks.
const SAMPLES: usize = 10_000;
/// Decides the draws.
const SEED: u64 = 1;
/// A p value below which a difference is taken to be real.
pub const REAL: f64 = 0.05;

/// Compares `second` with `first`, query by query.
///
/// # Errors
/// No task in common, or a task that the two measured with other metrics or on other queries.
pub fn compare(first: &Scored, second: &Scored) -> Result<Comparison> {
    let has = |scored: &Scored, name: &str| scored.tasks.iter().any(|task| task.task == name);
    let missing = |from: &Scored, of: &Scored| -> Vec<String> {
        let names = of.tasks.iter().map(|task| &task.task);
        names.filter(|name| !has(from, name)).cloned().collect()
    };
    let (mut tasks, mut differences, mut groups) =
        (Vec::new(), Vec::new(), Vec::<(String, Vec<usize>)>::new());
    for a in &first.tasks {
        let Some(b) = second.tasks.iter().find(|b| b.task == a.task) else { continue };
        let of_task = paired(a, b)?;
        for group in &a.groups {
            match groups.iter_mut().find(|(name, _)| name == group) {
                Some((_, members)) => members.push(tasks.len()),
                None => groups.push((group.clone(), vec![tasks.len()])),
            }
        }
        tasks.push(ComparedTask {
            task: a.task.clone(),
            metric: a.metric.clone(),
            first: mean(a),
            second: mean(b),
            difference: bootstrap_of_tasks(std::slice::from_ref(&of_task), SAMPLES, SEED)?,
            corrected_p: 1.0,
        });
        differences.push(of_task);
    }
    ensure!(!tasks.is_empty(), "the two evaluations have no task in common");
    let corrected = holm(tasks.iter().map(|task| task.difference.p));
    tasks.iter_mut().zip(corrected).for_each(|(task, p)| task.corrected_p = p);
    let groups = groups.into_iter().map(|(name, members)| {
        let of_group: Vec<Vec<f64>> = members.iter().map(|at| differences[*at].clone()).collect();
        let difference = bootstrap_of_tasks(&of_group, SAMPLES, SEED)?;
        Ok(ComparedGroup { name, tasks: members.len(), difference, corrected_p: 1.0 })
    });
    let mut groups: Vec<ComparedGroup> = groups.collect::<Result<_>>()?;
    let corrected = holm(groups.iter().map(|group| group.difference.p));
    groups.iter_mut().zip(corrected).for_each(|(group, p)| group.corrected_p = p);
    Ok(Comparison {
        groups,
        overall: bootstrap_of_tasks(&differences, SAMPLES, SEED)?,
        only_first: missing(second, first),
        only_second: missing(first, second),
        notes: unlike(first, second),
        tasks,
    })
}

/// Settings that make other scores of the same model, where the two differ in them.
fn unlike(first: &Scored, second: &Scored) -> Vec<String> {
    // The same data may lie elsewhere.
    let value = |scored: &Scored, name: &str| match scored.settings.get(name) {
        Some(Value::String(path)) => Path::new(path).file_name().map(|name| json!(name.to_string_lossy())),
        other => other.cloned(),
    };
    let differing = COMPARED.iter().filter(|name| value(first, name) != value(second, name));
    let shown = |scored: &Scored, name: &str| match scored.settings.get(name) {
        None => "nothing".to_owned(),
        Some(value) => value.to_string(),
    };
    let note = |name: &&str| {
        format!("`{name}` is {} in the first and {} in the second.", shown(first, name), shown(second, name))
    };
    // What a training run measured says nothing of these.
    match first.settings.is_empty() || second.settings.is_empty() {
        true => Vec::new(),
        false => differing.map(note).collect(),
    }
}

/// The settings in `eval.json` that say what was measured, and not of what.
const COMPARED: [&str; 4] = ["data", "benchmark", "protocol", "compat"];

fn mean(task: &ScoredQueries) -> f64 {
    task.queries.iter().map(|(_, value)| value).sum::<f64>() / task.queries.len() as f64
}

/// The second minus the first for each query, whatever the order of either.
fn paired(a: &ScoredQueries, b: &ScoredQueries) -> Result<Vec<f64>> {
    if a.metric != b.metric {
        bail!("task `{}` is measured by {} in the one and by {} in the other", a.task, a.metric, b.metric);
    }
    let of_b: HashMap<&str, f64> = b.queries.iter().map(|(id, value)| (id.as_str(), *value)).collect();
    for task in [a, b] {
        let mut seen = HashSet::new();
        if let Some((id, _)) = task.queries.iter().find(|(id, _)| !seen.insert(id)) {
            bail!(
                "task `{}` has two queries `{id}` in queries.jsonl of one evaluation; evaluate that again",
                task.task
            );
        }
    }
    let lost = || a.queries.iter().filter(|(id, _)| !of_b.contains_key(id.as_str())).count();
    ensure!(
        a.queries.len() == b.queries.len() && lost() == 0,
        "task `{}` has {} queries in the one and {} in the other, {} of the first missing from the second; evaluate both on \
         the same data",
        a.task,
        a.queries.len(),
        b.queries.len(),
        lost()
    );
    Ok(a.queries.iter().map(|(id, value)| of_b[id.as_str()] - value).collect())
}

/// Holm's step-down correction: the smallest p counts as often as there are, the next one once less, and so on.
fn holm(p: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut corrected: Vec<f64> = p.collect();
    let mut order: Vec<usize> = (0..corrected.len()).collect();
    order.sort_by(|a, b| corrected[*a].total_cmp(&corrected[*b]));
    let mut least = 0.0f64;
    for (place, at) in order.iter().enumerate() {
        least = least.max(corrected[*at] * (order.len() - place) as f64).min(1.0);
        corrected[*at] = least;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn scored(tasks: &[(&str, Vec<f64>)]) -> Scored {
        let task = |(name, values): &(&str, Vec<f64>)| ScoredQueries {
            task: (*name).to_owned(),
            metric: "hit_rate@1".into(),
            groups: vec!["all".into(), name[..1].to_owned()],
            queries: values.iter().enumerate().map(|(i, value)| (format!("q{i}"), *value)).collect(),
        };
        Scored { tasks: tasks.iter().map(task).collect(), settings: Map::new() }
    }

    fn hits(count: usize, every: usize) -> Vec<f64> {
        (0..count).map(|i| f64::from(u8::from(i % every == 0))).collect()
    }

    #[test]
    fn clear_differences_are_real_and_faint_ones_are_not() {
        let first =
            scored(&[("a1", hits(400, 4)), ("a2", hits(400, 4)), ("b1", hits(60, 3)), ("x", hits(9, 2))]);
        let second =
            scored(&[("b1", hits(60, 3)), ("a1", hits(400, 2)), ("a2", hits(400, 5)), ("y", hits(9, 2))]);
        let found = compare(&first, &second).unwrap();
        let names: Vec<_> = found.tasks.iter().map(|task| task.task.as_str()).collect();
        assert_eq!(names, ["a1", "a2", "b1"]);
        assert_eq!((found.only_first.join(""), found.only_second.join("")), ("x".into(), "y".into()));
        assert!((found.tasks[0].difference.mean_difference - 0.25).abs() < 1e-12);
        assert!(found.tasks[0].corrected_p < REAL && found.tasks[2].corrected_p == 1.0);
        // 0.20 against 0.25 with 400 queries each: nothing to be sure of.
        assert!(found.tasks[1].corrected_p > REAL, "{:?}", found.tasks[1]);
        let mean = found.tasks.iter().map(|task| task.difference.mean_difference).sum::<f64>() / 3.0;
        assert!((found.overall.mean_difference - mean).abs() < 1e-12);
        let groups: Vec<_> = found.groups.iter().map(|group| (group.name.as_str(), group.tasks)).collect();
        assert_eq!(groups, [("all", 3), ("a", 2), ("b", 1)]);
        // The other way round the signs turn.
        let back = compare(&second, &first).unwrap();
        assert!((back.overall.mean_difference + found.overall.mean_difference).abs() < 1e-12);
    }

    #[test]
    fn the_correction_is_that_of_holm() {
        for (found, expected) in holm([0.02, 0.01, 0.04, 0.5].into_iter()).iter().zip([0.06, 0.04, 0.08, 0.5])
        {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn what_was_measured_otherwise_is_told() {
        let with = |settings: serde_json::Value| Scored {
            settings: settings.as_object().unwrap().clone(),
            ..scored(&[("a", hits(10, 2))])
        };
        let first = with(json!({"protocol": "rzen", "model": "one", "data": "/disk/mmeb"}));
        let second = with(json!({"protocol": "vlm2vec", "model": "two", "data": "mmeb", "compat": true}));
        let notes = compare(&first, &second).unwrap().notes;
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert_eq!(notes[0], "`protocol` is \"rzen\" in the first and \"vlm2vec\" in the second.");
        assert_eq!(notes[1], "`compat` is nothing in the first and true in the second.");
        assert!(compare(&first, &scored(&[("a", hits(10, 2))])).unwrap().notes.is_empty());
    }

    #[test]
    fn other_queries_are_refused() {
        let first = scored(&[("a", hits(10, 2))]);
        let error = compare(&first, &scored(&[("a", hits(9, 2))])).unwrap_err().to_string();
        assert!(error.contains("`a`") && error.contains("10") && error.contains('9'), "{error}");
        assert!(compare(&first, &scored(&[("b", hits(10, 2))])).unwrap_err().to_string().contains("no task"));
        let mut twice = first.clone();
        twice.tasks[0].queries[1].0 = "q0".into();
        assert!(compare(&first, &twice).unwrap_err().to_string().contains("two queries `q0`"));
        let mut other = first.clone();
        other.tasks[0].metric = "mrr".into();
        assert!(compare(&first, &other).unwrap_err().to_string().contains("mrr"));
    }
}
