//! How fast a device computes the two kinds of products that a model is made of.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor};

use crate::ModelConfig;
use crate::attention::{Windows, attend, attend_backward};
use crate::linear::Linear;
use crate::plan::Operations;
use crate::weights::Weights;

/// Operations in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Of products with weights.
    pub linear: f64,
    /// Of products of states with states.
    pub attention: f64,
}

/// Rows that a product is measured with.
const ROWS: usize = 1024;

/// Time that each of the two is measured for, at least one run.
const SPAN: Duration = Duration::from_millis(400);

impl Rates {
    /// The same rate for both.
    pub fn even(rate: f64) -> Self {
        Rates { linear: rate, attention: rate }
    }

    /// Measures two layers of the decoder's MLP and the attention of a picture, both in the widths of `config`; takes a
    /// second or two. Weights are `stored` in another type than they are computed with where
    /// [`Qwen2Vl::load_to_embed`](crate::Qwen2Vl::load_to_embed) leaves them so.
    pub fn measure(config: &ModelConfig, dtype: FloatDType, stored: FloatDType, device: &Device) -> Self {
        Rates { linear: linear(config, dtype, stored, device), attention: squares(config, dtype, device) }
    }

    /// The rates of training in `dtype`: the same with a graph, forwards and backwards, through two frozen layers and
    /// through attention by `attend_backward`.
    pub fn measure_training(config: &ModelConfig, dtype: FloatDType, device: &Device) -> Self {
        Rates {
            linear: linear_backward(config, dtype, device),
            attention: squares_backward(config, dtype, device),
        }
    }

    /// Seconds that these operations take.
    pub fn seconds(&self, operations: &Operations) -> f64 {
        operations.linear() / self.linear + operations.attention() / self.attention
    }
}

/// Into the MLP and out of it: the longer sums are, the less often their inputs are used.
fn linear(config: &ModelConfig, dtype: FloatDType, stored: FloatDType, device: &Device) -> f64 {
    let (wide, size) = (config.text.intermediate_size, config.text.hidden_size);
    let shapes = [[wide, size], [size, wide]];
    let layers = |dtype| {
        let mut weights = Weights::from_seed(1, dtype, device);
        shapes.map(|shape| {
            Linear::load(&mut weights, "measured", shape, false).expect("a seed has every tensor")
        })
    };
    let operations = (4 * ROWS * wide * size) as f64;
    #[cfg(not(feature = "cpu"))]
    let _ = stored;
    #[cfg(feature = "cpu")]
    if let [Some(into), Some(out)] =
        layers(stored).map(|layer| crate::fused::Layer::of(&layer, dtype != stored))
    {
        let (x, mut y, mut z) = (vec![0.5; ROWS * size], vec![0.0; ROWS * wide], vec![0.0; ROWS * size]);
        return rate(operations, || {
            into.forward(&x, &mut y, false, rzen_kernels::Then::Nothing);
            out.forward(&y, &mut z, false, rzen_kernels::Then::Nothing);
        });
    }
    let (x, [into, out]) = (states([ROWS, size], dtype, device), layers(dtype));
    rate(operations, || wait(out.forward(into.forward(x.clone()))))
}

/// A forward and a backward pass, which multiplies as often.
fn linear_backward(config: &ModelConfig, dtype: FloatDType, device: &Device) -> f64 {
    let (wide, size) = (config.text.intermediate_size, config.text.hidden_size);
    let mut weights = Weights::from_seed(1, dtype, device);
    let layers = [[wide, size], [size, wide]].map(|shape| {
        let layer = Linear::load(&mut weights, "measured", shape, false).expect("a seed has every tensor");
        layer.no_grad().train()
    });
    let x = states([ROWS, size], dtype, device);
    rate(2.0 * (4 * ROWS * wide * size) as f64, || {
        let x = x.clone().autodiff().require_grad();
        let [into, out] = &layers;
        let mut gradients = out.forward(into.forward(x.clone())).sum().backward();
        wait(x.grad_remove(&mut gradients).expect("it had a part in the sum"));
    })
}

/// Attention of a picture and its gradient, which takes five products where attention takes two.
fn squares_backward(config: &ModelConfig, dtype: FloatDType, device: &Device) -> f64 {
    let (heads, size) = (config.vision.num_heads, config.vision.head_dim());
    let rows = 2 * ROWS;
    let x = || states([rows, heads, size], dtype, device);
    let windows = [Windows { count: 1, queries: rows, keys: rows, causal: false, hidden: None }];
    let parts = [x(), x(), x()];
    rate(3.5 * (4 * rows * rows * heads * size) as f64, || {
        let y = attend(parts.clone(), &windows);
        let gradients = attend_backward(parts.clone(), y.clone(), y, &windows);
        gradients.into_iter().for_each(wait);
    })
}

fn squares(config: &ModelConfig, dtype: FloatDType, device: &Device) -> f64 {
    let (heads, size) = (config.vision.num_heads, config.vision.head_dim());
    let rows = 2 * ROWS;
    let operations = (4 * rows * rows * heads * size) as f64;
    #[cfg(feature = "cpu")]
    if crate::plan::Way::of(dtype, device == &Device::flex()) == crate::plan::Way::Fused {
        use rzen_kernels::{Attention, Heads, Window};
        let narrow = dtype == FloatDType::BF16;
        let attention = Attention { heads, key_heads: heads, width: size, scale: 0.1, causal: false, narrow };
        let x: Vec<f32> = (0..rows * heads * size).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut y = vec![0.0; x.len()];
        let part = Heads { data: &x, stride: heads * size };
        return rate(operations, || attention.forward(part, part, part, &[Window::of(0..rows)], &mut y));
    }
    let x = states([1, heads, rows, size], dtype, device);
    let options = AttentionModuleOptions { scale: None, softcap: None, is_causal: false };
    rate(operations, || wait(attention(x.clone(), x.clone(), x.clone(), None, None, options)))
}

fn states<const D: usize>(shape: [usize; D], dtype: FloatDType, device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), (device, DType::from(dtype)))
}

/// Waits for a result. It is read, since burn reports a product that failed nowhere else.
fn wait<const D: usize>(x: Tensor<D>) {
    let number = x.slice(std::array::from_fn::<_, D, _>(|_| 0..1)).into_data();
    assert_eq!(number.iter::<f32>().count(), 1, "a product has numbers");
}

/// Runs `product` for a while, the first time unmeasured.
fn rate(operations: f64, mut product: impl FnMut()) -> f64 {
    product();
    let (start, mut runs) = (Instant::now(), 0.0);
    while runs == 0.0 || start.elapsed() < SPAN {
        product();
        runs += 1.0;
    }
    operations * runs / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_both_rates() {
        let operations = Operations {
            tower_linear: 3_000.0,
            tower_attention: 500.0,
            decoder_linear: 1_000.0,
            decoder_attention: 250.0,
        };
        let rates = Rates { linear: 1_000.0, attention: 250.0 };
        assert_eq!(rates.seconds(&operations), 4.0 + 3.0);
        assert_eq!(Rates::even(500.0).seconds(&operations), 9.5);
    }

    /// A product of the size of a released model's can't take a nanosecond or an hour on anything that runs tests.
    #[test]
    fn a_device_has_rates() {
        let config = ModelConfig::preset("qwen2-vl-2b").unwrap();
        for stored in [FloatDType::F32, FloatDType::BF16] {
            let rates = Rates::measure(&config, FloatDType::F32, stored, &Device::flex());
            for rate in [rates.linear, rates.attention] {
                assert!((1e8..1e15).contains(&rate), "{rates:?}");
            }
        }
    }
}
