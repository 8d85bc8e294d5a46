//! ViDoRe's training set, VisRAG's, and others of their columns: a `query`, and the `image` of the page that answers it.

use super::draft::{Draft, words};
use super::media::Media;
use super::record::Record;
use super::{ImportReport, Refusal};

pub(super) fn read(
    record: &mut Record,
    media: &mut Media,
    _: &mut ImportReport,
) -> Result<Vec<Draft>, Refusal> {
    let query = record.required_text("query")?;
    let page = record.required("image")?;
    let page = media.picture_of(page, "image", &record.folder)?;
    Ok(vec![Draft::pair(words(&query).into_iter().collect(), page.into_iter().collect())])
}
