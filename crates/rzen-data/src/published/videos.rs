//! Clips that are to be named, and clips that are looked for.

use std::path::{Path, PathBuf};

use rzen_core::{Item, Origin};

use super::annotations::Hub;
use super::draft::{Draft, Query, Reading};
use super::error::PublishedError;
use super::names::Protocol;
use super::rows::annotations;
use super::texts::{Words, candidate, query};

/// The folder that holds the folders of frames.
pub(crate) const FRAMES: &str = "video-tasks/frames";

/// What clips may be named with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabelList {
    Kinetics700,
    Hmdb51,
    Ucf101,
    Breakfast,
    /// The list that stands in each row, with the answer in it.
    OfEachRow,
}

impl LabelList {
    fn text(self) -> &'static str {
        match self {
            LabelList::Kinetics700 => include_str!("labels/kinetics-700.txt"),
            LabelList::Hmdb51 => include_str!("labels/hmdb51.txt"),
            LabelList::Ucf101 => include_str!("labels/ucf101.txt"),
            LabelList::Breakfast => include_str!("labels/breakfast.txt"),
            LabelList::OfEachRow => "",
        }
    }
}

/// Rows of SmthSmthV2 that are used: the first ones.
const OF_EACH_ROW_CAP: usize = 1000;

/// Reads clips that are to be named.
pub(crate) fn read_classes(
    set: Reading,
    hub: Hub,
    folder: &str,
    labels: LabelList,
    instruction: &str,
) -> Result<Draft, PublishedError> {
    let mut draft = set.draft();
    let files = hub.files(set.data)?;
    let file = files.first().map(PathBuf::as_path).unwrap_or(set.data);
    for (place, label) in labels.text().lines().enumerate() {
        let origin = Origin { file: file.into(), line: place + 1 };
        draft.candidate(label, &origin, |_| Item::text(label));
    }
    let (each, root) = (labels == LabelList::OfEachRow, set.data.join(FRAMES).join(folder));
    let columns: &[&str] =
        if each { &["video_id", "pos_text", "neg_text"] } else { &["video_id", "pos_text"] };
    let words = Words { instruction, text: "" };
    annotations(&files, columns, |row| {
        if each && draft.num_queries() == OF_EACH_ROW_CAP {
            return Ok(());
        }
        let clip = draft.clip(root.join(row.needed("video_id")?));
        let (answer, origin) = (row.needed("pos_text")?, row.origin.clone());
        let candidates = if each { Some(row.texts("neg_text")?) } else { None };
        for label in candidates.iter().flatten() {
            draft.candidate(label, &origin, |_| Item::text(label.as_str()));
        }
        if !draft.has(&answer) {
            return Err(format!("the answer `{answer}` is none of the labels"));
        }
        let item = query(set.protocol, words, Some(clip));
        let (id, relevant) = (draft.next_id(), vec![(answer, 1.0)]);
        draft.query(set.name, Query { id, item, candidates, excluded: None, relevant, origin })
    })?;
    Ok(draft)
}

/// The columns of a caption and of the clip that it tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caption {
    /// Names the folder of frames; of a path the file's name without its ending.
    clip: &'static str,
    /// A text, or a list of which the first is taken.
    caption: &'static str,
}

impl Caption {
    pub const DIDEMO: Caption = Caption { clip: "video", caption: "caption" };
    pub const MSRVTT: Caption = Caption { clip: "video_id", caption: "caption" };
    pub const MSVD: Caption = Caption { clip: "video_id", caption: "caption" };
    pub const VATEX: Caption = Caption { clip: "videoID", caption: "enCap" };
    pub const YOUCOOK2: Caption = Caption { clip: "id", caption: "sentence" };
}

/// The reference's words for clips, and RzenEmbed's.
pub(crate) const CLIP: &str = "Understand the content of the provided video.";
/// RzenEmbed's example for the search of videos.
const RZEN_SEARCH: &str = "Find the video snippet that corresponds to the given caption:";

/// Reads captions and clips; every clip is a candidate of every caption.
pub(crate) fn read_search(
    set: Reading,
    hub: Hub,
    folder: &str,
    columns: Caption,
    instruction: &str,
) -> Result<Draft, PublishedError> {
    let mut draft = set.draft();
    let instruction = if set.protocol == Protocol::Rzen { RZEN_SEARCH } else { instruction };
    let root = set.data.join(FRAMES).join(folder);
    annotations(&hub.files(set.data)?, &[columns.clip, columns.caption], |row| {
        let named = row.needed(columns.clip)?;
        let id = if columns == Caption::DIDEMO { stem(&named) } else { named };
        let text = row.first_text(columns.caption)?;
        if text.is_empty() {
            return Err(format!("column `{}` has no caption", columns.caption));
        }
        let origin = row.origin.clone();
        draft.candidate(&id, &origin, |draft| candidate(set.protocol, CLIP, draft.clip(root.join(&id))));
        let item = query(set.protocol, Words { instruction, text: &text }, None);
        let query = Query {
            id: draft.next_id(),
            item,
            candidates: None,
            excluded: None,
            relevant: vec![(id, 1.0)],
            origin,
        };
        draft.query(set.name, query)
    })?;
    Ok(draft)
}

/// A path's file name without its ending.
pub(crate) fn stem(path: &str) -> String {
    Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_labels_are_whole() {
        let lists = [
            (LabelList::Kinetics700, 700),
            (LabelList::Hmdb51, 51),
            (LabelList::Ucf101, 101),
            (LabelList::Breakfast, 10),
        ];
        for (list, count) in lists {
            let labels: std::collections::HashSet<_> = list.text().lines().collect();
            assert_eq!(labels.len(), count, "{list:?}");
            assert!(labels.iter().all(|label| !label.is_empty() && label.trim() == *label));
        }
    }
}
