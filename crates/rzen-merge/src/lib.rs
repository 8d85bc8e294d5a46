//! Souping of adapters and checkpoints, one tensor at a time.
