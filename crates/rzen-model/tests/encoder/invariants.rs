//! What must hold of any model, and of the rules that these tests measure with.

use std::path::Path;

use burn::tensor::FloatDType;
use rzen_core::check_unit_vector;
use rzen_model::Encoded;

use crate::case::{cases, special_ids};
use crate::company::{WAYS, embed};
use crate::model;
use crate::reference::{distance, named_folder};

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
    for way in WAYS {
        let embed = |items: &[&Encoded]| embed(way, &model, items);
        let alone = embed(&[&pad]).swap_remove(0);
        check_unit_vector(&alone).unwrap();
        let wide = |row: &[f32]| row.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        assert!(distance(&alone, &wide(&embed(&[&other])[0])) > 1e-4, "the token counts");
        let mut items = vec![&pad];
        items.extend(with_picture.items());
        assert!(distance(&embed(&items)[0], &wide(&alone)) < 1e-5, "its company does not");
    }
}
