//! Gradients and three optimizer steps on the reference model, against PyTorch and PEFT.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use rzen_core::{Batch, Targets};
use rzen_loss::{InfoNce, InfoNceConfig};
use rzen_model::{Encoded, EncoderInput, PositionMode, Qwen2Vl};
use rzen_train::{
    Checkpointing, Contrastive, Optimizer, Schedule, StageConfig, StepOptions, Warmup, cached_gradients,
};
use serde_json::Value;

use crate::case::{Case, collator};
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

/// The first step of AdamW goes by the sign of each gradient: whoever can't tell the sign, being this far below the largest
/// gradient of its tensor, may go either way.
const UNSIGNED: f64 = 1e-5;

/// The factors after one step at the rate `rate`, within a ten-thousandth of their largest number where the stored gradients have
/// a sign, and within two steps of it elsewhere.
fn compare_after_a_step(ours: &BTreeMap<String, Vec<f32>>, arrays: &Arrays, rate: f64) {
    let stored = arrays.names().into_iter().filter(|name| name.starts_with("step1.base")).count();
    assert_eq!(stored, ours.len());
    let mut unsigned = 0;
    for (name, ours) in ours {
        let [expected, gradients] = ["step1", "grad"].map(|of| arrays.get(&format!("{of}.{name}")).values);
        assert_eq!((ours.len(), gradients.len()), (expected.len(), expected.len()), "{name}");
        let limit = 1e-4 * largest(expected.iter().copied());
        let least = UNSIGNED * largest(gradients.iter().copied());
        for ((ours, expected), gradient) in ours.iter().zip(&expected).zip(&gradients) {
            let off = (f64::from(*ours) - expected).abs();
            let has_sign = gradient.abs() > least;
            unsigned += usize::from(!has_sign);
            let limit = if has_sign { limit } else { limit + 2.0 * rate };
            assert!(off <= limit, "{name}: off by {off:e}, at a gradient of {gradient:e}");
        }
    }
    let all: usize = ours.values().map(Vec::len).sum();
    assert!(unsigned * 100 < all, "{unsigned} of {all} gradients are next to nothing");
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

/// The steps that PyTorch took, and what it took them from.
struct Golden {
    meta: Value,
    arrays: Arrays,
    queries: Case,
    documents: Case,
}

impl Golden {
    /// Every reference set has them; one that lost them must not pass.
    fn open() -> Self {
        let meta = json(&present("train/lora_steps.json"));
        let case = |key: &str| {
            let name = meta[key].as_str().unwrap().rsplit('/').next().unwrap();
            Case::open(name).unwrap_or_else(|| panic!("the reference has no case {name}"))
        };
        Golden {
            queries: case("queries"),
            documents: case("docs"),
            arrays: Arrays::read(&present("train/lora_steps.safetensors")),
            meta,
        }
    }

    fn number(&self, key: &str) -> f64 {
        self.meta[key].as_f64().unwrap()
    }

    fn model(&self) -> Model {
        let device = Device::flex();
        let adapter = present(self.meta["start_adapter"].as_str().unwrap());
        let encoder = Qwen2Vl::load(&present("model"), FloatDType::F32, &device).unwrap();
        let config = InfoNceConfig {
            alpha: self.number("alpha"),
            delta: Some(self.number("delta")),
            differentiate_hardness: self.meta["weight"] == "differentiated",
            tasks: vec!["task".into()],
            initial_temperature: self.meta["theta_before_step"][0].as_f64().unwrap().exp(),
            ..InfoNceConfig::default()
        };
        Contrastive {
            encoder: encoder.with_adapter(&adapter).unwrap().train_adapter_only(),
            objective: config.init(&device).unwrap(),
        }
    }

    /// The whole batch in micro-batches of at most `size` items.
    fn batch(&self, model: &Model, size: usize) -> Batch<EncoderInput> {
        let collator = collator(&model.encoder, PositionMode::Sequential);
        let cut = |case: &Case| -> Vec<EncoderInput> {
            let items: Vec<&Encoded> = case.items().iter().collect();
            items.chunks(size).map(|items| collator.collate(items)).collect()
        };
        let positive = Tensor::<1, Int>::arange(0..self.queries.items().len() as i64, &Device::flex());
        Batch {
            queries: cut(&self.queries),
            candidates: cut(&self.documents),
            targets: Targets { task: positive.zeros_like(), positive, owner: None, exempt: None },
        }
    }

    fn stage(&self) -> StageConfig {
        let beta = |i: usize| self.meta["betas"][i].as_f64().unwrap();
        StageConfig {
            learning_rate: self.number("lr"),
            temperature_learning_rate: self.number("theta_lr"),
            weight_decay: self.number("weight_decay"),
            betas: [beta(0), beta(1)],
            eps: self.number("eps"),
            max_grad_norm: 0.0,
            warmup: Warmup::Steps(0),
            schedule: Schedule::Constant,
            ..StageConfig::default()
        }
    }
}

fn present(name: &str) -> PathBuf {
    file(name).unwrap_or_else(|| panic!("{} has no {name}", folder().display()))
}

#[test]
fn golden_three_steps() {
    let golden = Golden::open();
    let (mut model, stage) = (golden.model(), golden.stage());
    let batch = golden.batch(&model, usize::MAX);
    let mut optimizer = Optimizer::new(&model, &stage);
    for (step, (loss, theta)) in steps(&golden.meta).into_iter().enumerate() {
        let options = StepOptions { recompute: step % 2 == 0, ..StepOptions::default() };
        let ours: f32 = model.objective.theta().inner().into_scalar();
        assert!((f64::from(ours) - theta).abs() < 1e-5, "theta before step {step}: {ours}, expected {theta}");
        let (stats, gradients) = cached_gradients(&model, &batch, options);
        let ours: f32 = stats.loss.into_scalar();
        // The first loss is that of equal weights; later ones carry the steps' rounding.
        let tolerance = if step == 0 { 1e-5 } else { 1e-4 };
        let off = (f64::from(ours) - loss).abs();
        assert!(off < tolerance * loss, "loss of step {step}: {ours}, expected {loss}");
        if step == 0 {
            compare("grad", &factors(&model, Some(&gradients)), &golden.arrays, 1e-4);
        }
        model = optimizer.step(model.train(), gradients, stage.learning_rates(step)).valid();
        if step == 0 {
            compare_after_a_step(&factors(&model, None), &golden.arrays, golden.number("lr"));
        }
    }
    let ours: f32 = model.objective.theta().inner().into_scalar();
    assert!((f64::from(ours) - golden.number("final_theta")).abs() < 1e-5, "theta at the end: {ours}");
}

#[test]
fn golden_gradients_of_single_items_add_up() {
    let golden = Golden::open();
    let model = golden.model();
    let batch = golden.batch(&model, 1);
    assert_eq!(batch.queries.len(), golden.queries.items().len());
    let (loss, _) = steps(&golden.meta)[0];
    let ways = [true, false].into_iter().flat_map(|recompute| {
        [Checkpointing::None, Checkpointing::Blocks].map(|checkpointing| (recompute, checkpointing))
    });
    for (recompute, checkpointing) in ways {
        let options = StepOptions { recompute, checkpointing, threads: 1 };
        let (stats, gradients) = cached_gradients(&model, &batch, options);
        let ours: f32 = stats.loss.into_scalar();
        let off = (f64::from(ours) - loss).abs();
        assert!(off < 1e-5 * loss, "recompute {recompute}, {checkpointing:?}: loss {ours}, expected {loss}");
        compare("grad", &factors(&model, Some(&gradients)), &golden.arrays, 1e-4);
    }
}

fn steps(meta: &Value) -> Vec<(f64, f64)> {
    let list = |key: &str| -> Vec<f64> {
        meta[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    list("loss").into_iter().zip(list("theta_before_step")).collect()
}
