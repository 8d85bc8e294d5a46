//! Every tensor of a checkpoint, known from the configuration alone.

use crate::config::{ModelConfig, TextConfig, VisionConfig};

/// A tensor that a checkpoint of some shape has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name as transformers 4.51 has it.
    pub name: String,
    /// Its shape in files.
    pub shape: Vec<usize>,
    /// What it does.
    pub role: TensorRole,
}

/// What a tensor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorRole {
    /// A row for each token.
    Table,
    /// Multiplied with states; the first dimension is what comes out.
    Matrix,
    /// Added to states.
    Bias,
    /// Multiplied with normed states.
    Gain,
}

impl TensorSpec {
    /// How many numbers it has.
    pub fn numbers(&self) -> usize {
        self.shape.iter().product()
    }
}

impl ModelConfig {
    /// Every tensor of a model of this shape, `lm_head` aside: table, decoder, vision tower.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = List(Vec::new());
        list.decoder(&self.text);
        list.tower(&self.vision, self.text.hidden_size);
        list.0
    }

    /// How many numbers a model of this shape has, `lm_head` aside.
    pub fn num_parameters(&self) -> usize {
        self.tensors().iter().map(TensorSpec::numbers).sum()
    }
}

struct List(Vec<TensorSpec>);

impl List {
    fn add(&mut self, name: String, shape: &[usize], role: TensorRole) {
        self.0.push(TensorSpec { name, shape: shape.to_vec(), role });
    }

    fn linear(&mut self, name: &str, shape: [usize; 2], bias: bool) {
        self.add(format!("{name}.weight"), &shape, TensorRole::Matrix);
        if bias {
            self.add(format!("{name}.bias"), &shape[..1], TensorRole::Bias);
        }
    }

    fn layer_norm(&mut self, name: &str, size: usize) {
        self.add(format!("{name}.weight"), &[size], TensorRole::Gain);
        self.add(format!("{name}.bias"), &[size], TensorRole::Bias);
    }

    fn decoder(&mut self, text: &TextConfig) {
        let (size, wide) = (text.hidden_size, text.intermediate_size);
        let narrow = text.num_key_value_heads * text.head_dim();
        self.add("model.embed_tokens.weight".into(), &[text.vocab_size, size], TensorRole::Table);
        for i in 0..text.num_hidden_layers {
            let name = format!("model.layers.{i}");
            self.add(format!("{name}.input_layernorm.weight"), &[size], TensorRole::Gain);
            self.linear(&format!("{name}.self_attn.q_proj"), [size, size], true);
            self.linear(&format!("{name}.self_attn.k_proj"), [narrow, size], true);
            self.linear(&format!("{name}.self_attn.v_proj"), [narrow, size], true);
            self.linear(&format!("{name}.self_attn.o_proj"), [size, size], false);
            self.add(format!("{name}.post_attention_layernorm.weight"), &[size], TensorRole::Gain);
            self.linear(&format!("{name}.mlp.gate_proj"), [wide, size], false);
            self.linear(&format!("{name}.mlp.up_proj"), [wide, size], false);
            self.linear(&format!("{name}.mlp.down_proj"), [size, wide], false);
        }
        self.add("model.norm.weight".into(), &[size], TensorRole::Gain);
    }

    fn tower(&mut self, vision: &VisionConfig, hidden_size: usize) {
        let (size, wide) = (vision.embed_dim, vision.mlp_dim());
        self.add("visual.patch_embed.proj.weight".into(), &vision.kernel_shape(), TensorRole::Matrix);
        for i in 0..vision.depth {
            let name = format!("visual.blocks.{i}");
            self.layer_norm(&format!("{name}.norm1"), size);
            self.layer_norm(&format!("{name}.norm2"), size);
            self.linear(&format!("{name}.attn.qkv"), [3 * size, size], true);
            self.linear(&format!("{name}.attn.proj"), [size, size], true);
            self.linear(&format!("{name}.mlp.fc1"), [wide, size], true);
            self.linear(&format!("{name}.mlp.fc2"), [size, wide], true);
        }
        let merged = size * vision.merge_unit();
        self.layer_norm("visual.merger.ln_q", size);
        self.linear("visual.merger.mlp.0", [merged, merged], true);
        self.linear("visual.merger.mlp.2", [hidden_size, merged], true);
    }
}
