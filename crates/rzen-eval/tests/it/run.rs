//! Running tasks.

use std::sync::atomic::Ordering;

use rzen_core::{Embed, Item, Task};
use rzen_eval::{EmbeddingCache, EvalError, Metric, RankQuery, RankTask, RunOptions, TaskScore, run_task};

use crate::embedders::{Toy, direction, text, unit};

/// `count` queries, the i-th answered by the i-th of `count` candidates.
pub fn pairs(name: &str, count: usize, candidates: impl Fn(usize) -> Option<Vec<usize>>) -> RankTask {
    RankTask {
        name: name.into(),
        kind: Task("image_retrieval".into()),
        metric: Metric::HIT_AT_1,
        queries: (0..count)
            .map(|i| RankQuery {
                id: format!("q{i}"),
                item: Item { instruction: Some("Find it.".into()), ..Item::text(format!("{i}")) },
                candidates: candidates(i),
                excluded: None,
                relevant: vec![(i, 1.0)],
            })
            .collect(),
        pool: (0..count).map(|i| (format!("c{i}"), Item::text(format!("{i}")))).collect(),
    }
}

pub fn run(embedder: &dyn Embed, task: &RankTask) -> Result<TaskScore, EvalError> {
    run_task(embedder, &mut EmbeddingCache::new(), task, RunOptions::default(), &mut |_, _| {})
}

#[test]
fn a_perfect_embedder_scores_one() {
    let perfect = Toy::new(|item: &Item| direction(text(item), 48));
    for task in [pairs("all", 40, |_| None), pairs("few", 40, |i| Some(vec![(i + 1) % 40, i, (i + 7) % 40]))]
    {
        let score = run(&perfect, &task).unwrap();
        for (metric, value) in &score.values {
            let most = if *metric == "precision@5".parse().unwrap() { 0.2 } else { 1.0 };
            assert_eq!(*value, most, "{metric} of {}", task.name);
        }
        assert_eq!(score.ties, 0);
        assert!(score.per_query.iter().all(|query| query.top.first_relevant_rank == 1 && query.value == 1.0));
    }
}

#[test]
fn a_random_embedder_scores_about_chance() {
    let random = Toy::new(|item: &Item| direction((text(item), &item.instruction), 16));
    let mut task =
        pairs("random", 600, |i| (i % 2 == 0).then(|| (0..10).map(|j| (i + j * 13) % 600).collect()));
    task.metric = "recall@10".parse().unwrap();
    let score = run(&random, &task).unwrap();
    for (metric, value) in &score.values {
        let chance = task.chance(*metric);
        // Half of the queries always have their answer among the first 10.
        assert!((value - chance).abs() < 0.05, "{metric}: {value}, by chance {chance}");
    }
    assert!((score.chance - (0.5 + 0.5 * 10.0 / 600.0)).abs() < 1e-9);
    assert!((score.hit_chance - (0.5 * 0.1 + 0.5 / 600.0)).abs() < 1e-9);
    let hit = score.value(Metric::HIT_AT_1).unwrap();
    assert!((0.02..0.09).contains(&hit), "hit@1 {hit} by chance 0.051");
}

#[test]
fn an_embedder_that_tells_nothing_apart_scores_worst() {
    let constant = Toy::new(|_: &Item| unit(vec![1.0, 2.0, 3.0]));
    let score = run(&constant, &pairs("same", 12, |_| None)).unwrap();
    assert_eq!(score.headline(), 0.0);
    assert_eq!(score.value(Metric::Mrr(None)), Some(1.0 / 12.0));
    assert_eq!(score.ties, 12 * 11);
    assert!(score.per_query.iter().all(|query| query.top.first_relevant_rank == 12));
}

#[test]
fn rankings_equal_brute_force() {
    let random = Toy::new(|item: &Item| direction((text(item), &item.instruction), 33));
    let task = pairs("brute", 150, |i| (i % 5 == 0).then(|| (0..150).filter(|j| j % 3 == i % 3).collect()));
    let score = run(&random, &task).unwrap();
    for (row, found) in task.queries.iter().zip(&score.per_query) {
        let query = (random.vector)(&row.item);
        let all: Vec<usize> = (0..150).collect();
        let mut ranked: Vec<(usize, f64)> = row
            .candidates
            .as_ref()
            .unwrap_or(&all)
            .iter()
            .map(|index| {
                let candidate = (random.vector)(&task.pool[*index].1);
                (*index, query.iter().zip(&candidate).map(|(a, b)| f64::from(a * b)).sum())
            })
            .collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        let rank = 1 + ranked.iter().position(|(index, _)| *index == row.relevant[0].0).unwrap();
        assert_eq!((found.top.first_relevant_rank, found.top.first_relevant.0), (rank, row.relevant[0].0));
        assert!((f64::from(found.top.first_relevant.1) - ranked[rank - 1].1).abs() < 1e-5);
        assert_eq!(found.top.ranked.len(), 5);
        for ((index, score), (expected, exact)) in found.top.ranked.iter().zip(&ranked) {
            assert_eq!(index, expected);
            assert!((f64::from(*score) - exact).abs() < 1e-5);
        }
    }
}

