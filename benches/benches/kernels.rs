//! The kernels that a step spends its time in, on the CPU: `cargo bench --workspace`.

use std::hint::black_box;

use burn::tensor::{Device, Distribution, FloatDType, Int, Tensor};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rzen_core::{Encode, Objective, Picture, Targets};
use rzen_loss::InfoNceConfig;
use rzen_model::{
    Collator, Encoded, ModelConfig, PositionMode, ProcessorConfig, Qwen2Vl, SpecialIds, TextConfig,
    VisionConfig, picture_patches, resize,
};

fn picture(width: u32, height: u32) -> Picture {
    Picture::new(width, height, (0..width * height * 3).map(|i| (i * 31 % 251) as u8).collect())
}

fn pictures(criterion: &mut Criterion) {
    let large = picture(4000, 3000);
    let mut group = criterion.benchmark_group("resize");
    group.throughput(Throughput::Elements(12_000_000)).sample_size(10);
    group
        .bench_function("bicubic/4000x3000_to_1008x756", |b| b.iter(|| resize(black_box(&large), 1008, 756)));
    group.finish();
    let mut group = criterion.benchmark_group("patchify");
    group.throughput(Throughput::Elements(1008 * 756)).sample_size(10);
    let (small, config) = (picture(1008, 756), ProcessorConfig::default());
    group.bench_function("1008x756", |b| b.iter(|| picture_patches(&config, black_box(&small), [256, 1280])));
    group.finish();
}

fn objective(criterion: &mut Criterion) {
    let device = Device::flex();
    let (batch, dim) = (256, 1536);
    let config = InfoNceConfig { tasks: vec!["task".into()], ..InfoNceConfig::default() };
    let objective = config.init(&device).expect("the defaults are valid");
    let rows = || Tensor::<2>::random([batch, dim], Distribution::Default, &device);
    let (queries, candidates) = (rows(), rows());
    let positive = Tensor::<1, Int>::arange(0..batch as i64, &device);
    let targets = Targets { task: positive.zeros_like(), positive, owner: None };
    let mut group = criterion.benchmark_group("info_nce");
    group.throughput(Throughput::Elements(batch as u64)).sample_size(20);
    group.bench_function("value/b256_d1536", |b| {
        b.iter(|| objective.loss(queries.clone(), candidates.clone(), &targets).value.into_data())
    });
    group.finish();
}

fn encoder(criterion: &mut Criterion) {
    let device = Device::flex();
    let config = ModelConfig {
        text: TextConfig {
            hidden_size: 256,
            intermediate_size: 768,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            vocab_size: 1000,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            mrope_section: [8, 12, 12],
        },
        vision: VisionConfig {
            depth: 4,
            embed_dim: 256,
            num_heads: 4,
            mlp_ratio: 4.0,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
        },
        tie_word_embeddings: true,
        token_ids: Default::default(),
    };
    let special = SpecialIds {
        endoftext: 990,
        im_start: 991,
        im_end: 992,
        vision_start: 993,
        vision_end: 994,
        image_pad: 995,
        video_pad: 996,
    };
    let model = Qwen2Vl::random(&config, 1, FloatDType::F32, &device);
    let collator = Collator::new(&config, &special, PositionMode::Sequential, &device);
    let text = Encoded { input_ids: (0..128).collect(), pictures: Vec::new() };
    let patches = picture_patches(&ProcessorConfig::default(), &picture(448, 448), [256, 256]);
    let image = Encoded { input_ids: [vec![995; 256], vec![990]].concat(), pictures: vec![patches] };
    let mut group = criterion.benchmark_group("encode");
    group.sample_size(10);
    for (name, items, tokens) in
        [("text_8x128", vec![&text; 8], 8 * 128), ("picture_256_tokens", vec![&image], 257)]
    {
        group.throughput(Throughput::Elements(tokens));
        group.bench_function(name, |b| {
            b.iter_batched(
                || collator.collate(&items),
                |input| model.encode(input).into_data(),
                BatchSize::SmallInput,
            )
        });
    }
    group.finish();
}

criterion_group!(kernels, pictures, objective, encoder);
criterion_main!(kernels);
