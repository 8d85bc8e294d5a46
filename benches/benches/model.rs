//! Blocks of the 2B model with random weights, as `Qwen2Vl::embed` computes them.

use burn::tensor::{Device, FloatDType};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rzen_core::Picture;
use rzen_model::{
    Collator, Encoded, ModelConfig, PositionMode, ProcessorConfig, Qwen2Vl, SpecialIds, picture_patches,
};

const SPECIAL: SpecialIds = SpecialIds {
    endoftext: 990,
    im_start: 991,
    im_end: 992,
    vision_start: 993,
    vision_end: 994,
    image_pad: 995,
    video_pad: 996,
};

/// The 2B model with fewer blocks and words.
fn config(decoder_layers: usize) -> ModelConfig {
    let mut config = ModelConfig::preset("qwen2-vl-2b").expect("a known shape");
    (config.text.num_hidden_layers, config.text.vocab_size) = (decoder_layers, 1000);
    config.vision.depth = 1;
    config
}

/// Texts without a common beginning.
fn texts() -> Vec<Encoded> {
    let ids = |text: u32| (0..128).map(|i| (i * 7 + text * 13) % 990).collect();
    (0..8).map(|text| Encoded { input_ids: ids(text), pictures: Vec::new() }).collect()
}

/// 4900 patches, 1225 tokens.
fn picture() -> Vec<Encoded> {
    let bytes = (0..980 * 980 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    let picture = Picture::new(980, 980, bytes.collect());
    let patches = picture_patches(&ProcessorConfig::default(), &picture, [256, 1280]);
    let input_ids = [vec![SPECIAL.image_pad; 1225], vec![SPECIAL.endoftext]].concat();
    vec![Encoded { input_ids, pictures: vec![patches] }]
}

fn blocks(criterion: &mut Criterion) {
    let device = Device::flex();
    let mut group = criterion.benchmark_group("embed");
    group.sample_size(10);
    // A last layer computes little more than the keys and values of its own.
    let works = [
        ("vision_block/4900", 1, picture()),
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

fn collate(criterion: &mut Criterion) {
    let collator = Collator::new(&config(1), &SPECIAL, PositionMode::Sequential, &Device::flex());
    let mut group = criterion.benchmark_group("collate");
    group.sample_size(20);
    for (name, items) in [("text_8x128", texts()), ("picture_4900", picture())] {
        let items: Vec<&Encoded> = items.iter().collect();
        group.bench_function(name, |b| b.iter(|| collator.collate(&items)));
    }
    group.finish();
}

criterion_group!(benches, blocks, collate);
criterion_main!(benches);
