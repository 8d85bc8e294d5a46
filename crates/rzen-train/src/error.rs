//! What can go wrong.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use burn::store::RecordError;

/// An error of the caller's own.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a stage did not reach its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A key of the stage can't be trained with.
    #[error("`{key}` of the stage is {found}, expected {expected}")]
    Config {
        /// The key.
        key: &'static str,
        /// Its value.
        found: f64,
        /// The values that it may take.
        expected: &'static str,
    },
    /// All parameters are frozen.
    #[error("no parameter of the model is set to train; choose what the stage trains before it starts")]
    NothingTrains,
    /// The caller had no batch.
    #[error("the batch of step {step} could not be made")]
    Source {
        /// The step, counted from 1.
        step: usize,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The loss or a gradient is NaN or infinite. The step was refused: no parameter changed.
    #[error(
        "step {step} ({label}) was refused: the loss is {loss} and {}. {}. Look for numbers in the batch \
         that the model can't work with, mend them and resume; a lower learning_rate or max_grad_norm makes \
         another run, which begins at its first step in an empty folder",
        describe_not_finite(.parameters), describe_kept(.kept)
    )]
    NotFinite {
        /// The step, counted from 1.
        step: usize,
        /// The batch's label.
        label: String,
        /// The value of the objective.
        loss: f32,
        /// The parameters whose gradient is not finite, in the order of the model.
        parameters: Vec<String>,
        /// The checkpoint of the step before; none before the first.
        kept: Option<PathBuf>,
    },
    /// A stage had to end, and what it had done since its last checkpoint could not be kept.
    #[error("{cause}; the steps since the last checkpoint are lost, since they could not be saved")]
    NotSaved {
        /// Why the stage had to end.
        cause: Box<TrainError>,
        /// Why they could not be saved.
        #[source]
        source: Box<TrainError>,
    },
    /// The caller asked to stop; all work is in the checkpoint.
    #[error("stopped after step {step}; `{}` holds everything that is needed to resume", checkpoint.display())]
    Interrupted {
        /// The last step that was finished, counted from 1.
        step: usize,
        /// Its checkpoint.
        checkpoint: PathBuf,
    },
    /// Another of the processes that train together can't go on.
    #[error("rank {rank}: {message}")]
    OtherRank {
        /// Which.
        rank: usize,
        /// Its error.
        message: String,
    },
    /// The processes that train together no longer hold the same weights.
    #[error(
        "after step {step} the weights of rank {rank} are not those of rank 0, bit for bit: its machine computes \
         otherwise (another kind of processor, another driver) or wrong. Checkpoints hold what was the same on all ranks; \
         leave the machine out, or take machines of one kind, and give the same command again to go on"
    )]
    Apart {
        /// Steps finished.
        step: usize,
        /// The first rank that differs.
        rank: usize,
    },
    /// A fresh start in a folder that holds checkpoints.
    #[error(
        "`{}` already holds the checkpoint `{}`; resume from it, or choose another run folder",
        run.display(), checkpoint.display()
    )]
    NotEmpty {
        /// The run folder.
        run: PathBuf,
        /// A complete checkpoint in it.
        checkpoint: PathBuf,
    },
    /// The checkpoint was written under another configuration.
    #[error(
        "checkpoint `{}` belongs to another run: {}. Resume with the recipe that it was trained with, \
         or choose another run folder",
        checkpoint.display(), .differences.join("; ")
    )]
    OtherRun {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// What differs, a clause each.
        differences: Vec<String>,
    },
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// `metrics.jsonl` could not be written.
    #[error("can't {action} `{}`; is the disk full, or the folder not writable? {GO_ON}", path.display())]
    Metrics {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn describe_kept(kept: &Option<PathBuf>) -> String {
    match kept {
        Some(folder) => format!(
            "The weights before it are in `{}`; if the loss had gone astray before, delete that folder, and the same command \
             goes on from an earlier one",
            folder.display()
        ),
        None => "No step was taken before it".into(),
    }
}

fn describe_not_finite(parameters: &[String]) -> String {
    match parameters {
        [] => "all gradients are finite".into(),
        [one] => format!("the gradient of `{one}` is not finite"),
        many => {
            let first: Vec<_> = many.iter().take(3).map(|name| format!("`{name}`")).collect();
            format!("the gradients of {} parameters are not finite, first {}", many.len(), first.join(", "))
        }
    }
}

/// What to do where a file could not be written.
const GO_ON: &str = "When that is mended, start again: the run goes on from its newest checkpoint";

fn optimizer_advice(action: &str) -> &'static str {
    match action {
        "read" => "Delete the checkpoint to go on from the one before",
        _ => GO_ON,
    }
}

/// Why a checkpoint was not written, or can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file system refused.
    #[error("can't {action} `{}`; is the disk full, or the folder not writable? {GO_ON}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The encoder or the objective did not save its weights.
    #[error(
        "the {part} could not save its weights to `{}`; earlier checkpoints are untouched. {GO_ON}",
        folder.display()
    )]
    Weights {
        /// `encoder` or `objective`.
        part: &'static str,
        /// Where to.
        folder: PathBuf,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
    /// The optimizer's state could not be written or read.
    #[error("can't {action} the optimizer's state `{}`. {}", path.display(), optimizer_advice(.action))]
    Optimizer {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: RecordError,
    },
    /// The folder is not a whole checkpoint.
    #[error("`{}` is not a complete checkpoint: {problem}; use an earlier one, or delete it", folder.display())]
    Incomplete {
        /// The folder.
        folder: PathBuf,
        /// What is missing or wrong.
        problem: String,
    },
    /// There are checkpoints, and none is whole.
    #[error(
        "none of the checkpoints in `{}` is complete, the newest of them: {newest}. Bring one back from a copy, or remove \
         that folder to begin the stage anew", checkpoints.display()
    )]
    NoneWhole {
        /// The folder of checkpoints.
        checkpoints: PathBuf,
        /// What is wrong with the newest.
        newest: String,
    },
    /// Another version of the program wrote it.
    #[error("`{}` has format {found}, expected {expected}; resume with the version that wrote it", folder.display())]
    Format {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        found: u64,
        /// The format that this version writes.
        expected: u32,
    },
}
