//! Whether adapters belong together.

use std::path::Path;
use std::sync::Arc;

use crate::adapter_file::{AdapterFile, PROCESSOR};
use crate::record::BaseCheck;
use crate::{Ingredient, MergeError, Method, SoupSettings};

/// Refuses adapters that can't be joined so, and says how it is known that they are of one base.
pub(crate) fn check_ingredients(
    ingredients: &[Ingredient],
    adapters: &[Arc<AdapterFile>],
    settings: SoupSettings,
) -> Result<BaseCheck, MergeError> {
    let method = settings.method;
    for (one, adapter) in ingredients.iter().zip(adapters).skip(1) {
        check_processor(&adapters[0], adapter).map_err(|problem| misfit(&ingredients[0], one, problem))?;
    }
    // Each with each: two may differ in what the first doesn't have.
    for (at, (one, adapter)) in ingredients.iter().zip(adapters).enumerate() {
        for (first, before) in ingredients.iter().zip(adapters).take(at) {
            check_base(before, adapter, settings.any_base)
                .and_then(|()| check_shapes(before, adapter))
                .map_err(|problem| misfit(first, one, problem))?;
        }
    }
    for (one, adapter) in ingredients.iter().zip(adapters).skip(1) {
        check_fit(&adapters[0], adapter, method).map_err(|problem| misfit(&ingredients[0], one, problem))?;
    }
    check_factors(ingredients, adapters, method)?;
    // A name may stand between two that say more.
    let hashes: Vec<_> =
        adapters.iter().map(|adapter| adapter.base().map(|base| &base.weights_sha256)).collect();
    let known: Vec<_> = hashes.iter().flatten().collect();
    match known.windows(2).find(|pair| pair[0] != pair[1]) {
        Some(pair) if !settings.any_base => {
            let place = |hash| {
                hashes.iter().position(|other| other.as_ref() == Some(hash)).expect("it is one of them")
            };
            let (first, other) = (&ingredients[place(pair[0])], &ingredients[place(pair[1])]);
            Err(misfit(first, other, other_base(pair[0], pair[1])))
        }
        Some(_) => Ok(BaseCheck::Nothing),
        None if known.len() == hashes.len() => Ok(BaseCheck::Hash),
        None => Ok(BaseCheck::Shapes),
    }
}

fn other_base(first: &str, other: &str) -> String {
    format!(
        "by their base.json they were trained on different bases, of SHA-256 {:.12}… and {:.12}…; a sum of their updates fits \
         neither. Train them on one, or ask for a soup of any base",
        first, other
    )
}

/// Refuses adapters that name different base models, where hashes don't say more.
fn check_base(first: &AdapterFile, other: &AdapterFile, any: bool) -> Result<(), String> {
    if any || (first.base().is_some() && other.base().is_some()) {
        return Ok(());
    }
    let base = |adapter: &AdapterFile| adapter.config().base_model().unwrap_or_default().to_owned();
    let (ours, theirs) = (base(first), base(other));
    if !ours.is_empty() && !theirs.is_empty() && !same_base(&ours, &theirs) {
        return Err(format!(
            "the base model is `{ours}` in the one and `{theirs}` in the other; if that is the same model, \
             write one name into `base_model_name_or_path` of both"
        ));
    }
    Ok(())
}

/// The same name, or the same folder by two names.
fn same_base(first: &str, other: &str) -> bool {
    let folder = |name: &str| Path::new(name).canonicalize().ok();
    first == other || folder(first).is_some_and(|first| folder(other) == Some(first))
}

/// Refuses adapters that were trained on different input.
fn check_processor(first: &AdapterFile, other: &AdapterFile) -> Result<(), String> {
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

fn check_shapes(first: &AdapterFile, other: &AdapterFile) -> Result<(), String> {
    let mut shared = first.modules().filter_map(|name| Some((name, first.shape(name)?, other.shape(name)?)));
    match shared.find(|(_, our, their)| our != their) {
        None => Ok(()),
        Some((name, our, their)) => Err(format!(
            "module `{name}` is {our:?} in the one and {their:?} in the other; were they trained on the same model?"
        )),
    }
}

fn check_fit(first: &AdapterFile, other: &AdapterFile, method: Method) -> Result<(), String> {
    let shared = first.modules().filter(|name| other.shape(name).is_some());
    let only_first = some(first.modules().filter(|name| other.shape(name).is_none()));
    let only_other = some(other.modules().filter(|name| first.shape(name).is_none()));
    let sets = format!("modules only in the first: {only_first}; only in the other: {only_other}");
    if shared.count() == 0 {
        return Err(format!("they share no module; {sets}; were they trained on the same model?"));
    }
    if method.joins_updates() {
        return Ok(());
    }
    const OTHERS: &str = "only exact, svd, slerp, ties and dare join such adapters";
    if !first.modules().eq(other.modules()) {
        return Err(format!("{sets}; {OTHERS}"));
    }
    let (a, b) = (first.config(), other.config());
    if a.r != b.r {
        return Err(format!("rank {} and rank {}; {OTHERS}", a.r, b.r));
    }
    if method == Method::MeanAb && a.scaling() != b.scaling() {
        return Err(format!(
            "their updates are scaled by {} and {}; only the other methods join such adapters",
            a.scaling(),
            b.scaling()
        ));
    }
    Ok(())
}

/// Refuses a factor that f32 can't hold, since singular values of such a sum may not come to an end, and one whose root does not
/// exist where a method needs it.
fn check_factors(
    ingredients: &[Ingredient],
    adapters: &[Arc<AdapterFile>],
    method: Method,
) -> Result<(), MergeError> {
    if let Some(factor) = factors(ingredients, adapters).find(|factor| !(*factor as f32).is_finite()) {
        return Err(MergeError::Recipe(format!(
            "a weight times its adapter's scaling is {factor:e}, which is past what f32 holds; give \
             smaller weights"
        )));
    }
    match factors(ingredients, adapters).reduce(f64::min) {
        Some(least) if method.takes_roots() && least < 0.0 => Err(MergeError::Recipe(format!(
            "a weight times its adapter's scaling is {least}, whose root this method needs; \
             take the exact soup for negative weights"
        ))),
        _ => Ok(()),
    }
}

/// What each update is multiplied with in the weighted sum.
fn factors<'a>(
    ingredients: &'a [Ingredient],
    adapters: &'a [Arc<AdapterFile>],
) -> impl Iterator<Item = f64> + 'a {
    ingredients.iter().zip(adapters).map(|(one, adapter)| one.weight * adapter.config().scaling())
}

/// Refuses an empty list and weights that are no numbers.
pub(crate) fn check_weights(weights: &[f64]) -> Result<(), MergeError> {
    if weights.is_empty() {
        return Err(MergeError::Recipe("the soup has no ingredient; name at least one folder".into()));
    }
    match weights.iter().position(|weight| !weight.is_finite()) {
        Some(at) => Err(MergeError::Recipe(format!(
            "the weight of ingredient {} is {}, expected a number",
            at + 1,
            weights[at]
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
