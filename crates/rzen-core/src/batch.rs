//! What a training step works on.

use burn::tensor::{Bool, Int, Tensor};

/// The inputs of one step, cut into micro-batches, and what belongs to what.
///
/// Rows are counted through the micro-batches in order: query `i` is the `i`-th row over all of
/// [`queries`](Batch::queries), candidate `j` the `j`-th over all of [`candidates`](Batch::candidates).
#[derive(Clone, Debug)]
pub struct Batch<I> {
    /// Micro-batches of queries, in order.
    pub queries: Vec<I>,
    /// Micro-batches of candidates, in order: the positives first, then hard negatives.
    pub candidates: Vec<I>,
    /// Which candidate answers which query, and how to treat the rest.
    pub targets: Targets,
}

/// Which candidate answers which query.
#[derive(Clone, Debug)]
pub struct Targets {
    /// `[queries]`: the row of each query's positive among the candidates.
    pub positive: Tensor<1, Int>,
    /// `[queries]`: the temperature that each query takes.
    pub task: Tensor<1, Int>,
    /// `[candidates]`: the query that a hard negative belongs to, or -1 where every query may use
    /// the candidate as a negative. `None` means -1 throughout.
    pub owner: Option<Tensor<1, Int>>,
    /// `[queries, candidates]`: true where the candidate must not be a negative of the query, such as another
    /// positive of its row. `None` means false throughout.
    pub exempt: Option<Tensor<2, Bool>>,
}

/// The value of an objective and what there is to know about it.
#[derive(Clone, Debug)]
pub struct Loss {
    /// `[1]`: the mean over the queries.
    pub value: Tensor<1>,
    /// Named scalars `[1]`; they stay on the device until somebody reads them.
    pub stats: Vec<(String, Tensor<1>)>,
}
