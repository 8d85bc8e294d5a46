//! Moments of long videos, looked for by what happens in them.

use std::path::Path;

use rzen_core::{Item, Part};

use super::annotations::Hub;
use super::draft::{Draft, Query, Reading};
use super::error::PublishedError;
use super::rows::{Annotation, annotations};
use super::texts::{Words, candidate, query};
use super::videos::{CLIP, FRAMES, stem};
use crate::cell::Cell;
use crate::import::record::{list_of, record_of};

const IN_VIDEO: &str = "Find the clip that corresponds to the described scene in the given video:";

/// Reads a set whose clips are the folders beside the frames of the whole video.
pub(crate) fn read_folders(set: Reading, hub: Hub, folder: &str) -> Result<Draft, PublishedError> {
    let mut draft = set.draft();
    let root = set.data.join(FRAMES).join(folder);
    annotations(&hub.files(set.data)?, &["query", "video_path"], |row| {
        let (text, video) = (row.needed("query")?, stem(&row.needed("video_path")?));
        let origin = row.origin.clone();
        let whole = draft.clip(root.join(&video).join("query"));
        let (mut ids, mut relevant) = (Vec::new(), Vec::new());
        for clip in clips(&root.join(&video))? {
            let id = format!("{video}/{clip}");
            draft.candidate(&id, &origin, |draft| candidate(set.protocol, CLIP, draft.clip(root.join(&id))));
            if clip.starts_with(POSITIVE) {
                relevant.push((id.clone(), 1.0));
            }
            ids.push(id);
        }
        let item = query(set.protocol, Words { instruction: IN_VIDEO, text: &text }, Some(whole));
        let query =
            Query { id: draft.next_id(), item, candidates: Some(ids), excluded: None, relevant, origin };
        draft.query(set.name, query)
    })?;
    Ok(draft)
}

/// How the names of folders of clips that answer begin.
const POSITIVE: &str = "positive";

/// The folders of clips beside that of the whole video. Where there are none that answer, or none at all, their names as they
/// should be, so that they are said to be missing.
fn clips(folder: &Path) -> Result<Vec<String>, String> {
    let failed = |error| format!("can't read the folder `{}`: {error}", folder.display());
    let mut names = Vec::new();
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => names.push("negative".to_owned()),
        entries => {
            for entry in entries.map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.path().is_dir() && name != "query" && !name.starts_with('.') {
                    names.push(name);
                }
            }
        }
    }
    if !names.iter().any(|name| name.starts_with(POSITIVE)) {
        names.push(POSITIVE.to_owned());
    }
    names.sort();
    Ok(names)
}

const BY_TEXT: &str = "Find the clip that corresponds to the given text:";
const BY_PICTURE: &str = "Select the video clip that aligns with the given text and image:";
const BY_CLIP: &str = "Find the clip that corresponds to the given sentence and video segment:";
const SEEKER_CLIP: &str = "Understand the content of the provided video clip.";

/// Reads MomentSeeker, whose annotations list the clips, and whose queries are words alone or with a picture or clip.
pub(crate) fn read_seeker(set: Reading, hub: Hub, folder: &str) -> Result<Draft, PublishedError> {
    let mut draft = set.draft();
    let root = set.data.join(FRAMES).join(folder);
    let columns = ["query", "input_frames", "positive_frames", "negative_frames"];
    annotations(&hub.files(set.data)?, &columns, |row| {
        let item = seeker_query(row, &root, set, &mut draft)?;
        let origin = row.origin.clone();
        let positives = output_paths(row, "positive_frames")?;
        let mut ids = Vec::new();
        for path in positives.iter().cloned().chain(output_paths(row, "negative_frames")?) {
            let folder = frame_folder(&path);
            draft.candidate(&folder, &origin, |draft| {
                candidate(set.protocol, SEEKER_CLIP, draft.clip(root.join("video_frames").join(&folder)))
            });
            ids.push(folder);
        }
        let mut relevant: Vec<(String, f64)> = Vec::new();
        for folder in positives.iter().map(|path| frame_folder(path)) {
            if !relevant.iter().any(|(id, _)| *id == folder) {
                relevant.push((folder, 1.0));
            }
        }
        let query =
            Query { id: draft.next_id(), item, candidates: Some(ids), excluded: None, relevant, origin };
        draft.query(set.name, query)
    })?;
    Ok(draft)
}

fn seeker_query(row: &mut Annotation, root: &Path, set: Reading, draft: &mut Draft) -> Result<Item, String> {
    let (text, input) = (row.needed("query")?, row.text("input_frames")?);
    let (instruction, media) = match input.rsplit_once('.') {
        Some((_, "mp4")) => (BY_CLIP, Some(draft.clip(root.join("video_frames").join(frame_folder(&input))))),
        Some((_, "jpg")) => (BY_PICTURE, Some(Part::Image(root.join(format!("query_{input}"))))),
        _ if input.is_empty() => (BY_TEXT, None),
        _ => return Err(format!("`input_frames` is `{input}`, expected nothing, a .jpg or an .mp4")),
    };
    Ok(query(set.protocol, Words { instruction, text: &text }, media))
}

/// The paths of clips in a list of objects.
fn output_paths(row: &mut Annotation, column: &str) -> Result<Vec<String>, String> {
    let cell = row.record.take(column).unwrap_or(Cell::Null);
    let path = |cell| record_of(cell, column, &row.record)?.required_text("output_path");
    list_of(cell, column)?.into_iter().map(path).collect()
}

/// The folder of a clip's frames: its path in one name, without its ending.
fn frame_folder(path: &str) -> String {
    let name = path.split(".mp4").next().unwrap_or(path);
    name.replace('/', "_")
}
