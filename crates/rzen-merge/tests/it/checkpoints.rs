//! Full checkpoints, single and sharded, under every naming.

use std::fs;
use std::path::Path;

use rzen_merge::{
    Adapter, Average, Checkpoint, Existing, Ingredient, MergeError, Method, Soup, SoupRecord, SoupSettings,
    StagedFolder, merge_into_base,
};
use safetensors::tensor::Dtype;
use serde_json::json;

use crate::{MODULES, Tensors, config, factors, noise, read, write, write_adapter};

/// The weights of [`MODULES`] and some others, the names passed through `rename`.
fn weights(seed: u64, rename: impl Fn(&str) -> String) -> Tensors {
    let mut tensors = Tensors::new();
    for (at, (module, [out, input])) in MODULES.iter().enumerate() {
        let data = noise(seed * 50 + at as u64, out * input);
        tensors.insert(rename(&format!("{module}.weight")), (vec![*out, *input], data));
    }
    tensors.insert(rename("visual.patch_embed.proj.weight"), (vec![2, 3, 2, 1, 1], noise(seed * 50 + 9, 12)));
    tensors.insert(rename("model.layers.0.self_attn.q_proj.bias"), (vec![6], noise(seed * 50 + 10, 6)));
    tensors
}

fn newer(name: &str) -> String {
    match name.strip_prefix("model.") {
        Some(rest) => format!("model.language_model.{rest}"),
        None => format!("model.{name}"),
    }
}

fn headless(name: &str) -> String {
    name.strip_prefix("model.").map_or(name.into(), |rest| format!("language_model.{rest}"))
}

fn single(folder: &Path, tensors: &Tensors, dtype: Dtype) {
    fs::create_dir_all(folder).unwrap();
    write(&folder.join("model.safetensors"), tensors, dtype);
    fs::write(folder.join("config.json"), "{}").unwrap();
    fs::write(folder.join("pytorch_model.bin"), "stale").unwrap();
    fs::write(folder.join("processor.json"), "{\"a\": 1}").unwrap();
}

fn sharded(folder: &Path, tensors: &Tensors) {
    fs::create_dir_all(folder).unwrap();
    let mut map = serde_json::Map::new();
    for (at, (name, tensor)) in tensors.iter().enumerate() {
        let shard = format!("model-0000{}-of-00005.safetensors", at + 1);
        write(&folder.join(&shard), &Tensors::from([(name.clone(), tensor.clone())]), Dtype::F32);
        map.insert(name.clone(), shard.into());
    }
    let index = json!({ "metadata": { "total_size": 0 }, "weight_map": map });
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn all(folder: &Path) -> Tensors {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .flat_map(|path| read(&path))
        .collect()
}

fn average(ingredients: &[Ingredient], output: &Path, existing: Existing) -> Result<SoupRecord, MergeError> {
    Average::new(ingredients)?.save(output, existing)
}

fn adapter(home: &Path) -> Adapter {
    write_adapter(&home.join("adapter"), config(2, 1.0), &factors(1, 2, &MODULES));
    Adapter::load(&home.join("adapter")).unwrap()
}

#[test]
fn an_adapter_lands_in_its_base_under_any_naming() {
    let home = tempfile::tempdir().unwrap();
    let adapter = adapter(home.path());
    for (at, rename) in [|name: &str| name.to_string(), newer, headless].into_iter().enumerate() {
        for shards in [false, true] {
            let (base, output) =
                (home.path().join(format!("base{at}{shards}")), home.path().join(format!("out{at}{shards}")));
            let before = weights(1, rename);
            if shards {
                sharded(&base, &before)
            } else {
                single(&base, &before, Dtype::F32)
            }
            merge_into_base(&base, &adapter, &output, Existing::Refuse).unwrap();
            let after = all(&output);
            assert!(after.keys().eq(before.keys()));
            for (module, _) in MODULES {
                let name = rename(&format!("{module}.weight"));
                let delta = adapter.delta(module).unwrap();
                let expected = before[&name].1.iter().zip(delta.data()).map(|(w, d)| w + d);
                assert!(after[&name].1.iter().copied().eq(expected), "{name}");
            }
            let patch = rename("visual.patch_embed.proj.weight");
            assert_eq!(after[&patch], before[&patch]);
            let mut names: Vec<_> = fs::read_dir(&output)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            match shards {
                false => assert_eq!(names, ["config.json", "model.safetensors", "processor.json"]),
                true => assert_eq!(names.len(), 6, "five shards and the index: {names:?}"),
            }
        }
    }
}

#[test]
fn folders_that_belong_to_the_model_go_along() {
    let home = tempfile::tempdir().unwrap();
    let adapter = adapter(home.path());
    let [base, output, averaged] = ["base", "out", "averaged"].map(|name| home.path().join(name));
    single(&base, &weights(1, str::to_string), Dtype::F32);
    let modules = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        {"idx": 3, "name": "3", "path": "../adapter", "type": "outside"},
    ]);
    fs::write(base.join("modules.json"), modules.to_string()).unwrap();
    for file in [
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
        "additional_chat_templates/tool.jinja",
        "onnx/model.onnx",
        "checkpoint-5/optimizer.pt",
        ".cache/lock",
    ] {
        fs::create_dir_all(base.join(file).parent().unwrap()).unwrap();
        fs::write(base.join(file), file).unwrap();
    }
    let soup =
        Soup::new(&Ingredient::uniform([home.path().join("adapter")]), SoupSettings::new(Method::Exact));
    let record = soup.unwrap().merge_into(&base, &output, Existing::Refuse).unwrap();
    let average = average(&Ingredient::uniform([&base, &base]), &averaged, Existing::Refuse).unwrap();
    for (folder, notes) in [(&output, record.notes), (&averaged, average.notes)] {
        for file in
            ["1_Pooling/config.json", "2_Dense/model.safetensors", "additional_chat_templates/tool.jinja"]
        {
            assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), file);
        }
        assert!(!folder.join("onnx").exists() && !folder.join(".cache").exists());
        assert!(notes.len() == 1 && notes[0].ends_with("not copied: checkpoint-5, onnx"), "{notes:?}");
    }
    // Without a list of modules none is known.
    fs::remove_file(base.join("modules.json")).unwrap();
    merge_into_base(&base, &adapter, &output, Existing::Replace).unwrap();
    assert!(!output.join("1_Pooling").exists() && output.join("additional_chat_templates").exists());
}

