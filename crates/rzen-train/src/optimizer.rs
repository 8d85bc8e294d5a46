//! AdamW over an encoder and its objective.

use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{AdamW, AdamWConfig, GradientsParams, ModuleOptimizer, OptimizerRecord};
use burn::store::RecordError;
use burn::tensor::Tensor;

use crate::gradients::split_off;
use crate::{Contrastive, StageConfig};

/// The learning rates of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRates {
    /// For the encoder.
    pub encoder: f64,
    /// For the objective's parameters.
    pub temperature: f64,
}

/// AdamW ([decoupled weight decay](https://arxiv.org/abs/1711.05101)) over encoder and objective.
///
/// With gradient `g` and step count `t` of the parameter `p`:
///
/// ```text
/// m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g²
/// p = p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
/// ```
///
/// Weight decay applies to the encoder's parameters of two or more dimensions (matrices, embeddings,
/// convolutions, low-rank factors), unless their path contains `norm` or ends with `bias`; norms,
/// biases and temperatures have none.
///
/// This is PyTorch's formula, with one difference in rounding: burn holds `b1`, `b2` and the bias
/// corrections in f32, which moves an update by about 1e-5 of itself.
pub struct Optimizer {
    inner: ModuleOptimizer,
}

impl Optimizer {
    /// An optimizer with fresh moments. Of `config` it takes `weight_decay`, `betas` and `eps`.
    pub fn new<E: Module, O: Module>(model: &Contrastive<E, O>, config: &StageConfig) -> Self {
        let decayed = ParamGroup::from_ids(decayed_parameters(&model.encoder));
        let inner = ModuleOptimizer::from(adamw(config, 0.0)).with_group(
            decayed,
            adamw(config, config.weight_decay),
            None,
        );
        Optimizer { inner }
    }

    /// Moves every parameter that has a gradient, and gives the model back, on the autodiff device.
    pub fn step<E: Module, O: Module>(
        &mut self,
        model: Contrastive<E, O>,
        gradients: GradientsParams,
        rates: LearningRates,
    ) -> Contrastive<E, O> {
        // burn's optimizer accepts parameters on the autodiff device alone.
        let model = model.with_gradients();
        let (encoder, objective) = split_off(gradients, &model.objective);
        Contrastive {
            encoder: self.inner.step(rates.encoder, model.encoder, encoder),
            objective: self.inner.step(rates.temperature, model.objective, objective),
        }
    }

    /// Writes the moments and step counts as burnpack; returns the number of tensors.
    pub(crate) fn save(&self, path: &Path) -> Result<usize, RecordError> {
        let record = self.inner.to_record();
        let tensors = record.len();
        record.save(path)?;
        Ok(tensors)
    }

    /// Takes over moments and step counts; returns the number of tensors read.
    pub(crate) fn load(self, path: &Path) -> Result<(Self, usize), RecordError> {
        let record = OptimizerRecord::load(path)?;
        let tensors = record.len();
        Ok((Optimizer { inner: self.inner.load_record(record) }, tensors))
    }
}

fn adamw(config: &StageConfig, weight_decay: f64) -> AdamW {
    AdamWConfig::new()
        .with_beta_1(config.betas[0] as f32)
        .with_beta_2(config.betas[1] as f32)
        .with_epsilon(config.eps as f32)
        .with_weight_decay(weight_decay as f32)
        .build()
}

fn decayed_parameters<E: Module>(encoder: &E) -> Vec<ParamId> {
    let mut visitor = DecayVisitor { path: Vec::new(), ids: Vec::new() };
    encoder.visit(&mut visitor);
    visitor.ids
}

struct DecayVisitor {
    path: Vec<String>,
    ids: Vec<ParamId>,
}

impl ModuleVisitor for DecayVisitor {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_lowercase());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let spared = self.path.iter().any(|name| name.contains("norm"))
            || self.path.last().is_some_and(|name| name.ends_with("bias"));
        if D >= 2 && !spared {
            self.ids.push(param.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Parts {
        weight: Param<Tensor<2>>,
        norm: Param<Tensor<2>>,
        bias: Param<Tensor<2>>,
        gain: Param<Tensor<1>>,
    }

    #[derive(Module, Debug)]
    struct Theta {
        theta: Param<Tensor<2>>,
    }

    fn model(device: &Device) -> Contrastive<Parts, Theta> {
        let matrix = || Param::from_tensor(Tensor::from_floats([[0.5, -2.0]], device));
        let encoder = Parts {
            weight: matrix(),
            norm: matrix(),
            bias: matrix(),
            gain: Param::from_tensor(Tensor::from_floats([0.5, -2.0], device)),
        };
        Contrastive { encoder, objective: Theta { theta: matrix() } }.with_gradients()
    }

    fn values<const D: usize>(param: &Param<Tensor<D>>) -> Vec<f32> {
        param.val().into_data().try_to_vec().unwrap()
    }

    /// PyTorch's AdamW in f64.
    fn reference(config: &StageConfig, lr: f64, decay: f64, gradients: &[[f64; 2]]) -> [f64; 2] {
        let [b1, b2] = config.betas;
        let (mut p, mut m, mut v) = ([0.5, -2.0], [0.0; 2], [0.0; 2]);
        for (t, gradient) in gradients.iter().enumerate() {
            let t = t as i32 + 1;
            for i in 0..2 {
                p[i] *= 1.0 - lr * decay;
                m[i] = b1 * m[i] + (1.0 - b1) * gradient[i];
                v[i] = b2 * v[i] + (1.0 - b2) * gradient[i] * gradient[i];
                p[i] -= lr * (m[i] / (1.0 - b1.powi(t))) / ((v[i] / (1.0 - b2.powi(t))).sqrt() + config.eps);
            }
        }
        p
    }

    #[test]
    fn equals_pytorch_and_spares_norms_biases_and_temperatures() {
        let device = Device::flex();
        let config = StageConfig { weight_decay: 0.1, ..StageConfig::default() };
        let rates = LearningRates { encoder: 0.01, temperature: 0.05 };
        let history = [[0.3, -1e-3], [-0.1, 2e-3], [1.0, 1e-9], [0.2, -4e-3], [0.0, 1e-3]];

        let mut model = model(&device);
        let mut optimizer = Optimizer::new(&model, &config);
        for gradient in history {
            let matrix = || Tensor::<2>::from_floats([gradient], &device);
            let mut gradients = GradientsParams::new();
            gradients.register(model.encoder.weight.id, matrix());
            gradients.register(model.encoder.norm.id, matrix());
            gradients.register(model.encoder.bias.id, matrix());
            gradients.register(model.encoder.gain.id, matrix().squeeze::<1>());
            gradients.register(model.objective.theta.id, matrix());
            model = optimizer.step(model, gradients, rates);
        }

        let check = |name: &str, found: Vec<f32>, lr: f64, decay: f64| {
            for (found, expected) in found.into_iter().zip(reference(&config, lr, decay, &history)) {
                let difference = (f64::from(found) - expected).abs();
                assert!(difference < 1e-5 * lr * 5.0 + 2e-7, "{name}: {found} is not {expected}");
            }
        };
        check("weight", values(&model.encoder.weight), 0.01, 0.1);
        check("norm", values(&model.encoder.norm), 0.01, 0.0);
        check("bias", values(&model.encoder.bias), 0.01, 0.0);
        check("gain", values(&model.encoder.gain), 0.01, 0.0);
        check("theta", values(&model.objective.theta), 0.05, 0.0);
    }
}
