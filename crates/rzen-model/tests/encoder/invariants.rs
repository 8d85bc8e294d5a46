//! What must hold of any model: a vector does not depend on its company, and is finite and unit. And of
//! the rules that these tests measure with.

use std::path::Path;

use burn::tensor::FloatDType;
use rzen_core::check_unit_vector;
use rzen_model::{Encoded, PositionMode};

use crate::case::{Case, cases, collator, special_ids};
use crate::reference::{cosine, distance, named_folder};
use crate::{both_ways, model};

/// Both ways of making the vectors, one after the other.
fn embed(model: &rzen_model::Qwen2Vl, items: &[&Encoded]) -> Vec<Vec<f32>> {
    let input = collator(model, PositionMode::Mrope).collate(items);
    both_ways(model, &input).into_iter().flat_map(|(_, rows)| rows).collect()
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
    let count = items.len();
    for (i, item) in items.iter().enumerate() {
        for (way, alone) in embed(&model, &[*item]).iter().enumerate() {
            check_unit_vector(alone).unwrap();
            let alone: Vec<f64> = alone.iter().map(|x| f64::from(*x)).collect();
            assert!(cosine(&together[way * count + i], &alone) > 0.999_999, "item {i} in a batch");
            let turned = &backwards[way * count + count - 1 - i];
            assert!(cosine(turned, &alone) > 0.999_999, "item {i} in another order");
        }
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
    let together = embed(&model, &items);
    for way in [0, items.len()] {
        assert!(distance(&together[way], &wide(&alone)) < 1e-5, "its company does not");
    }
}

/// Lengths on both sides of what kernels take at once, alone and beside others of all lengths.
#[test]
fn golden_length_changes_nothing() {
    let Some(model) = model(FloatDType::F32) else { return };
    let ids = |length: u32| (0..length).map(|t| 5 + (t * t * 7 + length * 13 + t) % 200).collect();
    let texts: Vec<Encoded> = [1, 2, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257]
        .map(|length| Encoded { input_ids: ids(length), pictures: Vec::new() })
        .into();
    let items: Vec<&Encoded> = texts.iter().collect();
    let together = embed(&model, &items);
    for (i, item) in items.iter().enumerate() {
        for (way, alone) in embed(&model, &[*item]).iter().enumerate() {
            let alone: Vec<f64> = alone.iter().map(|x| f64::from(*x)).collect();
            let cosine = cosine(&together[way * items.len() + i], &alone);
            assert!(cosine > 0.999_99, "{} tokens: cosine {cosine}", item.input_ids.len());
        }
    }
}
