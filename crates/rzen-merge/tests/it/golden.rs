//! Soups and merged weights as `peft` makes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rzen_merge::{Adapter, Cut, Existing, Ingredient, Matrix, Method, dare_linear, merge_into_base};
use serde_json::Value;

use crate::{cook, cook_cut, read, reference, relative};

/// The index of the soups, and the folder of the adapters.
fn soups() -> Option<(Value, PathBuf)> {
    let index = reference::file("lora/soups.json")?;
    let folder = index.parent().unwrap().to_path_buf();
    Some((serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap(), folder))
}

fn ingredients(folder: &Path, index: &Value, soup: &Value) -> Vec<Ingredient> {
    let weights = soup["weights"].as_array().unwrap();
    let names = index["adapters"].as_array().unwrap();
    let pairs = names.iter().zip(weights);
    pairs
        .map(|(name, weight)| Ingredient {
            path: folder.join(name.as_str().unwrap()),
            weight: weight.as_f64().unwrap(),
        })
        .collect()
}

/// The method that a soup's name stands for; its masks make `dare_linear` a test of its own.
fn method(name: &str, how: &Value, expected: &Adapter) -> Option<(Method, Cut)> {
    let method = match name {
        _ if name.starts_with("mean_ab") => Method::MeanAb,
        _ if name.ends_with("_cat") => Method::Exact,
        _ if name.contains("_svd_") => return Some((Method::Exact, Cut::Rank(expected.config().r))),
        "linear" => Method::PeftLinear,
        "ties" => Method::PeftTies { density: density(how) },
        "magnitude_prune" => Method::PeftMagnitudePrune { density: density(how) },
        "dare_linear" => return None,
        other => panic!("no method is known for the soup `{other}`"),
    };
    Some((method, Cut::Nothing))
}

/// The density that the index writes into a soup's `how`, as in "… density 0.5, …".
fn density(how: &Value) -> f64 {
    let text =
        how.as_str().unwrap().split("density ").nth(1).unwrap_or_else(|| panic!("no density in {how}"));
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text[..end].parse().unwrap()
}

/// Compares the updates, to 1e-5 of their length.
///
/// Where singular values were cut off, the reference's rounding in f32 turns the last kept direction
/// towards the first dropped one by about 1e-7 over the gap between them; `full` has all of them.
fn assert_same_updates(found: &Adapter, expected: &Adapter, full: Option<&Adapter>, what: &str) {
    assert!(found.modules().keys().eq(expected.modules().keys()), "{what}");
    for module in expected.modules().keys() {
        let expected: Vec<f64> =
            expected.delta(module).unwrap().data().iter().map(|x| f64::from(*x)).collect();
        let difference = relative(found.delta(module).unwrap().data(), &expected);
        let gap = full.map_or(1.0, |full| relative_gap(&full.delta(module).unwrap(), found.config().r));
        let tolerance = f64::max(1e-5, 5e-7 / gap);
        assert!(difference < tolerance, "{what}, {module}: {difference:e} at a gap of {gap:e}");
    }
}

/// The distance of the `rank`-th singular value to the next one, relative to the first.
fn relative_gap(update: &Matrix, rank: usize) -> f64 {
    let data = update.data().iter().map(|x| f64::from(*x));
    let values = nalgebra::DMatrix::from_row_iterator(update.rows(), update.cols(), data).singular_values();
    let next = values.get(rank).copied().unwrap_or(0.0);
    values.get(rank - 1).map_or(1.0, |last| (last - next) / values[0])
}

#[test]
fn golden_soups() {
    let Some((index, folder)) = soups() else { return };
    let home = tempfile::tempdir().unwrap();
    for (name, soup) in index["soups"].as_object().unwrap() {
        let expected = Adapter::load(&folder.join("soup").join(name)).unwrap();
        let Some((method, cut)) = method(name, &soup["how"], &expected) else { continue };
        let (found, record) = cook_cut(&ingredients(&folder, &index, soup), method, cut).unwrap();
        let less = name.ends_with("_svd_r");
        let full = cook(&ingredients(&folder, &index, soup), Method::Exact).unwrap().0;
        assert_same_updates(&found, &expected, less.then_some(&full), name);
        let error = record.relative_error.unwrap();
        let exact = method == Method::Exact && !less;
        assert!(if exact { error == 0.0 } else { error > 1e-3 && error.is_finite() }, "{name}: {error}");

        let saved = home.path().join(name);
        found.save(&saved, Existing::Refuse).unwrap();
        assert_eq!(Adapter::load(&saved).unwrap().modules(), found.modules());
    }
}

