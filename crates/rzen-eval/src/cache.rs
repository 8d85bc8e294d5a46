//! Vectors that are computed once.

use std::collections::{HashMap, HashSet};

use rzen_core::{Embed, EmbedError, Item, Part, check_unit_vector};

use crate::EmbedProblem;

/// The vectors of one embedder, kept in memory by item (content and instruction).
///
/// Tasks that share items embed them once. Begin a new cache when the weights change.
#[derive(Debug, Default)]
pub struct EmbeddingCache {
    places: HashMap<Item, usize>,
    vectors: Vec<f32>,
    dim: usize,
}

impl EmbeddingCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Items held.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Numbers in a vector; 0 as long as none is held.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The vector of an item, if it is held.
    pub fn get(&self, item: &Item) -> Option<&[f32]> {
        self.places.get(item).map(|place| &self.vectors[place * self.dim..][..self.dim])
    }

    /// Embeds those of `items` that are not held, `batch_size` at a time.
    ///
    /// Items of like size share a batch, the largest first, so that padding is short and memory
    /// runs out early or never. `progress` is told the items embedded and those to embed in all.
    ///
    /// # Errors
    /// The place in `items` at which embedding stopped, and why; earlier batches stay held.
    ///
    /// # Panics
    /// If `batch_size` is 0.
    pub(crate) fn embed(
        &mut self,
        embedder: &dyn Embed,
        items: &[&Item],
        batch_size: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), (usize, EmbedProblem)> {
        let mut seen = HashSet::new();
        let mut missing: Vec<usize> = (0..items.len())
            .filter(|i| !self.places.contains_key(items[*i]) && seen.insert(items[*i]))
            .collect();
        missing.sort_by_key(|i| std::cmp::Reverse(item_size(items[*i])));
        for (batch, places) in missing.chunks(batch_size).enumerate() {
            let inputs: Vec<Item> = places.iter().map(|i| items[*i].clone()).collect();
            let vectors = embedder.embed(&inputs).map_err(|error| (places[item_of(&error)], error.into()))?;
            if vectors.len() != inputs.len() {
                let problem = EmbedProblem::Count { found: vectors.len(), expected: inputs.len() };
                return Err((places[0], problem));
            }
            for ((place, item), vector) in places.iter().zip(inputs).zip(vectors) {
                self.insert(item, &vector).map_err(|problem| (*place, problem))?;
            }
            progress((batch * batch_size + places.len()).min(missing.len()), missing.len());
        }
        Ok(())
    }

    fn insert(&mut self, item: Item, vector: &[f32]) -> Result<(), EmbedProblem> {
        check_unit_vector(vector).map_err(EmbedProblem::Vector)?;
        if self.is_empty() {
            self.dim = vector.len();
        }
        if vector.len() != self.dim {
            return Err(EmbedProblem::Dim { found: vector.len(), expected: self.dim });
        }
        self.places.insert(item, self.places.len());
        self.vectors.extend_from_slice(vector);
        Ok(())
    }
}

/// The item of a batch that an embedder complains about; the first where it names none.
fn item_of(error: &EmbedError) -> usize {
    match error {
        EmbedError::Item { index, .. } | EmbedError::Vector { index, .. } => *index,
        _ => 0,
    }
}

/// Clips, other media and letters of an item: what its cost grows with, costliest first.
pub fn item_size(item: &Item) -> (usize, usize, usize) {
    let mut size = (0, 0, 0);
    for part in &item.content {
        match part {
            Part::Video(_) => size.0 += 1,
            Part::Image(_) | Part::Document { .. } => size.1 += 1,
            Part::Text(text) => size.2 += text.len(),
        }
    }
    size.2 += item.instruction.as_ref().map_or(0, String::len);
    size
}
