//! Soups of adapters against sums that are formed in full.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rzen_merge::{Adapter, Existing, Ingredient, Method, Soup, merge_into_base, soup_adapters};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use crate::{MODULES, Tensors, config, factors, noise, relative, write, write_adapter};

/// `Σ w s B A` of each module, in f64.
fn in_full(ingredients: &[Ingredient]) -> BTreeMap<String, Vec<f64>> {
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for one in ingredients {
        let adapter = Adapter::load(&one.path).unwrap();
        for (module, update) in adapter.modules() {
            let [out, input] = update.shape();
            let sum = sums.entry(module.clone()).or_insert_with(|| vec![0.0; out * input]);
            for (at, sum) in sum.iter_mut().enumerate() {
                let (row, col) = (at / input, at % input);
                let entry = |r: usize| {
                    f64::from(update.b().data()[row * update.rank() + r])
                        * f64::from(update.a().data()[r * input + col])
                };
                *sum += one.weight * adapter.config().scaling() * (0..update.rank()).map(entry).sum::<f64>();
            }
        }
    }
    sums
}

/// Error over all modules and of each.
fn error_in_full(soup: &Soup, wanted: &BTreeMap<String, Vec<f64>>) -> (f64, BTreeMap<String, f64>) {
    let square = |xs: &mut dyn Iterator<Item = f64>| xs.map(|x| x * x).sum::<f64>();
    let (mut difference, mut total, mut each) = (0.0, 0.0, BTreeMap::new());
    for (module, wanted) in wanted {
        let found = soup.adapter.delta(module).unwrap();
        let d = square(&mut found.data().iter().zip(wanted).map(|(a, b)| f64::from(*a) - b));
        let t = square(&mut wanted.iter().copied());
        each.insert(module.clone(), (d / t).sqrt());
        (difference, total) = (difference + d, total + t);
    }
    ((difference / total).sqrt(), each)
}

fn three(home: &Path) -> Vec<Ingredient> {
    let weights = [0.5, 0.3, 0.2];
    weights
        .iter()
        .enumerate()
        .map(|(n, weight)| {
            let path = home.join(format!("run_{n}"));
            write_adapter(&path, config(2, 4.0), &factors(n as u64 + 1, 2, &MODULES));
            Ingredient { path, weight: *weight }
        })
        .collect()
}

#[test]
fn the_reported_error_is_that_of_the_full_matrices() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = three(home.path());
    let wanted = in_full(&ingredients);
    for method in [
        Method::Exact,
        Method::Svd { rank: None },
        Method::Svd { rank: Some(3) },
        Method::Svd { rank: Some(100) },
        Method::MeanAb,
        Method::Linear,
        Method::Ties { density: 0.5 },
        Method::MagnitudePrune { density: 0.5 },
        Method::DareLinear { density: 0.7, seed: 3 },
    ] {
        let soup = soup_adapters(&ingredients, method).unwrap();
        let (total, each) = error_in_full(&soup, &wanted);
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-4 * expected + 2e-7;
        assert!(
            near(soup.report.relative_error, total),
            "{method:?}: {} and {total}",
            soup.report.relative_error
        );
        assert!(soup.report.per_module.keys().eq(each.keys()));
        for (module, expected) in each {
            assert!(near(soup.report.per_module[&module], expected), "{method:?}, {module}");
        }
        let exact = matches!(method, Method::Exact | Method::Svd { rank: Some(100) });
        assert_eq!(soup.report.relative_error == 0.0, exact, "{method:?}");
    }
}

#[test]
fn a_higher_rank_is_nearer() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = three(home.path());
    let error =
        |rank| soup_adapters(&ingredients, Method::Svd { rank: Some(rank) }).unwrap().report.relative_error;
    let errors: Vec<f64> = (1..=6).map(error).collect();
    assert!(errors.is_sorted_by(|a, b| a > b || (*a == 0.0 && *b == 0.0)), "{errors:?}");
}

#[test]
fn equal_adapters_come_back() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run");
    write_adapter(&path, config(2, 4.0), &factors(1, 2, &MODULES));
    let expected = in_full(&[Ingredient { path: path.clone(), weight: 1.0 }]);
    let same = Ingredient::uniform([&path, &path, &path]);
    for method in [Method::Exact, Method::Svd { rank: None }, Method::MeanAb, Method::Ties { density: 1.0 }] {
        let soup = soup_adapters(&same, method).unwrap();
        for (module, expected) in &expected {
            // TIES divides by the number of adapters that agree, on both factors, after roots of 1/3.
            let scale = if matches!(method, Method::Ties { .. }) { 1.0 / 3.0 } else { 1.0 };
            let expected: Vec<f64> = expected.iter().map(|x| x * scale).collect();
            let difference = relative(soup.adapter.delta(module).unwrap().data(), &expected);
            assert!(difference < 1e-6, "{method:?}, {module}: {difference:e}");
        }
    }
}

