//! The best few of many, kept while all pass by.

use std::cmp::Ordering;

/// The best entries so far, and up to as many more.
pub(crate) struct Best<T> {
    k: usize,
    entries: Vec<T>,
    score: fn(&T) -> f32,
    /// Best first; no two entries are equal.
    order: fn(&T, &T) -> Ordering,
    least: f32,
}

impl<T> Best<T> {
    /// Keeps `k` entries by `order`, which goes by falling `score` first.
    pub(crate) fn new(k: usize, score: fn(&T) -> f32, order: fn(&T, &T) -> Ordering) -> Self {
        // Nothing reaches infinity: without places nothing is asked for.
        let least = if k == 0 { f32::INFINITY } else { f32::NEG_INFINITY };
        Best { k, entries: Vec::new(), score, order, least }
    }

    /// What a score must reach to be among the best; what only reaches it may still be left out.
    pub(crate) fn least(&self) -> f32 {
        self.least
    }

    /// Takes an entry whose score reaches [`least`](Self::least).
    pub(crate) fn push(&mut self, entry: T) {
        self.entries.push(entry);
        if self.entries.len() >= self.k.saturating_mul(2) {
            self.shorten();
        }
    }

    /// Keeps the best `k`.
    fn shorten(&mut self) {
        if self.entries.len() > self.k && self.k > 0 {
            self.entries.select_nth_unstable_by(self.k - 1, self.order);
            self.entries.truncate(self.k);
        }
        if self.k > 0 && self.entries.len() == self.k {
            self.least = (self.score)(&self.entries[self.k - 1]);
        }
    }

    /// The best, in their order.
    pub(crate) fn ranked(mut self) -> Vec<T> {
        self.entries.sort_unstable_by(self.order);
        self.entries.truncate(self.k);
        self.entries
    }
}
