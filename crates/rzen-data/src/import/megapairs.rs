//! MegaPairs: `q_img`, `q_text` (several wordings), `t_img` and `hns`.
//!
//! `hns` begins with the picture of the query itself. Its authors train with it, so that words count; it is kept, as the
//! first negative, unless negatives that equal the query are to be left out.

use super::draft::{Draft, words};
use super::media::Media;
use super::record::{Record, text_of, texts_of};
use super::{ImportReport, Refusal};
use crate::cell::Cell;

/// A row takes one of its wordings, the next row the next.
pub(super) fn read(
    record: &mut Record,
    media: &mut Media,
    _: &mut ImportReport,
) -> Result<Vec<Draft>, Refusal> {
    let picture = media.picture(&record.required_text("q_img")?, &record.folder)?;
    let wordings = match record.required("q_text")? {
        cell @ Cell::List(_) => texts_of(cell, "q_text")?,
        cell => text_of(cell, "q_text")?.into_iter().collect(),
    };
    if wordings.is_empty() {
        return Err("column `q_text` is empty".to_owned().into());
    }
    let wording = &wordings[(record.row - 1) % wordings.len()];
    let target = media.picture(&record.required_text("t_img")?, &record.folder)?;
    let negatives = match record.take("hns") {
        Some(cell) => texts_of(cell, "hns")?,
        None => Vec::new(),
    };
    let negatives = negatives.iter().map(|path| Ok(vec![media.picture(path, &record.folder)?]));
    let negatives = negatives.collect::<Result<_, String>>()?;
    let query = [picture].into_iter().chain(words(wording)).collect();
    Ok(vec![Draft { negatives, ..Draft::pair(query, vec![target]) }])
}
