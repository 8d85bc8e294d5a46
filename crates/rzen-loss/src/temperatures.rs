//! The file of temperatures: `{task: {"theta": …, "tau": …}}`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use rzen_core::SaveWeights;
use serde_json::{Map, Value, json};

use crate::config::theta_param;
use crate::{InfoNce, LossError};

/// The name of the file that holds an objective's temperatures.
pub const TEMPERATURES_FILE: &str = "temperatures.json";

impl InfoNce {
    /// Takes the temperatures that [`save_weights`](SaveWeights::save_weights) wrote to `folder`, bit for bit.
    ///
    /// Tasks in the file that this objective doesn't have are left alone.
    ///
    /// # Errors
    /// If the file is missing, broken, or lacks a task of this objective.
    pub fn load_weights(self, folder: &Path) -> Result<Self, LossError> {
        let path = folder.join(TEMPERATURES_FILE);
        let text = fs::read_to_string(&path).map_err(|source| LossError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let rows: Map<String, Value> =
            serde_json::from_str(&text).map_err(|source| LossError::Json { path: path.clone(), source })?;
        let tasks = &self.config().tasks;
        let theta = tasks.iter().map(|task| theta_of(&rows, task, &path)).collect::<Result<Vec<_>, _>>()?;
        let theta = theta_param(&theta, self.config().learn_temperature, &self.theta_device());
        Ok(InfoNce::new(self.config().clone(), theta))
    }

    /// What [`TEMPERATURES_FILE`] holds.
    ///
    /// # Errors
    /// [`LossError::NotFinite`] names the task whose temperature is no number.
    pub fn temperatures_json(&self) -> Result<String, LossError> {
        let host = |tensor: burn::tensor::Tensor<1>| -> Vec<f32> {
            tensor.inner().into_data().convert::<f32>().try_to_vec().expect("it was just converted to f32")
        };
        let (theta, tau) = (host(self.theta()), host(self.temperatures()));
        let mut rows = Map::new();
        for (task, (theta, tau)) in self.config().tasks.iter().zip(theta.into_iter().zip(tau)) {
            if !theta.is_finite() {
                return Err(LossError::NotFinite { task: task.clone(), theta });
            }
            rows.insert(task.clone(), json!({ "theta": theta, "tau": tau }));
        }
        Ok(format!("{:#}\n", Value::Object(rows)))
    }

    fn write_temperatures(&self, path: PathBuf) -> Result<(), LossError> {
        fs::write(&path, self.temperatures_json()?).map_err(|source| LossError::Io {
            action: "write",
            path,
            source,
        })
    }
}

impl SaveWeights for InfoNce {
    /// Writes [`TEMPERATURES_FILE`].
    fn save_weights(&self, folder: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.write_temperatures(folder.join(TEMPERATURES_FILE))?)
    }
}

fn theta_of(rows: &Map<String, Value>, task: &str, path: &Path) -> Result<f32, LossError> {
    let theta = rows.get(task).and_then(|row| row.get("theta")).and_then(Value::as_f64);
    theta.map(|theta| theta as f32).filter(|theta| theta.is_finite()).ok_or_else(|| LossError::Task {
        path: path.into(),
        task: task.into(),
        found: rows.keys().cloned().collect::<Vec<_>>().join(", "),
    })
}
