//! How far a soup is from the weighted sum of its ingredients' updates, without forming either.

use nalgebra::DMatrix;

use crate::LowRank;

/// What f32 factors leave of parts that cancel, squared: a relative error below 1e-7 reads 0.
const CANCELLED: f64 = 1e-14;

/// Squared Frobenius norms.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deviation {
    /// Of the difference.
    difference: f64,
    /// Of the weighted sum.
    wanted: f64,
}

impl Deviation {
    /// Compares `found` with the sum of `wanted`, each an update and what it is multiplied with.
    ///
    /// With all factors side by side in `B` and `A`, an update of coefficients `c` has the squared norm
    /// `cᵀ (BᵀB ∘ AAᵀ) c`, a matter of rank × rank.
    pub(crate) fn between(found: (f64, &LowRank), wanted: &[(f64, &LowRank)]) -> Deviation {
        let blocks: Vec<_> = wanted.iter().copied().chain([found]).collect();
        let [out, input] = found.1.shape();
        let rank = blocks.iter().map(|(_, update)| update.rank()).sum();
        let (mut a, mut b) = (DMatrix::<f64>::zeros(rank, input), DMatrix::<f64>::zeros(out, rank));
        let mut at = 0;
        for (factor, update) in &blocks {
            a.rows_mut(at, update.rank()).copy_from(&update.a().to_f64());
            b.columns_mut(at, update.rank()).copy_from(&(update.b().to_f64() * *factor));
            at += update.rank();
        }
        let gram = b.tr_mul(&b).component_mul(&(&a * a.transpose()));

        let last = at - found.1.rank();
        let sign = |i: usize| if i < last { 1.0 } else { -1.0 };
        let norm = |count: usize| -> f64 {
            let entries = (0..count).flat_map(|i| (0..count).map(move |j| (i, j)));
            let sum: f64 = entries.map(|(i, j)| sign(i) * sign(j) * gram[(i, j)]).sum();
            let parts: f64 = (0..count).map(|i| gram[(i, i)]).sum();
            if sum > CANCELLED * parts { sum } else { 0.0 }
        };
        Deviation { difference: norm(at), wanted: norm(last) }
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
