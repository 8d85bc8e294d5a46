//! What makes two rows of a batch false negatives of each other.

use std::hash::{DefaultHasher, Hash, Hasher};

use rzen_core::{Item, Sample};

/// Hashes of a row's query and of its positive. Rows that share either must not stand in one batch:
/// the positive of one would count as a wrong answer to the other.
pub type RowKeys = [u64; 2];

/// The keys of a row. Only their equality means anything; their values may differ between builds.
pub fn row_keys(sample: &Sample) -> RowKeys {
    [hash(&sample.query), hash(&sample.positive)]
}

fn hash(item: &Item) -> u64 {
    let mut hasher = DefaultHasher::new();
    item.hash(&mut hasher);
    hasher.finish()
}
