//! Gradients as a whole: their norm, clipping, moving between containers.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use crate::Contrastive;

/// The size of a model's gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientNorm {
    /// The root of the sum of all squares, over every parameter of encoder and objective.
    pub total: f64,
    /// The parameters whose gradient holds a NaN or an infinity, in the order of the model.
    pub not_finite: Vec<String>,
}

/// Measures the gradient of all trained parameters, in f32 on the device, summed in f64.
pub fn gradient_norm<E: Module, O: Module>(
    model: &Contrastive<E, O>,
    gradients: &GradientsParams,
) -> GradientNorm {
    let (names, squares) = squared_norms(model, gradients);
    norm_of(names, &read(squares))
}

/// Scales all gradients by `max_norm / (total + 1e-6)` where that is below 1, as PyTorch does.
pub fn clip_gradients<E: Module, O: Module>(
    model: &Contrastive<E, O>,
    gradients: GradientsParams,
    total: f64,
    max_norm: f64,
) -> GradientsParams {
    let factor = max_norm / (total + 1e-6);
    if factor >= 1.0 {
        return gradients;
    }
    let mut scale = Move { from: gradients, to: GradientsParams::new(), factor: Some(factor) };
    model.visit_parts(&mut scale);
    scale.to
}

/// The names of the parameters that have a gradient, and the sum of its squares for each, `[1]`.
pub(crate) fn squared_norms<E: Module, O: Module>(
    model: &Contrastive<E, O>,
    gradients: &GradientsParams,
) -> (Vec<String>, Vec<Tensor<1>>) {
    let mut visitor = SquaresVisitor { gradients, path: Vec::new(), names: Vec::new(), squares: Vec::new() };
    model.visit_parts(&mut visitor);
    (visitor.names, visitor.squares)
}

pub(crate) fn norm_of(names: Vec<String>, squares: &[f32]) -> GradientNorm {
    let total = squares.iter().map(|square| f64::from(*square)).sum::<f64>().sqrt();
    let not_finite = names
        .into_iter()
        .zip(squares)
        .filter(|(_, square)| !square.is_finite())
        .map(|(name, _)| name)
        .collect();
    GradientNorm { total, not_finite }
}

/// Reads many `[1]` tensors at once, since each read waits for the device.
pub(crate) fn read(scalars: Vec<Tensor<1>>) -> Vec<f32> {
    if scalars.is_empty() {
        return Vec::new();
    }
    let scalars = scalars.into_iter().map(|scalar| scalar.cast(DType::F32)).collect();
    Tensor::cat(scalars, 0).into_data().try_into_vec().expect("the tensor is f32")
}

/// Takes the gradients of `module`'s parameters out of `gradients`.
pub(crate) fn split_off<M: Module>(
    gradients: GradientsParams,
    module: &M,
) -> (GradientsParams, GradientsParams) {
    let mut taken = Move { from: gradients, to: GradientsParams::new(), factor: None };
    module.visit(&mut taken);
    (taken.from, taken.to)
}

/// Puts the gradients of `module`'s parameters, which `from` holds, into `to`.
pub(crate) fn merge<M: Module>(to: GradientsParams, from: GradientsParams, module: &M) -> GradientsParams {
    let mut merged = Move { from, to, factor: None };
    module.visit(&mut merged);
    merged.to
}

struct SquaresVisitor<'a> {
    gradients: &'a GradientsParams,
    path: Vec<String>,
    names: Vec<String>,
    squares: Vec<Tensor<1>>,
}

impl ModuleVisitor for SquaresVisitor<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.names.push(self.path.join("."));
            let count = gradient.shape().num_elements();
            self.squares.push(sum_in_order(gradient.cast(DType::F32).square().reshape([count])));
        }
    }
}

/// Elements that are summed at once.
const SUMMED_AT_ONCE: usize = 1 << 20;

/// `[1]`: the sum, with the same bits each time. On the CPU burn cuts a sum of 4 Mi elements or more into
/// parts that it adds as threads finish them; these are added in their own order.
fn sum_in_order(values: Tensor<1>) -> Tensor<1> {
    if values.dims()[0] <= SUMMED_AT_ONCE {
        return values.sum();
    }
    let parts = values.split(SUMMED_AT_ONCE, 0).into_iter().map(Tensor::sum).collect();
    sum_in_order(Tensor::cat(parts, 0))
}

/// Moves the gradients of the visited parameters, scaled where there is a factor.
struct Move {
    from: GradientsParams,
    to: GradientsParams,
    factor: Option<f64>,
}

impl ModuleVisitor for Move {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.from.remove::<D>(param.id) {
            let gradient = match self.factor {
                Some(factor) => gradient.mul_scalar(factor),
                None => gradient,
            };
            self.to.register(param.id, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn a_large_sum_has_the_same_bits_each_time() {
        let device = Device::flex();
        let values = Tensor::<1>::random([5_000_000], Distribution::Default, &device).square();
        let expected: f64 =
            read(vec![values.clone().cast(DType::F64).sum()]).into_iter().map(f64::from).sum();
        let bits = |_| read(vec![sum_in_order(values.clone())])[0].to_bits();
        let found: Vec<u32> = (0..20).map(bits).collect();
        assert!(found.iter().all(|bits| *bits == found[0]), "{found:?}");
        let sum = f64::from(f32::from_bits(found[0]));
        assert!((sum - expected).abs() < 1e-4 * expected, "{sum} is not {expected}");
    }
}
