//! Findings about datasets.

use std::collections::BTreeMap;

use super::CheckOptions;
use super::finding::{Finding, FindingKind, FoundContent};
use super::gather::{Gathered, Role};
use super::maker::Maker;
use super::uses::Uses;

/// The rows of one name, which are a dataset to the sampler.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct DatasetCount {
    /// The rows' `name`.
    pub name: String,
    /// Rows that can be read.
    pub rows: usize,
    /// Labels, or different positives where rows have no label.
    pub labels: usize,
    /// Rows of the largest label.
    pub largest: usize,
    /// Rows of the label in the middle.
    pub median: usize,
}

/// Datasets that are small, of uneven sizes, or ruled by a label; and the count of each.
pub(super) fn datasets(
    maker: &Maker,
    uses: &Uses,
    options: &CheckOptions,
) -> (Vec<Finding>, Vec<DatasetCount>) {
    let gathered = maker.gathered;
    let mut of_name: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, row) in gathered.rows.iter().enumerate().filter(|(number, _)| gathered.trains(*number)) {
        of_name.entry(row.name).or_default().push(number);
    }
    let (mut findings, mut counts) = (Vec::new(), Vec::new());
    for (name, rows) in of_name {
        let name = &gathered.names.values[name];
        let labels = labels(gathered, uses, &rows);
        let mut sizes: Vec<usize> = labels.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        let (median, largest) = (sizes[(sizes.len() - 1) / 2], sizes[sizes.len() - 1]);
        let first = || maker.row(Vec::new(), &rows[..1]);
        if rows.len() < options.batch_size {
            let (count, least) = (rows.len(), options.batch_size);
            let message = format!("{name}: {count} rows, fewer than a batch of {least}");
            findings.push(maker.finding(FindingKind::SmallDataset, message, vec![first()], &[]));
        }
        if largest as f64 > options.label_ratio * median as f64 {
            let message = format!(
                "{name}: the largest of {} labels has {largest} rows, the middle one {median}",
                labels.len()
            );
            let of_largest = labels.iter().find(|rows| rows.len() == largest).map(|rows| rows[0]);
            let shown = of_largest.map(|row| label(maker, row)).into_iter().collect();
            findings.push(maker.finding(FindingKind::LabelImbalance, message, shown, &[]));
        }
        counts.push(DatasetCount {
            name: name.clone(),
            rows: rows.len(),
            labels: labels.len(),
            largest,
            median,
        });
    }
    let size = |count: &&DatasetCount| count.rows;
    if let (Some(least), Some(most)) = (counts.iter().min_by_key(size), counts.iter().max_by_key(size))
        && most.rows as f64 > options.dataset_ratio * least.rows as f64
    {
        let message = format!("{} has {} rows, {} has {}", most.name, most.rows, least.name, least.rows);
        findings.push(maker.finding(FindingKind::UnevenDatasets, message, Vec::new(), &[]));
    }
    (findings, counts)
}

/// The rows of each label, or of each first positive where a row has no label; in the order of their first rows.
fn labels(gathered: &Gathered, uses: &Uses, rows: &[usize]) -> Vec<Vec<usize>> {
    let mut labels: BTreeMap<(bool, usize), Vec<usize>> = BTreeMap::new();
    for number in rows {
        let row = &gathered.rows[*number];
        let positive = row.contents.iter().find(|(role, _)| *role == Role::Positive(0));
        let positive = positive.map_or(0, |(_, item)| uses.first_item[*item]);
        let key = row.label.map_or((false, positive), |label| (true, label));
        labels.entry(key).or_default().push(*number);
    }
    let mut labels: Vec<Vec<usize>> = labels.into_values().collect();
    labels.sort_by_key(|rows| rows[0]);
    labels
}

/// A row's label as text, or its positive.
fn label(maker: &Maker, row: usize) -> FoundContent {
    let gathered = maker.gathered;
    let content = match gathered.rows[row].label {
        Some(label) => vec![rzen_core::Part::Text(gathered.names.values[label].clone())],
        None => {
            let positive = gathered.rows[row].contents.iter().find(|(role, _)| *role == Role::Positive(0));
            positive.map_or_else(Vec::new, |(_, item)| gathered.parts(*item))
        }
    };
    maker.row(content, &[row])
}
