//! The page of a mining.

use std::path::Path;

use anyhow::Result;
use rzen_data::Loader;

use super::output::{Record, file_of_several};
use super::tell::{LATE, cells, columns, examples, rank_in_words};
use super::{Mined, RANKS};
use crate::report::{MinedCandidate, MinedExample, MinedPage, write_mined};
use crate::summary::shown;

/// Rows that the page shows.
const EXAMPLES: usize = 12;

pub(super) fn write(path: &Path, mined: &Mined, record: &Record, loader: &Loader) -> Result<()> {
    let examples = examples(mined, EXAMPLES).into_iter().map(|place| example(mined, place, loader));
    let settings = record.settings.as_object().into_iter().flatten();
    let page = MinedPage {
        title: format!("rzen: negatives for {}", record.corpus.display()),
        summary: settings.map(|(name, value)| (name.clone(), value.to_string())).collect(),
        columns: columns(),
        table: mined.units.iter().map(|(unit, rows)| cells(unit, rows, mined)).collect(),
        examples: examples.collect(),
        notes: vec![format!(
            "`rank` to `min` count candidates that each rule left out, of those in the window and before it; an answer after the \
             {LATE}th rank (ranks are looked at down to {RANKS} or the end of the window) may stand in a row that is labelled wrongly: \
             see `positive_rank` in mined.jsonl."
        )],
    };
    write_mined(&page, path)
}

fn example(mined: &Mined, (unit, row): (usize, usize), loader: &Loader) -> MinedExample {
    let (unit, rows) = &mined.units[unit];
    let (sample, row) = (unit.rows[row].sample, &rows[row]);
    let answers = sample.positives().zip(&row.positive_scores).map(|(item, score)| MinedCandidate {
        parts: shown(loader, item),
        label: format!("answer · {score:.3}"),
        answers: true,
    });
    let negatives = row.taken.iter().map(|taken| MinedCandidate {
        parts: shown(loader, unit.candidates[taken.candidate].item),
        label: format!("rank {} · {:.3}", taken.rank, taken.score),
        answers: false,
    });
    MinedExample {
        row: match file_of_several(&sample.origin) {
            Some(file) => format!("{}, {file}, row {}", unit.name, sample.origin.line),
            None => format!("{}, line {}", unit.name, sample.origin.line),
        },
        rank: rank_in_words(row),
        instruction: sample.query.instruction.clone(),
        query: shown(loader, &sample.query),
        candidates: answers.chain(negatives).collect(),
    }
}
