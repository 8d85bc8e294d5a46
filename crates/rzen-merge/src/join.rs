//! The updates of one module into one.

use std::collections::BTreeMap;

use crate::blend::{Blend, Portion};
use crate::deviation::{Deviation, Products};
use crate::fit::some;
use crate::record::ModuleRecord;
use crate::spectrum::{Sum, nearest_dense};
use crate::task_arithmetic::{dare_linear, linear, magnitude_prune, ties};
use crate::{Cut, LowRank, Matrix, Method, SoupSettings};

/// The update of a module in the adapter that comes out.
pub(crate) struct Joined {
    pub update: LowRank,
    /// From the weighted sum of the updates.
    deviation: Deviation,
    /// The squared singular values that the rank kept, and all of them.
    energy: (f64, f64),
    /// Whether an arc was asked for and there is none, since the updates point in opposite directions.
    opposite: bool,
}

/// Joins the updates of a module into one of `rank`, which the adapter's `scaling` multiplies; `total` is the sum of all
/// weights, also of adapters that lack the module.
pub(crate) fn join(
    settings: SoupSettings,
    rank: usize,
    total: f64,
    scaling: f64,
    portions: &[Portion],
) -> Joined {
    let wanted: Vec<(f64, &LowRank)> =
        portions.iter().map(|portion| (portion.factor(), &portion.update)).collect();
    let against_sum = |update: &LowRank| Deviation::between((scaling, update), &wanted);
    match (settings.method, settings.cut) {
        // Nothing is lost but what f32 rounds off.
        (Method::Exact, Cut::Nothing) => Joined {
            update: side_by_side(&wanted, rank),
            deviation: Deviation::default(),
            energy: (1.0, 1.0),
            opposite: false,
        },
        (Method::Exact, _) => {
            let (update, kept, all) = cut(&wanted, rank);
            // Between an update and its nearest lie the singular values that were left out.
            let lost = if kept < all * (1.0 - 1e-14) { all - kept } else { 0.0 };
            let deviation = Deviation { difference: lost, wanted: all };
            Joined { update, deviation, energy: (kept, all), opposite: false }
        }
        (method @ Method::Slerp, cut_to) => {
            let (terms, opposite) = low_rank_terms(method, total, portions);
            let (update, kept, all) = match cut_to {
                Cut::Nothing => (side_by_side(&terms, rank), 1.0, 1.0),
                _ => cut(&terms, rank),
            };
            Joined { deviation: against_sum(&update), update, energy: (kept, all), opposite }
        }
        (method @ (Method::Ties { .. } | Method::Dare { .. }), _) => {
            let blend = blend(method, total, portions);
            let matrix = blend.matrix();
            let all = matrix.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            let (update, kept) = nearest_dense(&matrix, blend.shape(), rank);
            Joined { deviation: against_sum(&update), update, energy: (kept, all), opposite: false }
        }
        (method, _) => {
            let update = of_factors(method, portions);
            Joined { deviation: against_sum(&update), update, energy: (1.0, 1.0), opposite: false }
        }
    }
}

/// What a method that works entry by entry makes of the updates.
pub(crate) fn blend(method: Method, total: f64, portions: &[Portion]) -> Blend<'_> {
    match method {
        Method::Ties { density } => Blend::ties(portions, density, total),
        Method::Dare { density, .. } => Blend::dare(portions, density),
        other => unreachable!("{other:?} does not work entry by entry"),
    }
}

/// The updates whose sum the method gives, each with what it is multiplied with, and whether they are opposite where the method
/// asks for an arc.
pub(crate) fn low_rank_terms(
    method: Method,
    total: f64,
    portions: &[Portion],
) -> (Vec<(f64, &LowRank)>, bool) {
    let straight = || portions.iter().map(|portion| portion.weight).collect();
    let (shares, opposite) = match (method, portions) {
        (Method::Slerp, [first, second]) => match path(first, second, total) {
            Path::Arc(shares) => (shares.to_vec(), false),
            Path::Straight => (straight(), false),
            Path::Opposite => (straight(), true),
        },
        _ => (straight(), false),
    };
    let terms = portions.iter().zip(shares).map(|(one, share)| (share * one.scaling, &one.update));
    (terms.collect(), opposite)
}

/// The way from one update to another.
enum Path {
    /// Along the sphere; what to multiply both with.
    Arc([f64; 2]),
    /// They are parallel, or one of them is zero.
    Straight,
    /// No arc leads from one to the other more than all others do.
    Opposite,
}

/// Sines of angles below this are rounding: directions are parallel.
const PARALLEL: f64 = 1e-6;

/// Angles nearer to half a turn than this have no arc: where it leads lies in what the updates differ by besides their sign, of which the
/// arc would be a hundredfold. What bf16 rounds off is about as much.
const OPPOSITE: f64 = 0.01;

fn path(first: &Portion, second: &Portion, total: f64) -> Path {
    let products = Products::new(&[(first.scaling, &first.update), (second.scaling, &second.update)]);
    let [one, two] =
        [0..first.update.rank(), first.update.rank()..first.update.rank() + second.update.rank()];
    let lengths = [&one, &two].map(|part| products.inner(part.clone(), part.clone()).max(0.0).sqrt());
    if total == 0.0 || lengths.contains(&0.0) {
        return Path::Straight;
    }
    let cosine = (products.inner(one, two) / (lengths[0] * lengths[1])).clamp(-1.0, 1.0);
    let angle = cosine.acos();
    if std::f64::consts::PI - angle < OPPOSITE {
        return Path::Opposite;
    }
    if angle.sin() < PARALLEL {
        return Path::Straight;
    }
    let t = second.weight / total;
    let length = total * ((1.0 - t) * lengths[0] + t * lengths[1]);
    let part = |share: f64, own: f64| length * (share * angle).sin() / angle.sin() / own;
    Path::Arc([part(1.0 - t, lengths[0]), part(t, lengths[1])])
}

