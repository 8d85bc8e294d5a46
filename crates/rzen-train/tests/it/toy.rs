//! A perceptron that embeds vectors, and plain InfoNCE with one temperature.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use rzen_core::{Batch, Encode, Loss, Objective, SaveWeights, Targets};
use rzen_train::{
    BoxError, Contrastive, RunFolder, Schedule, StageConfig, StepRecord, TrainBatch, Warmup, train_stage,
};

pub type Toy = Contrastive<Perceptron, InfoNce>;

const INPUT: usize = 6;
const HIDDEN: usize = 512;
const DIM: usize = 8;

#[derive(Module, Debug)]
pub struct Perceptron {
    pub hidden: Param<Tensor<2>>,
    pub hidden_bias: Param<Tensor<1>>,
    pub output: Param<Tensor<2>>,
    /// Saving runs into a full disk after this many more saves.
    #[module(skip)]
    pub disk_full_after: Arc<AtomicUsize>,
}

#[derive(Module, Debug)]
pub struct InfoNce {
    pub theta: Param<Tensor<1>>,
}

impl Encode for Perceptron {
    type Input = Tensor<2>;

    fn encode(&self, input: Tensor<2>) -> Tensor<2> {
        let hidden = input.matmul(self.hidden.val()) + self.hidden_bias.val().unsqueeze();
        let output = hidden.tanh().matmul(self.output.val());
        let length = output.clone().square().sum_dim(1).sqrt();
        output / length
    }
}

impl Objective for InfoNce {
    fn loss(&self, queries: Tensor<2>, candidates: Tensor<2>, targets: &Targets) -> Loss {
        let count = queries.dims()[0];
        let logits = queries.matmul(candidates.transpose()) * self.theta.val().neg().exp().unsqueeze();
        let picked = log_softmax(logits, 1).gather(1, targets.positive.clone().reshape([count, 1]));
        let tau = self.theta.val().exp();
        Loss { value: picked.mean().neg(), stats: vec![("tau.toy".to_string(), tau)] }
    }
}

impl SaveWeights for Perceptron {
    fn save_weights(&self, folder: &Path) -> Result<(), BoxError> {
        let left = self.disk_full_after.load(Ordering::SeqCst);
        let bytes = bytes(self);
        if left == 0 {
            // Half of the file arrives, the rest meets a device that is always full.
            fs::write(folder.join("weights.bin"), &bytes[..bytes.len() / 2])?;
            File::options().write(true).open("/dev/full")?.write_all(&bytes)?;
        }
        self.disk_full_after.store(left - 1, Ordering::SeqCst);
        Ok(fs::write(folder.join("weights.bin"), bytes)?)
    }
}

impl SaveWeights for InfoNce {
    fn save_weights(&self, folder: &Path) -> Result<(), BoxError> {
        Ok(fs::write(folder.join("theta.bin"), bytes(self))?)
    }
}

/// All parameters, one after another.
pub fn bytes<M: Module>(module: &M) -> Vec<u8> {
    struct Bytes(Vec<u8>);
    impl ModuleVisitor for Bytes {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend_from_slice(param.val().into_data().as_bytes());
        }
    }
    let mut visitor = Bytes(Vec::new());
    module.visit(&mut visitor);
    visitor.0
}

fn load<M: Module>(module: M, bytes: Vec<u8>) -> M {
    struct Read {
        bytes: Vec<u8>,
        at: usize,
    }
    impl ModuleMapper for Read {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let values = floats(&self.bytes[self.at..self.at + 4 * tensor.shape().num_elements()]);
                self.at += 4 * values.len();
                Tensor::from_data(TensorData::new(values, tensor.shape()), &tensor.device())
            })
        }
    }
    module.map(&mut Read { bytes, at: 0 })
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Numbers in -1..1 that depend on `seed` alone.
fn noise(seed: usize, count: usize) -> Vec<f32> {
    let mut state = seed as u64 ^ 0x9E37_79B9_7F4A_7C15;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn tensor<const D: usize>(seed: usize, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(noise(seed, shape.iter().product()), shape), &Device::flex())
}

