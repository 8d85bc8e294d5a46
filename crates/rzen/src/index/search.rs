//! The files of an index that are nearest to queries.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use rzen_eval::Rows;

use super::catalog::{Catalog, Entry};
use super::find::Kind;
use crate::vectors::{Key, VectorStore};

/// Vectors that are in memory at a time.
const BLOCK: usize = 16_384;

/// Something that was found.
#[derive(Clone, Debug)]
pub struct Hit<'a> {
    /// The cosine of the angle to the query.
    pub score: f32,
    /// Where it is; several places hold the same bytes.
    pub places: Vec<Place<'a>>,
}

/// A file, or a page of one.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The file.
    pub entry: &'a Entry,
    /// The page of a document, counted from 1.
    pub page: Option<u32>,
}

/// The `top` best hits of each query, best first, of those that `wanted` says. What is there several times is one hit.
///
/// # Errors
/// If the store lacks vectors of the catalog, or can't be read.
///
/// # Panics
/// If queries have another size than the vectors.
pub fn search<'a>(
    catalog: &'a Catalog,
    store: &mut VectorStore,
    queries: &[Vec<f32>],
    top: usize,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<Vec<Vec<Hit<'a>>>> {
    let mut keys: Vec<Key> = Vec::new();
    let mut places: HashMap<Key, Vec<Place<'a>>> = HashMap::new();
    for entry in catalog.entries.iter().filter(|entry| wanted(entry)) {
        for (key, page) in entry.vectors.iter().zip(1..).filter_map(|(key, page)| Some(((*key)?, page))) {
            let page = (entry.kind == Kind::Document).then_some(page);
            let here = places.entry(key).or_default();
            if here.is_empty() {
                keys.push(key);
            }
            here.push(Place { entry, page });
        }
    }
    let missing = keys.iter().filter(|key| !store.contains(key)).count();
    ensure!(
        missing == 0,
        "{} lacks {missing} of {} vectors that the index names; run `rzen index` again",
        store.path().display(),
        keys.len()
    );
    let mut best: Vec<Vec<(Key, f32)>> = vec![Vec::new(); queries.len()];
    let Some(dim) = store.dim() else { return Ok(vec![Vec::new(); queries.len()]) };
    let queries: Vec<f32> = queries.iter().flatten().copied().collect();
    for block in keys.chunks(BLOCK) {
        let rows = store.rows(block)?;
        let found = rzen_eval::search(Rows::new(&queries, dim), Rows::new(&rows, dim), top, |_, _| true);
        for (best, found) in best.iter_mut().zip(found) {
            best.extend(found.into_iter().map(|(at, score)| (block[at], score)));
            // Stable: of equal ones those of the earlier file come first.
            best.sort_by(|one, other| other.1.total_cmp(&one.1));
            best.truncate(top);
        }
    }
    let hit = |(key, score): &(Key, f32)| Hit { score: *score, places: places[key].clone() };
    Ok(best.iter().map(|best| best.iter().map(hit).collect()).collect())
}