/// The exact sum: `A` stacked with the factors in it, `B` side by side, padded with zeros to `rank`.
fn side_by_side(terms: &[(f64, &LowRank)], rank: usize) -> LowRank {
    let [out, input] = terms[0].1.shape();
    let mut a = Vec::with_capacity(rank * input);
    for (factor, update) in terms {
        a.extend(update.a().data().iter().map(|x| (factor * f64::from(*x)) as f32));
    }
    a.resize(rank * input, 0.0);
    let mut b = vec![0.0; out * rank];
    let mut at = 0;
    for (_, update) in terms {
        let r = update.rank();
        for (row, from) in b.chunks_exact_mut(rank).zip(update.b().data().chunks_exact(r)) {
            row[at..at + r].copy_from_slice(from);
        }
        at += r;
    }
    LowRank::new(Matrix::new(rank, input, a), Matrix::new(out, rank, b))
}

/// The sum's nearest update of `rank`, and the squared singular values that it kept and had.
fn cut(terms: &[(f64, &LowRank)], rank: usize) -> (LowRank, f64, f64) {
    let sum = Sum::new(terms);
    let squares = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
    (sum.nearest(rank), squares(&sum.values()[..rank.min(sum.values().len())]), squares(sum.values()))
}

/// Joins `A` with `A` and `B` with `B`, as `peft` does.
fn of_factors(method: Method, portions: &[Portion]) -> LowRank {
    let factors: Vec<f64> = match method {
        Method::MeanAb => portions.iter().map(|portion| portion.weight).collect(),
        _ => portions.iter().map(|portion| portion.factor().sqrt()).collect(),
    };
    let mut random: Vec<_> = portions.iter().map(|portion| portion.random).collect();
    let mut one = |factor: fn(&LowRank) -> &Matrix| {
        let tensors: Vec<&[f32]> = portions.iter().map(|portion| factor(&portion.update).data()).collect();
        let data = match method {
            Method::PeftTies { density } => ties(&tensors, &factors, density),
            Method::PeftMagnitudePrune { density } => magnitude_prune(&tensors, &factors, density),
            Method::PeftDareLinear { density, .. } => {
                let masks = random.iter_mut().zip(&tensors).map(|(random, x)| random.mask(x.len(), density));
                dare_linear(&tensors, &factors, &masks.collect::<Vec<_>>(), density)
            }
            _ => linear(&tensors, &factors),
        };
        let shape = factor(&portions[0].update);
        Matrix::new(shape.rows(), shape.cols(), data)
    };
    let a = one(LowRank::a);
    LowRank::new(a, one(LowRank::b))
}

/// How modules came out, and all of them together.
#[derive(Default)]
pub(crate) struct Tally {
    pub modules: BTreeMap<String, ModuleRecord>,
    /// Modules of which [`Joined::opposite`] is true.
    opposite: Vec<String>,
    deviation: Deviation,
    rounding: Option<Deviation>,
    kept: f64,
    all: f64,
}

impl Tally {
    pub(crate) fn add(&mut self, module: &str, joined: &Joined) {
        self.put(module, joined.deviation, joined.energy);
        if joined.opposite {
            self.opposite.push(module.into());
        }
    }

    /// What is to be noted.
    pub(crate) fn notes(&self) -> Vec<String> {
        let note = || {
            format!(
                "slerp has no arc between updates of opposite directions; they were added as exact does in {}",
                some(self.opposite.iter())
            )
        };
        if self.opposite.is_empty() { Vec::new() } else { vec![note()] }
    }

    /// A module whose update kept its full rank, at this squared distance from the weighted sum, and the square of that.
    pub(crate) fn add_whole(&mut self, module: &str, difference: f64, wanted: f64) {
        self.put(module, Deviation { difference, wanted }, (1.0, 1.0));
    }

    /// How far the module's merged weight is from the sum of weight and update, and the update's length.
    pub(crate) fn round(&mut self, module: &str, rounding: Deviation) {
        self.rounding.get_or_insert_default().add(rounding);
        let module = self.modules.get_mut(module).expect("it was added before");
        module.rounding_error = finite(rounding.relative());
    }

    fn put(&mut self, module: &str, deviation: Deviation, (kept, all): (f64, f64)) {
        self.deviation.add(deviation);
        self.kept += kept;
        self.all += all;
        let relative_error = finite(deviation.relative());
        let record = ModuleRecord { relative_error, rounding_error: None, kept_energy: share(kept, all) };
        self.modules.insert(module.into(), record);
    }

    pub(crate) fn relative_error(&self) -> Option<f64> {
        finite(self.deviation.relative())
    }

    pub(crate) fn rounding_error(&self) -> Option<f64> {
        finite(self.rounding?.relative())
    }

    pub(crate) fn kept_energy(&self) -> f64 {
        share(self.kept, self.all)
    }
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

/// All of nothing is kept.
fn share(kept: f64, all: f64) -> f64 {
    if all > 0.0 { (kept / all).min(1.0) } else { 1.0 }
}
