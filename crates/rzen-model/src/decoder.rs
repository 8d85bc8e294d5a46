//! The decoder: Qwen2 with rotary positions of three rows.

use burn::module::{Module, Param};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Int, Tensor};

use crate::ModelError;
use crate::attention::{Projected, attend};
use crate::config::TextConfig;
use crate::encoder::TokenInput;
use crate::linear::Linear;
use crate::norm::RmsNorm;
use crate::rotary::Rotary;
use crate::trace::Trace;
use crate::weights::{Init, Weights};

/// Qwen2-VL's language model without its head (`model.*`).
#[derive(Module, Debug)]
pub struct Decoder {
    /// The token table.
    pub embed_tokens: TokenTable,
    /// Pre-norm transformer blocks.
    pub layers: Vec<DecoderLayer>,
    /// Over the last states.
    pub norm: RmsNorm,
}

/// The weight of `embed_tokens`; may be on another device than all else, see [`Qwen2Vl::load_with_table_on`].
///
/// [`Qwen2Vl::load_with_table_on`]: crate::Qwen2Vl::load_with_table_on
#[derive(Module, Debug)]
pub struct TokenTable {
    /// `[vocab_size, hidden_size]`.
    pub weight: Param<Tensor<2>>,
}

impl TokenTable {
    /// `ids`: `[tokens]`; returns `[tokens, hidden_size]`.
    pub(crate) fn forward(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        self.weight.val().select(0, ids)
    }
}

impl Decoder {
    /// The token table goes to `table_home`, all else to the device of `weights`.
    pub(crate) fn load(
        weights: &mut Weights,
        config: &TextConfig,
        table_home: &Device,
    ) -> Result<Self, ModelError> {
        let layers = (0..config.num_hidden_layers)
            .map(|i| DecoderLayer::load(weights, &format!("model.layers.{i}"), config))
            .collect::<Result<_, _>>()?;
        let shape = [config.vocab_size, config.hidden_size];
        Ok(Decoder {
            embed_tokens: TokenTable {
                weight: weights.on(table_home, |weights| {
                    weights.param("model.embed_tokens.weight", shape, Init::Normal(1.0))
                })?,
            },
            layers,
            norm: RmsNorm::load(weights, "model.norm", config.hidden_size, config.rms_norm_eps)?,
        })
    }

    /// The normed state of each row's last token: `[batch, hidden_size]`.
    ///
    /// `x`: `[batch · seq, hidden_size]`, rows right-padded. A causal decoder never lets padding
    /// reach a real token, so there is no mask. In the last block only the pooled tokens' queries are
    /// computed: nothing reads the others.
    pub(crate) fn pooled(&self, mut x: Tensor<2>, input: &TokenInput) -> Tensor<2> {
        let (last, layers) = self.layers.split_last().expect("a decoder has at least one layer");
        for layer in layers {
            x = layer.forward(x, input);
        }
        self.norm.forward(last.forward_pooled(x, input))
    }

    /// The normed states of all tokens, each block's output kept in `trace`.
    pub(crate) fn traced(&self, mut x: Tensor<2>, input: &TokenInput, trace: &mut Trace) -> Tensor<2> {
        trace.keep(|| "inputs_embeds".into(), &x);
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, input);
            trace.keep(|| format!("layer_{i}"), &x);
        }
        let x = self.norm.forward(x);
        trace.keep(|| "final_norm".into(), &x);
        x
    }
}

/// A block of the decoder.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Before attention.
    pub input_layernorm: RmsNorm,
    /// Causal attention with grouped keys and values.
    pub self_attn: DecoderAttention,
    /// Before the MLP.
    pub post_attention_layernorm: RmsNorm,
    /// Gated MLP.
    pub mlp: GatedMlp,
}

impl DecoderLayer {
    fn load(weights: &mut Weights, name: &str, config: &TextConfig) -> Result<Self, ModelError> {
        let norm = |weights: &mut Weights, part: &str| {
            RmsNorm::load(weights, &format!("{name}.{part}"), config.hidden_size, config.rms_norm_eps)
        };
        Ok(DecoderLayer {
            input_layernorm: norm(weights, "input_layernorm")?,
            self_attn: DecoderAttention::load(weights, &format!("{name}.self_attn"), config)?,
            post_attention_layernorm: norm(weights, "post_attention_layernorm")?,
            mlp: GatedMlp::load(weights, &format!("{name}.mlp"), config)?,
        })
    }

    pub(crate) fn forward(&self, x: Tensor<2>, input: &TokenInput) -> Tensor<2> {
        let y = attend(self.project(x.clone(), input), &[input.windows()]);
        self.finish(x, y)
    }

