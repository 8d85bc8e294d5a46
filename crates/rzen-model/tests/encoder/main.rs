//! The network against the reference: every layer, every embedding, every file layout.

mod adapters;
mod bad_adapters;
mod bad_files;
mod blocks;
mod case;
mod company;
mod golden;
mod invariants;
mod layouts;
mod mapped;
mod random;
mod reference;
mod saving;

use burn::tensor::FloatDType;
use rzen_model::Qwen2Vl;

use case::{Case, cases};
use golden::{Place, rows};

fn model(dtype: FloatDType) -> Option<Qwen2Vl> {
    Place::cpu().model(dtype)
}

#[test]
fn golden_embeddings() {
    golden::embeddings(&Place::cpu());
}

#[test]
fn golden_pixels() {
    let compared: usize = cases().iter().map(Case::compare_pixels).sum();
    assert!(compared > 0);
}

#[test]
fn golden_every_layer() {
    golden::every_layer(&Place::cpu());
}

#[test]
fn golden_bf16() {
    golden::bf16(&Place::cpu());
}

#[test]
fn golden_adapters_apply() {
    golden::adapters(&Place::cpu());
}

#[test]
fn golden_company_changes_nothing() {
    company::of_golden_cases(&Place::cpu());
}

#[test]
fn golden_company_changes_nothing_at_block_sizes() {
    company::at_block_sizes(&Place::cpu());
}

#[test]
fn golden_company_changes_nothing_with_weights_as_stored() {
    company::with_weights_as_stored(&Place::cpu());
}
