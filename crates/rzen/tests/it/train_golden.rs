//! Three optimizer steps on the reference model, against PyTorch and PEFT.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use rzen_core::{Batch, Targets};
use rzen_loss::{InfoNce, InfoNceConfig};
use rzen_model::{PositionMode, Qwen2Vl};
use rzen_train::{Contrastive, Optimizer, Schedule, StageConfig, StepOptions, Warmup, cached_gradients};
use serde_json::Value;

use crate::case::Case;
use crate::reference::{Arrays, distance, file, folder, json, largest};

type Model = Contrastive<Qwen2Vl, InfoNce>;

/// Numbers of every adapter factor, by PEFT's names.
struct Factors<'a> {
    path: Vec<String>,
    gradients: Option<&'a GradientsParams>,
    found: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Factors<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let Some((module, factor)) = path.split_once(".lora.lora_") else { return };
        let module = module.replace("merger.mlp.1", "merger.mlp.2");
        let name = format!("base_model.model.{module}.lora_{}.weight", factor.to_uppercase());
        let tensor = match self.gradients {
            Some(gradients) => {
                gradients.get::<D>(param.id).unwrap_or_else(|| panic!("{name} has no gradient"))
            }
            None => param.val().inner(),
        };
        self.found.insert(name, tensor.into_data().try_to_vec().unwrap());
    }
}

fn factors(model: &Model, gradients: Option<&GradientsParams>) -> BTreeMap<String, Vec<f32>> {
    let mut visitor = Factors { path: Vec::new(), gradients, found: BTreeMap::new() };
    model.encoder.visit(&mut visitor);
    visitor.found
}

/// Every stored tensor of `prefix` within `tolerance` of its largest number.
fn compare(prefix: &str, ours: &BTreeMap<String, Vec<f32>>, arrays: &Arrays, tolerance: f64) {
    let names: Vec<String> =
        arrays.names().into_iter().filter(|name| name.starts_with(&format!("{prefix}.base"))).collect();
    assert_eq!(names.len(), ours.len());
    for name in names {
        let expected = arrays.get(&name).values;
        let ours = &ours[name.strip_prefix(&format!("{prefix}.")).unwrap()];
        let (largest, off) = (largest(expected.iter().copied()), distance(ours, &expected));
        assert!(largest.is_finite() && off <= tolerance * largest, "{name}: off by {off:e} of {largest:e}");
    }
}

#[test]
fn golden_three_steps() {
    let (Some(meta), Some(arrays)) = (file("train/lora_steps.json"), file("train/lora_steps.safetensors"))
    else {
        return;
    };
    let (meta, arrays) = (json(&meta), Arrays::read(&arrays));
    let number = |key: &str| meta[key].as_f64().unwrap();
    let device = Device::flex();
    let (Some(base), Some(adapter)) = (file("model"), file(meta["start_adapter"].as_str().unwrap())) else {
        return;
    };
    let case = |key: &str| Case::open(meta[key].as_str().unwrap().rsplit('/').next().unwrap());
    let (Some(queries), Some(documents)) = (case("queries"), case("docs")) else { return };

    let encoder = Qwen2Vl::load(&base, FloatDType::F32, &device).unwrap().with_adapter(&adapter).unwrap();
    let config = InfoNceConfig {
        alpha: number("alpha"),
        delta: Some(number("delta")),
        differentiate_hardness: meta["weight"] == "differentiated",
        tasks: vec!["task".into()],
        initial_temperature: meta["theta_before_step"][0].as_f64().unwrap().exp(),
        ..InfoNceConfig::default()
    };
    let mut model =
        Contrastive { encoder: encoder.train_adapter_only(), objective: config.init(&device).unwrap() };
    let count = queries.items().len();
    let positive = Tensor::<1, Int>::arange(0..count as i64, &device);
    let batch = Batch {
        queries: vec![queries.input(&model.encoder, PositionMode::Sequential)],
        candidates: vec![documents.input(&model.encoder, PositionMode::Sequential)],
        targets: Targets { task: positive.zeros_like(), positive, owner: None },
    };
    let beta = |i: usize| meta["betas"][i].as_f64().unwrap();
    let stage = StageConfig {
        learning_rate: number("lr"),
        temperature_learning_rate: number("theta_lr"),
        weight_decay: number("weight_decay"),
        betas: [beta(0), beta(1)],
        eps: number("eps"),
        max_grad_norm: 0.0,
        warmup: Warmup::Steps(0),
        schedule: Schedule::Constant,
        ..StageConfig::default()
    };
    let mut optimizer = Optimizer::new(&model, &stage);
    for (step, (loss, theta)) in steps(&meta).into_iter().enumerate() {
        let options = StepOptions { recompute: step % 2 == 0, threads: 1 };
        let ours: f32 = model.objective.theta().inner().into_scalar();
        assert!((f64::from(ours) - theta).abs() < 1e-5, "theta before step {step}: {ours}, expected {theta}");
        let (stats, gradients) = cached_gradients(&model, &batch, options);
        let ours: f32 = stats.loss.into_scalar();
        assert!((f64::from(ours) - loss).abs() < 1e-4 * loss, "loss of step {step}: {ours}, expected {loss}");
        if step == 0 {
            compare("grad", &factors(&model, Some(&gradients)), &arrays, 1e-4);
        }
        model = optimizer.step(model.train(), gradients, stage.learning_rates(step)).valid();
        if step == 0 {
            compare("step1", &factors(&model, None), &arrays, 1e-4);
        }
    }
    let ours: f32 = model.objective.theta().inner().into_scalar();
    assert!((f64::from(ours) - number("final_theta")).abs() < 1e-5, "theta at the end: {ours}");
    assert!(folder().is_dir());
}

fn steps(meta: &Value) -> Vec<(f64, f64)> {
    let list = |key: &str| -> Vec<f64> {
        meta[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    list("loss").into_iter().zip(list("theta_before_step")).collect()
}
