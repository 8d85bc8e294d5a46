//! What must hold of any model: a vector does not depend on its company, and is finite and unit. And of
//! the rules that these tests measure with.

use std::path::Path;

use burn::tensor::FloatDType;
use rzen_core::{Encode, check_unit_vector};
use rzen_model::{Encoded, PositionMode};

use crate::case::{Case, cases, collator, special_ids};
use crate::reference::{cosine, distance, named_folder};
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

#[test]
fn a_reference_is_named_from_the_workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let relative = named_folder(&root, "fixtures/reference".as_ref());
    assert!(relative.join("cases").is_dir());
    let absolute = std::fs::canonicalize(&relative).unwrap();
    assert_eq!(named_folder(&root, absolute.as_os_str()), absolute);
}

#[test]
#[should_panic(expected = "fixtures/refrence")]
fn a_misspelt_reference_is_no_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    named_folder(&root, "fixtures/refrence".as_ref());
}

#[test]
fn nan_is_far_from_everything() {
    assert_eq!(distance(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
    assert_eq!(distance(&[1.0, f32::NAN], &[1.0, 2.0]), f64::INFINITY);
    assert_eq!(distance(&[f32::NAN, 2.0], &[1.0, 2.0]), f64::INFINITY);
    assert_eq!(distance(&[1.0], &[f64::NAN]), f64::INFINITY);
}

/// As in the published code: a picture token that stands in an item without pictures is one more word,
/// whatever stands beside the item.
#[test]
fn golden_a_picture_token_without_pictures_is_a_word() {
    let Some(model) = model(FloatDType::F32) else { return };
    let with_picture =
        cases().into_iter().find(|case| case.items().iter().any(|item| !item.pictures.is_empty()));
    let with_picture = with_picture.expect("a case with a picture");
    let special = special_ids();
    let words = |id| Encoded { input_ids: vec![1, id, id, 2, special.endoftext], pictures: Vec::new() };
    let [pad, other] = [words(special.image_pad), words(3)];
    let alone = embed(&model, &[&pad]).swap_remove(0);
    check_unit_vector(&alone).unwrap();
    let wide = |row: &[f32]| row.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    assert!(distance(&alone, &wide(&embed(&model, &[&other])[0])) > 1e-4, "the token counts");
    let mut items = vec![&pad];
    items.extend(with_picture.items());
    assert!(distance(&embed(&model, &items)[0], &wide(&alone)) < 1e-5, "its company does not");
}
