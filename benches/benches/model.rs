//! Blocks of the 2B model with random weights, as `Qwen2Vl::embed` computes them.

mod items;

use burn::tensor::{Device, FloatDType};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rzen_model::{Collator, Encoded, ModelConfig, PositionMode, PrefixCache, Qwen2Vl};

use items::{SPECIAL, picture, words};

/// The 2B model with fewer blocks and words.
fn config(decoder_layers: usize) -> ModelConfig {
    let mut config = ModelConfig::preset("qwen2-vl-2b").expect("a known shape");
    (config.text.num_hidden_layers, config.text.vocab_size) = (decoder_layers, 1000);
    config.vision.depth = 1;
    config
}

/// Texts without a common beginning.
fn texts() -> Vec<Encoded> {
    (0..8).map(|text| words(text, 128)).collect()
}

/// 4900 patches, 1225 tokens.
fn large_picture() -> Vec<Encoded> {
    vec![picture(980, 0)]
}

fn blocks(criterion: &mut Criterion) {
    let device = Device::flex();
    let mut group = criterion.benchmark_group("embed");
    group.sample_size(10);
    // A last layer computes little more than the keys and values of its own.
    let works = [
        ("vision_block/4900", 1, large_picture()),
        ("decoder_block/8x128", 2, texts()),
        ("pooling/8x128", 1, texts()),
    ];
    for (name, layers, items) in works {
        let config = config(layers);
        let input = Collator::new(&config, &SPECIAL, PositionMode::Sequential, &device)
            .collate(&items.iter().collect::<Vec<_>>());
        group.throughput(Throughput::Elements(input.batch() as u64 * input.seq() as u64));
        for (kind, dtype) in [("f32", FloatDType::F32), ("bf16", FloatDType::BF16)] {
            let model = Qwen2Vl::random(&config, 1, dtype, &device);
            group.bench_function(format!("{kind}/{name}"), |b| b.iter(|| model.embed(&input).into_data()));
        }
    }
    group.finish();
}

/// Queries of 64 tokens, one at a time, the first 48 of them an instruction.
fn queries(criterion: &mut Criterion) {
    let device = Device::flex();
    let config = config(4);
    let collator = Collator::new(&config, &SPECIAL, PositionMode::Sequential, &device);
    let instruction = words(0, 48);
    let query = |number| {
        let input_ids = [instruction.input_ids.clone(), words(number, 16).input_ids].concat();
        collator.collate(&[&Encoded { input_ids, pictures: vec![] }])
    };
    // More than are kept, so that none is found whole.
    let queries: Vec<_> = (1..65).map(query).collect();
    let mut group = criterion.benchmark_group("query");
    group.sample_size(20);
    for (kind, dtype) in [("f32", FloatDType::F32), ("bf16", FloatDType::BF16)] {
        let model = Qwen2Vl::random(&config, 1, dtype, &device);
        let mut next = queries.iter().cycle();
        let mut input = || next.next().expect("there is no end");
        group.bench_function(format!("{kind}/alone"), |b| b.iter(|| model.embed(input()).into_data()));
        let cache = PrefixCache::default();
        model.embed_after(input(), &cache);
        group.bench_function(format!("{kind}/after_prefix"), |b| {
            b.iter(|| model.embed_after(input(), &cache).into_data());
        });
    }
    group.finish();
}

fn collate(criterion: &mut Criterion) {
    let collator = Collator::new(&config(1), &SPECIAL, PositionMode::Sequential, &Device::flex());
    let mut group = criterion.benchmark_group("collate");
    group.sample_size(20);
    for (name, items) in [("text_8x128", texts()), ("picture_4900", large_picture())] {
        let items: Vec<&Encoded> = items.iter().collect();
        group.bench_function(name, |b| b.iter(|| collator.collate(&items)));
    }
    group.finish();
}

criterion_group!(benches, blocks, queries, collate);
criterion_main!(benches);
