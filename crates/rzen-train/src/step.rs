//! The gradient of a batch of any size in the memory of a micro-batch.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use rzen_core::{Batch, Encode, Objective, Pullback, Ranks, Targets, encode_with_graph};

use crate::Contrastive;
use crate::config::Checkpointing;
use crate::gradients::merge;
use crate::in_order::in_order;
use crate::share::{Share, Shared, Side};

/// How a step spends memory and threads. None of it changes the gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepOptions {
    /// Embed twice instead of keeping the graphs of the whole batch,
    /// see [`StageConfig::recompute`](crate::StageConfig::recompute).
    pub recompute: bool,
    /// What is kept of a micro-batch until its gradient is known,
    /// see [`StageConfig::checkpointing`](crate::StageConfig::checkpointing).
    pub checkpointing: Checkpointing,
    /// Micro-batches computed side by side, at least 1.
    pub threads: usize,
}

impl Default for StepOptions {
    fn default() -> Self {
        StepOptions { recompute: true, checkpointing: Checkpointing::None, threads: 1 }
    }
}

/// What a step found out; all tensors stay on the (plain) device until somebody reads them.
#[derive(Clone, Debug)]
pub struct StepStats {
    /// `[1]`: the objective's value over the whole batch.
    pub loss: Tensor<1>,
    /// The objective's named scalars, `[1]` each.
    pub stats: Vec<(String, Tensor<1>)>,
    /// Queries in the batch.
    pub samples: usize,
}

/// The loss of the whole batch, and its gradient for every parameter that trains
/// ([gradient caching](https://arxiv.org/abs/2101.06983)).
///
/// All micro-batches are embedded; the objective is taken once over all embeddings and yields its own
/// gradients and that of each embedding, `g`; then each micro-batch back-propagates `sum(embedding * g)`.
/// This equals the gradient of one graph for everything, up to rounding. The gradients of micro-batches
/// are added in the order of the batch, so that the result has the same bits for any number of threads.
///
/// `model` may be on the plain or on the autodiff device; the batch is on the plain one.
///
/// # Panics
/// If the batch has no queries or no candidates, or if the encoder or the objective does.
pub fn cached_gradients<E, O>(
    model: &Contrastive<E, O>,
    batch: &Batch<E::Input>,
    options: StepOptions,
) -> (StepStats, GradientsParams)
where
    E: Module + Encode + 'static,
    E::Input: Send,
    O: Module + Objective,
{
    assert!(!batch.queries.is_empty() && !batch.candidates.is_empty(), "a batch has queries and candidates");
    gradients(model, batch, options, None)
}

/// The same of a batch that all `ranks` embed together: the loss and the gradient of the whole batch, the same bits on
/// each rank.
///
/// `batch` holds the micro-batches of this rank alone, which may be none; its targets are those of the whole batch, and
/// `share` says which of its rows are whose. The embeddings of all ranks are gathered, every rank takes the objective over
/// all of them and keeps the gradients of its own rows, and the gradients of parameters are summed up in one reduction.
/// This equals [`cached_gradients`] of the whole batch up to rounding.
///
/// # Panics
/// If the batch has no queries or no candidates, if micro-batches and `share` disagree, or if the encoder or the
/// objective panics.
pub fn shared_gradients<E, O>(
    model: &Contrastive<E, O>,
    batch: &Batch<E::Input>,
    share: &Share,
    ranks: &dyn Ranks,
    options: StepOptions,
) -> (StepStats, GradientsParams)
where
    E: Module + Encode + 'static,
    E::Input: Send,
    O: Module + Objective,
{
    assert!(!share.queries.is_empty() && !share.candidates.is_empty(), "a batch has queries and candidates");
    let shared = Shared { ranks, share };
    let (stats, gradients) = gradients(model, batch, options, Some(shared));
    let (gradients, loss) = shared.sum(model, gradients, stats.loss);
    (StepStats { loss, ..stats }, gradients)
}

