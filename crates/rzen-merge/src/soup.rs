//! Several adapters into one.

mod result;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use crate::adapter::Companions;
use crate::adapter_file::AdapterFile;
use crate::blend::{Blend, Portion};
use crate::fit::check_ingredients;
use crate::hash::{file_sha256, hex};
use crate::join::{Joined, Tally, join};
use crate::random::SplitMix;
use crate::record::{BaseCheck, Kind, SoupRecord};
use crate::{Adapter, AdapterConfig, Cut, MergeError, Method};

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

pub(crate) fn weights_of(ingredients: &[Ingredient]) -> Vec<f64> {
    ingredients.iter().map(|one| one.weight).collect()
}

/// How adapters are joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoupSettings {
    /// What becomes of their updates.
    pub method: Method,
    /// What of that an adapter keeps.
    pub cut: Cut,
    /// Whether adapters of different bases are joined, and merged into another.
    pub any_base: bool,
}

impl SoupSettings {
    /// `method`, with all of it kept, of adapters of one base.
    pub fn new(method: Method) -> Self {
        SoupSettings { method, cut: Cut::Nothing, any_base: false }
    }

    /// Refuses settings that make no sense whatever the adapters are.
    ///
    /// # Errors
    /// If a rank, density or energy is out of range, or the method can't be cut so.
    pub fn check(&self) -> Result<(), MergeError> {
        self.method.check(self.cut)
    }

    /// Refuses weights that make no sense whatever the adapters are, one for each of them.
    ///
    /// # Errors
    /// If there is none, one is no number, or the method has no use for one that is negative, or for so many.
    pub fn check_weights(&self, weights: &[f64]) -> Result<(), MergeError> {
        self.method.check_weights(weights)
    }
}

/// Adapters that fit together, and how they are to be joined; their numbers stay in their files until a module is
/// joined, so that a soup takes the memory of a few modules.
///
/// The result says of itself what the first ingredient does (base model and the like), except for rank
/// and scaling, and has its `processor.json`.
pub struct Soup {
    pub(crate) ingredients: Vec<Ingredient>,
    pub(crate) adapters: Vec<Arc<AdapterFile>>,
    hashes: Vec<[u8; 32]>,
    pub(crate) settings: SoupSettings,
    base_check: BaseCheck,
    /// Of the adapter that comes out.
    config: AdapterConfig,
    modules: BTreeMap<String, [usize; 2]>,
}

impl Soup {
    /// Opens the adapters in the ingredients' folders. With [`Cut::Energy`] it looks at all of their numbers.
    ///
    /// # Errors
    /// If an adapter can't be read, the adapters don't fit together (other modules, another base, another
    /// processor), or weights or settings make no sense or lead past what f32 holds.
    pub fn new(ingredients: &[Ingredient], settings: SoupSettings) -> Result<Self, MergeError> {
        settings.check()?;
        settings.check_weights(&weights_of(ingredients))?;
        let open = |one: &Ingredient| AdapterFile::open(&one.path).map(Arc::new);
        let adapters = ingredients.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        // What doesn't fit is told before much is read.
        check_ingredients(ingredients, &adapters, settings)?;
        let hashes =
            adapters.par_iter().map(|one| file_sha256(&one.weights_path())).collect::<Result<Vec<_>, _>>()?;
        Self::of(ingredients.to_vec(), adapters, hashes, settings)
    }

    /// The same adapters with a weight for each, joined by other settings; what has the weight 0 is left out. Files are not
    /// opened again.
    ///
    /// # Errors
    /// As of [`Soup::new`].
    ///
    /// # Panics
    /// If there are not as many weights as adapters.
    pub fn reweighted(&self, weights: &[f64], settings: SoupSettings) -> Result<Self, MergeError> {
        settings.check()?;
        let count = self.adapters.len();
        assert_eq!(weights.len(), count, "a weight for each adapter");
        let kept: Vec<usize> = (0..count).filter(|at| weights[*at] != 0.0).collect();
        let ingredient = |at: &usize| Ingredient { weight: weights[*at], ..self.ingredients[*at].clone() };
        let ingredients: Vec<Ingredient> = kept.iter().map(ingredient).collect();
        settings.check_weights(&weights_of(&ingredients))?;
        let adapters = kept.iter().map(|at| self.adapters[*at].clone()).collect();
        Self::of(ingredients, adapters, kept.iter().map(|at| self.hashes[*at]).collect(), settings)
    }

