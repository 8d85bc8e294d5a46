//! The two normalisations, computed in f32 whatever the weights are stored as.

use burn::module::{Module, Param};
use burn::tensor::{FloatDType, Tensor, module::layer_norm};

use crate::ModelError;
use crate::weights::{Init, Weights};

/// Layer normalisation with gain and bias (vision tower).
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Gain, `[size]`.
    pub weight: Param<Tensor<1>>,
    /// `[size]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    pub(crate) epsilon: f64,
}

impl LayerNorm {
    pub(crate) fn load(weights: &mut Weights, name: &str, size: usize) -> Result<Self, ModelError> {
        Ok(LayerNorm {
            weight: weights.param(&format!("{name}.weight"), [size], Init::Ones)?,
            bias: weights.param(&format!("{name}.bias"), [size], Init::Zeros)?,
            // The published tower fixes it; no configuration names it.
            epsilon: 1e-6,
        })
    }

    /// `x`: `[rows, size]`; returns the same shape and dtype.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = FloatDType::from(x.dtype());
        let wide = |x: Tensor<1>| x.cast(FloatDType::F32);
        layer_norm(
            x.cast(FloatDType::F32),
            wide(self.weight.val()),
            Some(wide(self.bias.val())),
            self.epsilon,
        )
        .cast(dtype)
    }
}

/// Root-mean-square normalisation with gain (decoder).
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Gain, `[size]`.
    pub weight: Param<Tensor<1>>,
    #[module(skip)]
    pub(crate) epsilon: f64,
}

impl RmsNorm {
    pub(crate) fn load(
        weights: &mut Weights,
        name: &str,
        size: usize,
        epsilon: f64,
    ) -> Result<Self, ModelError> {
        Ok(RmsNorm { weight: weights.param(&format!("{name}.weight"), [size], Init::Ones)?, epsilon })
    }

    /// `x`: `[rows, size]`; returns the same shape and dtype.
    ///
    /// The gain is multiplied after going back to the model's dtype, as the reference does.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = FloatDType::from(x.dtype());
        let x = x.cast(FloatDType::F32);
        let inverse = x.clone().square().mean_dim(1).add_scalar(self.epsilon).sqrt().recip();
        (x * inverse).cast(dtype) * self.weight.val().unsqueeze()
    }
}
