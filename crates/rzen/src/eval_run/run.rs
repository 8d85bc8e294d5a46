//! Embeds, ranks and scores task after task.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Result, bail, ensure};
use rzen_core::Item;
use rzen_data::Loader;
use rzen_eval::{Compression, RankTask, Rows, Scoring, TaskScore, score_task};

use super::{CompressedScore, Confusion, Estimate, Evaluation, TaskInfo, TaskOutcome, TaskSource};
use crate::report::Example;
use crate::summary::example;
use crate::vectors::{Contents, Key, Model, Unreadable, VectorStore, embed_missing};

/// What is computed besides the scores of vectors as they are.
pub struct EvalSettings {
    /// How tasks are scored.
    pub scoring: Scoring,
    /// Smaller forms of the vectors that are scored too.
    pub compressions: Vec<Compression>,
    /// Queries of each task that are shown, those whose answer came last.
    pub worst: usize,
}

/// Items of a task that can't be embedded.
struct Bad {
    task: String,
    /// `query \`q1\``, and why.
    items: Vec<(String, String)>,
}

/// Scores every task of `source`. Vectors are taken from the folder `vectors` where it has them, and kept there.
///
/// `loader` reads what is shown of the worst queries.
///
/// # Errors
/// Wrong rows of a task, at once. Items that can't be embedded, all of them once the rest of all tasks is embedded: nothing is
/// averaged over a part. What was embedded stays for the next time.
pub fn evaluate(
    source: &TaskSource,
    model: &Model,
    vectors: &Path,
    loader: &Loader,
    settings: &EvalSettings,
) -> Result<Evaluation> {
    let infos = source.infos();
    ensure!(!infos.is_empty(), "there is no task to evaluate");
    let mut store = VectorStore::open(vectors, &model.key)?;
    let held = store.len();
    let (mut tasks, mut bad) = (Vec::new(), Vec::new());
    let mut contents = Contents::default();
    let count = infos.len();
    let mut items = HashSet::new();
    for (at, info) in infos.into_iter().enumerate() {
        let task = source.load(at)?;
        task.check()?;
        let label = format!("{} ({}/{})", info.name, at + 1, count);
        let keys = match embed(&mut store, model, &mut contents, &task, &label)? {
            Ok(keys) => keys,
            Err(items) => {
                bad.push(Bad { task: info.name, items });
                continue;
            }
        };
        items.extend(keys.queries.iter().chain(keys.pool.values()).copied());
        // Where something is missing, there will be no result: the other tasks are only embedded.
        if bad.is_empty() {
            tasks.push(score(&mut store, &task, info, &keys, loader, settings)?);
        }
    }
    if !bad.is_empty() {
        bail!(complaint(&bad));
    }
    let embedded = (store.len() - held).min(items.len());
    Evaluation::new(tasks, store.dim().unwrap_or(0), items.len(), items.len() - embedded)
}

/// The keys of a task's items.
struct Keys {
    queries: Vec<Key>,
    /// Of the candidates that a query ranks, by their index in the pool.
    pool: HashMap<usize, Key>,
}

/// Embeds the items of a task; the inner error names those that can't be.
fn embed(
    store: &mut VectorStore,
    model: &Model,
    contents: &mut Contents,
    task: &RankTask,
    label: &str,
) -> Result<Result<Keys, Vec<(String, String)>>> {
    let used = task.used_candidates();
    let queries = task.queries.iter().map(|query| (("query", &query.id), &query.item));
    let pool = used.iter().map(|index| &task.pool[*index]).map(|(id, item)| (("candidate", id), item));
    let named: Vec<((&str, &String), &Item)> = queries.chain(pool).collect();
    contents.read(named.iter().map(|(_, item)| *item));
    let (mut keys, mut bad) = (Vec::with_capacity(named.len()), Vec::new());
    for ((what, id), item) in &named {
        match contents.vector_key(item) {
            Ok(key) => keys.push(key),
            Err(Unreadable { file, message }) => {
                bad.push((format!("{what} `{id}`"), format!("{}: {message}", file.display())));
            }
        }
    }
    if !bad.is_empty() {
        return Ok(Err(bad));
    }
    let items: Vec<(Key, &Item)> = keys.iter().copied().zip(named.iter().map(|(_, item)| *item)).collect();
    let refused = embed_missing(store, model, &items, label, &|item| contents.unchanged(item))?;
    if !refused.is_empty() {
        let of_items = keys.iter().zip(&named);
        let bad = of_items
            .filter_map(|(key, ((what, id), _))| Some((format!("{what} `{id}`"), refused.get(key)?.clone())));
        return Ok(Err(bad.collect()));
    }
    let pool = keys.split_off(task.queries.len());
    Ok(Ok(Keys { queries: keys, pool: used.into_iter().zip(pool).collect() }))
}

