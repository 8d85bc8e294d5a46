//! Averages of full checkpoints.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::adapter::Companions;
use crate::base::{Head, PIECE, copy, decoded, encode, squared_distance, write_like};
use crate::deviation::Deviation;
use crate::fit::{check_weights, misfit, some};
use crate::names::{canonical, is_head};
use crate::output::whole;
use crate::record::{IngredientRecord, Kind, SoupRecord};
use crate::soup::weights_of;
use crate::weight_file::{Entry, Sink, WeightFile, f64s, widen};
use crate::{Checkpoint, Cut, Existing, Ingredient, MergeError, Method};

/// Full checkpoints that fit together, and how much each counts.
///
/// Tensors are matched by name under any library version's naming. The average keeps the first ingredient's shards, names,
/// number formats and other files. Tensors that hold no floats must be equal. `lm_head` is left out where one of them lacks it.
pub struct Average {
    ingredients: Vec<Ingredient>,
    checkpoints: Vec<Arc<Checkpoint>>,
}

impl Average {
    /// Opens the checkpoints in the ingredients' folders.
    ///
    /// # Errors
    /// If the weights don't add up to 1, the checkpoints don't have the same tensors of the same shapes, or one can't be
    /// read.
    pub fn new(ingredients: &[Ingredient]) -> Result<Self, MergeError> {
        Self::check_weights(&weights_of(ingredients))?;
        let open = |one: &Ingredient| Checkpoint::open(&one.path).map(Arc::new);
        let checkpoints = ingredients.iter().map(open).collect::<Result<Vec<_>, MergeError>>()?;
        for (one, checkpoint) in ingredients.iter().zip(&checkpoints).skip(1) {
            check_fit(&checkpoints[0], checkpoint)
                .map_err(|problem| misfit(&ingredients[0], one, problem))?;
        }
        Ok(Average { ingredients: ingredients.to_vec(), checkpoints })
    }

    /// Refuses weights that make no sense whatever the checkpoints are, one for each of them.
    ///
    /// # Errors
    /// If there is none, one is no number, or they don't add up to 1.
    pub fn check_weights(weights: &[f64]) -> Result<(), MergeError> {
        check_weights(weights)?;
        let sum: f64 = weights.iter().sum();
        if (sum - 1.0).abs() > 1e-6 {
            return Err(MergeError::Recipe(format!(
                "the weights of the checkpoints add up to {sum}, expected 1: anything else scales the model"
            )));
        }
        Ok(())
    }

    /// The same checkpoints with a weight for each; what has the weight 0 is left out. Files are not opened again, and
    /// hashed once.
    ///
    /// # Errors
    /// If the weights don't add up to 1.
    ///
    /// # Panics
    /// If there are not as many weights as checkpoints.
    pub fn reweighted(&self, weights: &[f64]) -> Result<Self, MergeError> {
        assert_eq!(weights.len(), self.checkpoints.len(), "a weight for each checkpoint");
        let all = self.ingredients.iter().zip(&self.checkpoints).zip(weights);
        let kept = all.filter(|(_, weight)| **weight != 0.0);
        let kept = kept.map(|((one, checkpoint), weight)| {
            (Ingredient { weight: *weight, ..one.clone() }, checkpoint.clone())
        });
        let (ingredients, checkpoints): (Vec<_>, Vec<_>) = kept.unzip();
        Self::check_weights(&weights_of(&ingredients))?;
        Ok(Average { ingredients, checkpoints })
    }

    /// The hash of each checkpoint's weights, see [`weights_sha256`](crate::weights_sha256).
    pub fn hashes(&self) -> Vec<String> {
        self.checkpoints.iter().map(|one| one.sha256().to_owned()).collect()
    }

    /// Writes the average and its record to `output`.
    ///
    /// # Errors
    /// If a number of the average is not finite, other tensors than those of floats differ, or `output` exists and may not
    /// be replaced, or can't be written; it isn't there then.
    pub fn save(&self, output: &Path, existing: Existing) -> Result<SoupRecord, MergeError> {
        whole(output, existing, |part| self.write(part))
    }

