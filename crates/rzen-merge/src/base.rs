//! Updates added to full checkpoints.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::adapter::Companions;
use crate::blend::Blend;
use crate::checkpoint::INDEX;
use crate::deviation::Deviation;
use crate::low_rank::blocks;
use crate::names::{canonical, is_head};
use crate::output::{copy_other_files, whole};
use crate::product::Threads;
use crate::weight_file::{self, Entry, Sink, WeightFile, f64s, narrow, widen};
use crate::{Adapter, Checkpoint, Existing, LowRank, MergeError};

/// Numbers that are read, changed and written together.
pub(crate) const PIECE: usize = 1 << 20;

const CONFIG: &str = "config.json";

/// What becomes of the head of a language model, which an embedder has no use for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Head {
    /// It is written like any other tensor.
    Kept,
    LeftOut,
}

/// What is added to a weight.
pub(crate) enum Addend<'a> {
    /// An update and its scaling.
    LowRank(f64, &'a LowRank),
    /// An update of full rank, and who is told each block of it.
    Blend(&'a Blend<'a>, &'a mut dyn FnMut(std::ops::Range<usize>, &[f32])),
}

/// Writes `base` with `W + s B A` for each module of `adapter` to `output`.
///
/// The result keeps the base's shards, names and number formats, and its other files (configuration,
/// tokenizer, processor, modules of sentence-transformers); the adapter's `processor.json`, if it has one, goes before the
/// base's. The sum is taken in f32, some rows at a time.
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
    let shapes = adapter.modules().iter().map(|(name, update)| (name.clone(), update.shape())).collect();
    check_base(&base, &shapes)?;
    let scaling = adapter.config().scaling();
    whole(output, existing, |part| {
        write_merged(&base, &shapes, adapter.companions(), part, &mut |module, add| {
            add(Addend::LowRank(scaling, &adapter.modules()[module])).map(|_| ())
        })
    })?;
    Ok(())
}

/// Refuses a base that lacks a module, has another shape there, or no floats.
pub(crate) fn check_base(
    base: &Checkpoint,
    modules: &BTreeMap<String, [usize; 2]>,
) -> Result<(), MergeError> {
    for (module, shape) in modules {
        let Some((file, name, entry)) = base.find(&format!("{module}.weight")) else {
            return Err(MergeError::NoSuchModule { module: module.clone(), base: base.folder().into() });
        };
        if entry.shape != shape {
            let problem = format!(
                "is {:?}, but the adapter's update of it is {shape:?}; is this the base that it was trained on?",
                entry.shape
            );
            return Err(MergeError::tensor(file.path(), name, problem));
        }
        if widen(entry.dtype, &[]).is_none() {
            return Err(file.not_floats(name, entry));
        }
    }
    Ok(())
}

/// Is called with a module and with what takes its update, which says what the format of the numbers rounded off it.
pub(crate) type GiveUpdate<'a> = &'a mut dyn FnMut(
    &str,
    &mut dyn FnMut(Addend) -> Result<Deviation, MergeError>,
) -> Result<(), MergeError>;

/// Writes `base` with updates of `modules` into the folder `part`; `give` is asked for one after another. Returns what is to be
/// noted.
pub(crate) fn write_merged(
    base: &Checkpoint,
    modules: &BTreeMap<String, [usize; 2]>,
    companions: &Companions,
    part: &Path,
    give: GiveUpdate,
) -> Result<Vec<String>, MergeError> {
    write_like(base, Head::Kept, companions, part, |file, name, entry, sink| {
        let own_name = canonical(name);
        match own_name.strip_suffix(".weight").filter(|module| modules.contains_key(*module)) {
            None => copy(file, entry, sink),
            Some(module) => give(module, &mut |addend| add(file, name, entry, addend, sink)),
        }
    })
}

pub(crate) fn copy(file: &WeightFile, entry: &Entry, sink: Sink) -> Result<(), MergeError> {
    for (at, piece) in file.bytes(entry).chunks(PIECE).enumerate() {
        sink(piece)?;
        file.release_part(entry, at * PIECE..at * PIECE + piece.len());
    }
    Ok(())
}