#[test]
fn order_batches_and_threads_change_nothing() {
    let random = Toy::new(|item: &Item| direction(text(item).len() % 7, 19));
    let mut task = pairs("order", 90, |_| None);
    task.metric = "ndcg@10".parse().unwrap();
    for (i, query) in task.queries.iter_mut().enumerate() {
        // Words of different lengths: many equal vectors, and so many ties.
        query.item = Item::text("x".repeat(i));
        query.relevant = vec![(i, 2.0), ((i + 30) % 90, 1.0), ((i + 60) % 90, 0.0)];
    }
    for (i, (_, item)) in task.pool.iter_mut().enumerate() {
        *item = Item::text("y".repeat(i));
    }
    let expected = run(&random, &task).unwrap();
    assert!(expected.ties > 0);

    let mut turned = task.clone();
    turned.pool.reverse();
    for query in &mut turned.queries {
        query.relevant.iter_mut().for_each(|(index, _)| *index = 89 - *index);
        query.relevant.rotate_left(1);
    }
    let found = run(&random, &turned).unwrap();
    assert_eq!((&found.values, found.ties), (&expected.values, expected.ties));

    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let options = RunOptions { batch_size: 7, ..RunOptions::default() };
    let found = one_thread
        .install(|| run_task(&random, &mut EmbeddingCache::new(), &task, options, &mut |_, _| {}).unwrap());
    assert_eq!(found, expected);
}

#[test]
fn items_are_embedded_once() {
    let toy = Toy::new(|item: &Item| direction(text(item), 8));
    let mut cache = EmbeddingCache::new();
    let options = RunOptions { batch_size: 16, ..RunOptions::default() };
    let mut seen = Vec::new();
    let task = pairs("first", 20, |_| None);
    run_task(&toy, &mut cache, &task, options, &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(seen, [(16, 40), (32, 40), (40, 40)]);
    assert_eq!(
        (toy.items.load(Ordering::Relaxed), toy.calls.load(Ordering::Relaxed), cache.len()),
        (40, 3, 40)
    );

    // The same candidates; queries without the instruction are the candidates themselves.
    let mut second = pairs("second", 20, |_| None);
    second.queries.iter_mut().for_each(|query| query.item.instruction = None);
    run_task(&toy, &mut cache, &second, options, &mut |_, _| {}).unwrap();
    assert_eq!(toy.items.load(Ordering::Relaxed), 40);

    // Candidates that no query ranks are not embedded.
    run_task(&toy, &mut cache, &pairs("third", 30, |i| Some(vec![i])), options, &mut |_, _| {}).unwrap();
    assert_eq!(toy.items.load(Ordering::Relaxed), 60);
    let mut few = pairs("few", 40, |i| Some(vec![i]));
    few.queries.truncate(30);
    run_task(&toy, &mut cache, &few, options, &mut |_, _| {}).unwrap();
    assert_eq!(toy.items.load(Ordering::Relaxed), 60);
}

#[test]
fn faults_are_named() {
    let check = |embedder: &dyn Embed, task: &RankTask, expected: &[&str]| {
        let error = run(embedder, task).unwrap_err();
        let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let message = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    };
    let toy = Toy::new(|item: &Item| direction(text(item), 8));
    let mut task = pairs("toy", 5, |_| None);
    task.pool[3].1 = Item::text("broken");
    check(&toy, &task, &["candidate `c3` of task `toy`", "broken.png is cut off"]);
    task = pairs("toy", 5, |_| None);
    task.queries[2].item = Item::text("broken");
    check(&toy, &task, &["query `q2` of task `toy`", "broken.png is cut off"]);

    let task = pairs("toy", 5, |_| None);
    let long = |item: &Item| if text(item) == "4" { vec![1.0, 1.0] } else { vec![1.0, 0.0] };
    check(&Toy::new(long), &task, &["query `q4`", "length 1.4142 instead of 1"]);
    check(&Toy::new(|_: &Item| vec![f32::NAN; 4]), &task, &["query `q0`", "NaN at position 0"]);
    let ragged = |item: &Item| if text(item) == "1" { vec![1.0] } else { vec![1.0, 0.0] };
    check(&Toy::new(ragged), &task, &["query `q1`", "1 numbers instead of 2"]);
}
