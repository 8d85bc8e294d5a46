//! Values and gradients as PyTorch gives them in f64.

use burn::tensor::{Device, Tensor};
use rzen_core::{Objective, Targets};
use rzen_loss::{InfoNce, InfoNceConfig, false_negative_mask, possible_negatives, similarity};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::{host, matrix, reference, targets};

struct Case<'a> {
    name: String,
    row: &'a Value,
    tensors: &'a SafeTensors<'a>,
}

impl Case<'_> {
    /// An array of the case, widened to f64, with its shape.
    fn array(&self, name: &str) -> Option<(Vec<f64>, Vec<usize>)> {
        let view = self.tensors.tensor(&format!("{}.{name}", self.name)).ok()?;
        let bytes = view.data();
        let values = match view.dtype() {
            Dtype::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) as f64).collect()
            }
            Dtype::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I64 => {
                bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
            }
            Dtype::U8 => bytes.iter().map(|b| *b as f64).collect(),
            other => panic!("{}.{name} is {other:?}", self.name),
        };
        Some((values, view.shape().to_vec()))
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.array(name).unwrap_or_else(|| panic!("{} has no {name}", self.name)).0
    }

    fn rows(&self, name: &str, device: &Device) -> Option<Tensor<2>> {
        let (values, shape) = self.array(name)?;
        let values: Vec<f32> = values.into_iter().map(|x| x as f32).collect();
        Some(matrix(&values, shape[1], device))
    }

    fn ints(&self, name: &str) -> Option<Vec<i32>> {
        Some(self.array(name)?.0.into_iter().map(|x| x as i32).collect())
    }

    fn targets(&self, device: &Device) -> Targets {
        let task = self.ints("task").expect("every case has tasks");
        let positive: Vec<i32> = (0..task.len() as i32).collect();
        let owner =
            self.ints("owner").map(|own| positive.iter().map(|_| -1).chain(own).collect::<Vec<i32>>());
        targets(&positive, &task, owner.as_deref(), device)
    }

    /// The objective of the case, with its temperatures.
    fn objective(&self, differentiate_hardness: bool, device: &Device) -> InfoNce {
        let theta = self.values("theta");
        let config = InfoNceConfig {
            alpha: self.row["alpha"].as_f64().unwrap(),
            delta: self.row["delta"].as_f64(),
            differentiate_hardness,
            tasks: (0..theta.len()).map(|i| format!("task_{i}")).collect(),
            ..InfoNceConfig::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let rows: serde_json::Map<_, _> = config
            .tasks
            .iter()
            .zip(&theta)
            .map(|(task, theta)| (task.clone(), serde_json::json!({ "theta": theta })))
            .collect();
        let file = folder.path().join(rzen_loss::TEMPERATURES_FILE);
        std::fs::write(file, Value::Object(rows).to_string()).unwrap();
        config.init(device).unwrap().load_weights(folder.path()).unwrap()
    }
}

fn each_case(check: impl Fn(&Case)) {
    let (index, arrays) = (reference::file("loss/cases.json"), reference::file("loss/cases.safetensors"));
    let index: Vec<Value> = serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap();
    let bytes = std::fs::read(arrays).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert!(!index.is_empty());
    for row in &index {
        check(&Case { name: row["name"].as_str().unwrap().into(), row, tensors: &tensors });
    }
}

#[track_caller]
fn assert_relative(found: f64, expected: f64, relative: f64, what: &str) {
    assert!((found - expected).abs() <= relative * expected.abs(), "{what}: {found} instead of {expected}");
}

/// The largest difference is at most `relative` of the largest entry.
#[track_caller]
fn assert_near(found: &[f32], expected: &[f64], relative: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        assert!(
            difference <= relative * largest,
            "{what}[{at}]: {found} instead of {expected}, largest {largest}"
        );
    }
}

#[test]
fn golden_similarities_and_kept_negatives() {
    let device = Device::flex();
    each_case(|case| {
        let queries = case.rows("q", &device).unwrap();
        let positives = case.rows("pos", &device).unwrap();
        let candidates = match case.rows("hard", &device) {
            Some(hard) => Tensor::cat(vec![positives, hard], 0),
            None => positives,
        };
        let found = host(similarity(queries, candidates.clone()));
        assert_near(&found, &case.values("similarity"), 1e-6, &format!("{}.similarity", case.name));

        let targets = case.targets(&device);
        let possible =
            possible_negatives(targets.positive.clone(), targets.owner, None, candidates.dims()[0]);
        let too_near = false_negative_mask(candidates, targets.positive, case.row["delta"].as_f64().unwrap());
        let kept = host(possible.bool_and(too_near.bool_not()).float());
        assert_near(&kept, &case.values("kept"), 0.0, &format!("{}.kept", case.name));
    });
}

#[test]
fn golden_loss_of_each_query() {
    let device = Device::flex();
    each_case(|case| {
        let queries = case.rows("q", &device).unwrap();
        let candidates = Tensor::cat(
            [case.rows("pos", &device), case.rows("hard", &device)].into_iter().flatten().collect(),
            0,
        );
        let found = case.objective(false, &device).per_query(queries, candidates, &case.targets(&device));
        for (found, expected) in host(found).into_iter().zip(case.values("per_query")) {
            // The reference subtracts f64 logits near 50, which leaves 1e-14 of noise in a tiny loss.
            let difference = (f64::from(found) - expected).abs();
            assert!(difference <= 3e-5 * expected + 2e-14, "{}: {found} instead of {expected}", case.name);
        }
    });
}

#[test]
fn golden_loss_and_gradients() {
    let device = Device::flex().autodiff();
    each_case(|case| {
        for (mode, differentiate) in [("detached", false), ("differentiated", true)] {
            let what = format!("{}.{mode}", case.name);
            let leaf = |name: &str| case.rows(name, &device).map(Tensor::require_grad);
            let leaves = [("grad_q", leaf("q")), ("grad_pos", leaf("pos")), ("grad_hard", leaf("hard"))];
            let queries = leaves[0].1.clone().unwrap();
            let candidates =
                Tensor::cat(leaves[1..].iter().filter_map(|(_, rows)| rows.clone()).collect(), 0);
            let objective = case.objective(differentiate, &device);
            let loss = objective.loss(queries, candidates, &case.targets(&device)).value;
            assert_relative(
                loss.clone().into_scalar::<f32>().into(),
                case.row["loss"].as_f64().unwrap(),
                1e-5,
                &what,
            );

            let grads = loss.backward();
            for (name, rows) in leaves {
                let Some(rows) = rows else { continue };
                let found = host(rows.grad(&grads).expect("every leaf takes part"));
                assert_near(&found, &case.values(&format!("{mode}.{name}")), 1e-4, &format!("{what}.{name}"));
            }
            let found = host(objective.theta().grad(&grads).expect("theta is trained"));
            assert_near(
                &found,
                &case.values(&format!("{mode}.grad_theta")),
                1e-4,
                &format!("{what}.grad_theta"),
            );
        }
    });
}
