//! Whether devices compute what they should: each is checked with a model whose vectors are known.

pub mod child;
pub mod known_model;
pub mod machine;
