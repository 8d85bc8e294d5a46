//! Contrastive objectives: InfoNCE with hardness weights, false-negative mask and a temperature per task.