/// The gradients of the batch, or of the rows that this rank has of a shared one.
fn gradients<E, O>(
    model: &Contrastive<E, O>,
    batch: &Batch<E::Input>,
    options: StepOptions,
    shared: Option<Shared>,
) -> (StepStats, GradientsParams)
where
    E: Module + Encode + 'static,
    E::Input: Send,
    O: Module + Objective,
{
    let jobs = jobs(&model.encoder, batch);
    let num_queries = batch.queries.len();
    let mut sum = GradientsAccumulator::new();
    let mut add = |gradients| sum.accumulate(&model.encoder, gradients);
    let recorded = |(encoder, input): (E, E::Input)| -> (Tensor<2>, Pullback) {
        match options.checkpointing {
            Checkpointing::None => encode_with_graph(&encoder, input),
            Checkpointing::Blocks => encoder.encode_by_blocks(input),
        }
    };

    let (stats, objective_gradients) = if options.recompute {
        let embeddings =
            collect(options.threads, jobs.clone(), |(encoder, input)| encoder.encode_only(input));
        let criterion = criterion(&model.objective, embeddings, num_queries, &batch.targets, shared);
        let jobs = jobs.into_iter().zip(criterion.embedding_gradients).collect();
        let replay = |(job, gradient)| {
            let (_, pullback) = recorded(job);
            pullback(gradient)
        };
        in_order(options.threads, jobs, replay, &mut add);
        (criterion.stats, criterion.gradients)
    } else {
        let (embeddings, pullbacks): (_, Vec<_>) =
            collect(options.threads, jobs, recorded).into_iter().unzip();
        let criterion = criterion(&model.objective, embeddings, num_queries, &batch.targets, shared);
        let jobs = pullbacks.into_iter().zip(criterion.embedding_gradients).collect();
        let replay = |(pullback, gradient): (Pullback, _)| pullback(gradient);
        in_order(options.threads, jobs, replay, &mut add);
        (criterion.stats, criterion.gradients)
    };
    (stats, merge(sum.grads(), objective_gradients, &model.objective))
}

/// Each micro-batch with an encoder of its own: parameters shared between two graphs would join them
/// to one, whose lock lets a single thread work.
fn jobs<E: Module + Encode>(encoder: &E, batch: &Batch<E::Input>) -> Vec<(E, E::Input)> {
    let encoder = encoder.valid();
    batch.queries.iter().chain(&batch.candidates).map(|input| (encoder.clone(), input.clone())).collect()
}

fn collect<T: Send, R: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut results = Vec::with_capacity(items.len());
    in_order(threads, items, work, |result| results.push(result));
    results
}

struct Criterion {
    stats: StepStats,
    /// Of the objective's parameters.
    gradients: GradientsParams,
    /// For each micro-batch, `[batch, dim]`.
    embedding_gradients: Vec<Tensor<2>>,
}

/// Takes the objective over the embeddings of all micro-batches, the first `num_queries` of which are queries, and of
/// those of other ranks where the batch is shared.
fn criterion<O: Module + Objective>(
    objective: &O,
    mut embeddings: Vec<Tensor<2>>,
    num_queries: usize,
    targets: &Targets,
    shared: Option<Shared>,
) -> Criterion {
    let mut rows: Vec<usize> = embeddings.iter().map(|embedding| embedding.dims()[0]).collect();
    let candidates = embeddings.split_off(num_queries);
    let whole = match shared {
        Some(shared) => shared.gather(embeddings, candidates, &targets.positive.device()),
        None => [embeddings, candidates].map(|parts| Tensor::cat(parts, 0)),
    };
    let [queries, candidates] = whole.map(|rows| rows.autodiff().require_grad());
    let objective = objective.valid().train();
    let loss = objective.loss(queries.clone(), candidates.clone(), targets);
    let mut grads = loss.value.backward();

    let candidate_rows = rows.split_off(num_queries);
    let stats = StepStats {
        loss: loss.value.inner(),
        stats: loss.stats.into_iter().map(|(name, value)| (name, value.inner())).collect(),
        samples: queries.dims()[0],
    };
    let mut embedding_gradients = Vec::new();
    for (side, leaf, rows) in [(Side::Queries, queries, rows), (Side::Candidates, candidates, candidate_rows)]
    {
        if rows.is_empty() {
            continue;
        }
        // An objective that ignores a side leaves no gradient there.
        let gradient = leaf.grad_remove(&mut grads).unwrap_or_else(|| leaf.inner().zeros_like());
        let own = match shared {
            Some(shared) => shared.own(gradient, side),
            None => gradient,
        };
        embedding_gradients.extend(own.split_with_sizes(rows, 0));
    }
    Criterion { stats, gradients: GradientsParams::from_grads(grads, &objective), embedding_gradients }
}
