//! CPU kernels of a transformer encoder: linear layers, attention, norms, activations, fused and threaded.
//!
//! Everything works on slices of f32; weights may be f32 or bf16. No framework: `rzen-model` calls these
//! with the storage of its tensors where they lie in main memory and no gradient is wanted.
#![warn(missing_docs)]

mod attention;
mod cpu;
mod exp;
mod matmul;
mod rows;
mod scratch;

pub use attention::{Attention, Heads, Window};
pub use cpu::{Features, features};
pub use matmul::{FEW_ROWS, Linear, Lora, Matrix, Then};
pub use rows::{gelu, layer_norm, rms_norm, rotate};
pub use scratch::Scratch;
