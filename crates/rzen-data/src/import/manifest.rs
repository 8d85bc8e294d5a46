//! Our own columns in Parquet, with pictures inside; what [`train_rows`](crate::train_rows) reads, and bytes besides.

use rzen_core::{Part, VideoSource};

use super::draft::Draft;
use super::media::Media;
use super::record::{Record, list_of, name_of, record_of, text_of, texts_of};
use super::{ImportReport, Refusal};
use crate::cell::Cell;

pub(super) fn read(
    record: &mut Record,
    media: &mut Media,
    _: &mut ImportReport,
) -> Result<Vec<Draft>, Refusal> {
    let mut draft = Draft {
        name: record.text("name")?,
        task: record.text("task")?,
        instruction: record.text("instruction")?,
        label: record.text("label")?,
        group: record.text("group")?,
        positive_scores: numbers(record, "positive_scores")?,
        negative_scores: numbers(record, "negative_scores")?,
        ..Draft::default()
    };
    let query = record.required("query")?;
    draft.query = item(parsed(query, "query")?, "query", record, media)?;
    for (column, is_list) in [("positive", false), ("positives", true)] {
        if let Some(cell) = record.take(column) {
            let cell = parsed(cell, column)?;
            draft.positives.extend(items(cell, column, is_list, record, media)?);
        }
    }
    if let Some(cell) = record.take("negatives") {
        draft.negatives = items(parsed(cell, "negatives")?, "negatives", true, record, media)?;
    }
    Ok(vec![draft])
}

/// Text is JSON.
fn parsed(cell: Cell, column: &str) -> Result<Cell, String> {
    match cell {
        Cell::Text(text) => {
            let value = serde_json::from_str::<serde_json::Value>(&text);
            Ok(value.map_err(|error| format!("column `{column}` is no JSON: {error}"))?.into())
        }
        cell => Ok(cell),
    }
}

fn items(
    cell: Cell,
    column: &str,
    is_list: bool,
    record: &Record,
    media: &mut Media,
) -> Result<Vec<Vec<Part>>, Refusal> {
    let cells = if is_list { list_of(cell, column)? } else { vec![cell] };
    cells.into_iter().map(|cell| item(cell, column, record, media)).collect()
}

fn item(cell: Cell, column: &str, record: &Record, media: &mut Media) -> Result<Vec<Part>, Refusal> {
    list_of(cell, column)?.into_iter().map(|cell| part(cell, column, record, media)).collect()
}

fn part(cell: Cell, column: &str, record: &Record, media: &mut Media) -> Result<Part, Refusal> {
    let mut keys = record_of(cell, column, record)?;
    let folder = &record.folder;
    let part = if let Some(text) = keys.text("text")? {
        Some(Part::Text(text))
    } else if let Some(picture) = keys.take("image") {
        media.picture_of(picture, column, folder)?
    } else if let Some(path) = keys.text("document")? {
        let page = keys.text("page")?.map_or(Ok(1), |page| page.parse());
        let page = page.ok().filter(|page| *page > 0);
        let page = page.ok_or_else(|| format!("`page` in column `{column}` is no number from 1"))?;
        Some(Part::Document { path: media.file(&path, folder)?, page })
    } else {
        match keys.take("video") {
            Some(cell @ Cell::List(_)) => {
                let paths = texts_of(cell, column)?.into_iter().map(|path| media.file(&path, folder));
                Some(Part::Video(VideoSource::Frames(paths.collect::<Result<_, _>>()?)))
            }
            Some(cell) => text_of(cell, column)?.map(|path| media.clip(&path, folder)).transpose()?,
            None => None,
        }
    };
    let left = keys.names().into_iter().find(|name| keys.take(name).is_some());
    match (part, left) {
        (Some(part), None) => Ok(part),
        (_, Some(key)) => {
            Err(format!("a part of `{column}` has `{key}`, which is one too many or unknown").into())
        }
        (None, None) => Err(format!("a part of `{column}` is empty").into()),
    }
}

fn numbers(record: &mut Record, column: &str) -> Result<Vec<f64>, String> {
    let number = |cell| match cell {
        Cell::Number(number) => {
            serde_json::Number::as_f64(&number).ok_or_else(|| format!("`{column}` holds {number}"))
        }
        other => Err(format!("column `{column}` holds {}, expected numbers", name_of(&other))),
    };
    record
        .take(column)
        .map_or(Ok(Vec::new()), |cell| list_of(cell, column)?.into_iter().map(number).collect())
}
