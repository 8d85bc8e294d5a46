//! The files of an index that are nearest to queries.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use rzen_eval::Rows;

use super::catalog::{Catalog, Entry};
use super::find::Kind;
use crate::files::hex;
use crate::vectors::{Key, VectorStore};

/// Vectors that are in memory at a time.
const BLOCK: usize = 16_384;

/// Something that was found.
#[derive(Clone, Debug)]
pub struct Hit<'a> {
    /// The key of its vector.
    pub key: Key,
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

/// What can be found of a catalog: each vector once, with the places that it belongs to.
struct Listed {
    keys: Vec<Key>,
    /// Of each key the entries, and the pages of documents.
    places: Vec<Vec<(usize, Option<u32>)>>,
}

impl Listed {
    fn of(catalog: &Catalog, wanted: impl Fn(&Entry) -> bool) -> Self {
        let mut listed = Listed { keys: Vec::new(), places: Vec::new() };
        let mut known: HashMap<Key, usize> = HashMap::new();
        for (at, entry) in catalog.entries.iter().enumerate().filter(|(_, entry)| wanted(entry)) {
            for (key, page) in entry.vectors.iter().zip(1..).filter_map(|(key, page)| Some(((*key)?, page))) {
                let page = (entry.kind == Kind::Document).then_some(page);
                let row = *known.entry(key).or_insert(listed.keys.len());
                if row == listed.keys.len() {
                    listed.keys.push(key);
                    listed.places.push(Vec::new());
                }
                listed.places[row].push((at, page));
            }
        }
        listed
    }

    /// Refuses a store that lacks some of the vectors.
    fn check(&self, store: &VectorStore) -> Result<()> {
        let missing = self.keys.iter().filter(|key| !store.contains(key)).count();
        ensure!(
            missing == 0,
            "{} lacks {missing} of {} vectors that the index names; run `rzen index` again",
            store.path().display(),
            self.keys.len()
        );
        Ok(())
    }

    /// A row that was found, with those of its places that are wanted.
    fn hit<'a>(
        &self,
        catalog: &'a Catalog,
        (row, score): (usize, f32),
        wanted: impl Fn(&Entry) -> bool,
    ) -> Hit<'a> {
        let place =
            |(entry, page): &(usize, Option<u32>)| Place { entry: &catalog.entries[*entry], page: *page };
        let places = self.places[row].iter().map(place).filter(|place| wanted(place.entry)).collect();
        Hit { key: self.keys[row], score, places }
    }
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
    let listed = Listed::of(catalog, &wanted);
    listed.check(store)?;
    let mut best: Vec<Vec<(usize, f32)>> = vec![Vec::new(); queries.len()];
    let Some(dim) = store.dim() else { return Ok(vec![Vec::new(); queries.len()]) };
    let queries: Vec<f32> = queries.iter().flatten().copied().collect();
    for (place, block) in listed.keys.chunks(BLOCK).enumerate() {
        let rows = store.rows(block)?;
        let found = rzen_eval::search(Rows::new(&queries, dim), Rows::new(&rows, dim), top, |_, _| true);
        for (best, found) in best.iter_mut().zip(found) {
            best.extend(found.into_iter().map(|(at, score)| (place * BLOCK + at, score)));
            // Stable: of equal ones those of the earlier file come first.
            best.sort_by(|one, other| other.1.total_cmp(&one.1));
            best.truncate(top);
        }
    }
    let hit = |found: &(usize, f32)| listed.hit(catalog, *found, &wanted);
    Ok(best.iter().map(|best| best.iter().map(hit).collect()).collect())
}

/// An index whose vectors are in memory.
pub struct LoadedIndex {
    catalog: Catalog,
    listed: Listed,
    rows: Vec<f32>,
    dim: Option<usize>,
}

impl LoadedIndex {
    /// Reads the vectors of a catalog.
    ///
    /// # Errors
    /// If the store lacks some of them, or can't be read.
    pub fn open(catalog: Catalog, store: &mut VectorStore) -> Result<Self> {
        let listed = Listed::of(&catalog, |_| true);
        listed.check(store)?;
        let rows = store.rows(&listed.keys)?;
        Ok(LoadedIndex { catalog, listed, rows, dim: store.dim() })
    }

    /// The same as [`search`].
    ///
    /// # Panics
    /// If the query has another size than the vectors.
    pub fn search(&self, query: &[f32], top: usize, wanted: impl Fn(&Entry) -> bool + Sync) -> Vec<Hit<'_>> {
        let Some(dim) = self.dim else { return Vec::new() };
        let allowed = |_: usize, row: usize| {
            self.listed.places[row].iter().any(|(entry, _)| wanted(&self.catalog.entries[*entry]))
        };
        let found = rzen_eval::search(Rows::new(query, dim), Rows::new(&self.rows, dim), top, allowed);
        found.into_iter().flatten().map(|found| self.listed.hit(&self.catalog, found, &wanted)).collect()
    }

    /// Where the item lies whose vector has this key, in hexadecimal digits.
    pub fn places(&self, key: &str) -> Vec<Place<'_>> {
        let byte = |at: usize| u8::from_str_radix(key.get(2 * at..2 * at + 2)?, 16).ok();
        let wanted: Vec<u8> = (0..size_of::<Key>()).filter_map(byte).collect();
        let is_whole = hex(&wanted) == key;
        let row = self.listed.keys.iter().position(|known| is_whole && known[..] == wanted);
        row.map_or(Vec::new(), |row| self.listed.hit(&self.catalog, (row, 0.0), |_| true).places)
    }

    /// Items that can be found.
    pub fn len(&self) -> usize {
        self.listed.keys.len()
    }

    /// True if nothing can be found.
    pub fn is_empty(&self) -> bool {
        self.listed.keys.is_empty()
    }
}
