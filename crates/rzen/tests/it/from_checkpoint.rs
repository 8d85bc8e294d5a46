//! Trainings that start from a checkpoint.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::command::{refuse, succeed};
use crate::program::{bytes, copy_folder, remove, run};

/// A folder with a small model, `base`.
fn base() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    copy_folder(&run().join("runs/tiny/first/model"), &place.path().join("base"));
    place
}

fn world() -> String {
    run().join("runs/tiny/world").to_str().unwrap().to_owned()
}

/// A stage of a recipe that trains a small adapter on texts, with `more` keys.
fn lora_stage(name: &str, more: &str) -> String {
    format!(
        "[[stage]]\nname = \"{name}\"\ntrain = {{ kind = \"lora\", rank = 2, alpha = 4 }}\nbatch_size = 6\nmicro_batch_size = 6\n\
         epochs = 1\ndatasets = [{{ dataset = \"stage1_texts\" }}]\n{more}"
    )
}

#[test]
fn the_recipe_s_processor_counts_for_a_checkpoint_too() {
    let place = base();
    remove(&place.path().join("base/processor.json"));
    let recipe = r#"
        seed = 3
        [model]
        kind = "checkpoint"
        folder = "base"
        [processor]
        system_prompt = "Another."
        image_tokens = [4, 12]
        frame_tokens = [4, 4]
        num_frames = 2
        [[stage]]
        name = "full"
        batch_size = 6
        micro_batch_size = 6
        epochs = 1
        instructions = false
        datasets = [{ dataset = "stage1_texts" }]
        [[stage]]
        name = "lora"
        train = { kind = "lora", rank = 2, alpha = 4 }
        batch_size = 6
        micro_batch_size = 6
        epochs = 1
        instructions = false
        datasets = [{ dataset = "stage1_texts" }]
        [evaluation]
        tasks = ["pictures"]
        start = false
    "#;
    std::fs::write(place.path().join("recipe.toml"), recipe).unwrap();
    let world = world();
    succeed(place.path(), &["train", "--config", "recipe.toml", "--data", &world, "--output", "run"]);
    for folder in ["full/model", "lora/adapter"] {
        let settings = bytes(&place.path().join("run").join(folder).join("processor.json"));
        let settings: Value = serde_json::from_slice(&settings).unwrap();
        assert_eq!(settings["system_prompt"], "Another.", "{folder}");
        assert_eq!(settings["num_frames"], 2, "{folder}");
    }
}

#[test]
fn adapters_are_trained_on_a_base_of_bf16() {
    let place = base();
    let more = "objective = { alpha = 0.0, delta = 2.0 }\ntraining = { checkpointing = \"blocks\", learning_rate = 1e-2 }\n";
    let stage = |name: &str, from: &str| lora_stage(name, &[from, more].concat());
    let from = "from = \"one\"\n";
    let stages = [stage("one", ""), stage("two", from), stage("three", from)].concat();
    let recipe = format!(
        "seed = 3\n[model]\nkind = \"checkpoint\"\nfolder = \"base\"\ndtype = \"bf16\"\n{stages}\n\
         [soup]\ningredients = [\"two\", \"three\"]\n[evaluation]\ntasks = [\"pictures\"]\nstart = false\n"
    );
    std::fs::write(place.path().join("recipe.toml"), recipe).unwrap();
    let world = world();
    succeed(place.path(), &["train", "--config", "recipe.toml", "--data", &world, "--output", "run"]);
    let types = |folder: &str, file: &str| -> BTreeSet<String> {
        let bytes = bytes(&place.path().join("run").join(folder).join(file));
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        tensors.tensors().iter().map(|(_, tensor)| format!("{:?}", tensor.dtype())).collect()
    };
    for adapter in ["one/adapter", "two/adapter", "soup/adapter"] {
        assert_eq!(
            types(adapter, "adapter_model.safetensors"),
            BTreeSet::from(["F32".to_owned()]),
            "{adapter}"
        );
    }
    assert_eq!(types("soup/model", "model.safetensors"), BTreeSet::from(["BF16".to_owned()]));
    // The base of the second stage is the first's, rounded, and its adapter says so.
    let base = |adapter: &str| {
        let record = bytes(&place.path().join("run").join(adapter).join("base.json"));
        serde_json::from_slice::<Value>(&record).unwrap()["weights_sha256"].clone()
    };
    assert_eq!(base("two/adapter"), base("three/adapter"));
    assert_ne!(base("one/adapter"), base("two/adapter"));
}

#[test]
fn a_base_that_changed_under_its_name_is_refused() {
    let place = base();
    let recipe = format!(
        "seed = 3\n[model]\nkind = \"checkpoint\"\nfolder = \"base\"\n{}[evaluation]\ntasks = []\n",
        lora_stage("lora", "")
    );
    std::fs::write(place.path().join("recipe.toml"), recipe).unwrap();
    let world = world();
    let args = ["train", "--config", "recipe.toml", "--data", &world, "--output", "run"];
    succeed(place.path(), &args);
    // As if it had been stopped before its result was written.
    remove(&place.path().join("run/lora/adapter"));
    let weights = place.path().join("base/model.safetensors");
    let mut bytes = bytes(&weights);
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    let error = refuse(place.path(), &args);
    assert!(error.contains("belongs to another run") && error.contains("weights_sha256"), "{error}");
    bytes[last] ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    succeed(place.path(), &args);
}
