//! Temperatures on disk.

use burn::module::Module;
use burn::tensor::Device;
use rzen_core::SaveWeights;
use rzen_loss::{InfoNceConfig, TEMPERATURES_FILE};

use crate::host;

fn config(tasks: &[&str]) -> InfoNceConfig {
    InfoNceConfig { tasks: tasks.iter().map(|t| t.to_string()).collect(), ..InfoNceConfig::default() }
}

#[test]
fn temperatures_come_back_bit_for_bit() {
    let device = Device::flex().autodiff();
    let folder = tempfile::tempdir().unwrap();
    for theta in [-3.912023f32, 1.0e-30, -0.0, f32::from_bits(0x3eaa_aaab)] {
        let text = format!("{{\"b\": {{\"theta\": {theta:?}}}, \"a\": {{\"theta\": 0.25}}}}");
        std::fs::write(folder.path().join(TEMPERATURES_FILE), text).unwrap();
        let first = config(&["a", "b"]).init(&device).unwrap().load_weights(folder.path()).unwrap();
        first.save_weights(folder.path()).unwrap();
        let second = config(&["b", "a"]).init(&device).unwrap().load_weights(folder.path()).unwrap();
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(host(second.theta())), [theta.to_bits(), 0.25f32.to_bits()]);
        assert_eq!(list_ids(&first), list_ids(&second), "an optimizer's state finds theta again");
        assert!(second.theta().is_require_grad());
    }
}

fn list_ids(objective: &rzen_loss::InfoNce) -> Vec<burn::module::ParamId> {
    burn::module::list_param_ids(objective)
}

#[test]
fn the_file_reads_well() {
    let folder = tempfile::tempdir().unwrap();
    let config = InfoNceConfig { initial_temperature: 1.0, ..config(&["z", "a"]) };
    config.init(&Device::flex()).unwrap().valid().save_weights(folder.path()).unwrap();
    let text = std::fs::read_to_string(folder.path().join(TEMPERATURES_FILE)).unwrap();
    let expected = serde_json::json!({"z": {"theta": 0.0, "tau": 1.0}, "a": {"theta": 0.0, "tau": 1.0}});
    assert_eq!(text, format!("{expected:#}\n"));
}

#[test]
fn broken_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let load = || {
        let objective = config(&["a", "b"]).init(&Device::flex()).unwrap();
        objective.load_weights(folder.path()).map(|_| ()).expect_err("the file is broken").to_string()
    };
    assert!(load().contains("can't read"), "{}", load());
    let write = |text: &str| std::fs::write(folder.path().join(TEMPERATURES_FILE), text).unwrap();
    write("{\"a\": {\"the");
    assert!(load().contains("not JSON"), "{}", load());
    write("{\"a\": {\"theta\": 1.0}, \"c\": {\"theta\": 1.0}}");
    assert!(load().contains("task `b`") && load().contains("a, c"), "{}", load());
    write("{\"a\": {\"theta\": 1e300}, \"b\": {\"theta\": 1.0}}");
    assert!(load().contains("task `a`"), "{}", load());
}
