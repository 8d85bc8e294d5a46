//! Full checkpoints: an adapter's update added to them, and averages of them.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use safetensors::Dtype;

use crate::adapter::write_processor;
use crate::checkpoint::{Checkpoint, INDEX};
use crate::names::canonical;
use crate::output::{StagedFolder, copy_other_files};
use crate::soup::{check_weights, misfit, some};
use crate::weight_file::{self, Entry, WeightFile, push, reader};
use crate::{Adapter, Existing, Ingredient, MergeError};

/// Writes `base` with `W + s B A` for each module of `adapter` to `output`.
///
/// The result keeps the base's shards, names and number formats, and its other files (configuration,
/// tokenizer, processor); the adapter's `processor.json`, if it has one, goes before the base's. The sum is
/// taken in f32, one tensor at a time.
///
/// # Errors
/// If the base can't be read, lacks a module of the adapter or has another shape there, if a sum is not
/// finite, or if `output` exists and may not be replaced; `output` isn't there then.
pub fn merge_into_base(
    base: &Path,
    adapter: &Adapter,
    output: &Path,
    existing: Existing,
) -> Result<(), MergeError> {
    let base = Checkpoint::open(base)?;
    for (module, update) in adapter.modules() {
        let Some((file, name, entry)) = base.find(&format!("{module}.weight")) else {
            return Err(MergeError::NoSuchModule { module: module.clone(), base: base.folder().into() });
        };
        if entry.shape != update.shape() {
            let problem = format!(
                "is {:?}, but the adapter's update of it is {:?}; is this the base that it was trained on?",
                entry.shape,
                update.shape()
            );
            return Err(MergeError::tensor(file.path(), name, problem));
        }
        reader(entry.dtype).ok_or_else(|| file.not_floats(name, entry))?;
    }
    write_like(&base, adapter.processor(), output, existing, |file, name, entry| {
        let own_name = canonical(name);
        let delta = own_name.strip_suffix(".weight").and_then(|module| adapter.delta(module));
        let Some(delta) = delta else { return Ok(file.bytes(entry).into()) };
        let weight = file.floats(name, entry)?;
        let sums = weight.iter().zip(delta.data()).map(|(w, d)| f64::from(w + d));
        encode(sums, file, name, entry.dtype)
    })
}

/// Writes the weighted average of full checkpoints to `output`.
///
/// Tensors are matched by name under any library version's naming. The result keeps the first
/// ingredient's shards, names, number formats and other files. Tensors that hold no floats must be equal.
///
/// # Errors
/// If the weights don't add up to 1, the checkpoints don't have the same tensors of the same shapes, one
/// can't be read, an average is not finite, or `output` exists and may not be replaced; `output` isn't
/// there then.
pub fn soup_checkpoints(
    ingredients: &[Ingredient],
    output: &Path,
    existing: Existing,
) -> Result<(), MergeError> {
    check_weights(ingredients)?;
    let sum: f64 = ingredients.iter().map(|one| one.weight).sum();
    if (sum - 1.0).abs() > 1e-6 {
        return Err(MergeError::Recipe(format!(
            "the weights of the checkpoints add up to {sum}, expected 1: anything else scales the model"
        )));
    }
    let checkpoints =
        ingredients.iter().map(|one| Checkpoint::open(&one.path)).collect::<Result<Vec<_>, MergeError>>()?;
    for (one, checkpoint) in ingredients.iter().zip(&checkpoints).skip(1) {
        check_fit(&checkpoints[0], checkpoint).map_err(|problem| misfit(&ingredients[0], one, problem))?;
    }
    write_like(&checkpoints[0], None, output, existing, |file, name, entry| {
        let places =
            checkpoints.iter().map(|one| one.find(&canonical(name)).expect("the sets were compared"));
        let Some(_) = reader(entry.dtype) else {
            let mut others = places.zip(ingredients).skip(1);
            return match others.find(|((other, _, at), _)| other.bytes(at) != file.bytes(entry)) {
                None => Ok(file.bytes(entry).into()),
                Some((_, one)) => {
                    let problem = format!("`{name}` is {:?} and differs; it can't be averaged", entry.dtype);
                    Err(misfit(&ingredients[0], one, problem))
                }
            };
        };
        let mut parts = Vec::new();
        for ((other, own_name, at), one) in places.zip(ingredients) {
            let read = reader(at.dtype).ok_or_else(|| other.not_floats(own_name, at))?;
            let numbers = other.bytes(at).chunks_exact(at.dtype.bitsize() / 8);
            parts.push(numbers.map(move |bytes| one.weight * read(bytes)));
        }
        let count = entry.shape.iter().product::<usize>();
        let sums = (0..count).map(|_| parts.iter_mut().filter_map(Iterator::next).sum());
        encode(sums, file, name, entry.dtype)
    })
}

fn check_fit(first: &Checkpoint, other: &Checkpoint) -> Result<(), String> {
    if !first.names().eq(other.names()) {
        return Err(format!(
            "tensors only in the first: {}; only in the other: {}; are they the same model?",
            some(first.names().filter(|name| other.find(name).is_none())),
            some(other.names().filter(|name| first.find(name).is_none())),
        ));
    }
    for name in first.names() {
        let shape = |checkpoint: &Checkpoint| checkpoint.find(name).map(|(_, _, entry)| entry.shape.clone());
        if let (Some(our), Some(their)) = (shape(first), shape(other))
            && our != their
        {
            return Err(format!("`{name}` is {our:?} in the one and {their:?} in the other"));
        }
    }
    Ok(())
}

/// Writes a checkpoint with the files and tensors of `like`, and the bytes that `data` gives for each tensor.
/// `processor` goes before the `processor.json` of `like`.
fn write_like<'a>(
    like: &'a Checkpoint,
    processor: Option<&[u8]>,
    output: &Path,
    existing: Existing,
    data: impl Fn(&'a WeightFile, &str, &'a Entry) -> Result<Cow<'a, [u8]>, MergeError>,
) -> Result<(), MergeError> {
    let staged = StagedFolder::create(output, existing)?;
    copy_other_files(like.folder(), staged.path())?;
    write_processor(processor, staged.path())?;
    if like.is_sharded() {
        let index = like.folder().join(INDEX);
        fs::copy(&index, staged.path().join(INDEX)).map_err(MergeError::io("copy", &index))?;
    }
    for (name, file) in like.files() {
        let tensors: Vec<_> = file
            .tensors()
            .iter()
            .map(|(name, entry)| (name.as_str(), entry.dtype, &entry.shape[..]))
            .collect();
        weight_file::write(&staged.path().join(name), &tensors, file.metadata(), |tensor| {
            data(file, tensor, &file.tensors()[tensor])
        })?;
    }
    staged.commit()
}

/// Rounds to `dtype` and refuses what is not finite there.
fn encode(
    numbers: impl Iterator<Item = f64>,
    file: &WeightFile,
    name: &str,
    dtype: Dtype,
) -> Result<Cow<'static, [u8]>, MergeError> {
    let mut bytes = Vec::with_capacity(numbers.size_hint().0 * dtype.bitsize() / 8);
    for (at, number) in numbers.enumerate() {
        if !push(&mut bytes, dtype, number) {
            let problem =
                format!("comes to {number} at position {at}, which {dtype:?} can't hold as a number");
            return Err(MergeError::tensor(file.path(), name, problem));
        }
    }
    Ok(bytes.into())
}
