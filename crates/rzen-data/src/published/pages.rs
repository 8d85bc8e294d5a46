//! Visual documents: queries, pages and judgements in BEIR's layout, the pages as pictures inside of tables.
//!
//! The pages are written out of the tables once, under the reference runner's names but as the bytes that they are.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use md5::{Digest, Md5};
use rayon::prelude::*;
use rzen_core::{Origin, Part};

use super::draft::{Draft, Query, Reading};
use super::error::PublishedError;
use super::rows::{annotations, check_columns};
use super::table::{Naming, PageSet};
use super::texts::{Words, candidate, query};
use crate::cell::Cell;
use crate::import::beir::{Judgements, judgements};
use crate::import::record::text_of;
use crate::parquet_rows::{column_names, table_of};
use crate::picture::picture_format;

const QUERY: &str = "Find a document image that matches the given query:";
const PAGE: &str = "Understand the content of the provided document image.";

/// Reads a set. Pages that are not written yet are named as they will be, and stand in [`Draft::embedded`].
pub(crate) fn read(reading: Reading, set: PageSet) -> Result<Draft, PublishedError> {
    let mut draft = reading.draft();
    draft.advice = "remove them: pages are written anew out of their tables";
    for file in corpus(set, reading.data)? {
        for (id, origin) in ids(&file)? {
            let page = page(set, reading, &id).map_err(|problem| at(&origin, problem))?;
            if draft.has(&id) {
                return Err(at(&origin, format!("page `{id}` stands there already; ids must differ")));
            }
            if !page.is_written {
                draft.embedded.insert(page.path.clone());
            }
            draft.candidate(&id, &origin, |_| candidate(reading.protocol, PAGE, Part::Image(page.path)));
        }
    }
    let judged = judged(set, reading.data)?;
    let files = set.hub.config("queries").files(reading.data)?;
    let mut columns = vec!["query-id", "query"];
    columns.extend(set.language.map(|_| "language"));
    annotations(&files, &columns, |row| {
        if let Some(language) = set.language
            && row.needed("language")? != language
        {
            return Ok(());
        }
        let (id, text) = (row.needed("query-id")?, row.needed("query")?);
        let relevant = judged.get(&id).cloned().unwrap_or_default();
        if let Some((page, _)) = relevant.iter().find(|(page, _)| !draft.has(page)) {
            return Err(format!("query `{id}` is answered by page `{page}`, which is not in the corpus"));
        }
        let item = query(reading.protocol, Words { instruction: QUERY, text: &text }, None);
        let query =
            Query { id, item, candidates: None, excluded: None, relevant, origin: row.origin.clone() };
        draft.query(reading.name, query)
    })?;
    Ok(draft)
}

/// Grades above 0, by query, in the order of the file; of a pair that stands twice the higher.
fn judged(set: PageSet, data: &Path) -> Result<Judgements, PublishedError> {
    let mut judged = judgements(&set.hub.config("qrels").files(data)?)?;
    judged.values_mut().for_each(|pages| *pages = best_grades(pages));
    Ok(judged)
}

/// The grades above 0 of a query; of a candidate that stands twice the higher.
pub(crate) fn best_grades(all: &[(String, f64)]) -> Vec<(String, f64)> {
    let mut best: Vec<(String, f64)> = Vec::new();
    for (id, grade) in all.iter().filter(|(_, grade)| *grade > 0.0) {
        match best.iter_mut().find(|(known, _)| known == id) {
            Some((_, known)) => *known = known.max(*grade),
            None => best.push((id.clone(), *grade)),
        }
    }
    best
}

/// Writes the pages of a set that are not there; returns how many, and where to. Those that are there are left as they are.
pub(crate) fn write(reading: Reading, set: PageSet) -> Result<(usize, PathBuf), PublishedError> {
    let (mut count, folder) = (0, reading.pages.join(PAGES).join(set.folder));
    for file in corpus(set, reading.data)? {
        let mut wanted: HashSet<String> = ids(&file)?
            .into_iter()
            .filter(|(id, _)| page(set, reading, id).is_ok_and(|page| !page.is_written))
            .map(|(id, _)| id)
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let mut batch = Vec::new();
        for (index, cells) in table_of(&file, &["corpus-id", "image"])?.enumerate() {
            let origin = Origin { file: file.as_path().into(), line: index + 1 };
            let cells =
                cells.map_err(|source| crate::ManifestError::Parquet { path: file.clone(), source })?;
            let (mut id, mut bytes) = (String::new(), None);
            for (column, cell) in cells {
                match column.as_str() {
                    "corpus-id" => id = id_of(cell),
                    _ => bytes = bytes_of(cell),
                }
            }
            if !wanted.remove(&id) {
                continue;
            }
            let bytes = bytes.filter(|bytes| picture_format(bytes).is_some());
            let bytes = bytes
                .ok_or_else(|| at(&origin, format!("column `image` of page `{id}` holds no picture")))?;
            let page = page(set, reading, &id).map_err(|problem| at(&origin, problem))?;
            batch.push((page.path, bytes));
            count += 1;
            if batch.len() == PAGES_AT_A_TIME {
                write_batch(&mut batch)?;
            }
        }
        write_batch(&mut batch)?;
    }
    Ok((count, folder))
}

