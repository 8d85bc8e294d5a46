//! Adapters that can't be taken as they are.

use std::fs;
use std::path::{Path, PathBuf};

use rzen_merge::{Adapter, Average, Cut, Ingredient, Method};

use crate::{MODULES, Tensors, config, cook, cook_cut, factors, write_adapter};

const Q_A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

/// The message for an adapter whose tensors were changed.
fn refused(change: impl FnOnce(&mut Tensors)) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut tensors = factors(1, 2, &MODULES);
    change(&mut tensors);
    write_adapter(home.path(), config(2, 4.0), &tensors);
    Adapter::load(home.path()).unwrap_err().to_string()
}

#[test]
fn tensors_that_are_wrong_are_named() {
    let nan = refused(|tensors| tensors.get_mut(Q_A).unwrap().1[4] = f32::NAN);
    assert!(nan.contains(Q_A) && nan.contains("NaN at position 4"), "{nan}");
    let infinite = refused(|tensors| tensors.get_mut(Q_A).unwrap().1[0] = f32::INFINITY);
    assert!(infinite.contains(Q_A) && infinite.contains("inf"), "{infinite}");

    let rank = refused(|tensors| {
        tensors.insert(Q_A.into(), (vec![3, 5], vec![0.0; 15]));
    });
    assert!(rank.contains("[3, 5]") && rank.contains("expected 2"), "{rank}");
    let vector = refused(|tensors| {
        tensors.insert(Q_A.into(), (vec![10], vec![0.0; 10]));
    });
    assert!(vector.contains("expected a matrix"), "{vector}");

    let unpaired = refused(|tensors| {
        tensors.remove(Q_A);
    });
    assert!(unpaired.contains(Q_A) && unpaired.contains("is missing"), "{unpaired}");
    let magnitude = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector";
    let dora = refused(|tensors| {
        tensors.insert(magnitude.into(), (vec![6], vec![1.0; 6]));
    });
    assert!(dora.contains(magnitude), "{dora}");
    let twice = refused(|tensors| {
        let other = Q_A.replace("model.model.model.", "model.model.model.language_model.");
        tensors.insert(other, tensors[Q_A].clone());
    });
    assert!(twice.contains("a second time"), "{twice}");
    assert!(refused(Tensors::clear).contains("holds no tensor"));
}

#[test]
fn files_that_are_missing_or_cut_are_named() {
    let home = tempfile::tempdir().unwrap();
    let load = || Adapter::load(home.path()).unwrap_err().to_string();
    assert!(load().contains("adapter_config.json"), "{}", load());
    write_adapter(home.path(), config(2, 4.0), &factors(1, 2, &MODULES));
    let weights = home.path().join("adapter_model.safetensors");
    let whole = fs::read(&weights).unwrap();
    for length in [0, 5, 40, whole.len() - 1] {
        fs::write(&weights, &whole[..length]).unwrap();
        let error = load();
        assert!(error.contains("adapter_model.safetensors") && error.contains("whole"), "{length}: {error}");
    }
    fs::remove_file(&weights).unwrap();
    assert!(load().contains("can't read") && load().contains("adapter_model.safetensors"), "{}", load());
}

