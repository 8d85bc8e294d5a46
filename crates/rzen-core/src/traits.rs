//! The seams between stages.

use std::error::Error;
use std::path::Path;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::{Item, Loss, Targets};

/// One embedding for each row of an input.
pub trait Encode {
    /// A micro-batch on the device; cloning is cheap.
    type Input: Clone;

    /// Returns `[batch, dim]`, each row of unit length.
    fn encode(&self, input: Self::Input) -> Tensor<2>;

    /// The same, to rounding, where no gradient is wanted; the encoder and what comes out are on the plain device.
    fn encode_only(&self, input: Self::Input) -> Tensor<2> {
        self.encode(input)
    }

    /// The same embeddings on the plain device, and what pulls a gradient back through them. Between the two no more
    /// is kept than what each block of the encoder was given; blocks are computed again when their turn comes.
    ///
    /// An encoder that doesn't say otherwise is one block, see [`encode_with_graph`].
    fn encode_by_blocks(&self, input: Self::Input) -> (Tensor<2>, Pullback)
    where
        Self: Module + 'static,
    {
        encode_with_graph(self, input)
    }
}

/// Turns the gradient of embeddings, `[batch, dim]` on the plain device, into that of every parameter that trains and
/// had a part in them.
pub type Pullback = Box<dyn FnOnce(Tensor<2>) -> GradientsParams + Send>;

/// The embeddings on the plain device, and what pulls a gradient back through them: one graph for the whole encoder,
/// which may be on either device.
pub fn encode_with_graph<E: Encode + Module + 'static>(
    encoder: &E,
    input: E::Input,
) -> (Tensor<2>, Pullback) {
    let encoder = encoder.clone().train();
    let embedding = encoder.encode(input);
    let plain = embedding.clone().inner();
    let pullback = move |gradient: Tensor<2>| {
        let Some(strategy) = embedding.gradient_checkpointing_strategy().filter(|_| embedding.is_tracked())
        else {
            // Nothing that trains had a part in it.
            return GradientsParams::new();
        };
        let gradient = gradient.autodiff().with_gradient_checkpointing_strategy(strategy);
        GradientsParams::from_grads((embedding * gradient).sum().backward(), &encoder)
    };
    (plain, Box::new(pullback))
}

/// A criterion over embeddings alone: it never sees a model or an input.
pub trait Objective {
    /// Compares `queries` `[queries, dim]` with `candidates` `[candidates, dim]`.
    ///
    /// Rows need not be of unit length.
    fn loss(&self, queries: Tensor<2>, candidates: Tensor<2>, targets: &Targets) -> Loss;
}

/// Raw items to host vectors: a local model, a stub, a client of a server.
pub trait Embed: Send + Sync {
    /// Numbers in a vector.
    fn dim(&self) -> usize;

    /// Returns one vector of [`dim`](Embed::dim) finite numbers and unit length for each item, in order.
    ///
    /// # Errors
    /// [`EmbedError::Item`] names the first item that can't be read or embedded.
    fn embed(&self, items: &[Item]) -> Result<Vec<Vec<f32>>, EmbedError>;
}

/// Why items could not be embedded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// One item is at fault.
    #[error("item {index} of {count}: {source}")]
    Item {
        /// Its place in the slice, counted from 0.
        index: usize,
        /// The length of the slice.
        count: usize,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A vector came out that must not leave.
    #[error(
        "the vector of item {index} {problem}; the weights or the input hold numbers that the model can't work with"
    )]
    Vector {
        /// The item, counted from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The embedder itself failed.
    #[error("the embedder failed: {0}")]
    Embedder(#[source] Box<dyn Error + Send + Sync>),
}

/// Weights that can be written to a folder in their published layout.
pub trait SaveWeights {
    /// Writes all files that are needed to load the weights again into `folder`, which exists.
    ///
    /// # Errors
    /// Whatever stopped the writing; the caller discards the folder then.
    fn save_weights(&self, folder: &Path) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Says what is wrong with a vector that should be finite and of unit length (to 1e-3), if anything.
///
/// # Errors
/// A clause that completes "the vector …".
pub fn check_unit_vector(vector: &[f32]) -> Result<(), String> {
    if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
        return Err(format!("holds {} at position {at}", vector[at]));
    }
    let length = vector.iter().fold(0.0, |sum, x| sum + f64::from(*x).powi(2)).sqrt();
    if (length - 1.0).abs() > 1e-3 {
        return Err(format!("has length {length:.4} instead of 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_unit_vector;

    #[test]
    fn unit_vectors_pass() {
        let vectors: [&[f32]; 3] = [&[1.0], &[0.6, -0.8], &[0.6003, 0.8]];
        for vector in vectors {
            assert_eq!(check_unit_vector(vector), Ok(()), "{vector:?}");
        }
    }

    #[test]
    fn other_vectors_are_described() {
        let cases: [(&[f32], &str); 7] = [
            (&[0.6, f32::NAN], "holds NaN at position 1"),
            (&[f32::INFINITY, 0.0], "holds inf at position 0"),
            (&[0.0, f32::NEG_INFINITY], "holds -inf at position 1"),
            (&[0.0, 0.0], "has length 0.0000"),
            (&[], "has length 0.0000"),
            (&[1.1, 0.0], "has length 1.1000"),
            (&[0.998, 0.0], "has length 0.9980"),
        ];
        for (vector, problem) in cases {
            let error = check_unit_vector(vector).unwrap_err();
            assert!(error.contains(problem), "{vector:?}: {error}");
        }
    }
}
