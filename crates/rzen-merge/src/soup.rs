//! Several adapters into one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nalgebra::DMatrix;

use crate::adapter::PROCESSOR;
use crate::deviation::Deviation;
use crate::task_arithmetic::{dare_linear, linear, magnitude_prune, ties};
use crate::{Adapter, AdapterConfig, LowRank, Matrix, MergeError, Method};

/// A folder and how much it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingredient {
    /// The folder.
    pub path: PathBuf,
    /// What its update is multiplied with.
    pub weight: f64,
}

impl Ingredient {
    /// Folders that count alike, `1 / n` each.
    pub fn uniform(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Vec<Ingredient> {
        let paths: Vec<PathBuf> = paths.into_iter().map(Into::into).collect();
        let weight = 1.0 / paths.len() as f64;
        paths.into_iter().map(|path| Ingredient { path, weight }).collect()
    }
}

/// What comes out of [`soup_adapters`].
#[derive(Clone, Debug)]
pub struct Soup {
    /// The adapter.
    pub adapter: Adapter,
    /// How far it is from what one wants.
    pub report: SoupReport,
}

/// `‖ΔW_soup − Σ wᵢΔWᵢ‖ / ‖Σ wᵢΔWᵢ‖` in Frobenius norms; what is below 1e-7 reads 0.
///
/// Where the sum is zero, it is 0 if the soup is zero too, and infinite otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct SoupReport {
    /// Over all modules.
    pub relative_error: f64,
    /// Over each module.
    pub per_module: BTreeMap<String, f64>,
}

/// Joins the adapters in the ingredients' folders.
///
/// The result says of itself what the first ingredient does (base model and the like), except for rank
/// and scaling, and has its `processor.json`. [`Method::Exact`] and [`Method::Svd`] take adapters of different ranks and scalings, and
/// count a module that one of them lacks as zero there.
///
/// # Errors
/// If an adapter can't be loaded, the adapters don't fit together (other modules, another base model, another
/// processor), or weights or method make no sense or lead past what f32 holds.
pub fn soup_adapters(ingredients: &[Ingredient], method: Method) -> Result<Soup, MergeError> {
    method.check()?;
    check_weights(ingredients)?;
    let adapters =
        ingredients.iter().map(|one| Adapter::load(&one.path)).collect::<Result<Vec<_>, MergeError>>()?;
    for (one, adapter) in ingredients.iter().zip(&adapters).skip(1) {
        check_origin(&adapters[0], adapter)
            .and_then(|()| check_fit(&adapters[0], adapter, method))
            .map_err(|problem| misfit(&ingredients[0], one, problem))?;
    }
    let pot = Pot { weights: ingredients.iter().map(|one| one.weight).collect(), adapters };
    pot.check_factors()?;
    pot.check_roots(method)?;
    let config = pot.config(method);
    let mut random = SplitMix(match method {
        Method::DareLinear { seed, .. } => seed,
        _ => 0,
    });
    let (mut modules, mut per_module, mut total) = (BTreeMap::new(), BTreeMap::new(), Deviation::default());
    for name in pot.module_names() {
        let update = pot.join(&name, method, config.r, &mut random);
        check_finite(&name, &update)?;
        let deviation = Deviation::between((config.scaling(), &update), &pot.wanted(&name));
        total.add(deviation);
        per_module.insert(name.clone(), deviation.relative());
        modules.insert(name, update);
    }
    let processor = pot.adapters[0].processor().map(<[u8]>::to_vec);
    let adapter = Adapter::new(config, modules).with_processor(processor);
    Ok(Soup { adapter, report: SoupReport { relative_error: total.relative(), per_module } })
}

/// Refuses an empty list and weights that are no numbers.
pub(crate) fn check_weights(ingredients: &[Ingredient]) -> Result<(), MergeError> {
    if ingredients.is_empty() {
        return Err(MergeError::Recipe("the soup has no ingredient; name at least one folder".into()));
    }
    match ingredients.iter().find(|one| !one.weight.is_finite()) {
        Some(one) => Err(MergeError::Recipe(format!(
            "the weight of {} is {}, expected a number",
            one.path.display(),
            one.weight
        ))),
        None => Ok(()),
    }
}

pub(crate) fn misfit(first: &Ingredient, other: &Ingredient, problem: String) -> MergeError {
    MergeError::Ingredients { first: first.path.clone(), other: other.path.clone(), problem }
}

/// Names a few of `names`, for a message.
pub(crate) fn some<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.collect();
    let shown: Vec<_> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => "none".into(),
        count @ 1..=3 => format!("{} ({count})", shown.join(", ")),
        count => format!("{}, … ({count})", shown.join(", ")),
    }
}

