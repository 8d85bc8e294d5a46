//! Parameters where they lie.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::module::Param;
use burn::tensor::{DType, Tensor};
use half::bf16;
use rzen_kernels::{Linear, Lora, Matrix, Then};

use crate::norm;

/// A tensor in main memory, row after row, f32 or bf16.
pub(super) struct Stored {
    tensor: FlexTensor,
    /// Numbers of a row.
    width: usize,
}

impl Stored {
    /// None where it is elsewhere, waits for a gradient, or is strided or of another type.
    pub(super) fn of<const D: usize>(x: Tensor<D>) -> Option<Self> {
        let width = x.dims()[D - 1];
        let tensor = x.try_into_primitive::<Flex>().ok()?;
        let stored = Stored { tensor, width };
        stored.checked_matrix().is_some().then_some(stored)
    }

    fn checked_matrix(&self) -> Option<Matrix<'_>> {
        match self.tensor.dtype() {
            DType::F32 => Some(Matrix::F32(self.tensor.as_slice()?)),
            DType::BF16 => Some(Matrix::Bf16(self.tensor.as_slice()?)),
            _ => None,
        }
    }

    pub(super) fn matrix(&self) -> Matrix<'_> {
        self.checked_matrix().expect("checked when it was made")
    }

    /// The numbers, if they are f32.
    pub(super) fn f32(&self) -> Option<&[f32]> {
        match self.matrix() {
            Matrix::F32(x) => Some(x),
            _ => None,
        }
    }

    /// Row `i` as f32.
    pub(super) fn copy_row(&self, i: usize, to: &mut [f32]) {
        match self.matrix() {
            Matrix::F32(x) => to.copy_from_slice(&x[i * self.width..][..self.width]),
            Matrix::Bf16(x) | Matrix::WidenedBf16(x) => {
                let row = &x[i * self.width..][..self.width];
                to.iter_mut().zip(row).for_each(|(to, x)| *to = bf16::to_f32(*x));
            }
        }
    }

    fn wide(&self) -> Vec<f32> {
        match self.matrix() {
            Matrix::F32(x) => x.to_vec(),
            Matrix::Bf16(x) | Matrix::WidenedBf16(x) => x.iter().map(|x| bf16::to_f32(*x)).collect(),
        }
    }
}

fn wide(x: &Param<Tensor<1>>) -> Option<Vec<f32>> {
    Some(Stored::of(x.val())?.wide())
}

/// A linear layer with its adapter.
pub(crate) struct Layer {
    weight: Stored,
    inputs: usize,
    outputs: usize,
    bias: Option<Vec<f32>>,
    lora: Option<Adapter>,
    /// bf16 weights are computed with as f32.
    widen: bool,
}

struct Adapter {
    a: Stored,
    b: Stored,
    rank: usize,
    scale: f32,
}

impl Layer {
    pub(crate) fn of(layer: &crate::linear::Linear, widen: bool) -> Option<Self> {
        let [outputs, inputs] = layer.weight.dims();
        let lora = match &layer.lora {
            None => None,
            Some(lora) => Some(Adapter {
                a: Stored::of(lora.lora_a.val())?,
                b: Stored::of(lora.lora_b.val())?,
                rank: lora.lora_a.dims()[0],
                scale: lora.scale as f32,
            }),
        };
        let bias = match &layer.bias {
            None => None,
            Some(bias) => Some(wide(bias)?),
        };
        Some(Layer { weight: Stored::of(layer.weight.val())?, inputs, outputs, bias, lora, widen })
    }

    /// A layer that is a matrix alone, `[outputs, inputs]`.
    pub(super) fn matrix(weight: Tensor<2>) -> Option<Self> {
        let [outputs, inputs] = weight.dims();
        Some(Layer { weight: Stored::of(weight)?, inputs, outputs, bias: None, lora: None, widen: false })
    }

    /// Whether products are of bf16 numbers.
    pub(super) fn is_narrow(&self) -> bool {
        matches!(self.matrix_of_weights(), Matrix::Bf16(_))
    }

    fn matrix_of_weights(&self) -> Matrix<'_> {
        match self.weight.matrix() {
            Matrix::Bf16(x) if self.widen => Matrix::WidenedBf16(x),
            other => other,
        }
    }

    /// Numbers in an output row.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `[rows, inputs]` to `[rows, outputs]`, see [`Linear::forward`].
    pub(crate) fn forward(&self, x: &[f32], y: &mut [f32], add: bool, then: Then<'_>) {
        let lora = self.lora.as_ref().map(|lora| Lora {
            a: lora.a.matrix(),
            b: lora.b.matrix(),
            rank: lora.rank,
            scale: lora.scale,
        });
        let layer = Linear {
            weight: self.matrix_of_weights(),
            inputs: self.inputs,
            outputs: self.outputs,
            bias: self.bias.as_deref(),
            lora,
        };
        layer.forward(x, y, add, then);
    }
}

/// Layer normalisation.
pub(super) struct LayerNorm {
    gain: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl LayerNorm {
    pub(super) fn of(layer: &norm::LayerNorm) -> Option<Self> {
        Some(LayerNorm {
            gain: wide(&layer.weight)?,
            bias: wide(&layer.bias)?,
            epsilon: layer.epsilon as f32,
        })
    }

    pub(super) fn forward(&self, x: &[f32], y: &mut [f32]) {
        rzen_kernels::layer_norm(x, &self.gain, &self.bias, self.epsilon, y);
    }
}

/// Root-mean-square normalisation.
pub(super) struct RmsNorm {
    gain: Vec<f32>,
    epsilon: f32,
}

impl RmsNorm {
    pub(super) fn of(layer: &norm::RmsNorm) -> Option<Self> {
        Some(RmsNorm { gain: wide(&layer.weight)?, epsilon: layer.epsilon as f32 })
    }

    pub(super) fn forward(&self, x: &[f32], y: &mut [f32]) {
        rzen_kernels::rms_norm(x, &self.gain, self.epsilon, y);
    }
}
