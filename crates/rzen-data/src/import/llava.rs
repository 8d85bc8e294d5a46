//! Conversations about pictures and clips: `image` or `video`, and `conversations` of turns `{from, value}`.
//!
//! Each pair of a human's turn and an answer is a row: the media and the human's words are the query, the answer is the
//! positive. The other way round, the answer looks for the media, and what the human said is left out.

use std::path::PathBuf;

use rzen_core::Part;

use super::draft::{Draft, words};
use super::media::Media;
use super::placeholders::take_marks;
use super::record::{Record, list_of, record_of, text_of, texts_of};
use super::{ImportReport, Layout, Refusal};
use crate::cell::Cell;

pub(super) fn layout<'a>(files: Vec<PathBuf>, reverse: bool) -> Layout<'a> {
    let read = move |record: &mut Record, media: &mut Media, report: &mut ImportReport| {
        read(record, media, report, reverse)
    };
    Layout { files, read: Box::new(read) }
}

fn read(
    record: &mut Record,
    media: &mut Media,
    report: &mut ImportReport,
    reverse: bool,
) -> Result<Vec<Draft>, Refusal> {
    let shown = media_of(record, media)?;
    let turns = turns(record)?;
    let marks: usize = turns.iter().map(|turn| turn.marks).sum();
    // Some sets have no marks at all.
    if marks > 0 && marks != shown.len() {
        let found = shown.len();
        return Err(
            format!("the conversation has marks for {marks} pictures and clips, and names {found}").into()
        );
    }
    if reverse && shown.is_empty() {
        return Err("names no picture and no clip that an answer could look for".to_owned().into());
    }
    let mut drafts = Vec::new();
    for pair in turns.chunks(2) {
        let [Turn { human: true, text: asked, .. }, Turn { human: false, text: answer, .. }] = pair else {
            return Err("the turns are not a human's and an answer, one after the other".to_owned().into());
        };
        let answer = words(answer).into_iter().collect();
        drafts.push(match reverse {
            true => Draft::pair(answer, shown.clone()),
            false => Draft::pair(shown.iter().cloned().chain(words(asked)).collect(), answer),
        });
    }
    if drafts.is_empty() {
        return Err("column `conversations` is empty".to_owned().into());
    }
    report.note_many("rows from later turns of a conversation", drafts.len() - 1);
    Ok(drafts)
}

/// The pictures and clips, in order.
fn media_of(record: &mut Record, media: &Media) -> Result<Vec<Part>, Refusal> {
    for column in ["start", "end"] {
        if record.take(column).is_some() {
            let problem = "names a piece of a clip; cut the piece out and name its file";
            return Err(format!("`{column}` {problem}").into());
        }
    }
    let mut shown = Vec::new();
    for (column, is_clip) in [("image", false), ("images", false), ("video", true), ("videos", true)] {
        let paths = match record.take(column) {
            None => Vec::new(),
            Some(cell @ Cell::List(_)) => texts_of(cell, column)?,
            Some(cell) => text_of(cell, column)?.into_iter().collect(),
        };
        for path in paths {
            shown.push(match is_clip {
                true => media.clip(&path, &record.folder)?,
                false => media.picture(&path, &record.folder)?,
            });
        }
    }
    Ok(shown)
}

struct Turn {
    human: bool,
    text: String,
    marks: usize,
}

fn turns(record: &mut Record) -> Result<Vec<Turn>, String> {
    let column = "conversations";
    let mut turns = Vec::new();
    for cell in list_of(record.required(column)?, column)? {
        let mut turn = record_of(cell, column, record)?;
        let human = match turn.required_text("from")?.as_str() {
            "human" | "user" => true,
            "gpt" | "assistant" => false,
            other => return Err(format!("a turn is from `{other}`, expected `human` or `gpt`")),
        };
        let text = turn.text("value")?.unwrap_or_default();
        let (text, pictures) = take_marks(&text, "<image>");
        let (text, clips) = take_marks(&text, "<video>");
        turns.push(Turn { human, text, marks: pictures + clips });
    }
    Ok(turns)
}
