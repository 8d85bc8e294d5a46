//! Qwen2-VL as an embedding encoder: processor, vision tower, decoder, adapters, checkpoints.
