//! MMEB-train, mmE5, and MMEB with mined negatives: `qry`, `qry_image_path`, `pos_text`, `pos_image_path`, `neg_text`,
//! `neg_image_path`.
//!
//! Absent values are empty texts. The instruction stands inside `qry`. Negatives are one text, a list, or a list as
//! Python prints it (mmE5).

use std::path::PathBuf;

use rzen_core::Part;

use super::draft::{Draft, words};
use super::media::Media;
use super::placeholders::take_image_marks;
use super::record::{Record, list_of, text_of};
use super::{ImportOptions, ImportReport, Layout, Refusal, python_list};
use crate::cell::Cell;

/// The instructions of MMEB's queries, which its rows have inside `qry`.
const INSTRUCTIONS: &[&str] = &[
    "Represent the given image for classification",
    "Represent the given image for binary classification to determine whether it constitutes hateful speech or not",
    "Identify the object shown in the image",
    "Identify the scene shown in the image",
    "Identify the country depicted in the image",
    "Represent the given news image with the following caption for domain classification:",
    "Represent the given image with the following question:",
    "Find an image caption describing the given everyday image.",
    "Find a caption for the news in the given photo.",
    "Retrieve an image of this news caption.",
    "Find me an everyday image that matches the given caption:",
    "Find the document image that can answer the given query:",
    "Represent the given dialogue about an image, which is used for image retrieval:",
    "Find a news image that matches the provided caption:",
    "Find a Wikipedia image that answers this question:",
    "Retrieve a Wikipedia image-description pair that provides evidence for the question of this image:",
    "Find a day-to-day image that looks similar to the provided image.",
    "Given an image, find a similar everyday image with the described changes:",
    "Find an image to match the fashion image and style note:",
    "Select the portion of the image that isolates the object labeled as",
    "Select the portion of the image that follows the language expressions.",
    "Select the portion of the image that follows the language expressions:",
    "Select the portion of the image that answers the question",
];

pub(super) fn layout(files: Vec<PathBuf>, options: &ImportOptions) -> Layout<'_> {
    let given = options.instruction.as_deref();
    let read = move |record: &mut Record, media: &mut Media, report: &mut ImportReport| {
        read(record, media, report, given)
    };
    Layout { files, read: Box::new(read) }
}

fn read(
    record: &mut Record,
    media: &mut Media,
    report: &mut ImportReport,
    given: Option<&str>,
) -> Result<Vec<Draft>, Refusal> {
    let text = record.text("qry")?.unwrap_or_default();
    let (text, picture) = side(&text, &record.text("qry_image_path")?.unwrap_or_default(), record, media)?;
    let (instruction, rest) = split(&text, picture.is_some(), given);
    if instruction.is_none() {
        report.note("rows whose query begins with no known instruction; all of it was taken as the query");
    }
    let text = record.text("pos_text")?.unwrap_or_default();
    let positive = item(&text, &record.text("pos_image_path")?.unwrap_or_default(), record, media)?;
    Ok(vec![Draft {
        instruction: instruction.map(str::to_owned),
        negatives: negatives(record, media)?,
        ..Draft::pair(picture.into_iter().chain(words(rest)).collect(), positive)
    }])
}

/// The instruction, with the space after it, and the rest of the query. Something must be left to embed.
fn split<'a>(text: &'a str, has_picture: bool, given: Option<&str>) -> (Option<&'a str>, &'a str) {
    let known = given.into_iter().chain(INSTRUCTIONS.iter().copied()).map(str::trim_end);
    let found = known.filter(|known| !known.is_empty() && text.starts_with(known)).map(str::len).max();
    let Some(end) = found else { return (None, text) };
    let rest = text[end..].trim_start();
    match (rest.is_empty(), has_picture) {
        (true, true) => (Some(text), rest),
        (true, false) => (None, text),
        (false, _) => (Some(&text[..text.len() - rest.len()]), rest),
    }
}

fn negatives(record: &mut Record, media: &Media) -> Result<Vec<Vec<Part>>, Refusal> {
    let [texts, paths] = ["neg_text", "neg_image_path"].map(|column| texts(record, column));
    let (texts, paths) = (texts?, paths?);
    let mut negatives = Vec::new();
    for place in 0..texts.len().max(paths.len()) {
        let [text, path] = [&texts, &paths].map(|list| list.get(place).map_or("", String::as_str));
        // A place in both lists that holds nothing stands for no negative.
        if !(text.trim().is_empty() && path.is_empty()) {
            negatives.push(item(text, path, record, media)?);
        }
    }
    Ok(negatives)
}

/// The texts of a column, empty ones too.
fn texts(record: &mut Record, column: &str) -> Result<Vec<String>, String> {
    match record.take(column) {
        None => Ok(Vec::new()),
        Some(Cell::Text(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Cell::Text(text)) if text.trim().starts_with('[') && text.trim().ends_with(']') => {
            python_list::parse(&text).map_err(|problem| format!("column `{column}`: {problem}"))
        }
        Some(Cell::Text(text)) => Ok(vec![text]),
        Some(cell) => {
            let text = |cell| Ok(text_of(cell, column)?.unwrap_or_default());
            list_of(cell, column)?.into_iter().map(text).collect()
        }
    }
}

fn item(text: &str, path: &str, record: &Record, media: &Media) -> Result<Vec<Part>, String> {
    let (text, picture) = side(text, path, record, media)?;
    Ok(picture.into_iter().chain(words(&text)).collect())
}

/// The words and the picture of an item.
fn side(text: &str, path: &str, record: &Record, media: &Media) -> Result<(String, Option<Part>), String> {
    let (text, marks) = take_image_marks(text);
    if marks > 1 || (marks == 1 && path.is_empty()) {
        let named = if path.is_empty() { "no path" } else { "one path" };
        return Err(format!("`{text}` has marks for {marks} pictures, and {named} beside it"));
    }
    let picture = if path.is_empty() { None } else { Some(media.picture(path, &record.folder)?) };
    Ok((text, picture))
}
