//! BEIR: questions and passages, the judgements of its test split.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rzen_core::Item;

use super::draft::{Draft, Query, Reading};
use super::error::PublishedError;
use super::pages::best_grades;
use super::rows::annotations;
use crate::import::beir::{Judgements, files, judgements};
use crate::import::passages::{id_of, titled};

/// The folders that are in BEIR's layout, by name: `data` itself, or those in it, and those in folders of it that are none.
pub(crate) fn find(data: &Path) -> Result<Vec<(String, PathBuf)>, PublishedError> {
    if is_set(data) {
        let whole = data.canonicalize().unwrap_or_else(|_| data.to_owned());
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

/// Of a set's judgements, how many in a hundred may name passages or queries that are not there.
const MAX_LOST_PERCENT: usize = 1;

/// The judgements of a set: of its test split, of MS MARCO those of its dev split, which BEIR reports; where there is only the
/// other split, of that. And which it is, where there are both.
fn judged(set: Reading, folder: &Path) -> Result<(Judgements, Option<&'static str>), PublishedError> {
    let [first, second] = if set.name == "msmarco" { ["dev", "test"] } else { ["test", "dev"] };
    let of = |split| files(folder, "qrels", Some(split));
    let (chosen, other) = (of(first), of(second));
    let both = (chosen.is_ok() && other.is_ok()).then_some(first);
    Ok((judgements(&chosen.or_else(|error| other.map_err(|_| error))?)?, both))
}

/// Reads a set, as BEIR's own runner takes it: queries without judgements are left out, and a passage with the query's id is not
/// ranked for it. Passages without words, and judgements of passages and queries that are not there, are left out; what was, the
/// notes say.
pub(crate) fn read(set: Reading, folder: &Path) -> Result<Draft, PublishedError> {
    let mut draft = set.draft();
    let mut wordless = HashSet::new();
    let corpus = files(folder, "corpus", None)?;
    annotations(&corpus, &[], |row| {
        let id = id_of(&mut row.record)?;
        if draft.has(&id) || wordless.contains(&id) {
            return Err(format!("passage `{id}` stands there already; ids must differ"));
        }
        match titled(&mut row.record)? {
            None => drop(wordless.insert(id)),
            Some(words) => {
                draft.candidate(&id, &row.origin, |_| Item { content: vec![words], instruction: None });
            }
        }
        Ok(())
    })?;
    let (judgements, split) = judged(set, folder)?;
    let mut judged: HashMap<&str, Vec<(String, f64)>> =
        judgements.iter().map(|(id, judged)| (id.as_str(), best_grades(judged))).collect();
    judged.retain(|_, relevant| !relevant.is_empty());
    let all: usize = judged.values().map(Vec::len).sum();
    let (mut without, mut unanswered, mut own) = (0, 0, 0);
    let (mut absent, mut empty) = (0, 0);
    let queries = files(folder, "queries", None)?;
    annotations(&queries, &[], |row| {
        let id = id_of(&mut row.record)?;
        let Some(mut relevant) = judged.remove(id.as_str()) else {
            without += 1;
            return Ok(());
        };
        relevant.retain(|(passage, _)| {
            empty += usize::from(wordless.contains(passage));
            absent += usize::from(!draft.has(passage) && !wordless.contains(passage));
            draft.has(passage)
        });
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
    let unasked = judged.len();
    let of_unasked: usize = judged.values().map(Vec::len).sum();
    for (file, what, lost) in [(&corpus[0], "passages", absent), (&queries[0], "queries", of_unasked)] {
        if lost * 100 > all * MAX_LOST_PERCENT {
            return Err(PublishedError::Incomplete { path: file.clone(), what, lost, all });
        }
    }
    let notes = [
        (without, "queries without judgements left out"),
        (wordless.len(), "passages without words left out"),
        (
            absent + empty,
            "judgements of passages that are not there, or without words, left out; BEIR's own runner counts these as never found, so \
             that its scores are a little lower",
        ),
        (unanswered, "queries left out, of whose passages none is there; BEIR's own runner scores them 0"),
        (unasked, "judged queries are not there, and left out"),
        (
            own,
            "queries are ranked against all passages but the one of their own id, as BEIR's own runner does",
        ),
    ];
    let notes = notes.into_iter().filter(|(count, _)| *count > 0);
    draft.notes.extend(notes.map(|(count, what)| format!("{count} {what}")));
    draft.notes.extend(split.map(|split| format!("judged by its {split} split")));
    Ok(draft)
}