#[test]
fn ranks_scalings_and_modules_may_differ() {
    let home = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = ["plain", "stabilised", "half"].iter().map(|n| home.path().join(n)).collect();
    write_adapter(&paths[0], config(2, 4.0), &factors(1, 2, &MODULES));
    let mut stabilised = config(3, 5.0);
    stabilised["use_rslora"] = json!(true);
    write_adapter(&paths[1], stabilised, &factors(2, 3, &MODULES[..2]));
    write_adapter(&paths[2], config(1, 0.5), &Tensors::new());
    write(&paths[2].join("adapter_model.safetensors"), &factors(3, 1, &MODULES[1..]), Dtype::BF16);

    let weights = [0.7, -0.2, 1.5];
    let ingredients: Vec<_> =
        paths.iter().zip(weights).map(|(path, weight)| Ingredient { path: path.clone(), weight }).collect();
    let expected = in_full(&ingredients);
    for method in [Method::Exact, Method::Svd { rank: Some(6) }] {
        let soup = soup_adapters(&ingredients, method).unwrap();
        assert_eq!(soup.adapter.config().r, 6);
        assert_eq!(soup.report.relative_error, 0.0, "{method:?}");
        for (module, expected) in &expected {
            assert!(relative(soup.adapter.delta(module).unwrap().data(), expected) < 1e-6, "{method:?}");
        }
    }
    let largest = soup_adapters(&ingredients, Method::Svd { rank: None }).unwrap();
    assert_eq!(largest.adapter.config().r, 3);
}

#[test]
fn updates_that_cancel_have_an_error_too() {
    let home = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| home.path().join(name));
    for path in &paths {
        write_adapter(path, config(2, 4.0), &factors(1, 2, &MODULES));
    }
    let ingredient = |n: usize, weight| Ingredient { path: paths[n].clone(), weight };
    let nothing = [ingredient(0, 1.0), ingredient(1, -1.0)];
    for method in [Method::Exact, Method::Svd { rank: None }, Method::MeanAb] {
        assert_eq!(soup_adapters(&nothing, method).unwrap().report.relative_error, 0.0, "{method:?}");
    }
    // B is zero in one adapter and A in the other, but the averages of both are not.
    let silent = |factor: &str| -> Tensors {
        let mut tensors = factors(1, 2, &MODULES);
        let of_factor = tensors.iter_mut().filter(|(name, _)| name.contains(factor));
        of_factor.for_each(|(_, (_, data))| data.fill(0.0));
        tensors
    };
    write_adapter(&paths[0], config(2, 4.0), &silent("lora_A"));
    write_adapter(&paths[1], config(2, 4.0), &silent("lora_B"));
    let report = soup_adapters(&Ingredient::uniform(&paths), Method::MeanAb).unwrap().report;
    assert_eq!(report.relative_error, f64::INFINITY);
}

#[test]
fn dropped_entries_depend_on_the_seed_alone() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = three(home.path());
    let soup = |seed| soup_adapters(&ingredients, Method::DareLinear { density: 0.7, seed }).unwrap().adapter;
    assert_eq!(soup(1), soup(1));
    assert_ne!(soup(1), soup(2));
}

#[test]
fn what_is_saved_is_what_peft_reads() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = three(home.path());
    let folder = home.path().join("soup");
    let soup = soup_adapters(&ingredients, Method::Exact).unwrap();
    soup.adapter.save(&folder, Existing::Refuse).unwrap();
    let json: Value = serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(json["peft_type"], "LORA");
    assert_eq!((&json["r"], &json["lora_alpha"]), (&json!(6), &json!(6)));
    assert_eq!(json["base_model_name_or_path"], "somewhere");
    assert_eq!(json["target_modules"], json!(["merger.mlp.0", "mlp.down_proj", "self_attn.q_proj"]));
    assert_eq!(
        (&json["use_rslora"], &json["bias"], &json["task_type"]),
        (&json!(false), &json!("none"), &Value::Null)
    );
    let names: Vec<String> = crate::read(&folder.join("adapter_model.safetensors")).into_keys().collect();
    assert_eq!(names[0], "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    assert_eq!(Adapter::load(&folder).unwrap().modules(), soup.adapter.modules());

    assert!(!folder.join("processor.json").exists(), "no ingredient has one");

    let again = soup.adapter.save(&folder, Existing::Refuse).unwrap_err().to_string();
    assert!(again.contains("exists"), "{again}");
    soup.adapter.save(&folder, Existing::Replace).unwrap();
}

#[test]
fn the_processor_goes_along() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = three(home.path());
    for one in &ingredients {
        fs::write(one.path.join("processor.json"), "{\"num_frames\": 3}").unwrap();
    }
    let soup = soup_adapters(&ingredients, Method::Exact).unwrap();
    soup.adapter.save(&home.path().join("soup"), Existing::Refuse).unwrap();
    let found = fs::read(home.path().join("soup/processor.json")).unwrap();
    assert_eq!(found, b"{\"num_frames\": 3}");

    let base = home.path().join("base");
    fs::create_dir(&base).unwrap();
    let weights: Tensors = MODULES
        .iter()
        .map(|(module, [out, input])| {
            (format!("{module}.weight"), (vec![*out, *input], noise(9, out * input)))
        })
        .collect();
    write(&base.join("model.safetensors"), &weights, Dtype::F32);
    fs::write(base.join("processor.json"), "{}").unwrap();
    fs::write(base.join("config.json"), "{}").unwrap();
    let merged = home.path().join("merged");
    merge_into_base(&base, &soup.adapter, &merged, Existing::Refuse).unwrap();
    assert_eq!(fs::read(merged.join("processor.json")).unwrap(), found, "the adapter's goes first");
    assert!(merged.join("config.json").is_file());
}

#[test]
fn half_precision_is_widened() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run");
    for dtype in [Dtype::F16, Dtype::BF16] {
        write_adapter(&path, config(2, 4.0), &Tensors::new());
        write(&path.join("adapter_model.safetensors"), &factors(1, 2, &MODULES), dtype);
        let adapter = Adapter::load(&path).unwrap();
        let expected = noise(100, 2 * 5);
        let found = adapter.modules()[MODULES[0].0].a().data().to_vec();
        let near = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 4e-3 && a != b);
        assert!(near, "{dtype:?}: {found:?} and {expected:?}");
    }
}
