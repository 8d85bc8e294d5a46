//! Embedders whose scores are known.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use rzen_core::{Embed, EmbedError, Item, Part};

/// A vector by item; counts how often it is asked.
pub struct Toy<F> {
    pub vector: F,
    pub items: AtomicUsize,
    pub calls: AtomicUsize,
}

impl<F: Fn(&Item) -> Vec<f32>> Toy<F> {
    pub fn new(vector: F) -> Self {
        Toy { vector, items: AtomicUsize::new(0), calls: AtomicUsize::new(0) }
    }
}

impl<F: Fn(&Item) -> Vec<f32> + Send + Sync> Embed for Toy<F> {
    fn dim(&self) -> usize {
        (self.vector)(&Item::text("")).len()
    }

    fn embed(&self, items: &[Item]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.items.fetch_add(items.len(), Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(index) = items.iter().position(|item| text(item) == "broken") {
            return Err(EmbedError::Item {
                index,
                count: items.len(),
                source: "broken.png is cut off".into(),
            });
        }
        Ok(items.iter().map(&self.vector).collect())
    }
}

pub fn text(item: &Item) -> &str {
    match &item.content[..] {
        [Part::Text(text)] => text,
        other => panic!("the toy reads texts, not {other:?}"),
    }
}

/// A direction that depends on `seed` alone.
pub fn direction(seed: impl Hash, dim: usize) -> Vec<f32> {
    let number = |i: usize| {
        let mut hasher = DefaultHasher::new();
        (&seed, i).hash(&mut hasher);
        (hasher.finish() >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    unit((0..dim).map(number).collect())
}

pub fn unit(vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.into_iter().map(|x| x / length).collect()
}
