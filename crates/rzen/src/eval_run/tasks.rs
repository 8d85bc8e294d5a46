//! Where the tasks of an evaluation come from.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rzen_data::{Distribution, EvalCorpus, EvalTask, Modality, Published, PublishedTask, Suite};
use rzen_eval::RankTask;

use super::Evaluation;
use crate::evaluate::{corpus_task, find_files, rank_task};

/// Tasks that are read one at a time.
pub enum TaskSource {
    /// Those of a corpus folder.
    Corpus {
        /// The folder.
        corpus: EvalCorpus,
        /// Those asked for.
        tasks: Vec<EvalTask>,
    },
    /// Those of a published benchmark.
    Published {
        /// Its files.
        published: Published,
        /// Those asked for.
        tasks: Vec<PublishedTask>,
        /// Whether all of them have as many queries and candidates as the published ones.
        has_published_counts: bool,
    },
}

/// What is known of a task before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskInfo {
    /// Its name.
    pub name: String,
    /// The groups that it counts in, widest first.
    pub groups: Vec<String>,
}

impl TaskSource {
    /// The tasks of a corpus, or those named, after a look for all their files.
    ///
    /// # Errors
    /// Names the file, the row and the key; or the task, the row and the file that is missing.
    pub fn corpus(folder: &Path, names: Option<&[String]>) -> Result<Self> {
        let corpus = EvalCorpus::open(folder)?;
        let tasks: Vec<EvalTask> = match names {
            None => corpus.tasks.clone(),
            Some(names) => names.iter().map(|name| corpus.task(name).cloned()).collect::<Result<_, _>>()?,
        };
        let source = TaskSource::Corpus { corpus, tasks };
        let mut seen = HashSet::new();
        (0..source.infos().len()).try_for_each(|at| find_files(&source.load(at)?, &mut seen))?;
        Ok(source)
    }

    /// The data sets of a benchmark, or those named, after a look at all their files and with the pages of all of them written; with
    /// sentences that a reader of the scores should bear in mind.
    ///
    /// `other_counts` takes data sets of another size than the published ones, and says so.
    ///
    /// # Errors
    /// All that is wrong with the files, in one list; a name that there is not; a page that can't be written.
    pub fn published(
        published: Published,
        names: Option<&[String]>,
        other_counts: bool,
    ) -> Result<(Self, Vec<String>)> {
        let problems = published.check(names)?;
        if !problems.faults.is_empty() || !(problems.counts.is_empty() || other_counts) {
            let advice = match problems.faults.is_empty() {
                true => "; scores would not be comparable; --allow-other-counts evaluates them as they are",
                false => "; docs/evaluation.md says where each file belongs, --tasks leaves data sets out",
            };
            bail!("{} can't be evaluated as published{advice}\n{problems}", published.suite());
        }
        let counts =
            problems.counts.iter().map(|one| format!("{}: {}; not comparable.", one.task, one.problem));
        let known = problems.notes.iter().map(|one| format!("{}: {}", one.task, one.problem));
        let mut notes: Vec<String> = counts.chain(known).collect();
        let tasks: Vec<PublishedTask> = published.named(names)?.into_iter().cloned().collect();
        if tasks.iter().any(|task| family(task).is_some()) {
            notes.push(
                "Means over all count each data set once; BEIR's own mean counts those of one folder, as CQADupStack's, as one: \
                 take the group of that name for it."
                    .to_owned(),
            );
        }
        for task in &tasks {
            let (count, folder) = published.write_pages(task).with_context(|| task.name.clone())?;
            if count > 0 {
                eprintln!("{}: {count} pages written to {}", task.name, folder.display());
            }
        }
        let has_published_counts = problems.counts.is_empty();
        Ok((TaskSource::Published { published, tasks, has_published_counts }, notes))
    }

    /// What is known of each task, in order.
    pub fn infos(&self) -> Vec<TaskInfo> {
        match self {
            TaskSource::Corpus { tasks, .. } => tasks
                .iter()
                .map(|task| TaskInfo { name: task.name.clone(), groups: vec![task.task.0.clone()] })
                .collect(),
            TaskSource::Published { tasks, .. } => {
                tasks.iter().map(|task| TaskInfo { name: task.name.clone(), groups: groups(task) }).collect()
            }
        }
    }

    /// The data set of a benchmark by name; `None` for tasks of a corpus.
    pub fn published_task(&self, name: &str) -> Option<&PublishedTask> {
        match self {
            TaskSource::Corpus { .. } => None,
            TaskSource::Published { tasks, .. } => tasks.iter().find(|task| task.name == name),
        }
    }

    /// The benchmark, where all its data sets are evaluated.
    pub fn whole_suite(&self) -> Option<Suite> {
        match self {
            TaskSource::Published { published, tasks, .. } if published.tasks().len() == tasks.len() => {
                Some(published.suite())
            }
            _ => None,
        }
    }

    /// Whether the data sets are as large as the published ones; `true` for a corpus, of which there are none.
    pub fn has_published_counts(&self) -> bool {
        match self {
            TaskSource::Corpus { .. } => true,
            TaskSource::Published { has_published_counts, .. } => *has_published_counts,
        }
    }

    /// The mean over all data sets of MMEB of a modality, or over all 78; `None` where some were left out.
    pub fn whole_mean(&self, evaluation: &Evaluation, modality: Option<Modality>) -> Option<f64> {
        let TaskSource::Published { published, .. } = self else { return None };
        let suite = published.suite();
        let of_mmeb = suite == Suite::MmebV2 || suite == Suite::MmebV1 && modality == Some(Modality::Image);
        let belongs = |task: &&PublishedTask| modality.is_none_or(|modality| task.modality == modality);
        let all = published.tasks().iter().filter(belongs);
        let scores: Option<Vec<f64>> = all
            .map(|task| {
                evaluation.tasks.iter().find(|one| one.info.name == task.name).map(|one| one.score.headline())
            })
            .collect();
        let scores = scores.filter(|scores| of_mmeb && !scores.is_empty())?;
        Some(scores.iter().sum::<f64>() / scores.len() as f64)
    }

    /// Reads a task.
    ///
    /// # Errors
    /// Names the file, the row and the key.
    pub fn load(&self, at: usize) -> Result<RankTask> {
        match self {
            TaskSource::Corpus { corpus, tasks } => corpus_task(corpus, &tasks[at]),
            TaskSource::Published { published, tasks, .. } => {
                let task = &tasks[at];
                let set = published.load(task).with_context(|| task.name.clone())?;
                let metric = task.metric.parse().with_context(|| task.name.clone())?;
                Ok(rank_task(&task.name, &task.task, metric, set))
            }
        }
    }
}

/// The folder that a data set lies in with others, such as `cqadupstack`.
fn family(task: &PublishedTask) -> Option<&str> {
    task.name.split_once('/').map(|(folder, _)| folder)
}

/// What a data set of a benchmark is averaged with: its modality, MMEB-V1's split, its meta-task.
fn groups(task: &PublishedTask) -> Vec<String> {
    let split = task.distribution.map(|distribution| match distribution {
        Distribution::In => "in-distribution".to_owned(),
        Distribution::Out => "out-of-distribution".to_owned(),
    });
    let mut groups: Vec<String> =
        [task.modality.to_string()].into_iter().chain(split).chain([task.meta_task.clone()]).collect();
    groups.extend(family(task).map(str::to_owned));
    groups.dedup();
    groups
}