/// Adds an update to a weight. Returns how far what is written is from the sum, and how long the update is.
fn add(
    file: &WeightFile,
    name: &str,
    entry: &Entry,
    addend: Addend,
    sink: Sink,
) -> Result<Deviation, MergeError> {
    let &[out, input] = &entry.shape[..] else { unreachable!("the shape was compared") };
    let row = input * entry.dtype.bitsize() / 8;
    let (mut addend, mut rounding) = (addend, Deviation::default());
    for rows in blocks([out, input]) {
        let update = match &mut addend {
            Addend::LowRank(scaling, update) => {
                let mut delta = vec![0.0; rows.len() * input];
                update.delta_rows(*scaling, rows.clone(), &mut delta, Threads::All);
                delta
            }
            Addend::Blend(blend, tell) => {
                let update = blend.rows(rows.clone());
                tell(rows.clone(), &update);
                update
            }
        };
        let bytes = &file.bytes(entry)[rows.start * row..rows.end * row];
        let weight = widen(entry.dtype, bytes).expect("the format was looked at");
        let sums: Vec<f64> = weight.iter().zip(&update).map(|(w, d)| f64::from(w + d)).collect();
        let written = encode(&sums, rows.start * input, file, name, entry)?;
        let exact = decoded(entry, bytes).into_iter().zip(&update).map(|(w, d)| w + f64::from(*d));
        rounding.difference += squared_distance(exact, decoded(entry, &written));
        rounding.wanted += update.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>();
        sink(&written)?;
    }
    Ok(rounding)
}

/// Numbers of a tensor whose format was looked at.
pub(crate) fn decoded(entry: &Entry, bytes: &[u8]) -> Vec<f64> {
    f64s(entry.dtype, bytes).expect("the format was looked at")
}

/// Between what was computed and what is written of it.
pub(crate) fn squared_distance(exact: impl Iterator<Item = f64>, written: Vec<f64>) -> f64 {
    exact.zip(written).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// Writes a checkpoint with the files and tensors of `like` into the folder `part`, and the bytes that `data` gives
/// for each tensor. `companions` go before what `like` has. Where its head is not kept, it says that it has none. Returns what is
/// to be noted.
pub(crate) fn write_like(
    like: &Checkpoint,
    head: Head,
    companions: &Companions,
    part: &Path,
    mut data: impl FnMut(&WeightFile, &str, &Entry, Sink) -> Result<(), MergeError>,
) -> Result<Vec<String>, MergeError> {
    let left_out = copy_other_files(like.folder(), part)?;
    companions.write_processor(part)?;
    if head == Head::LeftOut {
        tie(&part.join(CONFIG))?;
    }
    let kept = |name: &str| head == Head::Kept || !is_head(&canonical(name));
    if like.is_sharded() {
        let index = like.folder().join(INDEX);
        match head {
            Head::Kept => {
                fs::copy(&index, part.join(INDEX)).map_err(MergeError::io("copy", &index))?;
            }
            Head::LeftOut => like.write_index(&part.join(INDEX), kept)?,
        }
    }
    for (name, file) in like.files() {
        let tensors: Vec<_> = file
            .tensors()
            .iter()
            .filter(|(name, _)| kept(name))
            .map(|(name, entry)| (name.as_str(), entry.dtype, &entry.shape[..]))
            .collect();
        if tensors.is_empty() && !file.tensors().is_empty() {
            continue;
        }
        weight_file::write(&part.join(name), &tensors, file.metadata(), |tensor, sink| {
            let entry = &file.tensors()[tensor];
            data(file, tensor, entry, sink)?;
            file.release(entry);
            Ok(())
        })?;
    }
    let note = || {
        format!(
            "folders of {} that belong to no module of it were not copied: {}",
            like.folder().display(),
            left_out.join(", ")
        )
    };
    Ok(if left_out.is_empty() { Vec::new() } else { vec![note()] })
}

/// Says in a `config.json`, where it is there, that the head is the token table: untied, `transformers` would put random numbers
/// in its place.
fn tie(config: &Path) -> Result<(), MergeError> {
    const KEY: &str = "tie_word_embeddings";
    if !config.is_file() {
        return Ok(());
    }
    let text = fs::read(config).map_err(MergeError::io("read", config))?;
    let json = serde_json::from_slice::<Map<String, Value>>(&text);
    let mut json = json.map_err(|source| MergeError::Json { path: config.into(), source })?;
    json.insert(KEY.into(), true.into());
    if let Some(tied) = json.get_mut("text_config").and_then(|text| text.get_mut(KEY)) {
        *tied = true.into();
    }
    let text = serde_json::to_string_pretty(&json).expect("it was JSON before") + "\n";
    fs::write(config, text).map_err(MergeError::io("write", config))
}

/// Rounds to the tensor's format and refuses what is not finite there; `start` numbers stand before these.
pub(crate) fn encode(
    numbers: &[f64],
    start: usize,
    file: &WeightFile,
    name: &str,
    entry: &Entry,
) -> Result<Vec<u8>, MergeError> {
    narrow(entry.dtype, numbers).map_err(|(at, number)| {
        let problem = format!(
            "comes to {number} at position {}, which {:?} can't hold as a number",
            start + at,
            entry.dtype
        );
        MergeError::tensor(file.path(), name, problem)
    })
}