fn pair(home: &Path, first: Tensors, other: Tensors) -> [PathBuf; 2] {
    let paths = ["first", "other"].map(|name| home.join(name));
    write_adapter(&paths[0], config(2, 4.0), &first);
    write_adapter(&paths[1], config(2, 4.0), &other);
    paths
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let refused = |paths: &[PathBuf; 2], method| {
        let error = cook(&Ingredient::uniform(paths), method).unwrap_err().to_string();
        assert!(error.contains("first") && error.contains("other"), "{error}");
        error
    };
    let ours = || factors(1, 2, &MODULES);

    let wider = [("model.layers.0.self_attn.q_proj", [8, 5])];
    let error = refused(&pair(home.path(), ours(), factors(2, 2, &wider)), Method::Exact);
    assert!(error.contains("[6, 5]") && error.contains("[8, 5]") && error.contains("q_proj"), "{error}");

    let elsewhere = [("transformer.h.0.attn.c_attn", [8, 5])];
    let error = refused(&pair(home.path(), ours(), factors(2, 2, &elsewhere)), Method::Exact);
    assert!(
        error.contains("share no module") && error.contains("`transformer.h.0.attn.c_attn` (1)"),
        "{error}"
    );

    let paths = pair(home.path(), ours(), factors(2, 2, &MODULES[..2]));
    let error = refused(&paths, Method::MeanAb);
    assert!(error.contains("only in the first: `visual.merger.mlp.0` (1)"), "{error}");
    cook(&Ingredient::uniform(&paths), Method::Exact).unwrap();

    let paths = pair(home.path(), ours(), ours());
    write_adapter(&paths[1], config(2, 8.0), &ours());
    let error = refused(&paths, Method::MeanAb);
    assert!(error.contains("scaled by 2 and 4"), "{error}");
    cook(&Ingredient::uniform(&paths), Method::PeftLinear).unwrap();
    write_adapter(&paths[1], config(3, 6.0), &factors(2, 3, &MODULES));
    let error = refused(&paths, Method::PeftLinear);
    assert!(error.contains("rank 2 and rank 3"), "{error}");
}

#[test]
fn adapters_of_other_origin_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let paths = pair(home.path(), factors(1, 2, &MODULES), factors(2, 2, &MODULES));
    let soup = || cook(&Ingredient::uniform(&paths), Method::Exact);
    let refused = || {
        let error = soup().unwrap_err().to_string();
        assert!(error.contains("first") && error.contains("other"), "{error}");
        error
    };
    let rebase = |base: &str| {
        let mut config = config(2, 4.0);
        config["base_model_name_or_path"] = base.into();
        write_adapter(&paths[1], config, &factors(2, 2, &MODULES));
    };
    rebase("elsewhere");
    let error = refused();
    assert!(error.contains("`somewhere`") && error.contains("`elsewhere`"), "{error}");
    rebase("");
    soup().unwrap();

    fs::write(paths[0].join("processor.json"), "{\"a\": 1}").unwrap();
    assert!(refused().contains("only the first has a processor.json"), "{}", refused());
    fs::write(paths[1].join("processor.json"), "{\"a\": 2}").unwrap();
    assert!(refused().contains("processor.json differ"), "{}", refused());
    fs::write(paths[1].join("processor.json"), "{\"a\": 1}").unwrap();
    soup().unwrap();
}

#[test]
fn recipes_that_make_no_sense_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let tensors = factors(1, 2, &MODULES);
    let [path, other] = pair(home.path(), tensors.clone(), tensors);
    let cook_pair = |weights: &[f64], method, cut| {
        let paths = [&path, &other].into_iter().cycle();
        let ingredients: Vec<_> = weights
            .iter()
            .zip(paths)
            .map(|(w, path)| Ingredient { path: path.clone(), weight: *w })
            .collect();
        cook_cut(&ingredients, method, cut).map(|_| ()).unwrap_err().to_string()
    };
    let cook = |weights: &[f64], method| cook_pair(weights, method, Cut::Nothing);
    assert!(cook(&[], Method::Exact).contains("no ingredient"));
    assert!(cook(&[1.0, f64::NAN], Method::Exact).contains("NaN"));
    assert!(cook(&[1.0, -0.5], Method::PeftLinear).contains("-0.5"));
    for method in [Method::Exact, Method::Slerp, Method::PeftLinear] {
        assert!(cook(&[1.0, 1e300], method).contains("smaller weights"), "{method:?}");
    }
    // Each factor fits, but their sum does not.
    assert!(cook(&[1.6e38; 3], Method::MeanAb).contains("of the soup comes to"));
    assert!(cook_pair(&[1.0], Method::Exact, Cut::Rank(0)).contains("rank of the soup is 0"));
    assert!(cook_pair(&[1.0], Method::Exact, Cut::Energy(1.5)).contains("energy to keep is 1.5"));
    assert!(cook_pair(&[1.0], Method::MeanAb, Cut::Rank(1)).contains("only exact"));
    let ties = Method::Ties { density: 0.5 };
    assert!(cook_pair(&[1.0], ties, Cut::Energy(0.9)).contains("give a rank"));
    assert!(cook(&[1.0], ties).contains("full rank"));
    for method in [ties, Method::Slerp] {
        assert!(cook(&[1.0, -0.5], method).contains("-0.5"), "{method:?}");
    }
    assert!(cook(&[1.0], Method::Slerp).contains("1 are given"));
    for density in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(cook(&[1.0], Method::Ties { density }).contains("density"), "{density}");
    }
}

