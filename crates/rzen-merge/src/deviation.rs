//! How far a soup is from the weighted sum of its ingredients' updates, without forming either.

use crate::LowRank;
use crate::product::{Threads, View, product};
use crate::spectrum::CANCELLED;

/// Squared Frobenius norms.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deviation {
    /// Of the difference.
    pub difference: f64,
    /// Of the weighted sum.
    pub wanted: f64,
}

impl Deviation {
    /// Compares `found` with the sum of `wanted`, each an update and what it is multiplied with.
    pub(crate) fn between(found: (f64, &LowRank), wanted: &[(f64, &LowRank)]) -> Deviation {
        let blocks: Vec<_> =
            wanted.iter().map(|(factor, update)| (*factor, *update)).chain([(-found.0, found.1)]).collect();
        let products = Products::new(&blocks);
        let last = products.rank - found.1.rank();
        Deviation { difference: products.square(0..products.rank), wanted: products.square(0..last) }
    }

    pub(crate) fn add(&mut self, other: Deviation) {
        self.difference += other.difference;
        self.wanted += other.wanted;
    }

    /// `‖found − wanted‖ / ‖wanted‖`; where nothing is wanted, 0 if nothing was found, else infinite.
    pub(crate) fn relative(self) -> f64 {
        if self.difference == 0.0 { 0.0 } else { (self.difference / self.wanted).sqrt() }
    }
}

/// Inner products of the rank-1 parts of some updates.
///
/// With all factors side by side in `B` and `A`, an update of coefficients `c` has the squared norm `cᵀ (BᵀB ∘ AAᵀ) c`, a matter of
/// rank × rank.
pub(crate) struct Products {
    rank: usize,
    entries: Vec<f64>,
}

impl Products {
    /// Of updates, each with what it is multiplied with.
    pub(crate) fn new(updates: &[(f64, &LowRank)]) -> Products {
        let [out, input] = updates[0].1.shape();
        let rank = updates.iter().map(|(_, update)| update.rank()).sum();
        let mut a = Vec::with_capacity(rank * input);
        // Column by column, so that updates follow one another.
        let mut b = Vec::with_capacity(rank * out);
        for (factor, update) in updates {
            let r = update.rank();
            a.extend(update.a().data().iter().map(|x| factor * f64::from(*x)));
            let columns = (0..r).flat_map(|i| (0..out).map(move |row| row * r + i));
            b.extend(columns.map(|at| f64::from(update.b().data()[at])));
        }
        let square = |data: &[f64], long: usize| {
            let view = View::new(data, rank, long);
            product(view, view.transposed(), 1.0, Threads::All)
        };
        let mut entries = square(&a, input);
        entries.iter_mut().zip(square(&b, out)).for_each(|(x, y)| *x *= y);
        Products { rank, entries }
    }

    /// The squared norm of the sum of these parts; 0 where they cancel but for rounding.
    fn square(&self, parts: std::ops::Range<usize>) -> f64 {
        let sum = self.inner(parts.clone(), parts.clone());
        let each: f64 = parts.map(|i| self.entries[i * self.rank + i]).sum();
        if sum > CANCELLED * each { sum } else { 0.0 }
    }

    /// The inner product of two sums of parts.
    pub(crate) fn inner(&self, left: std::ops::Range<usize>, right: std::ops::Range<usize>) -> f64 {
        left.map(|i| self.entries[i * self.rank..][right.clone()].iter().sum::<f64>()).sum()
    }
}
