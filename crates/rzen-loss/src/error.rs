//! Why an objective can't be built, saved or loaded.

use std::path::PathBuf;

/// Why an objective can't be built, saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LossError {
    /// A setting has a value that makes no sense.
    #[error("`{setting}` of the objective is {found}, expected {expected}")]
    Setting {
        /// The field of [`InfoNceConfig`](crate::InfoNceConfig).
        setting: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A temperature is no longer a number.
    #[error("theta of task `{task}` is {theta}; training diverged, go back to an earlier checkpoint")]
    NotFinite {
        /// The task.
        task: String,
        /// Its log temperature.
        theta: f32,
    },
    /// A file can't be read or written.
    #[error("can't {action} {path}; is it there, and is there room on the disk?", path = path.display())]
    Io {
        /// "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A file of temperatures is not JSON.
    #[error("{path} is not JSON; is the checkpoint complete?", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A file of temperatures lacks a task.
    #[error(
        "{path} has no finite number `theta` for task `{task}` (it names: {found}); \
         take the tasks that the checkpoint was trained with",
        path = path.display()
    )]
    Task {
        /// The file.
        path: PathBuf,
        /// The task that is missing or broken.
        task: String,
        /// The tasks that the file names.
        found: String,
    },
}
