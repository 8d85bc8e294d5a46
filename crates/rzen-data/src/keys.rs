//! What decides which rows come into one batch.

use std::hash::{DefaultHasher, Hash, Hasher};

use rzen_core::Sample;

/// Hashes of what a row shares with others. Only their equality means anything; their values may differ between builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowKeys {
    /// Of its query. Rows of one query stay apart: the positive of one would count as a wrong answer to the other.
    pub query: u64,
    /// Of its positive. Rows of one positive stay apart likewise.
    pub positive: u64,
    /// Of its label. Rows of one label stay apart: they are no negatives of each other and would fill the batch.
    pub label: Option<u64>,
    /// Of its group. Rows of one group come together: they are hard negatives of each other.
    pub group: Option<u64>,
}

/// The keys of a row.
pub fn row_keys(sample: &Sample) -> RowKeys {
    RowKeys {
        query: hash(&sample.query),
        positive: hash(&sample.positive),
        label: sample.label.as_ref().map(hash),
        group: sample.group.as_ref().map(hash),
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