/// Refuses adapters that name different base models, or that were trained on different input.
fn check_origin(first: &Adapter, other: &Adapter) -> Result<(), String> {
    let base = |adapter: &Adapter| adapter.config().base_model().unwrap_or_default().to_owned();
    let (ours, theirs) = (base(first), base(other));
    if !ours.is_empty() && !theirs.is_empty() && !same_base(&ours, &theirs) {
        return Err(format!(
            "the base model is `{ours}` in the one and `{theirs}` in the other; if that is the same model, \
             write one name into `base_model_name_or_path` of both"
        ));
    }
    match (first.processor(), other.processor()) {
        (ours, theirs) if ours == theirs => Ok(()),
        (Some(_), Some(_)) => Err(format!(
            "their {PROCESSOR} differ, so that they were trained on different input; train them with the same \
             processor settings"
        )),
        (ours, _) => Err(format!(
            "only the {} has a {PROCESSOR}; copy it to the other if both were trained with its settings",
            if ours.is_some() { "first" } else { "second" }
        )),
    }
}

/// The same name, or the same folder by two names.
fn same_base(first: &str, other: &str) -> bool {
    let folder = |name: &str| Path::new(name).canonicalize().ok();
    first == other || folder(first).is_some_and(|first| folder(other) == Some(first))
}

/// Refuses an update that f32 can't hold.
fn check_finite(module: &str, update: &LowRank) -> Result<(), MergeError> {
    match [update.a(), update.b()].into_iter().flat_map(Matrix::data).find(|x| !x.is_finite()) {
        None => Ok(()),
        Some(x) => Err(MergeError::Recipe(format!(
            "module `{module}` of the soup comes to {x}, which is past what f32 holds; give smaller weights"
        ))),
    }
}

fn check_fit(first: &Adapter, other: &Adapter, method: Method) -> Result<(), String> {
    let (ours, theirs) = (first.modules(), other.modules());
    let shared = ours.iter().filter_map(|(name, update)| Some((name, update, theirs.get(name)?)));
    for (name, our, their) in shared.clone() {
        if our.shape() != their.shape() {
            return Err(format!(
                "module `{name}` is {:?} in the one and {:?} in the other; were they trained on the same model?",
                our.shape(),
                their.shape()
            ));
        }
    }
    let only_ours = some(ours.keys().filter(|name| !theirs.contains_key(*name)));
    let only_theirs = some(theirs.keys().filter(|name| !ours.contains_key(*name)));
    let sets = format!("modules only in the first: {only_ours}; only in the other: {only_theirs}");
    if shared.count() == 0 {
        return Err(format!("they share no module; {sets}; were they trained on the same model?"));
    }
    if method.takes_missing_modules() {
        return Ok(());
    }
    if !ours.keys().eq(theirs.keys()) {
        return Err(format!("{sets}; only the exact and the SVD soup do that"));
    }
    let (a, b) = (first.config(), other.config());
    if a.r != b.r {
        return Err(format!("rank {} and rank {}; only the exact and the SVD soup do that", a.r, b.r));
    }
    if method == Method::MeanAb && a.scaling() != b.scaling() {
        return Err(format!(
            "their updates are scaled by {} and {}; only the other methods do that",
            a.scaling(),
            b.scaling()
        ));
    }
    Ok(())
}

/// The adapters and what each counts.
struct Pot {
    adapters: Vec<Adapter>,
    weights: Vec<f64>,
}

impl Pot {
    fn module_names(&self) -> BTreeSet<String> {
        self.adapters.iter().flat_map(|adapter| adapter.modules().keys().cloned()).collect()
    }

    /// Refuses a factor that f32 can't hold: singular values of such a sum may not come to an end.
    fn check_factors(&self) -> Result<(), MergeError> {
        let factors = self.adapters.iter().zip(&self.weights).map(|(one, w)| w * one.config().scaling());
        match factors.into_iter().find(|factor| !(*factor as f32).is_finite()) {
            None => Ok(()),
            Some(factor) => Err(MergeError::Recipe(format!(
                "a weight times its adapter's scaling is {factor:e}, which is past what f32 holds; give \
                 smaller weights"
            ))),
        }
    }

    /// Refuses a negative factor where its root goes to both sides.
    fn check_roots(&self, method: Method) -> Result<(), MergeError> {
        let takes_roots = !method.takes_missing_modules() && method != Method::MeanAb;
        let factors =
            self.adapters.iter().zip(&self.weights).map(|(adapter, w)| w * adapter.config().scaling());
        match factors.reduce(f64::min) {
            Some(least) if takes_roots && least < 0.0 => Err(MergeError::Recipe(format!(
                "a weight times its adapter's scaling is {least}, whose root this method needs; \
                 take the exact or the SVD soup for negative weights"
            ))),
            _ => Ok(()),
        }
    }

    fn config(&self, method: Method) -> AdapterConfig {
        let ranks = self.adapters.iter().map(|adapter| adapter.config().r);
        let first = self.adapters[0].config();
        let all: usize = ranks.clone().sum();
        // Everything that was a factor goes into A and B, so that the scaling is 1.
        let unscaled = |r: usize| first.with_rank(r, r as f64, false);
        match method {
            Method::Exact => unscaled(all),
            Method::Svd { rank } => {
                let rank = rank.or(ranks.max()).expect("there is an ingredient");
                unscaled(rank.min(all))
            }
            Method::MeanAb => first.clone(),
            _ => unscaled(first.r),
        }
    }

