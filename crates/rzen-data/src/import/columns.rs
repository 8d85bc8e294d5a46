//! Tables as sentence-transformers takes them: the first column is the query, the second the positive, those after them
//! negatives.

use std::path::PathBuf;

use rzen_core::Part;

use super::draft::{Draft, words};
use super::media::Media;
use super::record::{Record, list_of, name_of, record_of};
use super::{ImportReport, Layout, Refusal};
use crate::cell::Cell;

/// Names that sentence-transformers takes for no input.
const NO_INPUT: [&str; 4] = ["label", "labels", "score", "scores"];

pub(super) fn layout<'a>(files: Vec<PathBuf>, columns: Option<&'a [String]>) -> Layout<'a> {
    let mut first: Option<Vec<String>> = None;
    let read = move |record: &mut Record, media: &mut Media, report: &mut ImportReport| {
        let columns = columns.map_or_else(|| inputs(record), <[String]>::to_vec);
        // A row that lacks its query would take its positive for one.
        let first = first.get_or_insert_with(|| columns.iter().take(2).cloned().collect());
        if !columns.starts_with(first) {
            return Err(format!(
                "begins with other columns than the first row, which has {}; say which are the query, the positive and the \
                 negatives, such as `--columns {}`",
                first.join(", "),
                first.join(",")
            )
            .into());
        }
        read(record, media, report, &columns)
    };
    Layout { files, read: Box::new(read) }
}

fn read(
    record: &mut Record,
    media: &mut Media,
    report: &mut ImportReport,
    columns: &[String],
) -> Result<Vec<Draft>, Refusal> {
    let [query, positive, negatives @ ..] = columns else {
        return Err(format!("has {} columns, expected a query and a positive", columns.len()).into());
    };
    let roles = format!("rows with the query in `{query}`, the positive in `{positive}`");
    let content = |record: &mut Record, media: &mut Media, column: &str| {
        let cell = record.required(column)?;
        item(cell, column, record, media)
    };
    let mut draft = Draft::pair(content(record, media, query)?, content(record, media, positive)?);
    for column in negatives {
        match record.take(column) {
            Some(Cell::List(cells)) => {
                for cell in cells {
                    draft.negatives.push(item(cell, column, record, media)?);
                }
            }
            Some(cell) => draft.negatives.push(item(cell, column, record, media)?),
            // A row with fewer negatives than others.
            None => {}
        }
    }
    scores(record, &mut draft)?;
    let names: Vec<String> = negatives.iter().map(|column| format!("`{column}`")).collect();
    let negatives = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    report.note(&format!("{roles}, negatives in {negatives}"));
    Ok(vec![draft])
}

/// The columns that are inputs: of those after the second, the ones that are called negatives.
fn inputs(record: &Record) -> Vec<String> {
    let names = record.names().into_iter().filter(|name| !NO_INPUT.contains(&name.as_str()));
    names
        .enumerate()
        .filter(|(place, name)| *place < 2 || name.starts_with("neg"))
        .map(|(_, name)| name)
        .collect()
}

/// A list of scores is a teacher's: of the positive, then of each negative. One score says how near the two are, and
/// a pair that may be far apart is no positive.
fn scores(record: &mut Record, draft: &mut Draft) -> Result<(), String> {
    for column in NO_INPUT {
        match record.take(column) {
            None => {}
            Some(cell @ Cell::List(_)) => {
                let number = |cell: Cell| match cell {
                    Cell::Number(number) => {
                        number.as_f64().ok_or_else(|| format!("`{column}` holds {number}"))
                    }
                    other => Err(format!("column `{column}` holds {}, expected numbers", name_of(&other))),
                };
                let mut scores =
                    list_of(cell, column)?.into_iter().map(number).collect::<Result<Vec<_>, _>>()?;
                draft.negative_scores = scores.split_off(scores.len().min(1));
                draft.positive_scores = scores;
            }
            Some(_) => {
                return Err(format!(
                    "column `{column}` says how near the two are; training needs pairs that belong together: \
                     keep those rows and leave the column out"
                ));
            }
        }
    }
    Ok(())
}

/// A cell as content: words, a picture of a table, or an object of `text`, `image` and `video`.
fn item(cell: Cell, column: &str, record: &Record, media: &mut Media) -> Result<Vec<Part>, Refusal> {
    match cell {
        Cell::Text(text) => Ok(words(&text).into_iter().collect()),
        Cell::Bytes(_) => Ok(media.picture_of(cell, column, &record.folder)?.into_iter().collect()),
        Cell::Struct(cells) if cells.iter().all(|(name, _)| ["bytes", "path"].contains(&name.as_str())) => {
            let picture = media.picture_of(Cell::Struct(cells), column, &record.folder)?;
            Ok(picture.into_iter().collect())
        }
        cell => {
            let mut object = record_of(cell, column, record)?;
            let mut parts = Vec::new();
            if let Some(picture) = object.take("image") {
                parts.extend(media.picture_of(picture, column, &record.folder)?);
            }
            if let Some(path) = object.text("video")? {
                parts.push(media.clip(&path, &record.folder)?);
            }
            parts.extend(object.text("text")?.as_deref().and_then(words));
            match object.names().as_slice() {
                [] => Ok(parts),
                [name, ..] => {
                    Err(format!("column `{column}` has `{name}`, expected `text`, `image` or `video`").into())
                }
            }
        }
    }
}
