//! What is wrong with the files of a benchmark, all in one list.

use std::fmt;

use rayon::prelude::*;

use super::draft::Draft;
use super::error::MissingMedia;
use super::table::Count;
use super::{PublishedError, PublishedTask};
use crate::picture::{picture_format, read_head};

/// What a look at the files of data sets has found. Shown as a list, one line for each data set and kind of fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// What hinders an evaluation: tables, columns or media that are missing, rows that are wrong.
    pub faults: Vec<Problem>,
    /// Numbers of queries or pages that differ from the published ones, and candidates that leave nothing to find: scores would be
    /// other scores.
    pub counts: Vec<Problem>,
    /// What one should know of: numbers that differ from what others say of the data, queries left out.
    pub notes: Vec<Problem>,
    /// How many data sets were looked at.
    pub looked_at: usize,
}

/// Something about a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The data set.
    pub task: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl Problems {
    /// Whether there is neither a fault nor a number that differs.
    pub fn is_fine(&self) -> bool {
        self.faults.is_empty() && self.counts.is_empty()
    }

    pub(super) fn add(&mut self, task: &PublishedTask, draft: Result<Draft, PublishedError>) {
        self.looked_at += 1;
        let fault = |problem: String| Problem { task: task.name.clone(), problem };
        let draft = match draft {
            Ok(draft) => draft,
            Err(error) => return self.faults.push(fault(error.to_string())),
        };
        self.faults.extend(missing(&draft).map(|missing| fault(missing.to_string())));
        self.notes.extend(draft.notes.iter().cloned().map(fault));
        if draft.num_queries() == 0 {
            self.faults.push(fault("holds no query that can be scored".to_owned()));
        }
        if draft.answers_only > 0 {
            let problem = format!(
                "{} of {} queries list nothing but answers, of which every model finds one",
                draft.answers_only,
                draft.num_queries()
            );
            let is_most = draft.answers_only * 10 > draft.num_queries();
            let list = if is_most { &mut self.counts } else { &mut self.notes };
            list.push(fault(problem));
        }
        let [queries, candidates] = task.counts();
        self.compare(task, queries, draft.num_queries(), "queries");
        let mut lists = draft.lists.keys().copied();
        match (lists.next(), lists.next_back(), candidates.number()) {
            (None, _, _) => self.compare(task, candidates, draft.num_candidates(), "candidates"),
            (Some(length), None, _) => self.compare(task, candidates, length, "candidates for each query"),
            (Some(least), Some(most), Some(expected)) => {
                let problem =
                    format!("{least} to {most} candidates for each query, {expected} as others count them");
                self.notes.push(fault(problem));
            }
            (Some(_), Some(_), None) => {}
        }
    }

    fn compare(&mut self, task: &PublishedTask, expected: Count, found: usize, what: &str) {
        let fault = |problem| Problem { task: task.name.clone(), problem };
        match expected {
            Count::Exact(number) if number != found => {
                self.counts.push(fault(format!("{found} {what}, published with {number}")));
            }
            Count::About(number) if number != found => {
                self.notes.push(fault(format!("{found} {what}, {number} as others count them")));
            }
            _ => {}
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("can't be evaluated", &self.faults),
            ("differ in size from what was published", &self.counts),
            ("to know", &self.notes),
        ];
        for (title, list) in parts.into_iter().filter(|(_, list)| !list.is_empty()) {
            let mut names: Vec<_> = list.iter().map(|fault| &fault.task).collect();
            names.dedup();
            writeln!(f, "{title} ({} of {} data sets):", names.len(), self.looked_at)?;
            for Problem { task, problem } in list {
                writeln!(f, "  {task}: {problem}")?;
            }
        }
        Ok(())
    }
}

/// How many files are named one by one.
const NAMED: usize = 3;

/// The media that can't be used: folders of frames without any, and files that are missing or begin as no picture.
pub(super) fn missing(draft: &Draft) -> Option<MissingMedia> {
    let files = draft.files();
    let wrong = |path: &std::path::PathBuf| match read_head(path, 32) {
        Err(_) if !path.exists() => Some(format!("`{}` is missing", path.display())),
        Err(error) => Some(error.to_string()),
        Ok(head) if picture_format(&head).is_none() => Some(format!("`{}` is no picture", path.display())),
        Ok(_) => None,
    };
    let (folders, looked) = (&draft.folders.0, draft.folders.1);
    let files_wrong: Vec<String> = files.par_iter().filter_map(wrong).collect();
    let count = folders.len() + files_wrong.len();
    let first = folders.iter().cloned().chain(files_wrong).take(NAMED).collect();
    (count > 0).then_some(MissingMedia { first, count, all: files.len() + looked, advice: draft.advice })
}
