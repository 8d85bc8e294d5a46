//! A corpus of passages, of which only those that are named are kept.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rzen_core::{Origin, Part};

use super::draft::words;
use super::media::Media;
use super::record::{Record, records, text_of};
use super::{ImportError, ImportReport, Refusal};

/// Passages by their ids.
#[derive(Default)]
pub(super) struct Passages(HashMap<String, Passage>);

struct Passage {
    /// Where it stands first.
    origin: Origin,
    /// Of one that can't be used, why.
    content: Result<Vec<Part>, String>,
}

/// The names that an id goes by.
const IDS: [&str; 7] = ["_id", "id", "docid", "corpus-id", "corpus_id", "query-id", "query_id"];

impl Passages {
    /// Reads the passages of `files` that are `wanted`. One that stands twice with different contents can't be used.
    pub fn read(
        files: &[PathBuf],
        wanted: &HashSet<String>,
        media: &mut Media,
        report: &mut ImportReport,
    ) -> Result<Self, ImportError> {
        let mut passages = Passages::default();
        for path in files {
            let file: Arc<Path> = path.as_path().into();
            for (index, record) in records(path)?.enumerate() {
                let problem = |message: String| ImportError::Layout {
                    path: path.clone(),
                    problem: format!("can't be read in row {}: {message}", index + 1),
                };
                let mut record = match record {
                    Ok(record) => record,
                    Err(Refusal::Failed(error)) => return Err(error),
                    Err(Refusal::Row(message)) => return Err(problem(message)),
                };
                let id = id_of(&mut record).map_err(problem)?;
                if wanted.contains(&id) {
                    let content = match content(&mut record, media) {
                        Err(Refusal::Failed(error)) => return Err(error),
                        Err(Refusal::Row(message)) => Err(format!("passage `{id}`: {message}")),
                        Ok(content) if content.is_empty() => Err(format!("passage `{id}` is empty")),
                        Ok(content) => Ok(content),
                    };
                    let origin = Origin { file: Arc::clone(&file), line: index + 1 };
                    passages.add(id, Passage { origin, content }, report);
                }
            }
        }
        Ok(passages)
    }

    fn add(&mut self, id: String, passage: Passage, report: &mut ImportReport) {
        match self.0.get_mut(&id) {
            None => {
                self.0.insert(id, passage);
            }
            Some(first) if first.content == passage.content => {
                report.note("passages that stand twice in the corpus, with the same content");
            }
            Some(first) => {
                first.content = Err(format!(
                    "passage `{id}` stands in {} and in {} with different contents; keep one of them",
                    first.origin, passage.origin
                ));
            }
        }
    }

    pub fn get(&self, id: &str) -> Result<Vec<Part>, String> {
        match self.0.get(id) {
            Some(passage) => passage.content.clone(),
            None => Err(format!("passage `{id}` is not in the corpus")),
        }
    }

    pub fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }
}

/// The id of a passage or query.
pub(crate) fn id_of(record: &mut Record) -> Result<String, String> {
    match record.take_any(&IDS) {
        Some(cell) => text_of(cell, "id")?.ok_or_else(|| "the id is empty".to_owned()),
        None => Err(format!("there is no id; it may be called {}", IDS.join(", "))),
    }
}

/// A picture or clip, a title and a text, whichever there are.
pub(super) fn content(record: &mut Record, media: &mut Media) -> Result<Vec<Part>, Refusal> {
    let mut parts = Vec::new();
    if let Some(picture) = record.take("image") {
        parts.extend(media.picture_of(picture, "image", &record.folder)?);
    }
    if let Some(path) = record.text("video")? {
        parts.push(media.clip(&path, &record.folder)?);
    }
    parts.extend(titled(record)?);
    Ok(parts)
}

/// Title and text in one, as Tevatron and BEIR join them.
pub(crate) fn titled(record: &mut Record) -> Result<Option<Part>, String> {
    let title = record.text("title")?.unwrap_or_default();
    let text = record.text("text")?.unwrap_or_default();
    Ok(words(&format!("{} {}", title.trim(), text.trim())))
}