fn score(
    store: &mut VectorStore,
    task: &RankTask,
    info: TaskInfo,
    keys: &Keys,
    loader: &Loader,
    settings: &EvalSettings,
) -> Result<TaskOutcome> {
    let queries = store.rows(&keys.queries)?;
    let dim = store.dim().unwrap_or(1);
    let mut rank = |compression: Compression| -> Result<TaskScore> {
        let mut read = |indices: &[usize], rows: &mut Vec<f32>| {
            let keys: Vec<Key> = indices.iter().map(|index| keys.pool[index]).collect();
            rows.extend(store.rows(&keys)?);
            Ok(())
        };
        Ok(score_task(task, Rows::new(&queries, dim), &mut read, compression, settings.scoring)?)
    };
    let score = rank(Compression::NONE)?;
    let compressed = settings.compressions.iter().map(|compression| {
        ensure!(
            compression.dims.is_none_or(|dims| dims <= dim),
            "--dims {}: the model's vectors have {dim} numbers; give less",
            compression.dims.unwrap_or_default()
        );
        let score = rank(*compression)?;
        Ok(CompressedScore { compression: *compression, value: score.headline(), ties: score.ties })
    });
    let compressed = compressed.collect::<Result<_>>()?;
    let ids = |query: &rzen_eval::QueryScore| {
        query.top.ranked.iter().map(|(i, _)| task.pool[*i].0.clone()).collect()
    };
    Ok(TaskOutcome {
        estimate: Estimate::of(&[score.per_query_values()])?,
        confusion: Confusion::of(task, &score),
        top: score.per_query.iter().map(ids).collect(),
        worst: worst(&score, settings.worst).into_iter().map(|at| shown(loader, task, &score, at)).collect(),
        info,
        score,
        compressed,
    })
}

/// Candidates of a query that are shown.
const SHOWN: usize = 5;

fn shown(loader: &Loader, task: &RankTask, score: &TaskScore, at: usize) -> Example {
    let mut top = score.per_query[at].top.clone();
    top.ranked.truncate(SHOWN);
    example(loader, task, &top)
}

/// The queries whose answer came last, and not first; the earlier of equal ones.
fn worst(score: &TaskScore, count: usize) -> Vec<usize> {
    let rank = |at: usize| score.per_query[at].top.first_relevant_rank;
    let mut wrong: Vec<usize> = (0..score.per_query.len()).filter(|at| rank(*at) > 1).collect();
    wrong.sort_by_key(|at| std::cmp::Reverse(rank(*at)));
    wrong.truncate(count);
    wrong
}

/// Items of a task that are named.
const NAMED: usize = 5;

fn complaint(bad: &[Bad]) -> String {
    let count: usize = bad.iter().map(|task| task.items.len()).sum();
    let mut lines = vec![format!(
        "{count} {} can't be embedded, so that there is no score; mend or remove them and give the command again (all others \
         are embedded)",
        if count == 1 { "item" } else { "items" }
    )];
    for Bad { task, items } in bad {
        lines.extend(
            items.iter().take(NAMED).map(|(name, problem)| format!("  task `{task}`, {name}: {problem}")),
        );
        if items.len() > NAMED {
            lines.push(format!("  task `{task}`: {} more", items.len() - NAMED));
        }
    }
    lines.join("\n")
}