#[test]
fn the_number_format_of_the_base_stays() {
    let home = tempfile::tempdir().unwrap();
    let adapter = adapter(home.path());
    let before = weights(1, str::to_string);
    for (dtype, size) in [(Dtype::BF16, 2), (Dtype::F16, 2), (Dtype::F32, 4)] {
        let (base, output) = (home.path().join("base"), home.path().join("out"));
        single(&base, &before, dtype);
        merge_into_base(&base, &adapter, &output, Existing::Replace).unwrap();
        let bytes = fs::read(output.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (name, [out, input]) = MODULES[1];
        let name = format!("{name}.weight");
        assert_eq!(file.tensor(&name).unwrap().data().len(), out * input * size);
        let rounded = all(&base);
        let delta = adapter.delta(MODULES[1].0).unwrap();
        for (found, (w, d)) in all(&output)[&name].1.iter().zip(rounded[&name].1.iter().zip(delta.data())) {
            assert!((found - (w + d)).abs() <= 4e-3 * (w + d).abs(), "{found} and {}", w + d);
        }
    }
}

#[test]
fn a_base_of_another_model_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let adapter = adapter(home.path());
    let (base, output) = (home.path().join("base"), home.path().join("out"));
    let refused = |tensors: &Tensors| {
        single(&base, tensors, Dtype::F32);
        let error = merge_into_base(&base, &adapter, &output, Existing::Refuse).unwrap_err();
        assert!(!output.exists());
        error.to_string()
    };
    let mut tensors = weights(1, str::to_string);
    tensors.insert("visual.merger.mlp.0.weight".into(), (vec![7, 4], noise(1, 28)));
    let error = refused(&tensors);
    assert!(error.contains("[7, 4]") && error.contains("[4, 7]"), "{error}");
    tensors.remove("visual.merger.mlp.0.weight");
    let error = refused(&tensors);
    assert!(error.contains("visual.merger.mlp.0.weight") && error.contains("base"), "{error}");
}

