//! A stage from its first step to its last.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::optim::GradientsParams;
use rzen_core::{Batch, Encode, Objective, SaveWeights};

use crate::checkpoint::{self, Checkpoint, latest};
use crate::gradients::{norm_of, read, squared_norms};
use crate::metrics::{Metrics, peak_memory};
use crate::retention::{smoothed, tidy};
use crate::state::{FORMAT, parameter_keys};
use crate::{
    BoxError, Contrastive, LearningRates, Observer, Optimizer, RunFolder, StageConfig, State, StepOptions,
    StepRecord, StepStats, TrainError, cached_gradients, clip_gradients,
};

/// A batch and where it comes from.
#[derive(Clone, Debug)]
pub struct TrainBatch<I> {
    /// The batch, on the plain device.
    pub batch: Batch<I>,
    /// The dataset or group; stands in `metrics.jsonl` and in errors.
    pub label: String,
    /// Tokens in the batch, without padding; for `metrics.jsonl` alone.
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
    source: &mut dyn FnMut(usize) -> Result<TrainBatch<E::Input>, BoxError>,
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
    let mut stage = Stage::start(model, config, run, resume)?;
    let mut log = Log::start(run, config, stage.step)?;
    for index in stage.step..config.steps {
        if stop.load(Ordering::SeqCst) {
            let checkpoint = stage.save_once(&log, observer)?;
            return Err(TrainError::Interrupted { step: stage.step, checkpoint });
        }
        let ready = match stage.prepare(source) {
            Ok(ready) => ready,
            Err(cause) => return Err(stage.keep(cause, &log, observer)),
        };
        let outcome;
        (stage, outcome) = stage.advance(ready);
        log.add(outcome, observer)?;
        let done = index + 1;
        let by_steps = config.checkpoint_every > 0 && done.is_multiple_of(config.checkpoint_every);
        let waited = stage.since_saved.elapsed().as_secs_f64();
        if by_steps || config.checkpoint_minutes > 0.0 && waited >= 60.0 * config.checkpoint_minutes {
            stage.save_once(&log, observer)?;
        }
    }
    stage.save_once(&log, observer)?;
    Ok(stage.model.without_gradients())
}

/// A stage between two steps.
struct Stage<'a, E, O> {
    model: Contrastive<E, O>,
    optimizer: Optimizer,
    config: &'a StageConfig,
    run: &'a RunFolder,
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
struct Outcome {
    stats: StepStats,
    loss: f32,
    grad_norm: f64,
    rates: LearningRates,
    label: String,
    tokens: usize,
    stall: Duration,
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
            return Ok(Stage { model, optimizer, config, run, step: 0, smoothed_loss, saved, since_saved });
        };
        let differences = checkpoint.state.differences(run, config, &parameter_keys(trained));
        if !differences.is_empty() {
            return Err(TrainError::OtherRun { checkpoint: checkpoint.folder, differences });
        }
        optimizer = checkpoint.restore(optimizer)?;
        let State { step, smoothed_loss, .. } = checkpoint.state;
        tidy(&run.checkpoints(), step, config)?;
        let (saved, since_saved) = (Some(checkpoint.folder), Instant::now());
        Ok(Stage { model, optimizer, config, run, step, smoothed_loss, saved, since_saved })
    }

    /// Computes the gradients of the next step, or refuses it; nothing changes yet.
    fn prepare(
        &self,
        source: &mut dyn FnMut(usize) -> Result<TrainBatch<E::Input>, BoxError>,
    ) -> Result<Ready, TrainError> {
        let asked = Instant::now();
        let TrainBatch { batch, label, tokens } =
            source(self.step).map_err(|source| TrainError::Source { step: self.step + 1, source })?;
        let stall = asked.elapsed();
        let options = StepOptions {
            recompute: self.config.recompute,
            checkpointing: self.config.checkpointing,
            threads: self.config.threads,
        };
        let (stats, gradients) = cached_gradients(&self.model, &batch, options);
        let (loss, grad_norm) = self.check(&stats, &gradients, &label)?;
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
    fn keep(&mut self, cause: TrainError, log: &Log, observer: &mut dyn Observer) -> TrainError {
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

    /// Writes the checkpoint of this step unless it is there, and says where it lies.
    fn save_once(&mut self, log: &Log, observer: &mut dyn Observer) -> Result<PathBuf, TrainError> {
        if let Some(folder) = &self.saved {
            return Ok(folder.clone());
        }
        // The checkpoint must not outlast the lines that lead to it.
        log.metrics.sync()?;
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
        };
        let model = self.model.without_gradients();
        let checkpoints = self.run.checkpoints();
        let folder = checkpoint::save(&checkpoints, &model, &self.optimizer, state)?;
        observer.checkpoint(self.step, &folder);
        (self.saved, self.since_saved) = (Some(folder.clone()), Instant::now());
        Ok(folder)
    }
}

/// A fresh start beside old checkpoints would mix two runs.
fn refuse_checkpoints(run: &RunFolder) -> Result<(), TrainError> {
    match latest(&run.path)?.checkpoint {
        Some(found) => Err(TrainError::NotEmpty { run: run.path.clone(), checkpoint: found.folder }),
        None => Ok(()),
    }
}

/// Turns outcomes into lines.
struct Log<'a> {
    metrics: Metrics,
    run: &'a RunFolder,
    config: &'a StageConfig,
    step: usize,
    /// Since the last line.
    samples: usize,
    tokens: usize,
    stall: Duration,
    since: Instant,
}

impl<'a> Log<'a> {
    fn start(run: &'a RunFolder, config: &'a StageConfig, step: usize) -> Result<Self, TrainError> {
        fs::create_dir_all(&run.path).map_err(|source| TrainError::Metrics {
            action: "make the folder",
            path: run.path.clone(),
            source,
        })?;
        let metrics = Metrics::open(run.metrics(), step)?;
        Ok(Log {
            metrics,
            run,
            config,
            step,
            samples: 0,
            tokens: 0,
            stall: Duration::ZERO,
            since: Instant::now(),
        })
    }

    fn add(&mut self, outcome: Outcome, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.step += 1;
        self.samples += outcome.stats.samples;
        self.tokens += outcome.tokens;
        self.stall += outcome.stall;
        if !self.step.is_multiple_of(self.config.log_every) && self.step != self.config.steps {
            return Ok(());
        }
        let (names, values): (Vec<_>, Vec<_>) = outcome.stats.stats.into_iter().unzip();
        let seconds = self.since.elapsed().as_secs_f64();
        let record = StepRecord {
            stage: self.run.stage.clone(),
            step: self.step,
            steps: self.config.steps,
            loss: outcome.loss,
            learning_rate: outcome.rates.encoder,
            temperature_learning_rate: outcome.rates.temperature,
            grad_norm: outcome.grad_norm,
            samples: self.samples,
            tokens: self.tokens,
            samples_per_second: self.samples as f64 / seconds.max(1e-9),
            tokens_per_second: self.tokens as f64 / seconds.max(1e-9),
            seconds,
            stall_seconds: self.stall.as_secs_f64(),
            peak_memory_bytes: peak_memory(),
            label: outcome.label,
            // JSON has no NaN.
            stats: names.into_iter().zip(read(values)).filter(|(_, value)| value.is_finite()).collect(),
        };
        self.metrics.write(&record)?;
        observer.step(&record);
        (self.samples, self.tokens, self.stall, self.since) = (0, 0, Duration::ZERO, Instant::now());
        Ok(())
    }
}
