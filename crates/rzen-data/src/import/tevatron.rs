//! Tevatron: `query` with `positive_passages` and `negative_passages` of `{docid, title, text}`, or, in its second
//! version, `query_text` and `query_image` with ids of a corpus.

use std::collections::HashSet;
use std::path::PathBuf;

use rzen_core::Part;

use super::draft::{Draft, words};
use super::media::Media;
use super::passages::{Passages, titled};
use super::record::{Record, list_of, record_of, records, texts_of};
use super::{ImportError, ImportReport, Layout, Refusal};

pub(super) fn layout<'a>(
    files: Vec<PathBuf>,
    corpus: &[PathBuf],
    media: &mut Media,
    report: &mut ImportReport,
) -> Result<Layout<'a>, ImportError> {
    let wanted = if corpus.is_empty() { HashSet::new() } else { named(&files)? };
    let passages = Passages::read(corpus, &wanted, media, report)?;
    let read =
        move |record: &mut Record, media: &mut Media, _: &mut ImportReport| read(record, media, &passages);
    Ok(Layout { files, read: Box::new(read) })
}

const SIDES: [(&str, &str); 2] =
    [("positive_passages", "positive_document_ids"), ("negative_passages", "negative_document_ids")];

/// The ids that the rows name. Rows that can't be read are refused later.
fn named(files: &[PathBuf]) -> Result<HashSet<String>, ImportError> {
    let mut ids = HashSet::new();
    for file in files {
        for mut record in records(file)?.flatten() {
            for (_, column) in SIDES {
                let cell = record.take(column);
                ids.extend(cell.and_then(|cell| texts_of(cell, column).ok()).unwrap_or_default());
            }
        }
    }
    Ok(ids)
}

fn read(record: &mut Record, media: &mut Media, passages: &Passages) -> Result<Vec<Draft>, Refusal> {
    let mut query = Vec::new();
    if let Some(picture) = record.take("query_image") {
        query.extend(media.picture_of(picture, "query_image", &record.folder)?);
    }
    let text = match record.text("query")? {
        Some(text) => Some(text),
        None => record.text("query_text")?,
    };
    query.extend(text.as_deref().and_then(words));
    record.take("query_id");
    let [positives, negatives] = SIDES.map(|columns| side(record, columns, passages));
    Ok(vec![Draft { query, positives: positives?, negatives: negatives?, ..Draft::default() }])
}

fn side(
    record: &mut Record,
    (whole, ids): (&str, &str),
    passages: &Passages,
) -> Result<Vec<Vec<Part>>, String> {
    if let Some(cell) = record.take(whole) {
        let passage = |cell| Ok(titled(&mut record_of(cell, whole, record)?)?.into_iter().collect());
        return list_of(cell, whole)?.into_iter().map(passage).collect();
    }
    match record.take(ids) {
        Some(cell) => texts_of(cell, ids)?.iter().map(|id| passages.get(id)).collect(),
        None => Ok(Vec::new()),
    }
}
