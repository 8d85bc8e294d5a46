//! A stage from its first step to its last.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::optim::GradientsParams;
use rzen_core::{Batch, Encode, Objective, Ranks, SaveWeights, Solo};

use crate::checkpoint::{self, Checkpoint, latest};
use crate::gradients::{norm_of, read, squared_norms};
use crate::likeness::check_alike;
use crate::log::Log;
use crate::retention::{smoothed, tidy};
use crate::state::{FORMAT, parameter_keys};
use crate::together::{Turn, agreed, first};
use crate::{
    BoxError, Contrastive, LearningRates, Observer, Optimizer, RunFolder, Share, StageConfig, State,
    StepOptions, StepStats, TrainError, cached_gradients, clip_gradients, shared_gradients,
};

/// A batch and where it comes from.
#[derive(Clone, Debug)]
pub struct TrainBatch<I> {
    /// The batch, on the plain device; where it is shared, the micro-batches of this rank.
    pub batch: Batch<I>,
    /// Which rank embeds which rows; one process alone needs none.
    pub share: Option<Share>,
    /// The dataset or group; stands in `metrics.jsonl` and in errors.
    pub label: String,
    /// Tokens in the whole batch, without padding; for `metrics.jsonl` alone.
    pub tokens: usize,
}

/// Trains `model` from where `resume` stands (or from the start) to the end of the stage.
///
/// - `model`: on the plain device, with the weights of `resume` when there is one (the caller loads
///   them from [`Checkpoint::encoder`] and [`Checkpoint::objective`]; only the optimizer's state and the
///   step are restored here). What trains is what requires a gradient, see the crate's front page.
/// - `source`: gives the batch of a step, counted from 0. It must depend on the step alone, so that a
///   resumed run sees the batches of the uninterrupted one; prefetching is its own business.
/// - `stop`: set it (from a Ctrl-C handler) and the trainer ends the step, writes a checkpoint and
///   returns [`TrainError::Interrupted`].
/// - returns the trained model on the plain device; the last checkpoint holds it too.
///
/// On a CPU a run that was stopped and resumed equals the uninterrupted one bit for bit.
///
/// # Errors
/// A step whose loss or gradient is not finite is refused, and the stage ends: see [`TrainError`].
/// Whatever the error, checkpoints written so far stay; where no batch came or a step was refused, the
/// steps before it are saved first.
pub fn train_stage<E, O>(
    model: Contrastive<E, O>,
    config: &StageConfig,
    source: &mut Source<'_, E::Input>,
    run: &RunFolder,
    resume: Option<Checkpoint>,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Contrastive<E, O>, TrainError>
where
    E: Module + Encode + SaveWeights + 'static,
    E::Input: Send,
    O: Module + Objective + SaveWeights,
{
    train_stage_on(model, config, source, run, resume, Control { ranks: &Solo, observer, stop })
}

/// Gives the batch of a step, counted from 0.
pub type Source<'a, I> = dyn FnMut(usize) -> Result<TrainBatch<I>, BoxError> + 'a;

/// Who trains, who watches, and who says that it is enough.
pub struct Control<'a> {
    /// The processes that train the stage together.
    pub ranks: &'a dyn Ranks,
    /// Told about steps and checkpoints on rank 0.
    pub observer: &'a mut dyn Observer,
    /// Set on any rank, all end.
    pub stop: &'a AtomicBool,
}

/// [`train_stage`] by several processes.
///
/// All ranks give the same `config`, `run`, `resume` and weights, and get the same model back. The `source` of each gives
/// its share of the batch ([`TrainBatch::share`]). Rank 0 alone writes: checkpoints, which all ranks must be able to read,
/// are those of one process, so that a stage may go on with another number of ranks; it is then the same up to rounding.
/// With the same number on the same machines it is the same bit for bit where the sums of [`Ranks::all_reduce_sum`] are.
///
/// # Errors
/// Those of [`train_stage`], on all ranks alike: what one rank finds wrong is [`TrainError::OtherRank`] on the others.
/// [`TrainError::Apart`] where the weights of two ranks differ, which is looked for every 100 steps and before each
/// checkpoint.
pub fn train_stage_on<E, O>(
    model: Contrastive<E, O>,
    config: &StageConfig,
    source: &mut Source<'_, E::Input>,
    run: &RunFolder,
    resume: Option<Checkpoint>,
    control: Control,
) -> Result<Contrastive<E, O>, TrainError>
where
    E: Module + Encode + SaveWeights + 'static,
    E::Input: Send,
    O: Module + Objective + SaveWeights,
{
    let Control { ranks, observer, stop } = control;
    let mut stage = agreed(ranks, Stage::start(model, config, run, resume, ranks))?;
    let mut log = first(ranks, || Log::start(run, config, stage.step))?;
    let mut logged = Ok(());
    for index in stage.step..config.steps {
        let turn = Turn::agree(ranks, logged, stop, stage.is_due())?;
        if turn.save {
            stage.save_once(&log, observer)?;
        }
        if turn.stop {
            let checkpoint = stage.save_once(&log, observer)?;
            return Err(TrainError::Interrupted { step: stage.step, checkpoint });
        }
        let ready = match stage.prepare(source) {
            Ok(ready) => ready,
            Err(cause) => return Err(stage.keep(cause, &log, observer)),
        };
        let outcome;
        (stage, outcome) = stage.advance(ready);
        logged = log.as_mut().map_or(Ok(()), |log| log.add(outcome, observer));
        if (index + 1).is_multiple_of(COMPARED_EVERY) {
            stage.check_alike()?;
        }
    }
    agreed(ranks, logged)?;
    stage.save_once(&log, observer)?;
    Ok(stage.model.without_gradients())
}

