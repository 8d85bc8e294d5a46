//! A cached step of a model of middling size: 8 texts and 2 pictures, each with a text as its query, as `train_stage` computes it.

mod items;

use burn::tensor::{Device, FloatDType, Int, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rzen_core::{Batch, Targets};
use rzen_loss::InfoNceConfig;
use rzen_model::{
    AdapterConfig, Collator, Encoded, EncoderInput, ModelConfig, PositionMode, Qwen2Vl, all_linear,
};
use rzen_train::{Checkpointing, Contrastive, Optimizer, StageConfig, StepOptions, cached_gradients};

use items::{SPECIAL, picture, words};

/// A quarter of the 2B model's widths, four blocks of each tower: 18 M numbers.
fn config() -> ModelConfig {
    let mut config = ModelConfig::preset("qwen2-vl-2b").expect("a known shape");
    let (text, vision) = (&mut config.text, &mut config.vision);
    (text.hidden_size, text.intermediate_size, text.num_hidden_layers) = (512, 2240, 4);
    (text.num_attention_heads, text.num_key_value_heads, text.vocab_size) = (4, 2, 1000);
    (vision.embed_dim, vision.num_heads, vision.depth) = (320, 4, 4);
    config
}

fn batch(config: &ModelConfig, device: &Device) -> Batch<EncoderInput> {
    let collator = Collator::new(config, &SPECIAL, PositionMode::Mrope, device);
    let collate = |items: Vec<Encoded>| collator.collate(&items.iter().collect::<Vec<_>>());
    let positive = Tensor::<1, Int>::arange(0..10, device);
    Batch {
        queries: vec![collate((0..10).map(|i| words(i, 16)).collect())],
        candidates: vec![
            collate((0..8).map(|i| words(20 + i, 64)).collect()),
            collate((0..2).map(|i| picture(224, i)).collect()),
        ],
        targets: Targets { task: positive.zeros_like(), positive, owner: None, exempt: None },
    }
}

fn steps(criterion: &mut Criterion) {
    let device = Device::flex();
    let config = config();
    let batch = batch(&config, &device);
    let stage = StageConfig::default();
    let mut group = criterion.benchmark_group("step");
    group.sample_size(10).throughput(Throughput::Elements(10));
    let adapter = AdapterConfig { rank: 64, alpha: 64.0, rank_stabilized: false, targets: all_linear() };
    let ways = [("none", Checkpointing::None), ("blocks", Checkpointing::Blocks)];
    for (trained, adapter) in [("lora_64", Some(adapter)), ("full", None)] {
        for (way, checkpointing) in ways {
            let encoder = Qwen2Vl::random(&config, 1, FloatDType::F32, &device);
            let encoder = match &adapter {
                Some(adapter) => encoder.with_new_adapter(adapter, 1).expect("every layer is there"),
                None => encoder.unfreeze_all(),
            };
            let objective = InfoNceConfig::default().init(&device).expect("the default objective");
            let model = Contrastive { encoder, objective };
            let mut optimizer = Optimizer::new(&model, &stage);
            let mut model = Some(model);
            let options = StepOptions { checkpointing, ..StepOptions::default() };
            group.bench_function(format!("{trained}/{way}"), |b| {
                b.iter(|| {
                    let before = model.take().expect("each step gives it back");
                    let (_, gradients) = cached_gradients(&before, &batch, options);
                    model = Some(optimizer.step(before, gradients, stage.learning_rates(0)));
                })
            });
        }
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
