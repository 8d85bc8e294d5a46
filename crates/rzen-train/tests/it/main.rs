//! The contract of the trainer, on a toy encoder.

mod bad_input;
mod gradients;
mod resume;
mod toy;
