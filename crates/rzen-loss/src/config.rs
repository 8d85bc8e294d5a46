//! The settings of the objective.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor};
use rzen_core::Task;

use crate::{InfoNce, LossError};

/// "rzen.tau" in ASCII: one fixed identity, so that an optimizer's state finds theta after a reload.
const THETA_ID: u64 = u64::from_be_bytes(*b"rzen.tau");

/// Past these, `e^{±theta}` times a similarity would leave f32 in the gradients.
const THETA_LIMIT: f64 = 30.0;

/// The settings of [`InfoNce`]; the default is the paper's (§4.2), with what it leaves open filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct InfoNceConfig {
    /// Hardness `α`: a negative's term is multiplied by `e^{α s}`. 0 weights all alike.
    pub alpha: f64,
    /// `δ`: a candidate whose cosine with the positive is greater is no negative. `None` keeps all.
    pub delta: Option<f64>,
    /// Whether the gradient runs through the hardness weights. The default takes them as constants.
    pub differentiate_hardness: bool,
    /// Whether the loss is averaged with that of positives looking for their queries.
    pub symmetric: bool,
    /// The tasks, each with a temperature of its own, in the order of `Targets::task`.
    pub tasks: Vec<String>,
    /// The temperature that every task starts with.
    pub initial_temperature: f64,
    /// Whether the temperatures are trained.
    pub learn_temperature: bool,
    /// The loss never uses a temperature below this.
    pub temperature_min: Option<f64>,
    /// The loss never uses a temperature above this.
    pub temperature_max: Option<f64>,
}

impl Default for InfoNceConfig {
    fn default() -> Self {
        InfoNceConfig {
            alpha: 9.0,
            delta: Some(0.95),
            differentiate_hardness: false,
            symmetric: false,
            tasks: Task::PAPER.map(String::from).to_vec(),
            initial_temperature: 0.05,
            learn_temperature: true,
            temperature_min: None,
            temperature_max: None,
        }
    }
}

impl InfoNceConfig {
    /// Builds the objective with its temperatures on `device`.
    ///
    /// # Errors
    /// [`LossError::Setting`] names the first setting that makes no sense.
    pub fn init(&self, device: &Device) -> Result<InfoNce, LossError> {
        self.validate()?;
        let theta = vec![self.initial_temperature.ln() as f32; self.tasks.len()];
        Ok(InfoNce::new(self.clone(), theta_param(&theta, self.learn_temperature, device)))
    }

    /// The place of `task` among the tasks, which is its number in `Targets::task`.
    pub fn task_index(&self, task: &str) -> Option<usize> {
        self.tasks.iter().position(|name| name == task)
    }

    /// The least and the greatest theta that the loss uses.
    pub(crate) fn theta_range(&self) -> (f64, f64) {
        let low = self.temperature_min.map_or(-THETA_LIMIT, |tau| tau.ln().max(-THETA_LIMIT));
        let high = self.temperature_max.map_or(THETA_LIMIT, |tau| tau.ln().min(THETA_LIMIT));
        (low, high)
    }

    /// Whether the loss is kept from temperatures that training may reach.
    pub(crate) fn is_bounded(&self) -> bool {
        self.learn_temperature && (self.temperature_min.is_some() || self.temperature_max.is_some())
    }

    /// Checks that every setting makes sense, without a device.
    ///
    /// # Errors
    /// [`LossError::Setting`] names the first that doesn't.
    pub fn validate(&self) -> Result<(), LossError> {
        require("alpha", self.alpha, self.alpha.is_finite(), "a finite number")?;
        if let Some(delta) = self.delta {
            require("delta", delta, !delta.is_nan(), "a cosine")?;
        }
        for (setting, tau) in [
            ("initial_temperature", Some(self.initial_temperature)),
            ("temperature_min", self.temperature_min),
            ("temperature_max", self.temperature_max),
        ] {
            let Some(tau) = tau else { continue };
            let fits = tau > 0.0 && tau.is_finite() && tau.ln().abs() <= THETA_LIMIT;
            require(setting, tau, fits, "a temperature between 1e-13 and 1e13")?;
        }
        let (low, high) = self.theta_range();
        require("temperature_min", low.exp(), low <= high, "at most `temperature_max`")?;
        let start = self.initial_temperature.ln();
        let inside = (low..=high).contains(&start);
        let expected = "a temperature from `temperature_min` to `temperature_max`";
        require("initial_temperature", self.initial_temperature, inside, expected)?;
        let found = self.tasks.join(", ");
        let names_differ = self.tasks.iter().enumerate().all(|(i, task)| !self.tasks[..i].contains(task));
        let usable = !self.tasks.is_empty() && self.tasks.iter().all(|task| !task.is_empty());
        require("tasks", format!("[{found}]"), usable && names_differ, "at least one name, and none twice")
    }
}

/// Theta with its fixed identity.
pub(crate) fn theta_param(theta: &[f32], learn: bool, device: &Device) -> Param<Tensor<1>> {
    let theta = Tensor::<1>::from_floats(theta, device);
    Param::initialized(ParamId::from(THETA_ID), theta).set_require_grad(learn)
}

fn require(
    setting: &'static str,
    found: impl ToString,
    holds: bool,
    expected: &'static str,
) -> Result<(), LossError> {
    if holds {
        return Ok(());
    }
    Err(LossError::Setting { setting, found: found.to_string(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut InfoNceConfig)) -> String {
        let mut config = InfoNceConfig::default();
        change(&mut config);
        config.init(&Device::flex()).expect_err("the setting makes no sense").to_string()
    }

    #[test]
    fn names_the_setting_that_makes_no_sense() {
        assert!(refused(|c| c.alpha = f64::NAN).contains("`alpha`"));
        assert!(refused(|c| c.delta = Some(f64::NAN)).contains("`delta`"));
        assert!(refused(|c| c.tasks.clear()).contains("`tasks`"));
        assert!(refused(|c| c.tasks = vec!["a".into(), "b".into(), "a".into()]).contains("[a, b, a]"));
        assert!(
            refused(|c| c.initial_temperature = 0.0).contains("`initial_temperature` of the objective is 0")
        );
        assert!(refused(|c| c.temperature_max = Some(f64::INFINITY)).contains("`temperature_max`"));
        let swapped = refused(|c| (c.temperature_min, c.temperature_max) = (Some(0.5), Some(0.1)));
        assert!(swapped.contains("`temperature_min`"), "{swapped}");
        let outside = refused(|c| c.temperature_min = Some(0.06));
        assert!(outside.contains("`initial_temperature` of the objective is 0.05"), "{outside}");
    }

    #[test]
    fn theta_keeps_its_identity() {
        let device = Device::flex();
        let first = theta_param(&[0.0], true, &device);
        assert_eq!(first.id, theta_param(&[1.0, 2.0], false, &device).id);
    }
}
