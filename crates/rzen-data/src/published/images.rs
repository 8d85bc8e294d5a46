//! The 36 image sets: a picture or words, and a list of candidates for each query, of which the first is the answer.

use std::path::Path;

use rzen_core::{Item, Part};

use super::annotations::Hub;
use super::draft::{Draft, Query, Reading};
use super::error::PublishedError;
use super::names::Protocol;
use super::rows::{Annotation, annotations};
use super::texts::{Words, exact, picture_candidate, picture_query, text_query};
use crate::import::placeholders::take_image_marks;

/// What queries and candidates are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageLayout {
    /// A picture, and labels.
    Labels,
    /// A picture with a question, and answers.
    Questions,
    /// A picture, and captions.
    Captions,
    /// Words, and pictures, which may have words of their own.
    Search,
    /// A picture, with words or without, and pictures.
    Edits,
}

impl ImageLayout {
    /// Whether candidates are pictures.
    fn shows_pictures(self) -> bool {
        matches!(self, ImageLayout::Search | ImageLayout::Edits)
    }
}

/// Annotations with instructions in columns of their own, and the older ones that have them inside their texts.
const NEWER: &str = "ziyjiang/MMEB_Test_Instruct";
const OLDER: &str = "TIGER-Lab/MMEB-eval";
/// The folder of the pictures.
const FOLDER: &str = "image-tasks";

/// Reads a set; `config` is its name on the hub.
pub(crate) fn read(set: Reading, config: &'static str, layout: ImageLayout) -> Result<Draft, PublishedError> {
    let data = set.data;
    let newer = Hub::of(NEWER).config(config);
    let older = Hub::of(OLDER).config(config);
    let is_older = !newer.folder(data).is_dir() && older.folder(data).is_dir();
    let files = if is_older { older.files(data)? } else { newer.files(data)? };
    let mut columns = vec!["qry_text", "tgt_text"];
    columns.extend((layout != ImageLayout::Search).then_some("qry_img_path"));
    columns.extend(layout.shows_pictures().then_some("tgt_img_path"));
    if !is_older {
        columns.push("qry_inst");
        columns.extend(layout.shows_pictures().then_some("tgt_inst"));
    }
    let mut draft = set.draft();
    let rows = Rows { set, layout, root: &data.join(FOLDER), is_older };
    annotations(&files, &columns, |row| rows.read(row, &mut draft))?;
    Ok(draft)
}

struct Rows<'a> {
    set: Reading<'a>,
    layout: ImageLayout,
    root: &'a Path,
    /// Whether instructions stand inside the texts.
    is_older: bool,
}

impl Rows<'_> {
    fn read(&self, row: &mut Annotation, draft: &mut Draft) -> Result<(), String> {
        let item = self.query(row)?;
        let ids =
            if self.layout.shows_pictures() { self.pictures(row, draft)? } else { self.texts(row, draft)? };
        let Some(answer) = ids.first().cloned() else {
            return Err("the list of targets is empty, and its first is the answer".into());
        };
        let origin = row.origin.clone();
        let (id, relevant) = (draft.next_id(), vec![(answer, 1.0)]);
        draft
            .query(self.set.name, Query { id, item, candidates: Some(ids), excluded: None, relevant, origin })
    }

    fn query(&self, row: &mut Annotation) -> Result<Item, String> {
        let text = row.text("qry_text")?;
        let picture = match self.layout {
            ImageLayout::Search => None,
            _ => Some(self.picture(&row.needed("qry_img_path")?)),
        };
        if self.is_older {
            return Ok(self.whole(&text, picture));
        }
        let instruction = without_marks(&row.text("qry_inst")?);
        let words = Words { instruction: &instruction, text: &text };
        Ok(match picture {
            Some(picture) => picture_query(self.set.protocol, words, picture),
            // Dialogues end in a line of their own.
            None => text_query(self.set.protocol, words, if self.set.name == "VisDial" { "\n" } else { "" }),
        })
    }

    /// Candidates of words alone: the words are their ids.
    fn texts(&self, row: &mut Annotation, draft: &mut Draft) -> Result<Vec<String>, String> {
        let texts = row.texts("tgt_text")?;
        for text in &texts {
            if text.trim().is_empty() {
                return Err("column `tgt_text` holds an empty text".into());
            }
            draft.candidate(text, &row.origin, |_| Item::text(text.as_str()));
        }
        Ok(texts)
    }

    /// Candidates that are pictures: paths are their ids, or paths and words where both tell them apart.
    fn pictures(&self, row: &mut Annotation, draft: &mut Draft) -> Result<Vec<String>, String> {
        let instruction =
            if self.is_older { String::new() } else { without_marks(&row.first_text("tgt_inst")?) };
        let paths = row.texts("tgt_img_path")?;
        let mut texts = row.texts_or_none("tgt_text")?;
        if texts.len() < paths.len() && texts.iter().all(|text| text.trim().is_empty()) {
            texts.resize(paths.len(), String::new());
        }
        if texts.len() != paths.len() {
            return Err(format!("`tgt_img_path` has {} entries and `tgt_text` {}", paths.len(), texts.len()));
        }
        let has_texts = texts.first().is_some_and(|text| !text.trim().is_empty());
        let mut ids = Vec::with_capacity(paths.len());
        for (path, text) in paths.iter().zip(&texts) {
            if path.is_empty() {
                return Err("column `tgt_img_path` holds an empty path".into());
            }
            let id = match self.layout {
                ImageLayout::Edits => format!("{path}:{}", text.trim_matches('"')),
                _ => path.clone(),
            };
            draft.candidate(&id, &row.origin, |_| self.candidate(path, &instruction, text, has_texts));
            ids.push(id);
        }
        Ok(ids)
    }

    fn candidate(&self, path: &str, instruction: &str, text: &str, has_texts: bool) -> Item {
        let picture = self.picture(path);
        if self.is_older {
            return self.whole(text, Some(picture));
        }
        let end = if has_texts || self.layout == ImageLayout::Search { "\n" } else { "" };
        let text = if has_texts { text } else { "" };
        picture_candidate(self.set.protocol, Words { instruction, text }, picture, end)
    }

    /// An item whose text has the instruction and the mark of its picture.
    fn whole(&self, text: &str, picture: Option<Part>) -> Item {
        match self.set.protocol {
            Protocol::Vlm2vec => {
                exact(picture, MARKS.iter().fold(text.to_owned(), |text, mark| text.replace(mark, "")))
            }
            Protocol::Rzen => Words { instruction: "", text: &without_marks(text) }.rzen_candidate(picture),
        }
    }

    fn picture(&self, path: &str) -> Part {
        Part::Image(self.root.join(path))
    }
}

/// The marks of a picture in the older and the newer annotations.
const MARKS: [&str; 2] = ["<|image_1|>", "<|image_pad|>"];

fn without_marks(text: &str) -> String {
    take_image_marks(text).0
}