    /// The states of each row's last token alone: `[batch, hidden_size]`.
    pub(crate) fn forward_pooled(&self, x: Tensor<2>, input: &TokenInput) -> Tensor<2> {
        let y = attend(self.project_pooled(x.clone(), input), &[input.last_windows()]);
        self.finish_pooled(x, y, input)
    }

    /// What attends to what.
    pub(crate) fn project(&self, x: Tensor<2>, input: &TokenInput) -> Projected {
        let x = self.input_layernorm.forward(x);
        let attn = &self.self_attn;
        let [k, v] = attn.keys_and_values(x.clone(), input);
        [attn.heads(attn.q_proj.forward(x), Some(&input.rotary)), k, v]
    }

    /// The same, with the queries of each row's last token alone.
    pub(crate) fn project_pooled(&self, x: Tensor<2>, input: &TokenInput) -> Projected {
        let x = self.input_layernorm.forward(x);
        let attn = &self.self_attn;
        let last = x.clone().select(0, input.last_like(&x));
        let [k, v] = attn.keys_and_values(x, input);
        [attn.heads(attn.q_proj.forward(last), Some(&input.last_rotary)), k, v]
    }

    /// All that comes after attention.
    pub(crate) fn finish(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let x = x + self.self_attn.o_proj.forward(y);
        x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x))
    }

    /// The same for each row's last token: `y` has a row for each.
    pub(crate) fn finish_pooled(&self, x: Tensor<2>, y: Tensor<2>, input: &TokenInput) -> Tensor<2> {
        let last = input.last_like(&x);
        self.finish(x.select(0, last), y)
    }
}

/// Attention of a block.
#[derive(Module, Debug)]
pub struct DecoderAttention {
    /// Queries, with bias.
    pub q_proj: Linear,
    /// Keys, with bias.
    pub k_proj: Linear,
    /// Values, with bias.
    pub v_proj: Linear,
    /// The way out, without bias.
    pub o_proj: Linear,
    #[module(skip)]
    pub(crate) num_heads: usize,
    #[module(skip)]
    pub(crate) num_key_value_heads: usize,
}

impl DecoderAttention {
    fn load(weights: &mut Weights, name: &str, config: &TextConfig) -> Result<Self, ModelError> {
        let hidden = config.hidden_size;
        let narrow = config.num_key_value_heads * config.head_dim();
        Ok(DecoderAttention {
            q_proj: Linear::load(weights, &format!("{name}.q_proj"), [hidden, hidden], true)?,
            k_proj: Linear::load(weights, &format!("{name}.k_proj"), [narrow, hidden], true)?,
            v_proj: Linear::load(weights, &format!("{name}.v_proj"), [narrow, hidden], true)?,
            o_proj: Linear::load(weights, &format!("{name}.o_proj"), [hidden, hidden], false)?,
            num_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
        })
    }

    fn keys_and_values(&self, x: Tensor<2>, input: &TokenInput) -> [Tensor<3>; 2] {
        let k = self.heads(self.k_proj.forward(x.clone()), Some(&input.rotary));
        [k, self.heads(self.v_proj.forward(x), None)]
    }

    /// `[rows, heads · head_dim]` to `[rows, heads, head_dim]`, turned by `rotary`.
    fn heads(&self, x: Tensor<2>, rotary: Option<&Rotary>) -> Tensor<3> {
        let [rows, width] = x.dims();
        let [hidden, _] = self.q_proj.weight.dims();
        let head_dim = hidden / self.num_heads;
        let x = x.reshape([rows, width / head_dim, head_dim]);
        match rotary {
            Some(rotary) => rotary.apply(x),
            None => x,
        }
    }
}

/// The gated MLP of a block (SwiGLU).
#[derive(Module, Debug)]
pub struct GatedMlp {
    /// Through SiLU.
    pub gate_proj: Linear,
    /// Multiplied by the gate.
    pub up_proj: Linear,
    /// The way back.
    pub down_proj: Linear,
}

impl GatedMlp {
    fn load(weights: &mut Weights, name: &str, config: &TextConfig) -> Result<Self, ModelError> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        Ok(GatedMlp {
            gate_proj: Linear::load(weights, &format!("{name}.gate_proj"), [wide, hidden], false)?,
            up_proj: Linear::load(weights, &format!("{name}.up_proj"), [wide, hidden], false)?,
            down_proj: Linear::load(weights, &format!("{name}.down_proj"), [hidden, wide], false)?,
        })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}
