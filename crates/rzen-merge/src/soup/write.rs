//! Soups on the disk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use crate::adapter::write_adapter;
use crate::base::{Addend, check_base, write_merged};
use crate::join::{Joined, Tally};
use crate::output::whole;
use crate::record::{BaseCheck, Kind, SoupRecord};
use crate::{Checkpoint, Cut, Existing, MergeError, Soup};

impl Soup {
    /// Writes the soup and its record to the adapter's folder `output`.
    ///
    /// # Errors
    /// As of [`Soup::adapter`], or if `output` exists and may not be replaced, or can't be written; it isn't there then.
    pub fn save(&self, output: &Path, existing: Existing) -> Result<SoupRecord, MergeError> {
        self.check_low_rank()?;
        whole(output, existing, |part| self.write(part))
    }

    /// Writes the same files into `folder`, which is there and not whole before the caller says so: a
    /// [`StagedFolder`](crate::StagedFolder) to which more is added.
    ///
    /// # Errors
    /// As of [`Soup::adapter`], or if a file can't be written.
    pub fn write(&self, folder: &Path) -> Result<SoupRecord, MergeError> {
        self.check_low_rank()?;
        let mut tally = Tally::default();
        let names: Vec<&String> = self.modules.keys().collect();
        let mut ahead: BTreeMap<&str, Joined> = BTreeMap::new();
        write_adapter(folder, &self.config, &self.companions(), &self.modules, |module| {
            if !ahead.contains_key(module) {
                let at = names.partition_point(|name| name.as_str() < module);
                let next = &names[at..names.len().min(at + self.side_by_side())];
                let joined = next.par_iter().map(|name| Ok((name.as_str(), self.join(name)?)));
                ahead.extend(joined.collect::<Result<Vec<_>, MergeError>>()?);
            }
            let joined = ahead.remove(module).expect("it was joined before");
            tally.add(module, &joined);
            Ok(joined.update)
        })?;
        let record = self.record(Kind::Adapter, tally, None);
        record.write(folder)?;
        Ok(record)
    }

    /// Writes the checkpoint `base` with the soup added to its weights, and the record, to `output`; see
    /// [`merge_into_base`](crate::merge_into_base).
    ///
    /// # Errors
    /// If a factor can't be read, the base isn't the one that the adapters were trained on, lacks a module or has another
    /// shape there, a sum is past what its format holds, or `output` exists and may not be replaced, or can't be
    /// written; it isn't there then.
    pub fn merge_into(
        &self,
        base: &Path,
        output: &Path,
        existing: Existing,
    ) -> Result<SoupRecord, MergeError> {
        let base = Checkpoint::open(base)?;
        whole(output, existing, |part| self.write_merged(&base, part))
    }

    /// Writes the same files into `folder`, as [`Soup::write`] does.
    ///
    /// # Errors
    /// As of [`Soup::merge_into`], but for `output`.
    pub fn write_merged(&self, base: &Checkpoint, folder: &Path) -> Result<SoupRecord, MergeError> {
        check_base(base, &self.modules)?;
        let checked_by = self.check_hash(base)?;
        let mut tally = Tally::default();
        let scaling = self.config.scaling();
        let notes = write_merged(base, &self.modules, &self.companions(), folder, &mut |module, add| {
            let rounding = if self.adds_full_rank() {
                let portions = self.portions(module)?;
                let blend = self.blend(&portions);
                let (mut difference, mut wanted) = (0.0, 0.0);
                let rounding = add(Addend::Blend(&blend, &mut |rows: Range<usize>, found: &[f32]| {
                    let (d, w) = blend.distance(rows, found);
                    difference += d;
                    wanted += w;
                }))?;
                tally.add_whole(module, difference, wanted);
                rounding
            } else {
                let joined = self.join(module)?;
                tally.add(module, &joined);
                add(Addend::LowRank(scaling, &joined.update))?
            };
            tally.round(module, rounding);
            Ok(())
        })?;
        let mut record = self.record(Kind::Model, tally, Some((base, checked_by)));
        record.notes.extend(notes);
        record.write(folder)?;
        Ok(record)
    }

    /// Whether updates of full rank are added to a base as they are.
    pub fn adds_full_rank(&self) -> bool {
        self.settings.method.is_dense() && self.settings.cut == Cut::Nothing
    }

    pub(super) fn check_low_rank(&self) -> Result<(), MergeError> {
        match self.adds_full_rank() {
            false => Ok(()),
            true => Err(MergeError::Recipe(
                "a ties or dare soup has full rank and fits no adapter; give a rank to cut it to, or a base to add it to"
                    .into(),
            )),
        }
    }

    /// Refuses a base other than the one that the adapters were trained on.
    fn check_hash(&self, base: &Checkpoint) -> Result<BaseCheck, MergeError> {
        let sha256 = base.sha256();
        let recorded = self.adapters.iter().zip(&self.ingredients);
        let mut recorded = recorded.filter_map(|(adapter, one)| Some((adapter.base()?, one)));
        match recorded.find(|(record, _)| record.weights_sha256 != sha256) {
            Some((record, one)) if !self.settings.any_base => Err(MergeError::WrongBase {
                adapter: one.path.clone(),
                recorded: record.weights_sha256.clone(),
                base: base.folder().into(),
                found: sha256.into(),
            }),
            Some(_) => Ok(BaseCheck::Nothing),
            None => Ok(self.base_check),
        }
    }
}
