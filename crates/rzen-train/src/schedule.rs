//! The learning rate of a step.

use std::f64::consts::PI;

use crate::{LearningRates, Schedule, StageConfig, Warmup};

impl StageConfig {
    /// The learning rates of the step with index `step`, counted from 0.
    ///
    /// The warm-up rises in equal parts and its last step is at the peak (no step is wasted at 0).
    /// Then `final + (1 - final) * f(progress)`, where progress runs from 0 at the first step after
    /// the warm-up towards 1 at `steps`, as in `transformers`.
    pub fn learning_rates(&self, step: usize) -> LearningRates {
        let factor = self.learning_rate_factor(step);
        LearningRates {
            encoder: self.learning_rate * factor,
            temperature: self.temperature_learning_rate * factor,
        }
    }

    fn learning_rate_factor(&self, step: usize) -> f64 {
        let warmup = self.warmup_steps();
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let progress = (step - warmup) as f64 / self.steps.saturating_sub(warmup).max(1) as f64;
        let progress = progress.min(1.0);
        let rest = match self.schedule {
            Schedule::Constant => return 1.0,
            Schedule::Linear => 1.0 - progress,
            Schedule::Cosine => (1.0 + (PI * progress).cos()) / 2.0,
        };
        self.final_learning_rate_ratio + (1.0 - self.final_learning_rate_ratio) * rest
    }

    fn warmup_steps(&self) -> usize {
        match self.warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Share(share) => (share * self.steps as f64).ceil() as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &StageConfig, expected: &[(usize, f64)]) {
        for &(step, factor) in expected {
            let rates = config.learning_rates(step);
            assert!((rates.encoder - config.learning_rate * factor).abs() < 1e-12, "{step}: {rates:?}");
            let temperature = config.temperature_learning_rate * factor;
            assert!((rates.temperature - temperature).abs() < 1e-12, "{step}: {rates:?}");
        }
    }

    fn config(schedule: Schedule, warmup: Warmup, last: f64) -> StageConfig {
        StageConfig {
            steps: 12,
            learning_rate: 0.01,
            temperature_learning_rate: 0.1,
            schedule,
            warmup,
            final_learning_rate_ratio: last,
            ..StageConfig::default()
        }
    }

    #[test]
    fn cosine_after_warmup() {
        let cosine = config(Schedule::Cosine, Warmup::Steps(4), 0.2);
        check(&cosine, &[(0, 0.25), (3, 1.0), (4, 1.0), (8, 0.6), (12, 0.2), (40, 0.2)]);
        // A quarter of the way: 0.2 + 0.8 * (1 + sqrt(1/2)) / 2.
        check(&cosine, &[(6, 0.882_842_712_474_619)]);
    }

    #[test]
    fn linear_with_a_share_of_warmup() {
        check(&config(Schedule::Linear, Warmup::Share(1.0 / 3.0), 0.0), &[(1, 0.5), (4, 1.0), (10, 0.25)]);
    }

    #[test]
    fn constant_is_exactly_the_peak() {
        let constant = config(Schedule::Constant, Warmup::Steps(0), 0.5);
        for step in [0, 1, 11, 100] {
            assert_eq!(constant.learning_rates(step), LearningRates { encoder: 0.01, temperature: 0.1 });
        }
    }

    #[test]
    fn warmup_may_fill_the_stage() {
        check(&config(Schedule::Cosine, Warmup::Share(1.0), 0.0), &[(0, 1.0 / 12.0), (11, 1.0)]);
    }
}