#[test]
fn sums_that_are_no_numbers_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let adapter = adapter(home.path());
    let (base, output) = (home.path().join("base"), home.path().join("out"));
    let mut tensors = weights(1, str::to_string);
    tensors.get_mut("visual.merger.mlp.0.weight").unwrap().1[3] = f32::NAN;
    single(&base, &tensors, Dtype::F32);
    let error = merge_into_base(&base, &adapter, &output, Existing::Refuse).unwrap_err().to_string();
    assert!(error.contains("`visual.merger.mlp.0.weight`") && error.contains("position 3"), "{error}");
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the base and the adapter: {left:?}");
}

#[test]
fn checkpoints_are_averaged_across_namings() {
    let home = tempfile::tempdir().unwrap();
    let [one, two, output] = ["one", "two", "out"].map(|name| home.path().join(name));
    single(&one, &weights(1, str::to_string), Dtype::F32);
    sharded(&two, &weights(2, newer));
    let weight = |path: &Path, weight| Ingredient { path: path.into(), weight };
    average(&[weight(&one, 0.75), weight(&two, 0.25)], &output, Existing::Refuse).unwrap();
    let (a, b) = (all(&one), all(&two));
    for (name, (_, found)) in all(&output) {
        let expected = a[&name].1.iter().zip(&b[&newer(&name)].1);
        for (found, (a, b)) in found.iter().zip(expected) {
            assert!((found - (0.75 * a + 0.25 * b)).abs() < 1e-6, "{name}");
        }
    }
    assert!(output.join("config.json").exists());
}

#[test]
fn equal_checkpoints_come_back() {
    let home = tempfile::tempdir().unwrap();
    let (one, output) = (home.path().join("one"), home.path().join("out"));
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        single(&one, &weights(1, str::to_string), dtype);
        average(&Ingredient::uniform([&one, &one, &one]), &output, Existing::Replace).unwrap();
        assert_eq!(all(&output), all(&one), "{dtype:?}");
    }
}

#[test]
fn checkpoints_that_differ_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let [one, two, output] = ["one", "two", "out"].map(|name| home.path().join(name));
    single(&one, &weights(1, str::to_string), Dtype::F32);
    let refused = |tensors: &Tensors| {
        single(&two, tensors, Dtype::F32);
        let both = Ingredient::uniform([&one, &two]);
        average(&both, &output, Existing::Refuse).unwrap_err().to_string()
    };
    let mut tensors = weights(2, str::to_string);
    tensors.insert("model.more.weight".into(), (vec![1], vec![1.0]));
    let error = refused(&tensors);
    assert!(error.contains("only in the other: `model.more.weight` (1)"), "{error}");
    tensors.remove("model.more.weight");
    tensors.insert("model.layers.0.self_attn.q_proj.bias".into(), (vec![5], noise(1, 5)));
    let error = refused(&tensors);
    assert!(error.contains("[6]") && error.contains("[5]"), "{error}");

    let twice =
        [Ingredient { path: one.clone(), weight: 1.0 }, Ingredient { path: one.clone(), weight: 1.0 }];
    let error = average(&twice, &output, Existing::Refuse).unwrap_err().to_string();
    assert!(error.contains("add up to 2"), "{error}");
}

#[test]
fn broken_indexes_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let adapter = adapter(home.path());
    let (base, output) = (home.path().join("base"), home.path().join("out"));
    let tensors = weights(1, str::to_string);
    let refused = || merge_into_base(&base, &adapter, &output, Existing::Refuse).unwrap_err().to_string();
    sharded(&base, &tensors);
    fs::remove_file(base.join("model-00003-of-00005.safetensors")).unwrap();
    assert!(refused().contains("model-00003-of-00005"), "{}", refused());
    fs::copy(base.join("model-00001-of-00005.safetensors"), base.join("model-00003-of-00005.safetensors"))
        .unwrap();
    assert!(refused().contains("is missing"), "{}", refused());
    let index = json!({ "weight_map": { "x": "../secret.safetensors" } });
    fs::write(base.join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert!(refused().contains("../secret.safetensors"), "{}", refused());
    fs::remove_dir_all(&base).unwrap();
    assert!(refused().contains("can't read"), "{}", refused());
}

