//! Which base an adapter belongs to.

use std::fs;
use std::path::{Path, PathBuf};

use rzen_merge::{
    Adapter, Average, BaseCheck, BaseRecord, Existing, Ingredient, Method, Soup, SoupRecord, SoupSettings,
    weights_sha256,
};
use safetensors::tensor::Dtype;

use crate::{MODULES, Tensors, config, factors, noise, read, relative, write, write_adapter};

fn base(folder: &Path, seed: u64, dtype: Dtype) {
    fs::create_dir_all(folder).unwrap();
    let weights: Tensors = MODULES
        .iter()
        .map(|(module, [out, input])| {
            // Numbers that bf16 holds.
            let numbers = noise(seed, out * input).into_iter().map(|x| (x * 64.0).round() / 64.0).collect();
            (format!("{module}.weight"), (vec![*out, *input], numbers))
        })
        .collect();
    write(&folder.join("model.safetensors"), &weights, dtype);
}

fn adapter(folder: &Path, seed: u64, base: Option<&str>, name: &str) -> PathBuf {
    let mut config = config(2, 4.0);
    config["base_model_name_or_path"] = name.into();
    write_adapter(folder, config, &factors(seed, 2, &MODULES));
    if let Some(hash) = base {
        fs::write(folder.join(BaseRecord::FILE), BaseRecord::new(hash.into()).to_json()).unwrap();
    }
    folder.to_path_buf()
}

#[test]
fn adapters_know_their_base() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    base(&at("base"), 1, Dtype::F32);
    base(&at("narrow"), 1, Dtype::BF16);
    base(&at("other"), 2, Dtype::F32);
    let hash = weights_sha256(&at("base")).unwrap();
    assert_eq!(weights_sha256(&at("narrow")).unwrap(), hash, "the same values");
    let wrong = weights_sha256(&at("other")).unwrap();
    assert_ne!(wrong, hash);

    // Hashes say more than names.
    let a = adapter(&at("a"), 1, Some(&hash), "somewhere");
    let b = adapter(&at("b"), 2, Some(&hash), "elsewhere");
    let settings = SoupSettings::new(Method::Exact);
    let pair = Ingredient::uniform([&a, &b]);
    let soup = Soup::new(&pair, settings).unwrap();
    let record = soup.save(&at("soup"), Existing::Refuse).unwrap();
    assert_eq!(record.base.unwrap().checked_by, BaseCheck::Hash);
    assert_eq!(BaseRecord::read(&at("soup")).unwrap(), Some(BaseRecord::new(hash.clone())));
    for folder in ["base", "narrow"] {
        let record = soup.merge_into(&at(folder), &at("merged"), Existing::Replace).unwrap();
        assert_eq!(record.base.unwrap().sha256.as_ref(), Some(&hash));
        assert!(!at("merged").join(BaseRecord::FILE).exists(), "a model is no adapter");
    }
    let error = soup.merge_into(&at("other"), &at("refused"), Existing::Refuse).unwrap_err().to_string();
    assert!(
        error.contains(&hash[..12]) && error.contains(&wrong[..12]) && error.contains("any base"),
        "{error}"
    );
    assert!(!at("refused").exists());
    let any = Soup::new(&pair, SoupSettings { any_base: true, ..settings }).unwrap();
    let record = any.merge_into(&at("other"), &at("merged"), Existing::Replace).unwrap();
    assert_eq!(record.base.unwrap().checked_by, BaseCheck::Nothing, "it is another base");

    let c = adapter(&at("c"), 3, Some(&wrong), "somewhere");
    let three = Ingredient::uniform([&a, &b, &c]);
    let error = Soup::new(&three, settings).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("/c don't fit") && error.contains(&wrong[..12]) && error.contains("different bases"),
        "{error}"
    );
    let any = Soup::new(&three, SoupSettings { any_base: true, ..settings }).unwrap();
    let record = any.save(&at("mixed"), Existing::Refuse).unwrap();
    assert_eq!(record.base.unwrap().checked_by, BaseCheck::Nothing);
    assert!(!at("mixed").join(BaseRecord::FILE).exists(), "it belongs to none");
}

