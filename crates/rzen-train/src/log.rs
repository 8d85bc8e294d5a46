//! The lines of a stage.

use std::fs;
use std::time::{Duration, Instant};

use crate::gradients::read;
use crate::metrics::{Metrics, peak_memory};
use crate::stage::Outcome;
use crate::{Observer, RunFolder, StageConfig, StepRecord, TrainError};

/// Turns outcomes into lines.
pub(crate) struct Log<'a> {
    pub(crate) metrics: Metrics,
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
    pub(crate) fn start(
        run: &'a RunFolder,
        config: &'a StageConfig,
        step: usize,
    ) -> Result<Self, TrainError> {
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

    pub(crate) fn add(&mut self, outcome: Outcome, observer: &mut dyn Observer) -> Result<(), TrainError> {
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