/// The folder of the pages of all sets.
const PAGES: &str = "visdoc-tasks";

struct PageFile {
    path: PathBuf,
    is_written: bool,
}

/// The file of a page: where it is, or else where it will be.
fn page(set: PageSet, reading: Reading, id: &str) -> Result<PageFile, String> {
    let name = file_name(set.naming, id);
    if !Path::new(&name).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!("`corpus-id` is `{id}`, which is no name for a file"));
    }
    let inner = Path::new(PAGES).join(set.folder).join(name);
    let places = [reading.data.join(&inner), reading.pages.join(&inner)];
    let written = places.iter().find(|path| path.is_file());
    Ok(PageFile { is_written: written.is_some(), path: written.unwrap_or(&places[1]).clone() })
}

/// The reference's name for a page.
fn file_name(naming: Naming, id: &str) -> String {
    match naming {
        Naming::Png => format!("{id}.png"),
        Naming::Hashed => {
            // As Python's `splitext` has it: dots at the beginning belong to the name.
            let dots = id.len() - id.trim_start_matches('.').len();
            let dot = id[dots..].rfind('.').map_or(id.len(), |dot| dots + dot);
            let (base, ending) = match id[dot..].contains('/') {
                true => (id, ""),
                false => id.split_at(dot),
            };
            let base: String = base.chars().take(50).collect();
            let hash: String = Md5::digest(id).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            format!("{base}_{hash}{ending}")
        }
    }
}

/// The tables of pages, all of them Parquet.
fn corpus(set: PageSet, data: &Path) -> Result<Vec<PathBuf>, PublishedError> {
    let files = set.hub.config("corpus").files(data)?;
    for file in &files {
        check_columns(file, &column_names(file)?, &["corpus-id", "image"])?;
    }
    Ok(files)
}

/// The ids of a table's pages; pictures are not read.
fn ids(file: &Path) -> Result<Vec<(String, Origin)>, PublishedError> {
    let mut ids = Vec::new();
    let shared: std::sync::Arc<Path> = file.into();
    for (index, cells) in table_of(file, &["corpus-id"])?.enumerate() {
        let cells =
            cells.map_err(|source| crate::ManifestError::Parquet { path: file.to_owned(), source })?;
        let id = cells.into_iter().next().map(|(_, cell)| id_of(cell)).unwrap_or_default();
        let origin = Origin { file: shared.clone(), line: index + 1 };
        if id.is_empty() {
            return Err(at(&origin, "column `corpus-id` is empty".into()));
        }
        ids.push((id, origin));
    }
    Ok(ids)
}

/// An id; nothing where the cell holds none.
fn id_of(cell: Cell) -> String {
    text_of(cell, "corpus-id").ok().flatten().unwrap_or_default()
}

/// The bytes of a picture of the `datasets` library.
fn bytes_of(cell: Cell) -> Option<Vec<u8>> {
    match cell {
        Cell::Bytes(bytes) => Some(bytes),
        Cell::Struct(cells) => cells.into_iter().find_map(|(name, cell)| match cell {
            Cell::Bytes(bytes) if name == "bytes" => Some(bytes),
            _ => None,
        }),
        _ => None,
    }
}

/// Pages that are held in memory and written at once.
const PAGES_AT_A_TIME: usize = 32;

fn write_batch(batch: &mut Vec<(PathBuf, Vec<u8>)>) -> Result<(), PublishedError> {
    let write = |(path, bytes): (PathBuf, Vec<u8>)| {
        write_page(&path, &bytes).map_err(|source| PublishedError::Page { path, source })
    };
    std::mem::take(batch).into_par_iter().try_for_each(write)
}

/// Writes beside and renames, so that a page is whole or not there.
fn write_page(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.part", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn at(origin: &Origin, problem: String) -> PublishedError {
    PublishedError::Row { path: origin.file.to_path_buf(), row: origin.line, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_named_as_the_reference_names_them() {
        assert_eq!(file_name(Naming::Png, "12"), "12.png");
        // Computed with Python's hashlib and os.path.splitext.
        assert_eq!(file_name(Naming::Hashed, "page_1.jpg"), "page_1_b8196cea.jpg");
        let long = format!("{}.png", "é".repeat(60));
        assert_eq!(file_name(Naming::Hashed, &long), format!("{}_d5bc84af.png", "é".repeat(50)));
        assert_eq!(file_name(Naming::Hashed, "no ending"), "no ending_a1402023");
    }
}
