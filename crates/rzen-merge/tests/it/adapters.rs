//! Soups of adapters against sums that are formed in full.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rzen_merge::{
    Adapter, Cut, Existing, Ingredient, Method, Soup, SoupRecord, SoupSettings, merge_into_base,
};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use crate::updates::unlike;
use crate::{MODULES, Tensors, config, cook, cook_cut, factors, noise, relative, write, write_adapter};

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
fn error_in_full(soup: &Adapter, wanted: &BTreeMap<String, Vec<f64>>) -> (f64, BTreeMap<String, f64>) {
    let square = |xs: &mut dyn Iterator<Item = f64>| xs.map(|x| x * x).sum::<f64>();
    let (mut difference, mut total, mut each) = (0.0, 0.0, BTreeMap::new());
    for (module, wanted) in wanted {
        let found = soup.delta(module).unwrap();
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
    let half = Method::Ties { density: 0.5 };
    for (method, cut) in [
        (Method::Exact, Cut::Nothing),
        (Method::Exact, Cut::LargestRank),
        (Method::Exact, Cut::Rank(3)),
        (Method::Exact, Cut::Rank(100)),
        (Method::Exact, Cut::Energy(0.9)),
        (half, Cut::LargestRank),
        (half, Cut::Rank(4)),
        (Method::Dare { density: 0.7, seed: 3 }, Cut::Rank(3)),
        (Method::MeanAb, Cut::Nothing),
        (Method::PeftLinear, Cut::Nothing),
        (Method::PeftTies { density: 0.5 }, Cut::Nothing),
        (Method::PeftMagnitudePrune { density: 0.5 }, Cut::Nothing),
        (Method::PeftDareLinear { density: 0.7, seed: 3 }, Cut::Nothing),
    ] {
        let (soup, record) = cook_cut(&ingredients, method, cut).unwrap();
        let (total, each) = error_in_full(&soup, &wanted);
        let near =
            |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-4 * expected + 2e-7;
        assert!(near(record.relative_error, total), "{method:?}: {:?} and {total}", record.relative_error);
        assert!(record.modules.keys().eq(each.keys()));
        for (module, expected) in each {
            assert!(near(record.modules[&module].relative_error, expected), "{method:?}, {module}");
        }
        let exact = method == Method::Exact && matches!(cut, Cut::Nothing | Cut::Rank(100));
        assert_eq!(record.relative_error == Some(0.0), exact, "{method:?}");
    }
}

#[test]
fn a_higher_rank_is_nearer() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = three(home.path());
    let record = |rank| cook_cut(&ingredients, Method::Exact, Cut::Rank(rank)).unwrap().1;
    let errors: Vec<f64> = (1..=6).map(|rank| record(rank).relative_error.unwrap()).collect();
    assert!(errors.is_sorted_by(|a, b| a > b || (*a == 0.0 && *b == 0.0)), "{errors:?}");
}

#[test]
fn equal_adapters_come_back() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run");
    write_adapter(&path, config(2, 4.0), &factors(1, 2, &MODULES));
    let expected = in_full(&[Ingredient { path: path.clone(), weight: 1.0 }]);
    let same = Ingredient::uniform([&path, &path, &path]);
    let two = Ingredient::uniform([&path, &path]);
    for (ingredients, method, cut) in [
        (&same, Method::Exact, Cut::Nothing),
        (&same, Method::Exact, Cut::LargestRank),
        (&two, Method::Slerp, Cut::Nothing),
        (&same, Method::Ties { density: 1.0 }, Cut::LargestRank),
        (&same, Method::Dare { density: 1.0, seed: 1 }, Cut::LargestRank),
        (&same, Method::MeanAb, Cut::Nothing),
        (&same, Method::PeftTies { density: 1.0 }, Cut::Nothing),
    ] {
        let soup = cook_cut(ingredients, method, cut).unwrap().0;
        for (module, expected) in &expected {
            // It divides by the number of adapters that agree, on both factors, after roots of 1/3.
            let scale = if matches!(method, Method::PeftTies { .. }) { 1.0 / 3.0 } else { 1.0 };
            let expected: Vec<f64> = expected.iter().map(|x| x * scale).collect();
            let difference = relative(soup.delta(module).unwrap().data(), &expected);
            assert!(difference < 1e-6, "{method:?}, {module}: {difference:e}");
        }
    }
}