    fn of(
        ingredients: Vec<Ingredient>,
        adapters: Vec<Arc<AdapterFile>>,
        hashes: Vec<[u8; 32]>,
        settings: SoupSettings,
    ) -> Result<Self, MergeError> {
        let base_check = check_ingredients(&ingredients, &adapters, settings)?;
        let names: BTreeSet<&String> = adapters.iter().flat_map(|one| one.modules()).collect();
        let shape = |name: &String| adapters.iter().find_map(|one| one.shape(name)).expect("one has it");
        let modules = names.into_iter().map(|name| (name.clone(), shape(name))).collect();
        let config = adapters[0].config().clone();
        let soup = Soup { ingredients, adapters, hashes, settings, base_check, config, modules };
        Ok(Soup { config: soup.result_config()?, ..soup })
    }

    /// Names of all modules, with the shape `[out, in]` of the weights that they update.
    pub fn modules(&self) -> &BTreeMap<String, [usize; 2]> {
        &self.modules
    }

    /// The SHA-256 of each ingredient's `adapter_model.safetensors`, as hexadecimal digits.
    pub fn hashes(&self) -> Vec<String> {
        self.hashes.iter().map(|hash| hex(hash)).collect()
    }

    /// The soup in memory, with its record.
    ///
    /// # Errors
    /// If a factor can't be read, a result is past what f32 holds, or has no low rank and isn't cut to one.
    pub fn adapter(&self) -> Result<(Adapter, SoupRecord), MergeError> {
        self.check_low_rank()?;
        let (mut modules, mut tally) = (BTreeMap::new(), Tally::default());
        for name in self.modules.keys() {
            let joined = self.join(name)?;
            modules.insert(name.clone(), joined.update.clone());
            tally.add(name, &joined);
        }
        let adapter = Adapter::new(self.config.clone(), modules).with_companions(self.companions());
        Ok((adapter, self.record(Kind::Adapter, tally, None)))
    }

    /// How many modules are joined at a time: they take little memory each, but for updates of full rank, which are
    /// computed on all threads.
    fn side_by_side(&self) -> usize {
        if self.settings.method.is_dense() { 1 } else { rayon::current_num_threads().min(4) }
    }

    fn join(&self, module: &str) -> Result<Joined, MergeError> {
        let portions = self.portions(module)?;
        let joined = join(self.settings, self.config.r, self.total(), self.config.scaling(), &portions);
        check_finite(module, &joined)?;
        Ok(joined)
    }

    fn blend<'a>(&self, portions: &'a [Portion]) -> Blend<'a> {
        crate::join::blend(self.settings.method, self.total(), portions)
    }

    /// The sum of all weights.
    fn total(&self) -> f64 {
        self.ingredients.iter().map(|one| one.weight).sum()
    }

    /// The updates of a module, from those that have it.
    fn portions(&self, module: &str) -> Result<Vec<Portion>, MergeError> {
        let seed = match self.settings.method {
            Method::Dare { seed, .. } | Method::PeftDareLinear { seed, .. } => seed,
            _ => 0,
        };
        let mut portions = Vec::new();
        for ((adapter, one), hash) in self.adapters.iter().zip(&self.ingredients).zip(&self.hashes) {
            let Some(update) = adapter.update(module)? else { continue };
            let random = SplitMix::of(seed, &[hash, module.as_bytes()]);
            let scaling = adapter.config().scaling();
            portions.push(Portion { weight: one.weight, scaling, update, random });
        }
        Ok(portions)
    }

    fn companions(&self) -> Companions {
        let base = match self.base_check {
            BaseCheck::Nothing => None,
            _ => self.adapters.iter().find_map(|one| one.base()).cloned(),
        };
        Companions { processor: self.adapters[0].processor().map(<[u8]>::to_vec), base }
    }
}

/// Refuses an update that f32 can't hold.
fn check_finite(module: &str, joined: &Joined) -> Result<(), MergeError> {
    let factors = [joined.update.a(), joined.update.b()];
    match factors.into_iter().flat_map(|factor| factor.data()).find(|x| !x.is_finite()) {
        None => Ok(()),
        Some(x) => Err(MergeError::Recipe(format!(
            "module `{module}` of the soup comes to {x}, which is past what f32 holds; give smaller weights"
        ))),
    }
}
