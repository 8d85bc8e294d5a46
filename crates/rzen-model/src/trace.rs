//! Inner states kept for a look from outside.

use burn::tensor::{Tensor, TensorData};

/// Named states of a forward pass, in the order in which they arose; empty unless asked for.
#[derive(Debug, Default)]
pub struct Trace {
    states: Option<Vec<(String, TensorData)>>,
}

impl Trace {
    /// Keeps nothing.
    pub fn off() -> Self {
        Trace { states: None }
    }

    /// Keeps the output of every layer, as f32 on the host.
    pub fn on() -> Self {
        Trace { states: Some(Vec::new()) }
    }

    /// The states: `vision_patch_embed`, `vision_block_I`, `vision_output` (rows are patches or
    /// tokens of pictures); `inputs_embeds`, `layer_I`, `final_norm` (`[batch · seq, hidden_size]`).
    pub fn states(&self) -> &[(String, TensorData)] {
        self.states.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.states.is_some()
    }

    pub(crate) fn keep(&mut self, name: impl FnOnce() -> String, state: &Tensor<2>) {
        if let Some(states) = &mut self.states {
            // Looked at now: on GPUs burn copies data only then, and the next operation may write where they lie.
            let numbers = state.clone().into_data().convert::<f32>().try_to_vec::<f32>();
            states.push((name(), TensorData::new(numbers.expect("it was just converted"), state.dims())));
        }
    }
}
