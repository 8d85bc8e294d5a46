//! A ranking task: queries, candidates, and which answers which.

use std::collections::HashSet;

use rzen_core::{Item, Task};

use crate::ranking::graded;
use crate::{EvalError, Metric, QueryProblem};

/// Queries to be ranked against a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct RankTask {
    /// Its name in the results.
    pub name: String,
    /// The kind of work; the table has a mean for each kind.
    pub kind: Task,
    /// The metric that the task is known by.
    pub metric: Metric,
    /// At least one.
    pub queries: Vec<RankQuery>,
    /// Candidates with their ids.
    pub pool: Vec<(String, Item)>,
}

/// A query and its right answers.
#[derive(Clone, Debug, PartialEq)]
pub struct RankQuery {
    /// Its name, unique in the task.
    pub id: String,
    /// The content with its instruction.
    pub item: Item,
    /// What is ranked, as indices into the pool; `None` for the whole pool.
    pub candidates: Option<Vec<usize>>,
    /// Of the whole pool, one that is not ranked, such as the query itself; a list of candidates leaves out what it will.
    pub excluded: Option<usize>,
    /// Grades by index into the pool; what is not named has grade 0.
    pub relevant: Vec<(usize, f64)>,
}

impl RankTask {
    /// Says what is wrong with the data before anything is embedded.
    ///
    /// # Errors
    /// No query, an id that stands twice, or a query whose candidates or grades make no sense.
    pub fn check(&self) -> Result<(), EvalError> {
        let task = || self.name.clone();
        if self.queries.is_empty() {
            return Err(EvalError::NoQueries { task: task() });
        }
        if let Some(id) = repeated(self.queries.iter().map(|query| query.id.as_str())) {
            return Err(EvalError::DuplicateId { task: task(), what: "queries", id });
        }
        if let Some(id) = repeated(self.pool.iter().map(|(id, _)| id.as_str())) {
            return Err(EvalError::DuplicateId { task: task(), what: "candidates", id });
        }
        for query in &self.queries {
            query.check(self.pool.len()).map_err(|problem| EvalError::Query {
                task: task(),
                query: query.id.clone(),
                problem,
            })?;
        }
        Ok(())
    }

    /// What a random order scores on `metric`, as the mean over the queries.
    ///
    /// # Panics
    /// If [`check`](RankTask::check) would fail.
    pub fn chance(&self, metric: Metric) -> f64 {
        let sum: f64 = self
            .queries
            .iter()
            .map(|query| {
                let grades: Vec<f64> = query.relevant.iter().map(|(_, grade)| *grade).collect();
                metric.chance(query.num_candidates(self.pool.len()), &grades)
            })
            .sum();
        sum / self.queries.len() as f64
    }

    /// Candidates that a query is ranked against, as the mean over the queries.
    pub fn mean_candidates(&self) -> f64 {
        let sum: usize = self.queries.iter().map(|query| query.num_candidates(self.pool.len())).sum();
        sum as f64 / self.queries.len() as f64
    }

    /// The candidates that at least one query ranks, in the order of the pool.
    pub fn used_candidates(&self) -> Vec<usize> {
        if self.queries.iter().any(|query| query.candidates.is_none()) {
            return (0..self.pool.len()).collect();
        }
        let mut used: Vec<usize> =
            self.queries.iter().filter_map(|query| query.candidates.clone()).flatten().collect();
        used.sort_unstable();
        used.dedup();
        used
    }
}

impl RankQuery {
    fn num_candidates(&self, pool: usize) -> usize {
        self.candidates.as_ref().map_or(pool.saturating_sub(usize::from(self.excluded.is_some())), Vec::len)
    }