    /// The updates of a module and what each is multiplied with; those that lack it are left out.
    fn wanted(&self, module: &str) -> Vec<(f64, &LowRank)> {
        let each = self.adapters.iter().zip(&self.weights);
        each.filter_map(|(adapter, weight)| {
            Some((weight * adapter.config().scaling(), adapter.modules().get(module)?))
        })
        .collect()
    }

    fn join(&self, module: &str, method: Method, rank: usize, random: &mut SplitMix) -> LowRank {
        let wanted = self.wanted(module);
        match method {
            Method::Exact => side_by_side(&wanted, rank),
            Method::Svd { .. } => nearest(&wanted, rank),
            Method::MeanAb => factorwise(&wanted, &self.weights, linear),
            _ => {
                let roots: Vec<f64> = wanted.iter().map(|(factor, _)| factor.sqrt()).collect();
                factorwise(&wanted, &roots, |tensors, factors| match method {
                    Method::Ties { density } => ties(tensors, factors, density),
                    Method::MagnitudePrune { density } => magnitude_prune(tensors, factors, density),
                    Method::DareLinear { density, .. } => {
                        let keep: Vec<_> = tensors.iter().map(|x| random.mask(x.len(), density)).collect();
                        dare_linear(tensors, factors, &keep, density)
                    }
                    _ => linear(tensors, factors),
                })
            }
        }
    }
}

/// The exact sum: `A` stacked with the factors in it, `B` side by side, padded with zeros to `rank`.
fn side_by_side(wanted: &[(f64, &LowRank)], rank: usize) -> LowRank {
    let (a, b) = stack(wanted);
    padded(&a, &b, rank)
}

/// The nearest update of at most `rank`, by the singular values of the exact sum.
///
/// The sum is `B A = Q_b (R_b R_aᵀ) Q_aᵀ`, so that only a matrix of rank × rank is decomposed. Each
/// factor takes the root of the singular values.
fn nearest(wanted: &[(f64, &LowRank)], rank: usize) -> LowRank {
    let (a, b) = stack(wanted);
    let (b, a) = (b.qr(), a.transpose().qr());
    let svd = (b.r() * a.r().transpose()).svd(true, true);
    let (u, v_t) = (svd.u.expect("u was asked for"), svd.v_t.expect("v was asked for"));
    let kept = rank.min(svd.singular_values.len());
    let roots = DMatrix::from_diagonal(&svd.singular_values.rows(0, kept).map(f64::sqrt));
    let b = b.q() * (u.columns(0, kept) * &roots);
    let a = (&roots * v_t.rows(0, kept)) * a.q().transpose();
    padded(&a, &b, rank)
}

fn stack(wanted: &[(f64, &LowRank)]) -> (DMatrix<f64>, DMatrix<f64>) {
    let rank = wanted.iter().map(|(_, update)| update.rank()).sum();
    let [out, input] = wanted[0].1.shape();
    let (mut a, mut b) = (DMatrix::zeros(rank, input), DMatrix::zeros(out, rank));
    let mut at = 0;
    for (factor, update) in wanted {
        a.rows_mut(at, update.rank()).copy_from(&(update.a().to_f64() * *factor));
        b.columns_mut(at, update.rank()).copy_from(&update.b().to_f64());
        at += update.rank();
    }
    (a, b)
}

fn padded(a: &DMatrix<f64>, b: &DMatrix<f64>, rank: usize) -> LowRank {
    let a = a.clone().resize_vertically(rank, 0.0);
    let b = b.clone().resize_horizontally(rank, 0.0);
    LowRank::new(Matrix::from_f64(&a), Matrix::from_f64(&b))
}

/// Joins `A` with `A` and `B` with `B`.
fn factorwise(
    wanted: &[(f64, &LowRank)],
    factors: &[f64],
    mut join: impl FnMut(&[&[f32]], &[f64]) -> Vec<f32>,
) -> LowRank {
    let mut one = |factor: fn(&LowRank) -> &Matrix| {
        let tensors: Vec<&[f32]> = wanted.iter().map(|(_, update)| factor(update).data()).collect();
        let shape = factor(wanted[0].1);
        Matrix::new(shape.rows(), shape.cols(), join(&tensors, factors))
    };
    let a = one(LowRank::a);
    LowRank::new(a, one(LowRank::b))
}

/// A small generator ([SplitMix64](https://doi.org/10.1145/2714064.2660195)).
struct SplitMix(u64);

impl SplitMix {
    /// True with the chance `density`, `len` times.
    fn mask(&mut self, len: usize, density: f64) -> Vec<bool> {
        (0..len).map(|_| (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < density).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
