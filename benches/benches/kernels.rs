//! Products, attention and the objective, in the sizes of the 2B model: `cargo bench --workspace`.

use burn::tensor::{Device, Distribution, Int, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use rzen_core::{Objective, Targets};
use rzen_kernels::{Attention, Heads, Linear, Matrix, Then, Window};
use rzen_loss::InfoNceConfig;

/// Numbers between -1 and 1.
fn wave(count: usize, pace: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * pace).sin()).collect()
}

fn linear(criterion: &mut Criterion) {
    let (rows, inputs, outputs) = (1024, 1536, 8960);
    let (x, weight) = (wave(rows * inputs, 0.71), wave(outputs * inputs, 0.037));
    let half: Vec<bf16> = weight.iter().map(|x| bf16::from_f32(*x)).collect();
    let mut y = vec![0.0; rows * outputs];
    let mut group = criterion.benchmark_group("linear");
    // Operations, so that the report says how many a second.
    group.sample_size(10).throughput(Throughput::Elements(2 * (rows * inputs * outputs) as u64));
    let weights = [
        ("f32", Matrix::F32(&weight)),
        ("f32_by_bf16", Matrix::WidenedBf16(&half)),
        ("bf16", Matrix::Bf16(&half)),
    ];
    for (name, weight) in weights {
        let layer = Linear { weight, inputs, outputs, bias: None, lora: None };
        group.bench_function(format!("{name}/1024x1536x8960"), |b| {
            b.iter(|| layer.forward(&x, &mut y, false, Then::Nothing))
        });
    }
    group.finish();
}

fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(10);
    for (name, [heads, key_heads, width], windows, causal) in [
        ("vision_4900", [16, 16, 80], vec![4900], false),
        ("text_8x128", [12, 2, 128], vec![128; 8], true),
        ("text_1360", [12, 2, 128], vec![1360], true),
    ] {
        let rows: usize = windows.iter().sum();
        let pairs: usize = windows.iter().map(|rows| rows * rows).sum();
        group
            .throughput(Throughput::Elements((4 * pairs * heads * width / (1 + usize::from(causal))) as u64));
        let mut end = 0;
        let next = |rows| {
            end += rows;
            Window::of(end - rows..end)
        };
        let windows: Vec<Window> = windows.into_iter().map(next).collect();
        let [q, k, v] = [(heads, 0.71), (key_heads, 0.37), (key_heads, 0.93)]
            .map(|(heads, pace)| (wave(rows * heads * width, pace), heads * width));
        let [q, k, v] = [&q, &k, &v].map(|(data, stride)| Heads { data, stride: *stride });
        let mut y = vec![0.0; rows * heads * width];
        let scale = (width as f32).powf(-0.5);
        for (kind, narrow) in [("f32", false), ("bf16", true)] {
            let attention = Attention { heads, key_heads, width, scale, causal, narrow };
            group.bench_function(format!("{kind}/{name}"), |b| {
                b.iter(|| attention.forward(q, k, v, &windows, &mut y))
            });
        }
    }
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
    let targets = Targets { task: positive.zeros_like(), positive, owner: None, exempt: None };
    let mut group = criterion.benchmark_group("info_nce");
    group.throughput(Throughput::Elements(batch as u64)).sample_size(20);
    group.bench_function("value/b256_d1536", |b| {
        b.iter(|| objective.loss(queries.clone(), candidates.clone(), &targets).value.into_data())
    });
    group.finish();
}

criterion_group!(benches, linear, attention, objective);
criterion_main!(benches);