#[test]
fn weights_are_looked_at_before_any_file() {
    let nowhere = |weights: &[f64]| -> Vec<Ingredient> {
        weights.iter().map(|weight| Ingredient { path: "nowhere".into(), weight: *weight }).collect()
    };
    let peft = Method::PeftTies { density: 0.5 };
    for (method, weights, words) in [
        (Method::Ties { density: 0.5 }, &[1.0, -0.5][..], "-0.5"),
        (Method::Slerp, &[1.0, -0.5], "-0.5"),
        (peft, &[1.0, -0.5], "root"),
        (Method::PeftLinear, &[1.0, -0.5], "root"),
        (Method::Slerp, &[0.5, 0.3, 0.2], "3 are given"),
        (Method::Exact, &[1.0, f64::NAN], "ingredient 2 is NaN"),
        (Method::Exact, &[], "no ingredient"),
    ] {
        let error = cook(&nowhere(weights), method).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("nowhere"), "{method:?}: {error}");
    }
    for (weights, words) in
        [(&[1.0, 1.0][..], "add up to 2"), (&[1.0, f64::NAN], "NaN"), (&[], "no ingredient")]
    {
        let error = Average::new(&nowhere(weights)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("nowhere"), "{error}");
    }
}

#[test]
fn adapters_are_compared_with_each_other_and_not_with_the_first_alone() {
    let home = tempfile::tempdir().unwrap();
    let adapter = |name: &str, modules: &[(&str, [usize; 2])]| -> PathBuf {
        let path = home.path().join(name);
        write_adapter(&path, config(2, 4.0), &factors(1, 2, modules));
        path
    };
    let (q, v) = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj");
    let paths = [
        adapter("a", &[(q, [6, 5])]),
        adapter("b", &[(q, [6, 5]), (v, [6, 5])]),
        adapter("c", &[(q, [6, 5]), (v, [7, 5])]),
    ];
    let error = cook(&Ingredient::uniform(&paths), Method::Exact).unwrap_err().to_string();
    assert!(error.contains("/b and ") && error.contains("/c don't fit") && error.contains(v), "{error}");
}

#[test]
fn modules_of_some_layers_are_named_by_their_layers() {
    let home = tempfile::tempdir().unwrap();
    let targets = |modules: &[(&str, [usize; 2])]| {
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        write_adapter(&from, config(2, 4.0), &factors(1, 2, modules));
        let soup = cook(&Ingredient::uniform([&from, &from]), Method::Exact).unwrap().0;
        soup.save(&to, rzen_merge::Existing::Replace).unwrap();
        let text = fs::read_to_string(to.join("adapter_config.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["target_modules"].to_string()
    };
    let (q0, q1, v1) = (
        ("model.layers.0.self_attn.q_proj", [6, 5]),
        ("model.layers.1.self_attn.q_proj", [6, 5]),
        ("model.layers.1.self_attn.v_proj", [6, 5]),
    );
    assert_eq!(targets(&[q0, q1]), r#"["self_attn.q_proj"]"#);
    assert_eq!(
        targets(&[q0, q1, v1]),
        r#"["layers.0.self_attn.q_proj","layers.1.self_attn.q_proj","layers.1.self_attn.v_proj"]"#
    );
}