#[test]
fn what_is_added_to_an_average_is_there_when_it_appears() {
    let home = tempfile::tempdir().unwrap();
    let [one, two, output] = ["one", "two", "out"].map(|name| home.path().join(name));
    single(&one, &weights(1, str::to_string), Dtype::F32);
    single(&two, &weights(2, str::to_string), Dtype::F32);
    let average = Average::new(&Ingredient::uniform([&one, &two])).unwrap();
    let staged = StagedFolder::create(&output, Existing::Refuse).unwrap();
    let record = average.write(staged.path()).unwrap();
    assert_eq!(SoupRecord::read(staged.path()).unwrap().unwrap().ingredients, record.ingredients);
    fs::write(staged.path().join("README.md"), "a card").unwrap();
    assert!(!output.exists());
    staged.commit().unwrap();
    assert!(output.join("README.md").exists() && output.join("model.safetensors").exists());
}

#[cfg(unix)]
#[test]
fn averages_with_other_weights_read_no_file_again() {
    let home = tempfile::tempdir().unwrap();
    let [one, two, before, after] = ["one", "two", "before", "after"].map(|name| home.path().join(name));
    single(&one, &weights(1, str::to_string), Dtype::F32);
    single(&two, &weights(2, str::to_string), Dtype::F32);
    let weighted = |path: &Path, weight| Ingredient { path: path.into(), weight };
    let expected = average(&[weighted(&one, 0.75), weighted(&two, 0.25)], &before, Existing::Refuse).unwrap();
    let opened = Average::new(&Ingredient::uniform([&one, &two])).unwrap();
    let hashes = opened.hashes();
    let second = all(&two);
    fs::remove_file(one.join("model.safetensors")).unwrap();
    fs::remove_file(two.join("model.safetensors")).unwrap();
    let record = opened.reweighted(&[0.75, 0.25]).unwrap().save(&after, Existing::Refuse).unwrap();
    assert_eq!((record, all(&after)), (expected, all(&before)));
    let alone = opened.reweighted(&[0.0, 1.0]).unwrap();
    let record = alone.save(&after, Existing::Replace).unwrap();
    assert_eq!((record.ingredients.len(), &record.ingredients[0].sha256), (1, &hashes[1]));
    assert_eq!(all(&after), second);
    assert!(opened.reweighted(&[1.0, 1.0]).is_err());
}

#[test]
fn a_head_that_one_model_lacks_is_left_out() {
    let home = tempfile::tempdir().unwrap();
    let [with, without, shards, output] =
        ["with", "without", "shards", "out"].map(|name| home.path().join(name));
    let mut headed = weights(1, str::to_string);
    headed.insert("lm_head.weight".into(), (vec![2, 5], noise(7, 10)));
    single(&with, &headed, Dtype::F32);
    sharded(&shards, &headed);
    let untied = r#"{"tie_word_embeddings": false, "text_config": {"tie_word_embeddings": false}}"#;
    for folder in [&with, &shards] {
        fs::write(folder.join("config.json"), untied).unwrap();
    }
    single(&without, &weights(2, str::to_string), Dtype::F32);
    let mut averages = Vec::new();
    for pair in [[&with, &without], [&without, &with], [&shards, &without]] {
        let record = average(&Ingredient::uniform(pair), &output, Existing::Replace).unwrap();
        let note = format!("`lm_head` was left out: {} has none", without.display());
        assert!(record.notes.len() == 1 && record.notes[0].starts_with(&note), "{:?}", record.notes);
        averages.push(all(&output));
        if pair[0] != &without {
            let config: serde_json::Value =
                serde_json::from_slice(&fs::read(output.join("config.json")).unwrap()).unwrap();
            assert_eq!(
                (&config["tie_word_embeddings"], &config["text_config"]["tie_word_embeddings"]),
                (&json!(true), &json!(true)),
                "there is no other head"
            );
        }
    }
    assert!(averages[0].keys().eq(weights(1, str::to_string).keys()));
    assert!(averages.iter().all(|one| *one == averages[0]));
    // The index and the shards agree: it opens.
    Checkpoint::open(&output).unwrap();
    let index = fs::read_to_string(output.join("model.safetensors.index.json")).unwrap();
    assert!(!index.contains("lm_head") && !output.join("model-00001-of-00005.safetensors").exists());

    // Where all have one, it is averaged like the rest.
    let record = average(&Ingredient::uniform([&with, &shards]), &output, Existing::Replace).unwrap();
    assert_eq!((record.notes.len(), &all(&output)["lm_head.weight"]), (0, &headed["lm_head.weight"]));
}
