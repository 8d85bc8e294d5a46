//! Loaders for pictures, clips and document pages, and data sources for training and evaluation.
