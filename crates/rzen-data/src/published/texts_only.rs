//! BEIR: questions and passages, the judgements of its test split.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rzen_core::Item;

use super::draft::{Draft, Query, Reading};
use super::error::PublishedError;
use super::pages::best_grades;
use super::rows::annotations;
use crate::import::beir::{files, judgements};
use crate::import::passages::{id_of, titled};

/// The folders that are in BEIR's layout, by name: `data` itself, or those in it, and those in folders of it that are none.
pub(crate) fn find(data: &Path) -> Result<Vec<(String, PathBuf)>, PublishedError> {
    if is_set(data) {
        let whole = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
        let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![(name, data.to_owned())]);
    }
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

/// Of a set's judgements, how many in a hundred may name passages that are not there.
const MAX_LOST_PERCENT: usize = 1;

/// Reads a set, as BEIR's own runner takes it: queries without judgements are left out, and a passage with the query's id is not
/// ranked for it. Passages without words and judgements of passages that are not there are left out; what was, the notes say.
pub(crate) fn read(set: Reading, folder: &Path) -> Result<Draft, PublishedError> {
    let mut draft = set.draft();
    let (mut seen, mut empty) = (HashSet::new(), 0);
    let corpus = files(folder, "corpus", None)?;
    annotations(&corpus, &[], |row| {
        let id = id_of(&mut row.record)?;
        if !seen.insert(id.clone()) {
            return Err(format!("passage `{id}` stands there already; ids must differ"));
        }
        match titled(&mut row.record)? {
            None => empty += 1,
            Some(words) => {
                draft.candidate(&id, &row.origin, |_| Item { content: vec![words], instruction: None });
            }
        }
        Ok(())
    })?;
    // MS MARCO is judged on its dev split.
    let qrels = files(folder, "qrels", Some("test"))
        .or_else(|error| files(folder, "qrels", Some("dev")).map_err(|_| error))?;
    let judgements = judgements(&qrels)?;
    let (mut without, mut unanswered, mut own) = (0, 0, 0);
    let (mut lost, mut all) = (0, 0);
    annotations(&files(folder, "queries", None)?, &[], |row| {
        let id = id_of(&mut row.record)?;
        let mut relevant = judgements.get(&id).map(|judged| best_grades(judged)).unwrap_or_default();
        if relevant.is_empty() {
            without += 1;
            return Ok(());
        }
        all += relevant.len();
        let judged = relevant.len();
        relevant.retain(|(passage, _)| draft.has(passage));
        lost += judged - relevant.len();
        if relevant.is_empty() {
            unanswered += 1;
            return Ok(());
        }
        let is_own = draft.has(&id) && !relevant.iter().any(|(passage, _)| *passage == id);
        own += usize::from(is_own);
        let item = Item::text(row.needed("text")?);
        let (excluded, origin) = (is_own.then(|| id.clone()), row.origin.clone());
        draft.query(set.name, Query { id, item, candidates: None, excluded, relevant, origin })
    })?;
    if lost * 100 > all * MAX_LOST_PERCENT {
        return Err(PublishedError::Incomplete { path: corpus[0].clone(), lost, all });
    }
    let notes = [
        (without, "queries without judgements left out"),
        (empty, "passages without words left out"),
        (lost, "judgements of passages that are not there left out"),
        (unanswered, "queries left out, of whose passages none is there; BEIR's own runner scores them 0"),
        (
            own,
            "queries are ranked against all passages but the one of their own id, as BEIR's own runner does",
        ),
    ];
    let notes = notes.into_iter().filter(|(count, _)| *count > 0);
    draft.notes.extend(notes.map(|(count, what)| format!("{count} {what}")));
    Ok(draft)
}