fn param<const D: usize>(id: u64, shape: [usize; D]) -> Param<Tensor<D>> {
    Param::initialized(ParamId::from(id), tensor(id as usize, shape)).set_require_grad(true)
}

pub fn model() -> Toy {
    let encoder = Perceptron {
        hidden: param(1, [INPUT, HIDDEN]),
        hidden_bias: param(2, [HIDDEN]),
        output: param(3, [HIDDEN, DIM]),
        disk_full_after: Arc::new(AtomicUsize::new(usize::MAX)),
    };
    let theta = Tensor::from_floats([-1.5], &Device::flex());
    let theta = Param::initialized(ParamId::from(4), theta).set_require_grad(true);
    Contrastive { encoder, objective: InfoNce { theta } }
}

/// The model with the weights of a checkpoint.
pub fn model_of(checkpoint: &rzen_train::Checkpoint) -> Toy {
    let Contrastive { encoder, objective } = model();
    Contrastive {
        encoder: load(encoder, fs::read(checkpoint.encoder().join("weights.bin")).unwrap()),
        objective: load(objective, fs::read(checkpoint.objective().join("theta.bin")).unwrap()),
    }
}

/// A batch of 7 queries and 9 candidates in micro-batches of 3, 3, 1 and 4, 4, 1.
pub fn batch(step: usize) -> Batch<Tensor<2>> {
    let inputs = |seed: usize, sizes: [usize; 3]| {
        sizes.iter().enumerate().map(|(i, rows)| tensor(1000 * step + seed + i, [*rows, INPUT])).collect()
    };
    let device = Device::flex();
    let targets = Targets {
        positive: Tensor::from_ints([0, 1, 2, 3, 4, 5, 6], &device),
        task: Tensor::zeros([7], &device),
        owner: None,
        exempt: None,
    };
    Batch { queries: inputs(100, [3, 3, 1]), candidates: inputs(200, [4, 4, 1]), targets }
}

pub fn source(step: usize) -> Result<TrainBatch<Tensor<2>>, BoxError> {
    Ok(TrainBatch { batch: batch(step), share: None, label: format!("set-{}", step % 2), tokens: 14 })
}

pub fn config() -> StageConfig {
    StageConfig {
        steps: 12,
        learning_rate: 0.02,
        temperature_learning_rate: 0.05,
        weight_decay: 0.1,
        warmup: Warmup::Steps(3),
        schedule: Schedule::Cosine,
        checkpoint_every: 5,
        threads: 2,
        ..StageConfig::default()
    }
}

pub fn run(path: &Path) -> RunFolder {
    RunFolder {
        path: path.to_path_buf(),
        stage: "stage-1".into(),
        seed: 7,
        settings: serde_json::json!({"dim": DIM}),
    }
}

/// Trains the whole stage into `path` without looking at it.
pub fn train(path: &Path, config: &StageConfig) -> Toy {
    train_stage(model(), config, &mut source, &run(path), None, &mut (), &AtomicBool::new(false)).unwrap()
}

/// A source that raises `stop` when it is asked for the batch of step `at`.
pub fn stopping<'a>(
    stop: &'a AtomicBool,
    at: usize,
    asked: &'a Cell<usize>,
) -> impl FnMut(usize) -> Result<TrainBatch<Tensor<2>>, BoxError> + 'a {
    move |step| {
        asked.set(asked.get() + 1);
        stop.store(step == at, Ordering::SeqCst);
        source(step)
    }
}

/// The lines of `metrics.jsonl` without what no two runs have in common.
pub fn timeless(metrics: &str) -> impl Iterator<Item = StepRecord> {
    metrics.lines().map(|line| StepRecord {
        samples_per_second: 0.0,
        tokens_per_second: 0.0,
        seconds: 0.0,
        stall_seconds: 0.0,
        peak_memory_bytes: None,
        ..serde_json::from_str(line).unwrap()
    })
}
