//! What must hold of any model: a vector does not depend on its company, and is finite and unit.

use burn::tensor::FloatDType;
use rzen_core::{Encode, check_unit_vector};
use rzen_model::{Encoded, PositionMode};

use crate::case::{Case, cases, collator};
use crate::reference::cosine;
use crate::{model, rows};

fn embed(model: &rzen_model::Qwen2Vl, items: &[&Encoded]) -> Vec<Vec<f32>> {
    rows(&model.encode(collator(model, PositionMode::Mrope).collate(items)).into_data())
}

#[test]
fn golden_company_changes_nothing() {
    let Some(model) = model(FloatDType::F32) else { return };
    let cases: Vec<Case> = cases().into_iter().filter(|case| !case.name.starts_with("official")).collect();
    let items: Vec<&Encoded> =
        cases.iter().flat_map(Case::items).filter(|item| item.input_ids.len() < 300).collect();
    let together = embed(&model, &items);
    let reversed: Vec<&Encoded> = items.iter().rev().copied().collect();
    let backwards = embed(&model, &reversed);
    for (i, item) in items.iter().enumerate() {
        let alone = &embed(&model, &[*item])[0];
        check_unit_vector(alone).unwrap();
        let alone: Vec<f64> = alone.iter().map(|x| f64::from(*x)).collect();
        assert!(cosine(&together[i], &alone) > 0.999_999, "item {i} in a batch");
        assert!(cosine(&backwards[items.len() - 1 - i], &alone) > 0.999_999, "item {i} in another order");
    }
}
