//! Exact search in a large pool and the ranking of an evaluation, beside the product of matrices that both are made of:
//! `cargo bench --workspace -- search`.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rzen_core::{Item, Task};
use rzen_eval::{Compression, Metric, RankQuery, RankTask, Rows, Scoring, score_task, search};
use rzen_kernels::{Linear, Matrix, Then};

/// Numbers between -1 and 1 in no order.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Each query is answered by some candidate.
fn task(queries: usize, pool: usize) -> RankTask {
    let query = |i: usize| RankQuery {
        id: i.to_string(),
        item: Item::text(""),
        candidates: None,
        excluded: None,
        relevant: vec![((i * 7919) % pool, 1.0)],
    };
    RankTask {
        name: "bench".into(),
        kind: Task("document_retrieval".into()),
        metric: Metric::HIT_AT_1,
        queries: (0..queries).map(query).collect(),
        pool: (0..pool).map(|i| (i.to_string(), Item::text(""))).collect(),
    }
}

fn exact(criterion: &mut Criterion) {
    let (queries, pool, dim) = (1024, 100_000, 1536);
    let (x, candidates) = (noise(queries * dim, 1), noise(pool * dim, 2));
    let mut group = criterion.benchmark_group("search");
    let group = group.sample_size(10).measurement_time(Duration::from_secs(30));
    // Operations, so that the report says how many a second.
    group.throughput(Throughput::Elements(2 * (queries * dim * pool) as u64));
    group.bench_function("1024x1536x100000/top_100", |b| {
        b.iter(|| search(Rows::new(&x, dim), Rows::new(&candidates, dim), 100, |_, _| true))
    });
    let task = task(queries, pool);
    group.bench_function("1024x1536x100000/score_task", |b| {
        let mut read = |indices: &[usize], rows: &mut Vec<f32>| {
            indices.iter().for_each(|index| rows.extend_from_slice(&candidates[index * dim..][..dim]));
            Ok(())
        };
        b.iter(|| score_task(&task, Rows::new(&x, dim), &mut read, Compression::NONE, Scoring::default()))
    });
    // The same product alone, in the size of `linear`, is what the machine can do.
    let outputs = 8960;
    let mut y = vec![0.0; queries * outputs];
    group.throughput(Throughput::Elements(2 * (queries * dim * outputs) as u64));
    let weight = Matrix::F32(&candidates[..outputs * dim]);
    let layer = Linear { weight, inputs: dim, outputs, bias: None, lora: None };
    group.bench_function("1024x1536x8960/product", |b| {
        b.iter(|| layer.forward(&x, &mut y, false, Then::Nothing))
    });
}

criterion_group!(benches, exact);
criterion_main!(benches);
