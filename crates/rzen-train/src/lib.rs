//! Training: stages, cached gradients, schedules, checkpoints and resume.
