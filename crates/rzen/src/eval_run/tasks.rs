//! Where the tasks of an evaluation come from.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;
use rzen_data::{EvalCorpus, EvalTask};
use rzen_eval::RankTask;

use crate::evaluate::{find_files, rank_task};

/// Tasks that are read one at a time.
pub enum TaskSource {
    /// Those of a corpus folder.
    Corpus {
        /// The folder.
        corpus: EvalCorpus,
        /// Those asked for.
        tasks: Vec<EvalTask>,
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

    /// What is known of each task, in order.
    pub fn infos(&self) -> Vec<TaskInfo> {
        match self {
            TaskSource::Corpus { tasks, .. } => {
                let info =
                    |task: &EvalTask| TaskInfo { name: task.name.clone(), groups: vec![task.task.0.clone()] };
                tasks.iter().map(info).collect()
            }
        }
    }

    /// Reads a task.
    ///
    /// # Errors
    /// Names the file, the row and the key.
    pub fn load(&self, at: usize) -> Result<RankTask> {
        match self {
            TaskSource::Corpus { corpus, tasks } => rank_task(&tasks[at], corpus.load(&tasks[at])?),
        }
    }
}