    fn check(&self, pool: usize) -> Result<(), QueryProblem> {
        if self.num_candidates(pool) == 0 {
            return Err(QueryProblem::NoCandidates);
        }
        if let (Some(_), Some(candidate)) = (&self.candidates, self.excluded) {
            return Err(QueryProblem::Excluded { candidate });
        }
        let listed = self.candidates.iter().flatten();
        let named = self.relevant.iter().map(|(candidate, _)| candidate);
        if let Some(&candidate) =
            listed.chain(named).chain(&self.excluded).find(|candidate| **candidate >= pool)
        {
            return Err(QueryProblem::OutOfPool { candidate, pool });
        }
        if let Some(candidates) = &self.candidates {
            let mut seen = HashSet::new();
            if let Some(&candidate) = candidates.iter().find(|candidate| !seen.insert(**candidate)) {
                return Err(QueryProblem::Repeated { candidate });
            }
        }
        let relevant = graded(&self.relevant)?;
        let listed: Option<HashSet<usize>> =
            self.candidates.as_ref().map(|all| all.iter().copied().collect());
        let is_ranked = |candidate: &usize| match &listed {
            Some(listed) => listed.contains(candidate),
            None => self.excluded != Some(*candidate),
        };
        match relevant.into_iter().find(|(candidate, _)| !is_ranked(candidate)) {
            Some((candidate, _)) => Err(QueryProblem::NotRanked { candidate }),
            None => Ok(()),
        }
    }
}

fn repeated<'a>(ids: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut seen = HashSet::new();
    ids.into_iter().find(|id| !seen.insert(*id)).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> RankTask {
        RankTask {
            name: "toy".into(),
            kind: Task("image_retrieval".into()),
            metric: Metric::HIT_AT_1,
            queries: vec![RankQuery {
                id: "q".into(),
                item: Item::text("q"),
                candidates: None,
                excluded: None,
                relevant: vec![(1, 1.0)],
            }],
            pool: (0..4).map(|i| (format!("c{i}"), Item::text(format!("c{i}")))).collect(),
        }
    }

    fn check(change: impl FnOnce(&mut RankTask), expected: &str) {
        let mut task = task();
        change(&mut task);
        let error = task.check().unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let message = format!("{error}: {}", cause.unwrap_or_default());
        assert!(message.contains(expected) && message.contains("`toy`"), "{message}");
    }

    #[test]
    fn wrong_tasks_are_refused_by_name() {
        task().check().unwrap();
        check(|task| task.queries.clear(), "no queries");
        check(|task| task.pool.clear(), "no candidates");
        check(|task| task.pool[2].0 = "c0".into(), "two candidates with the id `c0`");
        check(|task| task.queries.push(task.queries[0].clone()), "two queries with the id `q`");
        check(
            |task| task.queries[0].relevant.clear(),
            "query `q` of task `toy` can't be ranked: it has no relevant candidate",
        );
        check(|task| task.queries[0].relevant = vec![(4, 1.0)], "names candidate 4, but the pool has 4");
        check(|task| task.queries[0].relevant = vec![(1, 1.0), (1, 2.0)], "candidate 1 twice");
        check(|task| task.queries[0].candidates = Some(vec![]), "no candidates");
        check(|task| task.queries[0].candidates = Some(vec![0, 1, 0]), "candidate 0 twice");
        check(|task| task.queries[0].candidates = Some(vec![0, 9]), "names candidate 9");
        check(|task| task.queries[0].candidates = Some(vec![0, 2]), "calls candidate 1 relevant");

        check(|task| task.queries[0].excluded = Some(4), "names candidate 4");
        check(|task| task.queries[0].excluded = Some(1), "calls candidate 1 relevant");
        check(
            |task| (task.queries[0].candidates, task.queries[0].excluded) = (Some(vec![0, 1]), Some(0)),
            "lists its candidates and excludes candidate 0",
        );

        let mut graded = task();
        graded.queries[0].candidates = Some(vec![0, 1]);
        graded.queries[0].relevant = vec![(1, 1.0), (3, 0.0)];
        graded.check().unwrap();
    }

    #[test]
    fn chance_and_candidates_are_means_over_the_queries() {
        let mut task = task();
        let few = RankQuery { id: "r".into(), candidates: Some(vec![0, 1]), ..task.queries[0].clone() };
        task.queries.push(few);
        assert_eq!(task.chance(Metric::HIT_AT_1), (0.25 + 0.5) / 2.0);
        assert_eq!(task.mean_candidates(), 3.0);
        assert_eq!(task.used_candidates(), [0, 1, 2, 3]);
        task.queries[0].excluded = Some(0);
        assert!((task.chance(Metric::HIT_AT_1) - (1.0 / 3.0 + 0.5) / 2.0).abs() < 1e-12);
        assert_eq!(task.mean_candidates(), 2.5);
        task.queries.remove(0);
        assert_eq!(task.used_candidates(), [0, 1]);
    }
}
