//! Findings out of what was found.

use std::collections::BTreeSet;

use rzen_core::Part;

use super::finding::{Finding, FindingKind, FoundContent, Place, RowPlace};
use super::gather::{Gathered, Role};
use super::uses::{Use, Visual};

/// Makes findings whose places are those of the rows gathered.
pub(super) struct Maker<'a> {
    pub gathered: &'a Gathered,
}

/// Places of a content that are listed; a label may stand in millions.
const MOST_PLACES: usize = 1000;

impl Maker<'_> {
    /// A finding; the training rows among `rows` are those to leave out.
    pub fn finding(
        &self,
        kind: FindingKind,
        message: String,
        contents: Vec<FoundContent>,
        rows: &[Use],
    ) -> Finding {
        let rows: BTreeSet<usize> = self.trained(rows).map(|(row, _)| row).collect();
        let rows: Vec<RowPlace> = rows.into_iter().map(|row| self.gathered.row_place(row)).collect();
        Finding { kind, message, advice: kind.advice(), contents, rows }
    }

    pub fn content(&self, content: Vec<Part>, uses: &[Use]) -> FoundContent {
        let place = |(row, role): &Use| self.gathered.place(*row, *role);
        FoundContent { content, places: uses.iter().take(MOST_PLACES).map(place).collect() }
    }

    pub fn visual(&self, visual: &Visual, uses: &[Use]) -> FoundContent {
        self.content(vec![visual.part.clone()], uses)
    }

    /// Whole rows.
    pub fn row(&self, content: Vec<Part>, rows: &[usize]) -> FoundContent {
        let place = |row: &usize| {
            let RowPlace { file, row } = self.gathered.row_place(*row);
            Place { file, row, key: String::new() }
        };
        FoundContent { content, places: rows.iter().take(MOST_PLACES).map(place).collect() }
    }

    /// The places in training.
    pub fn trained<'b>(&'b self, uses: &'b [Use]) -> impl Iterator<Item = Use> + use<'b> {
        uses.iter().copied().filter(|(row, _)| self.gathered.trains(*row))
    }

    /// The places in training from which something is learned that helps to find it.
    pub fn learned<'b>(&'b self, uses: &'b [Use]) -> impl Iterator<Item = Use> + use<'b> {
        self.trained(uses).filter(|(_, role)| matches!(role, Role::Query | Role::Positive(_)))
    }

    /// The places in evaluation.
    pub fn measured<'b>(&'b self, uses: &'b [Use]) -> impl Iterator<Item = Use> + use<'b> {
        uses.iter().copied().filter(|(row, _)| !self.gathered.trains(*row))
    }

    /// Whether it answers several queries of one dataset, as a label does: training and evaluation share those by design.
    pub fn answers_several(&self, uses: &[Use]) -> bool {
        self.stands_several_times(uses, |role| matches!(role, Role::Positive(_)))
    }

    /// Whether several rows of one dataset ask for it, as for a class by its name.
    pub fn asks_several(&self, uses: &[Use]) -> bool {
        self.stands_several_times(uses, |role| role == Role::Query)
    }

    fn stands_several_times(&self, uses: &[Use], is: impl Fn(Role) -> bool) -> bool {
        let rows = self.trained(uses).filter(|(_, role)| is(*role)).map(|(row, _)| row);
        let mut rows: Vec<(usize, usize)> = rows.map(|row| (self.gathered.rows[row].name, row)).collect();
        rows.sort_unstable();
        rows.dedup();
        rows.windows(2).any(|pair| pair[0].0 == pair[1].0)
    }

    /// The datasets whose rows hold it, as queries or as candidates: what stands on one side of a batch.
    pub fn sides(&self, uses: &[Use]) -> BTreeSet<(usize, bool)> {
        let side = |(row, role): Use| (self.gathered.rows[row].name, role == Role::Query);
        self.trained(uses).map(side).collect()
    }
}

/// `1 row`, `2 rows`.
pub(super) fn num_rows(uses: &[Use]) -> String {
    match uses.iter().map(|(row, _)| row).collect::<BTreeSet<_>>().len() {
        1 => "1 row".to_owned(),
        count => format!("{count} rows"),
    }
}