    /// Writes the same files into `folder`, which is there and not whole before the caller says so: a
    /// [`StagedFolder`](crate::StagedFolder) to which more is added.
    ///
    /// # Errors
    /// As of [`Average::save`], but for `output`.
    pub fn write(&self, folder: &Path) -> Result<SoupRecord, MergeError> {
        let like = &self.checkpoints[0];
        let headless = self.headless();
        let head = if headless.is_some() { Head::LeftOut } else { Head::Kept };
        let mut rounding = Deviation::default();
        let mut notes = write_like(like, head, &Companions::default(), folder, |file, name, entry, sink| {
            rounding.add(self.average(file, name, entry, sink)?);
            Ok(())
        })?;
        notes.extend(headless.map(|one| {
            let path = one.path.display();
            format!("`lm_head` was left out: {path} has none, and an embedder has no use for it")
        }));
        let record = SoupRecord { notes, rounding_error: Some(rounding.relative()), ..self.record() };
        record.write(folder)?;
        Ok(record)
    }

    /// The first without the head that others have.
    fn headless(&self) -> Option<&Ingredient> {
        let has_head = |one: &Checkpoint| one.names().any(|name| is_head(name));
        let mut all = self.ingredients.iter().zip(&self.checkpoints);
        let headless = all.find(|(_, checkpoint)| !has_head(checkpoint));
        headless.filter(|_| self.checkpoints.iter().any(|one| has_head(one))).map(|(one, _)| one)
    }

    /// Averages one tensor, some numbers at a time. Returns how far what is written is from the average.
    fn average(
        &self,
        file: &WeightFile,
        name: &str,
        entry: &Entry,
        sink: Sink,
    ) -> Result<Deviation, MergeError> {
        let Average { ingredients, checkpoints } = self;
        let places: Vec<_> = checkpoints
            .iter()
            .map(|one| one.find(&canonical(name)).expect("the sets of names were compared"))
            .collect();
        if widen(entry.dtype, &[]).is_none() {
            let mut others = places.iter().zip(ingredients).skip(1);
            return match others.find(|((other, _, at), _)| other.bytes(at) != file.bytes(entry)) {
                None => copy(file, entry, sink).map(|()| Deviation::default()),
                Some((_, one)) => {
                    let problem = format!("`{name}` is {:?} and differs; it can't be averaged", entry.dtype);
                    Err(misfit(&ingredients[0], one, problem))
                }
            };
        }
        let mut rounding = Deviation::default();
        let count = entry.shape.iter().product::<usize>();
        for start in (0..count).step_by(PIECE) {
            let numbers = start..count.min(start + PIECE);
            let mut sums = vec![0.0f64; numbers.len()];
            for ((other, own_name, at), one) in places.iter().zip(ingredients) {
                let size = at.dtype.bitsize() / 8;
                let bytes = numbers.start * size..numbers.end * size;
                let values = f64s(at.dtype, &other.bytes(at)[bytes.clone()]);
                let values = values.ok_or_else(|| other.not_floats(own_name, at))?;
                sums.iter_mut().zip(values).for_each(|(sum, x)| *sum += one.weight * x);
                other.release_part(at, bytes);
            }
            let written = encode(&sums, start, file, name, entry)?;
            rounding.wanted += sums.iter().map(|x| x * x).sum::<f64>();
            rounding.difference += squared_distance(sums.into_iter(), decoded(entry, &written));
            sink(&written)?;
        }
        Ok(rounding)
    }

    fn record(&self) -> SoupRecord {
        let record = |(one, checkpoint): (&Ingredient, &Arc<Checkpoint>)| IngredientRecord {
            path: one.path.display().to_string(),
            weight: one.weight,
            sha256: checkpoint.sha256().to_owned(),
            lora: None,
        };
        SoupRecord {
            format: 1,
            of: Kind::Model,
            output: Kind::Model,
            method: Method::Exact,
            cut: Cut::Nothing,
            rank: None,
            ingredients: self.ingredients.iter().zip(&self.checkpoints).map(record).collect(),
            base: None,
            relative_error: Some(0.0),
            rounding_error: None,
            kept_energy: 1.0,
            modules: BTreeMap::new(),
            notes: Vec::new(),
            search: None,
            scores: None,
        }
    }
}

fn check_fit(first: &Checkpoint, other: &Checkpoint) -> Result<(), String> {
    // A head that one of them lacks is left out.
    let only_first: Vec<_> =
        first.names().filter(|name| !is_head(name) && other.find(name).is_none()).collect();
    let only_other: Vec<_> =
        other.names().filter(|name| !is_head(name) && first.find(name).is_none()).collect();
    if !only_first.is_empty() || !only_other.is_empty() {
        return Err(format!(
            "tensors only in the first: {}; only in the other: {}; are they the same model?",
            some(only_first.into_iter()),
            some(only_other.into_iter()),
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