#[test]
fn ranks_scalings_and_modules_may_differ() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = unlike(home.path(), [0.7, -0.2, 1.5]);
    let expected = in_full(&ingredients);
    for cut in [Cut::Nothing, Cut::Rank(6), Cut::Energy(1.0)] {
        let (soup, record) = cook_cut(&ingredients, Method::Exact, cut).unwrap();
        // No module has more than five singular values.
        assert_eq!(soup.config().r, if cut == Cut::Energy(1.0) { 5 } else { 6 });
        assert_eq!(record.relative_error, Some(0.0), "{cut:?}");
        for (module, expected) in &expected {
            assert!(relative(soup.delta(module).unwrap().data(), expected) < 1e-6, "{cut:?}");
        }
    }
    let largest = cook_cut(&ingredients, Method::Exact, Cut::LargestRank).unwrap();
    assert_eq!(largest.0.config().r, 3);
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
    for (method, cut) in
        [(Method::Exact, Cut::Nothing), (Method::Exact, Cut::LargestRank), (Method::MeanAb, Cut::Nothing)]
    {
        assert_eq!(cook_cut(&nothing, method, cut).unwrap().1.relative_error, Some(0.0), "{method:?}");
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
    let record = cook(&Ingredient::uniform(&paths), Method::MeanAb).unwrap().1;
    assert_eq!(record.relative_error, None);
}

#[test]
fn dropped_entries_depend_on_the_seed_alone() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = three(home.path());
    let of_factors = |seed| cook(&ingredients, Method::PeftDareLinear { density: 0.7, seed }).unwrap().0;
    assert_eq!(of_factors(1), of_factors(1));
    assert_ne!(of_factors(1), of_factors(2));
    let of_updates =
        |seed| cook_cut(&ingredients, Method::Dare { density: 0.7, seed }, Cut::LargestRank).unwrap().0;
    assert_eq!(of_updates(1), of_updates(1));
    assert_ne!(of_updates(1), of_updates(2));
}

#[test]
fn what_is_saved_is_what_peft_reads() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = three(home.path());
    let folder = home.path().join("soup");
    let soup = Soup::new(&ingredients, SoupSettings::new(Method::Exact)).unwrap();
    let record = soup.save(&folder, Existing::Refuse).unwrap();
    let in_memory = soup.adapter().unwrap();
    assert_eq!(record, in_memory.1);
    assert_eq!(SoupRecord::read(&folder).unwrap(), Some(record));
    let json: Value = serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(json["peft_type"], "LORA");
    assert_eq!((&json["r"], &json["lora_alpha"]), (&json!(6), &json!(6)));
    assert_eq!(json["base_model_name_or_path"], "somewhere");
    // Modules of different layers: endings without them would ask for more than there are.
    let targets = json!(["layers.0.self_attn.q_proj", "layers.1.mlp.down_proj", "merger.mlp.0"]);
    assert_eq!(json["target_modules"], targets);
    assert_eq!(
        (&json["use_rslora"], &json["bias"], &json["task_type"]),
        (&json!(false), &json!("none"), &Value::Null)
    );
    let names: Vec<String> = crate::read(&folder.join("adapter_model.safetensors")).into_keys().collect();
    assert_eq!(names[0], "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    assert_eq!(Adapter::load(&folder).unwrap().modules(), in_memory.0.modules());

    assert!(!folder.join("processor.json").exists(), "no ingredient has one");

    let again = soup.save(&folder, Existing::Refuse).unwrap_err().to_string();
    assert!(again.contains("exists"), "{again}");
    soup.save(&folder, Existing::Replace).unwrap();
}

#[test]
fn the_processor_goes_along() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = three(home.path());
    for one in &ingredients {
        fs::write(one.path.join("processor.json"), "{\"num_frames\": 3}").unwrap();
    }
    let soup = cook(&ingredients, Method::Exact).unwrap().0;
    soup.save(&home.path().join("soup"), Existing::Refuse).unwrap();
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
    merge_into_base(&base, &soup, &merged, Existing::Refuse).unwrap();
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