#[test]
fn adapters_of_others_are_checked_by_shape() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    base(&at("base"), 1, Dtype::F32);
    let hash = weights_sha256(&at("base")).unwrap();
    let known = adapter(&at("known"), 1, Some(&hash), "");
    let unknown = adapter(&at("unknown"), 2, None, "");
    let soup = Soup::new(&Ingredient::uniform([&unknown, &known]), SoupSettings::new(Method::Exact)).unwrap();
    soup.merge_into(&at("base"), &at("merged"), Existing::Refuse).unwrap();
    let record = SoupRecord::read(&at("merged")).unwrap().unwrap();
    assert_eq!(record.base.unwrap().checked_by, BaseCheck::Shapes);
    let hashes: Vec<_> =
        record.ingredients.iter().map(|one| one.lora.as_ref().unwrap().base_sha256.clone()).collect();
    assert_eq!(hashes, [None, Some(hash.clone())]);
    let single = Soup::new(&Ingredient::uniform([&unknown]), SoupSettings::new(Method::Exact)).unwrap();
    assert_eq!(single.adapter().unwrap().1.base.unwrap().checked_by, BaseCheck::Shapes);

    fs::write(at("known").join(BaseRecord::FILE), "{\"format\": 1").unwrap();
    let error = Soup::new(&Ingredient::uniform([&known]), SoupSettings::new(Method::Exact)).map(|_| ());
    assert!(error.unwrap_err().to_string().contains("base.json"));
}

/// The error of what is written is that of the method and that of the format, which f64 over the files finds too.
#[test]
fn what_a_format_rounds_off_is_recorded() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let small: Tensors = factors(1, 2, &MODULES)
        .into_iter()
        .map(|(name, (shape, data))| (name, (shape, data.into_iter().map(|x| 0.05 * x).collect())))
        .collect();
    write_adapter(&at("adapter"), config(2, 4.0), &small);
    let adapter = Adapter::load(&at("adapter")).unwrap();
    let one = Ingredient::uniform([at("adapter")]);
    let mut totals = Vec::new();
    for (dtype, method) in [
        (Dtype::BF16, Method::Exact),
        (Dtype::BF16, Method::Ties { density: 1.0 }),
        (Dtype::F32, Method::Exact),
    ] {
        base(&at("base"), 1, dtype);
        let soup = Soup::new(&one, SoupSettings::new(method)).unwrap();
        let record = soup.merge_into(&at("base"), &at("merged"), Existing::Replace).unwrap();
        let files = ["base", "merged"].map(|name| read(&at(name).join("model.safetensors")));
        for (module, _) in MODULES {
            let [before, after] = [&files[0], &files[1]].map(|file| &file[&format!("{module}.weight")].1);
            let found: Vec<f32> = after.iter().zip(before).map(|(x, y)| x - y).collect();
            let update: Vec<f64> =
                adapter.delta(module).unwrap().data().iter().map(|x| f64::from(*x)).collect();
            let (expected, error) =
                (relative(&found, &update), record.modules[module].rounding_error.unwrap());
            assert!(
                (error - expected).abs() < 1e-3 * expected + 1e-5,
                "{dtype:?}, {module}: {error}, {expected}"
            );
        }
        totals.push(record.rounding_error.unwrap());
        assert!(record.relative_error.unwrap() < 1e-5, "the method loses nothing");
    }
    assert!(totals[0] > 1e-2 && totals[1] == totals[0] && totals[2] < 1e-4, "{totals:?}");
    let record = Soup::new(&one, SoupSettings::new(Method::Exact)).unwrap().adapter().unwrap().1;
    assert!(record.rounding_error.is_none() && record.modules[MODULES[0].0].rounding_error.is_none());

    for (dtype, least, most) in [(Dtype::BF16, 1e-4, 4e-3), (Dtype::F32, 0.0, 1e-7)] {
        base(&at("base"), 1, dtype);
        base(&at("other"), 2, dtype);
        let pair = [0.7, 0.3].into_iter().zip(["base", "other"]);
        let pair: Vec<_> = pair.map(|(weight, name)| Ingredient { path: at(name), weight }).collect();
        let record = Average::new(&pair).unwrap().save(&at("average"), Existing::Replace).unwrap();
        let rounding = record.rounding_error.unwrap();
        assert!(rounding > least && rounding < most, "{dtype:?}: {rounding}");
    }
}