#[test]
fn golden_dare_with_given_masks() {
    let Some((index, folder)) = soups() else { return };
    let Some(masks) = reference::file("lora/soup/dare_masks.safetensors") else { return };
    let (masks, soup) = (read(&masks), &index["soups"]["dare_linear"]);
    let expected = Adapter::load(&folder.join("soup/dare_linear")).unwrap();
    let ingredients = ingredients(&folder, &index, soup);
    let adapters: Vec<_> = ingredients.iter().map(|one| Adapter::load(&one.path).unwrap()).collect();
    let density = density(&soup["how"]);
    let roots: Vec<f64> = ingredients
        .iter()
        .zip(&adapters)
        .map(|(one, a)| (one.weight * a.config().scaling()).sqrt())
        .collect();
    for (module, update) in expected.modules() {
        for (factor, matrix) in [("lora_A", update.a()), ("lora_B", update.b())] {
            let tensors: Vec<&[f32]> = adapters
                .iter()
                .map(|a| &a.modules()[module])
                .map(|u| if factor == "lora_A" { u.a().data() } else { u.b().data() })
                .collect();
            let keep: Vec<Vec<bool>> = ingredients
                .iter()
                .map(|one| {
                    let adapter = one.path.file_name().unwrap().to_str().unwrap();
                    masks[&format!("{module}.{factor}.{adapter}")].1.iter().map(|x| *x != 0.0).collect()
                })
                .collect();
            let found = dare_linear(&tensors, &roots, &keep, density);
            let expected: Vec<f64> = matrix.data().iter().map(|x| f64::from(*x)).collect();
            let difference = relative(&found, &expected);
            assert!(difference < 1e-5, "{module}.{factor}: {difference:e}");
        }
    }
}

/// An adapter of the reference, where that has it.
fn adapter(name: &str) -> Option<Adapter> {
    let config = reference::file(&format!("lora/{name}/adapter_config.json"))?;
    Some(Adapter::load(config.parent().unwrap()).unwrap())
}

#[test]
fn golden_names_of_both_versions_are_the_same_adapter() {
    let (Some(old), Some(new)) = (adapter("run_a"), adapter("run_a_newnames")) else { return };
    assert_eq!(old.modules(), new.modules());
}

#[test]
fn golden_merged_weights() {
    let Some(base) = reference::file("model/model.safetensors") else { return };
    let Some(merged) = reference::file("lora/merged_run_a.safetensors") else { return };
    let (before, expected) = (read(&base), read(&merged));
    let home = tempfile::tempdir().unwrap();
    for name in ["run_a", "run_a_newnames"] {
        let (output, Some(adapter)) = (home.path().join(name), adapter(name)) else { continue };
        merge_into_base(base.parent().unwrap(), &adapter, &output, Existing::Refuse).unwrap();
        let found = read(&output.join("model.safetensors"));
        assert!(found.keys().eq(before.keys()));
        for (tensor, (_, found)) in &found {
            match expected.get(tensor) {
                Some((_, expected)) => {
                    let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
                    assert!(relative(found, &expected) < 1e-6, "{tensor}");
                }
                None => assert_eq!(found, &before[tensor].1, "{tensor} is not touched"),
            }
        }
        assert_eq!(
            std::fs::read(output.join("config.json")).unwrap(),
            std::fs::read(base.with_file_name("config.json")).unwrap()
        );
    }
}

#[test]
fn golden_merged_shards() {
    let Some(index) = reference::file("model_sharded_bf16/model.safetensors.index.json") else { return };
    let (Some((_, folder)), Some(merged)) = (soups(), reference::file("lora/merged_run_a.safetensors"))
    else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let output = home.path().join("merged");
    let adapter = Adapter::load(&folder.join("run_a")).unwrap();
    merge_into_base(index.parent().unwrap(), &adapter, &output, Existing::Refuse).unwrap();
    let map: Value =
        serde_json::from_slice(&std::fs::read(output.join(index.file_name().unwrap())).unwrap()).unwrap();
    let files: BTreeMap<String, _> = map["weight_map"]
        .as_object()
        .unwrap()
        .values()
        .map(|file| file.as_str().unwrap())
        .map(|file| (file.to_string(), read(&output.join(file))))
        .collect();
    for (tensor, (_, expected)) in read(&merged) {
        let found = &files[map["weight_map"][&tensor].as_str().unwrap()][&tensor].1;
        let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
        // Weights are rounded to bf16 before and after.
        assert!(relative(found, &expected) < 4e-3, "{tensor}");
    }
}
