//! PEFT adapters: loaded, applied, merged, saved.

use burn::module::Module;
use burn::tensor::FloatDType;
use rzen_core::{Encode, SaveWeights};
use rzen_model::{AdapterConfig, PositionMode, all_linear};
use safetensors::SafeTensors;

use crate::case::cases;
use crate::reference::{Arrays, file, largest};
use crate::{model, rows};

#[test]
fn golden_newer_module_names_are_the_same_adapter() {
    let (Some(old), Some(new)) = (file("lora/run_a"), file("lora/run_a_newnames")) else { return };
    let Some(base) = model(FloatDType::F32) else { return };
    let case = cases().swap_remove(0);
    let input = case.input(&base, PositionMode::Sequential);
    let embeddings = [old, new].map(|folder| {
        let model = base.clone().with_adapter(&folder).unwrap();
        rows(&model.encode(input.clone()).into_data())
    });
    assert_eq!(embeddings[0], embeddings[1]);
}

#[test]
fn golden_merged_weights() {
    let (Some(run), Some(merged)) = (file("lora/run_a"), file("lora/merged_run_a.safetensors")) else {
        return;
    };
    let Some(base) = model(FloatDType::F32) else { return };
    let folder = tempfile::tempdir().unwrap();
    base.with_adapter(&run).unwrap().merge_adapter().save_weights(folder.path()).unwrap();
    let ours = Arrays::read(&folder.path().join("model.safetensors"));
    let expected = Arrays::read(&merged);
    for name in expected.names() {
        let (expected, ours) = (expected.get(&name), ours.get(&name));
        assert_eq!(ours.shape, expected.shape, "{name}");
        let off = largest(expected.values.iter().zip(&ours.values).map(|(a, b)| a - b));
        assert!(off <= 1e-6, "{name}: off by {off:e}");
    }
}

#[test]
fn golden_a_saved_adapter_is_the_loaded_one() {
    let Some(base) = model(FloatDType::F32) else { return };
    for run in ["lora/run_rs", "lora/run_a", "lora/run_a_newnames"].iter().filter_map(|run| file(run)) {
        let folder = tempfile::tempdir().unwrap();
        base.clone().with_adapter(&run).unwrap().save_weights(folder.path()).unwrap();
        let [before, after] = [run.as_path(), folder.path()]
            .map(|folder| std::fs::read(folder.join("adapter_model.safetensors")).unwrap());
        let [before, after] = [&before, &after].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        assert_eq!(before.len(), after.len());
        for (name, view) in before.iter() {
            let saved = after.tensor(name).unwrap_or_else(|_| panic!("{name} was not saved"));
            assert_eq!((saved.shape(), saved.data()), (view.shape(), view.data()), "{name}");
        }
        assert_eq!(AdapterConfig::load(folder.path()).unwrap(), AdapterConfig::load(&run).unwrap());
    }
}

#[test]
fn golden_a_new_adapter_changes_nothing_and_trains_alone() {
    let Some(base) = model(FloatDType::F32) else { return };
    let config = AdapterConfig { rank: 3, alpha: 6.0, rank_stabilized: false, targets: all_linear() };
    let adapted = base.clone().with_new_adapter(&config, 7).unwrap();
    let case = cases().swap_remove(0);
    let input = case.input(&base, PositionMode::Sequential);
    assert_eq!(
        rows(&base.encode(input.clone()).into_data()),
        rows(&adapted.encode(input.clone()).into_data())
    );
    let model = adapted.train();
    let gradients = model.encode(input).sum().backward();
    assert!(model.model.layers[0].self_attn.q_proj.weight.val().grad(&gradients).is_none());
    let lora = model.model.layers[0].self_attn.q_proj.lora.as_ref().unwrap();
    assert!(lora.lora_b.val().grad(&gradients).is_some());
}

#[test]
fn golden_an_unknown_target_is_named() {
    let Some(base) = model(FloatDType::F32) else { return };
    let config = AdapterConfig {
        rank: 3,
        alpha: 6.0,
        rank_stabilized: false,
        targets: vec!["q_proj".into(), "query".into()],
    };
    let error = base.with_new_adapter(&config, 7).unwrap_err().to_string();
    assert!(error.contains("`query`") && error.contains("q_proj"), "{error}");
}

#[test]
fn golden_every_adapter_loads() {
    let Some(base) = model(FloatDType::F32) else { return };
    let mut count = 0;
    for place in ["lora", "lora/soup"].iter().filter_map(|place| file(place)) {
        for entry in std::fs::read_dir(place).unwrap() {
            let folder = entry.unwrap().path();
            if folder.join("adapter_config.json").is_file() {
                base.clone().with_adapter(&folder).unwrap();
                count += 1;
            }
        }
    }
    assert!(count > 0);
}
