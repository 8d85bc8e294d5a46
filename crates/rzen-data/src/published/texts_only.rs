//! BEIR: questions and passages, the judgements of its test split.

use std::path::{Path, PathBuf};

use rzen_core::Item;

use super::draft::{Draft, Query};
use super::error::PublishedError;
use super::pages::best_grades;
use super::rows::annotations;
use crate::import::beir::{files, judgements};
use crate::import::passages::{id_of, titled};

/// The folders below `data` that are in BEIR's layout, by name: those in `data`, and those in folders of it that are none.
pub(crate) fn find(data: &Path) -> Result<Vec<(String, PathBuf)>, PublishedError> {
    let mut found = Vec::new();
    for (name, folder) in folders(data)? {
        if is_set(&folder) {
            found.push((name, folder));
        } else {
            let inner = folders(&folder)?.into_iter().filter(|(_, folder)| is_set(folder));
            found.extend(inner.map(|(inner, folder)| (format!("{name}/{inner}"), folder)));
        }
    }
    found.sort();
    Ok(found)
}

fn folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, PublishedError> {
    let failed = |source| PublishedError::Folder { path: folder.to_owned(), source };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') {
            folders.push((name, path));
        }
    }
    Ok(folders)
}

fn is_set(folder: &Path) -> bool {
    ["corpus", "queries"].iter().all(|name| files(folder, name, None).is_ok())
        && folder.join("qrels").exists()
}

/// Reads a set. Queries without judgements are left out, as BEIR's own runner does.
pub(crate) fn read(name: &str, folder: &Path) -> Result<Draft, PublishedError> {
    let mut draft = Draft::default();
    annotations(&files(folder, "corpus", None)?, &[], |row| {
        let id = id_of(&mut row.record)?;
        if draft.has(&id) {
            return Err(format!("passage `{id}` stands there already; ids must differ"));
        }
        let content = titled(&mut row.record)?.ok_or_else(|| format!("passage `{id}` is empty"))?;
        draft.candidate(&id, &row.origin, |_| Item { content: vec![content], instruction: None });
        Ok(())
    })?;
    // MS MARCO is judged on its dev split.
    let qrels = files(folder, "qrels", Some("test"))
        .or_else(|error| files(folder, "qrels", Some("dev")).map_err(|_| error))?;
    let judgements = judgements(&qrels)?;
    let (mut without, mut own) = (0, 0);
    annotations(&files(folder, "queries", None)?, &[], |row| {
        let id = id_of(&mut row.record)?;
        let relevant = judgements.get(&id).map(|judged| best_grades(judged)).unwrap_or_default();
        if let Some((passage, _)) = relevant.iter().find(|(passage, _)| !draft.has(passage)) {
            return Err(format!(
                "query `{id}` is answered by passage `{passage}`, which is not in the corpus"
            ));
        }
        if relevant.is_empty() {
            without += 1;
            return Ok(());
        }
        own += usize::from(draft.has(&id));
        let item = Item::text(row.needed("text")?);
        draft.query(name, Query { id, item, candidates: None, relevant, origin: row.origin.clone() })
    })?;
    if without > 0 {
        draft.notes.push(format!("{without} queries without judgements left out"));
    }
    if own > 0 {
        draft.notes.push(format!(
            "{own} queries share their id with a passage, which stays in the pool; BEIR's own runner takes it out"
        ));
    }
    Ok(draft)
}
