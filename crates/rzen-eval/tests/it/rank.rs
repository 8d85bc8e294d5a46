//! Ranking vectors that are read a block at a time.

use rzen_core::{Item, Task};
use rzen_eval::{
    Compression, Metric, RankQuery, RankTask, Ranking, Rows, Scoring, TaskScore, Ties, score_task,
};

/// Unit vectors, of which some are equal.
fn vectors(count: usize, dim: usize, mut state: u64) -> Vec<f32> {
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for _ in 0..count {
        let row = match rows.len() {
            0..3 => None,
            before => (random(4) == 0).then(|| rows[random(before as u64) as usize].clone()),
        };
        rows.push(row.unwrap_or_else(|| {
            let row: Vec<f32> = (0..dim).map(|_| random(2001) as f32 / 1000.0 - 1.0).collect();
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter().map(|x| x / norm).collect()
        }));
    }
    rows.concat()
}

fn task(queries: usize, pool: usize, candidates: impl Fn(usize) -> Option<Vec<usize>>) -> RankTask {
    let query = |i: usize| {
        let candidates = candidates(i);
        let listed = |j: usize| candidates.as_ref().map_or(j % pool, |some| some[j % some.len()]);
        let mut relevant = vec![(listed(i * 7), 2.0)];
        for (j, grade) in [(i * 3 + 1, 1.0), (i * 11 + 5, 2.0), (i + 2, 0.0)] {
            if i.is_multiple_of(3) && relevant.iter().all(|(other, _)| *other != listed(j)) {
                relevant.push((listed(j), grade));
            }
        }
        RankQuery { id: format!("q{i}"), item: Item::text("q"), candidates, excluded: None, relevant }
    };
    RankTask {
        name: "ranked".into(),
        kind: Task("image_retrieval".into()),
        metric: "ndcg@5".parse().unwrap(),
        queries: (0..queries).map(query).collect(),
        pool: (0..pool).map(|i| (format!("c{i}"), Item::text("c"))).collect(),
    }
}

const SCORING: Scoring = Scoring { metrics: &Metric::STANDARD, top_k: 4, ties: Ties::Against };

/// Scores the task, and counts the rows that were read at once at most.
fn score(task: &RankTask, queries: Rows<'_>, pool: Rows<'_>, compression: Compression) -> (TaskScore, usize) {
    let mut most = 0;
    let mut read = |indices: &[usize], rows: &mut Vec<f32>| {
        most = most.max(indices.len());
        rows.extend(indices.iter().flat_map(|index| pool.row(*index)));
        Ok(())
    };
    (score_task(task, queries, &mut read, compression, SCORING).unwrap(), most)
}

/// Compares with rankings by all scores, one after another; returns the ties.
fn check(task: &RankTask, dim: usize) -> usize {
    let (queries, pool) = (vectors(task.queries.len(), dim, 1), vectors(task.pool.len(), dim, 2));
    let (queries, pool) = (Rows::new(&queries, dim), Rows::new(&pool, dim));
    let (found, most) = score(task, queries, pool, Compression::NONE);
    assert!(most <= 4096 + 4, "{most} rows at once");
    let mut ties = 0;
    let mut values = vec![0.0; found.values.len()];
    for (i, (query, found_query)) in task.queries.iter().zip(&found.per_query).enumerate() {
        let all: Vec<usize> = (0..task.pool.len()).filter(|c| Some(*c) != query.excluded).collect();
        let candidates = query.candidates.as_ref().unwrap_or(&all);
        let scores: Vec<_> = candidates.iter().map(|c| (*c, pool.score(*c, queries.row(i)))).collect();
        let ranking = Ranking::new(scores.clone(), &query.relevant).unwrap();
        ties += ranking.ties();
        values.iter_mut().zip(&found.values).for_each(|(sum, (metric, _))| *sum += metric.value(&ranking));
        let grade = |c: usize| query.relevant.iter().find(|(other, _)| *other == c).map_or(0.0, |(_, g)| *g);
        let mut ranked = scores;
        ranked
            .sort_by(|a, b| b.1.total_cmp(&a.1).then(grade(a.0).total_cmp(&grade(b.0))).then(a.0.cmp(&b.0)));
        ranked.truncate(4);
        assert_eq!(found_query.top.ranked, ranked, "query {i}");
        assert_eq!(found_query.top.first_relevant_rank, ranking.first_relevant_rank(), "query {i}");
    }
    assert_eq!(found.ties, ties);
    for ((metric, value), sum) in found.values.iter().zip(values) {
        assert!((value - sum / task.queries.len() as f64).abs() < 1e-12, "{metric}: {value}");
    }
    ties
}

#[test]
fn a_pool_of_several_blocks_ranks_as_all_scores_do() {
    assert!(check(&task(30, 2 * 4096 + 33, |_| None), 24) > 0);
    check(&task(1030, 300, |_| None), 37);
    check(&task(3, 500, |_| None), 16);
}

#[test]
fn what_a_query_excludes_is_not_ranked() {
    let mut task = task(30, 2 * 4096 + 33, |_| None);
    let spared = |i: usize| [0, 4095, 4096, 8224, i * 17 + 40][i % 5];
    for (i, query) in task.queries.iter_mut().enumerate() {
        let candidate = spared(i);
        query.excluded = query.relevant.iter().all(|(index, _)| *index != candidate).then_some(candidate);
    }
    assert!(task.queries.iter().filter(|query| query.excluded.is_some()).count() > 20);
    check(&task, 24);
}

#[test]
fn lists_of_candidates_rank_as_all_scores_do() {
    let list = |i: usize| (0..40 + i % 5).map(|j| (i * 37 + j * 131) % 9001).collect::<Vec<_>>();
    check(&task(60, 9001, |i| Some(list(i))), 24);
    check(&task(60, 9001, |i| (i % 2 == 0).then(|| list(i))), 24);
}

#[test]
fn compressed_vectors_lose_little_by_little() {
    let task = task(200, 1000, |_| None);
    let dim = 64;
    let pool = vectors(1000, dim, 2);
    // Each query is its answer with some noise on it.
    let noise = vectors(200, dim, 3);
    let answers = task.queries.iter().flat_map(|query| &pool[query.relevant[0].0 * dim..][..dim]);
    let queries: Vec<f32> = answers.zip(&noise).map(|(answer, noise)| answer + 0.9 * noise).collect();
    let (queries, pool) = (Rows::new(&queries, dim), Rows::new(&pool, dim));
    let mrr = |name: &str| {
        let score = score(&task, queries, pool, name.parse().unwrap()).0;
        score.value(Metric::Mrr(None)).unwrap()
    };
    let (full, int8, half, binary, few) =
        (mrr("full"), mrr("int8"), mrr("32"), mrr("binary"), mrr("8+binary"));
    assert_eq!(mrr("64"), full, "all numbers");
    assert!((int8 - full).abs() < 0.01, "{int8} {full}");
    assert!(full > half && half > few && full > binary && binary > few, "{full} {half} {binary} {few}");
    assert!(full > 0.5 && few < 0.3, "{full} {few}");
}
