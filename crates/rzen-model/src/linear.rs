//! A linear layer with an optional low-rank adapter beside it.

use burn::module::{Module, Param};
use burn::tensor::{FloatDType, Tensor};

use crate::ModelError;
use crate::weights::{Init, Weights};

/// `y = x Wᵀ + b`, plus `scale · (x Aᵀ) Bᵀ` where an adapter is attached.
///
/// The adapter stays factored: the dense `B A` is never formed while training, neither forward nor
/// backward. Matrices keep the layout of checkpoint files, `[out, in]`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter.
    pub lora: Option<Lora>,
}

/// The two factors of a low-rank update (Hu et al. 2021), `ΔW = scale · B A`.
#[derive(Module, Debug)]
pub struct Lora {
    /// `A`: `[rank, in]`.
    pub lora_a: Param<Tensor<2>>,
    /// `B`: `[out, rank]`.
    pub lora_b: Param<Tensor<2>>,
    /// `alpha / rank`, or `alpha / sqrt(rank)` when rank-stabilised.
    #[module(skip)]
    pub scale: f64,
}

impl Linear {
    pub(crate) fn load(
        weights: &mut Weights,
        name: &str,
        [output, input]: [usize; 2],
        bias: bool,
    ) -> Result<Self, ModelError> {
        let deviation = (input as f64).sqrt().recip();
        Ok(Linear {
            weight: weights.param(&format!("{name}.weight"), [output, input], Init::Normal(deviation))?,
            bias: match bias {
                true => Some(weights.param(&format!("{name}.bias"), [output], Init::Zeros)?),
                false => None,
            },
            lora: None,
        })
    }

    /// `x`: `[rows, in]`; returns `[rows, out]` in the dtype of `x`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let update = self.lora.as_ref().map(|lora| lora.forward(x.clone()));
        let y = x.matmul(self.weight.val().transpose());
        let y = match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        };
        let dtype = FloatDType::from(y.dtype());
        match update {
            Some(update) => y + update.cast(dtype),
            None => y,
        }
    }
}

impl Lora {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let a = self.lora_a.val();
        let x = x.cast(FloatDType::from(a.dtype()));
        x.matmul(a.transpose()).mul_scalar(self.scale).matmul(self.lora_b.val().transpose())
    }

    /// `scale · B A`: `[out, in]`, f32.
    pub(crate) fn delta(&self) -> Tensor<2> {
        let wide = |x: Tensor<2>| x.cast(FloatDType::F32);
        wide(self.lora_b.val()).matmul(wide(self.lora_a.val())).mul_scalar(self.scale)
    }
}
