//! What can be wrong with a task, an embedder or a results file.
//!
//! A message doesn't repeat its source: print the chain.

use std::io;
use std::path::PathBuf;

use rzen_core::EmbedError;

/// Why a task could not be scored or results not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A task without queries has no score.
    #[error("task `{task}` has no queries; check its query file or leave the task out")]
    NoQueries {
        /// The task.
        task: String,
    },
    /// An identifier stands twice in a list.
    #[error("task `{task}` has two {what} with the id `{id}`; give each an id of its own")]
    DuplicateId {
        /// The task.
        task: String,
        /// `queries` or `candidates`.
        what: &'static str,
        /// The identifier.
        id: String,
    },
    /// One query can't be ranked.
    #[error("query `{query}` of task `{task}` can't be ranked")]
    Query {
        /// The task.
        task: String,
        /// The id of the query.
        query: String,
        /// What is wrong with it.
        #[source]
        problem: QueryProblem,
    },
    /// An item of a task can't be embedded.
    #[error("can't embed {item} of task `{task}`")]
    Embed {
        /// The task.
        task: String,
        /// The query or candidate, by id.
        item: String,
        /// What went wrong.
        #[source]
        problem: EmbedProblem,
    },
    /// The vectors of candidates can't be read.
    #[error("can't read the vectors of the candidates of task `{task}`")]
    Read {
        /// The task.
        task: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Two tasks of one run have the same name.
    #[error("the results already hold a task `{task}`; task names must differ")]
    DuplicateTask {
        /// The task.
        task: String,
    },
    /// Two runs can't be compared query by query.
    #[error(
        "can't pair {first} scores with {second}: both runs need the same queries in the same order, and at least one"
    )]
    Unpaired {
        /// Scores of the first run.
        first: usize,
        /// Scores of the second run.
        second: usize,
    },
    /// The results could not be written.
    #[error("can't write {}; nothing is left half-written: is there room, and may its folder be written?", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryProblem {
    /// No candidate can ever be right.
    #[error("it has no relevant candidate; give one a grade above 0 or remove the query")]
    NothingRelevant,
    /// Nothing to rank.
    #[error("it has no candidates; list at least one or rank the whole pool")]
    NoCandidates,
    /// An index past the end.
    #[error("it names candidate {candidate}, but the pool has {pool} (counted from 0)")]
    OutOfPool {
        /// The index.
        candidate: usize,
        /// The size of the pool.
        pool: usize,
    },
    /// A candidate would be ranked twice.
    #[error("it lists candidate {candidate} twice; list each once")]
    Repeated {
        /// The index.
        candidate: usize,
    },
    /// The answer is not among what is ranked.
    #[error(
        "it calls candidate {candidate} relevant, but it is not among the candidates ranked for this query"
    )]
    NotRanked {
        /// The index.
        candidate: usize,
    },
    /// One is excluded from a list.
    #[error("it lists its candidates and excludes candidate {candidate}; leave that out of the list")]
    Excluded {
        /// The index.
        candidate: usize,
    },
    /// Not a grade.
    #[error("it gives candidate {candidate} the grade {grade}; grades go from 0 (not relevant) to 1000")]
    Grade {
        /// The index.
        candidate: usize,
        /// The grade.
        grade: f64,
    },
    /// Not a score.
    #[error(
        "it has the score NaN for candidate {candidate}; the vectors hold numbers that can't be compared"
    )]
    ScoreIsNan {
        /// The index.
        candidate: usize,
    },
}

/// What is wrong with the vectors of an embedder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedProblem {
    /// The embedder gave up.
    #[error(transparent)]
    Failed(#[from] EmbedError),
    /// Too many or too few vectors.
    #[error("the embedder returned {found} vectors for {expected} items")]
    Count {
        /// Vectors returned.
        found: usize,
        /// Items given.
        expected: usize,
    },
    /// A vector of another size.
    #[error("the vector has {found} numbers instead of {expected}; use a cache of its own for each embedder")]
    Dim {
        /// Its size.
        found: usize,
        /// The size of the others.
        expected: usize,
    },
    /// A vector that must not be scored.
    #[error("the vector {0}")]
    Vector(String),
}