/// Steps between two looks at whether the ranks still hold the same weights.
const COMPARED_EVERY: usize = 100;

/// A stage between two steps.
struct Stage<'a, E, O> {
    model: Contrastive<E, O>,
    optimizer: Optimizer,
    config: &'a StageConfig,
    run: &'a RunFolder,
    ranks: &'a dyn Ranks,
    /// Steps finished.
    step: usize,
    /// See [`State::smoothed_loss`].
    smoothed_loss: Option<f32>,
    /// The checkpoint of this very step.
    saved: Option<PathBuf>,
    /// Since the last checkpoint, or the start.
    since_saved: Instant,
}

/// A step that can be taken: its loss and gradients are finite.
struct Ready {
    stats: StepStats,
    loss: f32,
    gradients: GradientsParams,
    grad_norm: f64,
    label: String,
    tokens: usize,
    /// How long the batch was waited for.
    stall: Duration,
}

/// What a finished step leaves to be reported.
pub(crate) struct Outcome {
    pub(crate) stats: StepStats,
    pub(crate) loss: f32,
    pub(crate) grad_norm: f64,
    pub(crate) rates: LearningRates,
    pub(crate) label: String,
    pub(crate) tokens: usize,
    pub(crate) stall: Duration,
}

impl<'a, E, O> Stage<'a, E, O>
where
    E: Module + Encode + SaveWeights + 'static,
    E::Input: Send,
    O: Module + Objective + SaveWeights,
{
    fn start(
        model: Contrastive<E, O>,
        config: &'a StageConfig,
        run: &'a RunFolder,
        resume: Option<Checkpoint>,
        ranks: &'a dyn Ranks,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        let model = model.with_gradients();
        let trained = model.trained_parameters();
        if trained.is_empty() {
            return Err(TrainError::NothingTrains);
        }
        let mut optimizer = Optimizer::new(&model, config);
        let Some(checkpoint) = resume else {
            refuse_checkpoints(run)?;
            let (smoothed_loss, saved, since_saved) = (None, None, Instant::now());
            return Ok(Stage {
                model,
                optimizer,
                config,
                run,
                ranks,
                step: 0,
                smoothed_loss,
                saved,
                since_saved,
            });
        };
        let differences = checkpoint.state.differences(run, config, &parameter_keys(trained));
        if !differences.is_empty() {
            return Err(TrainError::OtherRun { checkpoint: checkpoint.folder, differences });
        }
        optimizer = checkpoint.restore(optimizer)?;
        let State { step, smoothed_loss, .. } = checkpoint.state;
        if ranks.rank() == 0 {
            tidy(&run.checkpoints(), step, config)?;
        }
        let (saved, since_saved) = (Some(checkpoint.folder), Instant::now());
        Ok(Stage { model, optimizer, config, run, ranks, step, smoothed_loss, saved, since_saved })
    }

    /// Whether it is time for a checkpoint.
    fn is_due(&self) -> bool {
        let StageConfig { checkpoint_every: every, checkpoint_minutes: minutes, .. } = self.config;
        let by_steps = *every > 0 && self.step.is_multiple_of(*every);
        let waited = self.since_saved.elapsed().as_secs_f64();
        self.step > 0 && (by_steps || *minutes > 0.0 && waited >= 60.0 * minutes)
    }

    /// Computes the gradients of the next step, or refuses it; nothing changes yet.
    fn prepare(&self, source: &mut Source<'_, E::Input>) -> Result<Ready, TrainError> {
        let asked = Instant::now();
        let given = source(self.step).map_err(|source| TrainError::Source { step: self.step + 1, source });
        let TrainBatch { batch, share, label, tokens } = agreed(self.ranks, given)?;
        let stall = asked.elapsed();
        let options = StepOptions {
            recompute: self.config.recompute,
            checkpointing: self.config.checkpointing,
            threads: self.config.threads,
        };
        let (stats, gradients) = match share {
            Some(share) if self.ranks.size() > 1 => {
                shared_gradients(&self.model, &batch, &share, self.ranks, options)
            }
            _ => {
                assert_eq!(self.ranks.size(), 1, "a batch that several ranks train on is shared");
                cached_gradients(&self.model, &batch, options)
            }
        };
        let (loss, grad_norm) = agreed(self.ranks, self.check(&stats, &gradients, &label))?;
        Ok(Ready { stats, loss, gradients, grad_norm, label, tokens, stall })
    }

    /// Takes a step.
    fn advance(mut self, ready: Ready) -> (Self, Outcome) {
        let Ready { stats, loss, gradients, grad_norm, label, tokens, stall } = ready;
        let gradients = match self.config.max_grad_norm {
            max_norm if max_norm > 0.0 => clip_gradients(&self.model, gradients, grad_norm, max_norm),
            _ => gradients,
        };
        let rates = self.config.learning_rates(self.step);
        self.model = self.optimizer.step(self.model, gradients, rates);
        self.step += 1;
        self.smoothed_loss = Some(smoothed(self.smoothed_loss, self.step, loss));
        self.saved = None;
        (self, Outcome { stats, loss, grad_norm, rates, label, tokens, stall })
    }

    /// Keeps the steps so far, since the stage has to end, and says why it has to.
    fn keep(&mut self, cause: TrainError, log: &Option<Log>, observer: &mut dyn Observer) -> TrainError {
        if self.step == 0 {
            return cause;
        }
        match (self.save_once(log, observer), cause) {
            (Ok(folder), TrainError::NotFinite { step, label, loss, parameters, .. }) => {
                TrainError::NotFinite { step, label, loss, parameters, kept: Some(folder) }
            }
            (Ok(_), cause) => cause,
            (Err(source), cause) => TrainError::NotSaved { cause: Box::new(cause), source: Box::new(source) },
        }
    }

    /// Reads the loss and the gradient's norm, which must be finite.
    fn check(
        &self,
        stats: &StepStats,
        gradients: &GradientsParams,
        label: &str,
    ) -> Result<(f32, f64), TrainError> {
        let (names, squares) = squared_norms(&self.model, gradients);
        let scalars = read([vec![stats.loss.clone()], squares].concat());
        let (loss, norm) = (scalars[0], norm_of(names, &scalars[1..]));
        if loss.is_finite() && norm.not_finite.is_empty() {
            return Ok((loss, norm.total));
        }
        Err(TrainError::NotFinite {
            step: self.step + 1,
            label: label.to_string(),
            loss,
            parameters: norm.not_finite,
            kept: None,
        })
    }

    /// Writes the checkpoint of this step unless it is there, and says where it lies. Rank 0 writes.
    fn save_once(&mut self, log: &Option<Log>, observer: &mut dyn Observer) -> Result<PathBuf, TrainError> {
        if let Some(folder) = &self.saved {
            return Ok(folder.clone());
        }
        self.check_alike()?;
        first(self.ranks, || self.save(log.as_ref(), observer))?;
        let folder = checkpoint::folder(&self.run.checkpoints(), self.step);
        (self.saved, self.since_saved) = (Some(folder.clone()), Instant::now());
        Ok(folder)
    }

    fn save(&self, log: Option<&Log>, observer: &mut dyn Observer) -> Result<(), TrainError> {
        // The checkpoint must not outlast the lines that lead to it.
        log.map_or(Ok(()), |log| log.metrics.sync())?;
        let state = State {
            format: FORMAT,
            stage: self.run.stage.clone(),
            step: self.step,
            smoothed_loss: self.smoothed_loss,
            seed: self.run.seed,
            config: self.config.clone(),
            settings: self.run.settings.clone(),
            parameters: parameter_keys(self.model.trained_parameters()),
            optimizer_tensors: 0,
            files: Default::default(),
            sums: Default::default(),
        };
        let model = self.model.without_gradients();
        let folder = checkpoint::save(&self.run.checkpoints(), &model, &self.optimizer, state)?;
        observer.checkpoint(self.step, &folder);
        Ok(())
    }

    fn check_alike(&self) -> Result<(), TrainError> {
        check_alike(&self.model, self.ranks, self.step)
    }
}

/// A fresh start beside old checkpoints would mix two runs.
fn refuse_checkpoints(run: &RunFolder) -> Result<(), TrainError> {
    match latest(&run.path)?.checkpoint {
        Some(found) => Err(TrainError::NotEmpty { run: run.path.clone(), checkpoint: found.folder }),
        None => Ok(()),
    }
}
