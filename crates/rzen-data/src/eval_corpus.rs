//! Evaluation corpora: tasks, queries and candidates.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rzen_core::{Item, Origin, Task};

use crate::ManifestError;
use crate::row::{Row, check_unique, each_row, rows};

const TASK_KEYS: &[&str] = &["name", "dataset", "task", "metric", "instruction", "about", "queries", "pool"];
const QUERY_KEYS: &[&str] = &["id", "query", "instruction", "pool", "candidates", "relevant"];
const CANDIDATE_KEYS: &[&str] = &["id", "content"];

/// A folder with `tasks.jsonl`, query files and pools.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalCorpus {
    /// The folder; paths in rows count from it.
    pub root: PathBuf,
    /// The tasks, in the order of the file.
    pub tasks: Vec<EvalTask>,
}

/// One task: queries that are ranked against a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalTask {
    /// Unique in its corpus.
    pub name: String,
    /// The dataset that it belongs to.
    pub dataset: String,
    /// The kind of work.
    pub task: Task,
    /// The main metric by name, such as `hit_rate@1`.
    pub metric: String,
    /// The instruction that its queries usually carry; each query has its own.
    pub instruction: Option<String>,
    /// What is asked, in words.
    pub about: Option<String>,
    /// The file of queries, under the root.
    pub queries: PathBuf,
    /// The file of candidates, under the root.
    pub pool: PathBuf,
    /// Where the row stands.
    pub origin: Origin,
}

/// A query and what answers it.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalQuery {
    /// Unique in its file.
    pub id: String,
    /// The query, with its instruction, and paths under the root.
    pub item: Item,
    /// The name of the pool it is ranked against.
    pub pool: String,
    /// The candidates to rank, by id; `None` ranks the whole pool.
    pub candidates: Option<Vec<String>>,
    /// Of the whole pool, one that is not ranked, such as the query itself.
    pub excluded: Option<String>,
    /// The answers by id with their grades, finite and not negative, at least one above 0; in the order of the file.
    pub relevant: Vec<(String, f64)>,
    /// Where the row stands.
    pub origin: Origin,
}

/// Something that can be found.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Unique in its pool.
    pub id: String,
    /// The content, with paths under the root; candidates carry no instruction.
    pub item: Item,
    /// Where the row stands.
    pub origin: Origin,
}

/// A task with its rows, checked against each other.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalSet {
    /// The queries, in the order of the file.
    pub queries: Vec<EvalQuery>,
    /// The candidates, in the order of the file.
    pub pool: Vec<Candidate>,
}

impl EvalCorpus {
    /// Reads the list of tasks; queries and pools are read by [`load`](EvalCorpus::load).
    ///
    /// Keys of `tasks.jsonl` that describe a task (counts, chance) are left alone.
    ///
    /// # Errors
    /// The first row that is wrong, with file, line and key; a name that stands twice.
    pub fn open(folder: &Path) -> Result<Self, ManifestError> {
        let list = folder.join("tasks.jsonl");
        let tasks: Vec<_> =
            rows(&list, TASK_KEYS)?.into_iter().map(|row| task(row, folder)).collect::<Result<_, _>>()?;
        check_unique(tasks.iter().map(|task| (task.name.as_str(), &task.origin)))?;
        Ok(EvalCorpus { root: folder.to_owned(), tasks })
    }

    /// The task of that name.
    ///
    /// # Errors
    /// With the names that there are.
    pub fn task(&self, name: &str) -> Result<&EvalTask, ManifestError> {
        self.tasks.iter().find(|task| task.name == name).ok_or_else(|| ManifestError::NoSuchTask {
            path: self.root.join("tasks.jsonl"),
            name: name.to_owned(),
            found: self.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Reads the queries and candidates of a task. Files of media are not opened.
    ///
    /// # Errors
    /// The first row that is wrong, with file, line and key: an id that stands twice, a candidate or
    /// an answer that is not in the pool, an answer that is not among the query's candidates.
    pub fn load(&self, task: &EvalTask) -> Result<EvalSet, ManifestError> {
        let pool = self.pool(task)?;
        let ids: HashSet<_> = pool.iter().map(|candidate| candidate.id.as_str()).collect();
        let queries = self.queries(task)?;
        for query in &queries {
            check_query(query, task, &ids)?;
        }
        Ok(EvalSet { queries, pool })
    }

    /// Reads the candidates of a task.
    ///
    /// # Errors
    /// As of [`candidates`].
    pub fn pool(&self, task: &EvalTask) -> Result<Vec<Candidate>, ManifestError> {
        candidates(&task.pool, &self.root)
    }

    /// Reads the queries of a task, without a look at its pool.
    ///
    /// # Errors
    /// The first row that is wrong, with file, line and key; an id that stands twice.
    pub fn queries(&self, task: &EvalTask) -> Result<Vec<EvalQuery>, ManifestError> {
        let queries: Vec<_> = rows(&task.queries, QUERY_KEYS)?
            .into_iter()
            .map(|row| query(row, &self.root))
            .collect::<Result<_, _>>()?;
        check_unique(queries.iter().map(|query| (query.id.as_str(), &query.origin)))?;
        Ok(queries)
    }
}

/// Reads a pool of candidates, `root` put before relative paths. Keys besides `id` and `content` describe them and are
/// left alone.
///
/// # Errors
/// The first row that is wrong, with file, line and key; an id that stands twice.
pub fn candidates(pool: &Path, root: &Path) -> Result<Vec<Candidate>, ManifestError> {
    let rows = rows(pool, CANDIDATE_KEYS)?.into_iter();
    let all: Vec<_> = rows.map(|row| candidate(row, root)).collect::<Result<_, _>>()?;
    check_unique(all.iter().map(|candidate| (candidate.id.as_str(), &candidate.origin)))?;
    Ok(all)
}

/// Reads the tasks of a folder one by one; after a wrong one come those behind it.
pub(crate) fn each_task(
    folder: &Path,
) -> Result<impl Iterator<Item = Result<EvalTask, ManifestError>> + use<'_>, ManifestError> {
    let rows = each_row(&folder.join("tasks.jsonl"), TASK_KEYS)?;
    Ok(rows.map(move |row| row.and_then(|row| task(row, folder))))
}

/// Reads the candidates of a pool in the same way.
pub(crate) fn each_candidate<'a>(
    pool: &Path,
    root: &'a Path,
) -> Result<impl Iterator<Item = Result<Candidate, ManifestError>> + use<'a>, ManifestError> {
    Ok(each_row(pool, CANDIDATE_KEYS)?.map(move |row| row.and_then(|row| candidate(row, root))))
}

/// Reads queries in the same way.
pub(crate) fn each_query<'a>(
    queries: &Path,
    root: &'a Path,
) -> Result<impl Iterator<Item = Result<EvalQuery, ManifestError>> + use<'a>, ManifestError> {
    Ok(each_row(queries, QUERY_KEYS)?.map(move |row| row.and_then(|row| query(row, root))))
}

fn task(mut row: Row, root: &Path) -> Result<EvalTask, ManifestError> {
    let queries: PathBuf = row.required("queries")?;
    let pool: PathBuf = row.required("pool")?;
    Ok(EvalTask {
        name: row.required("name")?,
        dataset: row.required("dataset")?,
        task: Task(row.required("task")?),
        metric: row.required("metric")?,
        instruction: row.optional("instruction")?,
        about: row.optional("about")?,
        queries: root.join(queries),
        pool: root.join(pool),
        origin: row.origin,
    })
}

fn candidate(mut row: Row, root: &Path) -> Result<Candidate, ManifestError> {
    let id = row.id()?;
    let item = row.content("content", root, None)?;
    Ok(Candidate { id, item, origin: row.origin })
}

fn query(mut row: Row, root: &Path) -> Result<EvalQuery, ManifestError> {
    let id = row.id()?;
    let instruction = row.optional("instruction")?;
    let item = row.content("query", root, instruction)?;
    let pool = row.required("pool")?;
    let candidates: Option<Vec<String>> = row.optional("candidates")?;
    row.not_empty("candidates", "id", candidates.as_ref().is_some_and(Vec::is_empty))?;
    let relevant = grades(&mut row)?;
    Ok(EvalQuery { id, item, pool, candidates, excluded: None, relevant, origin: row.finish()? })
}

fn grades(row: &mut Row) -> Result<Vec<(String, f64)>, ManifestError> {
    let relevant: serde_json::Map<_, _> = row.required("relevant")?;
    let bad = |found: String| ManifestError::BadValue {
        origin: row.origin.clone(),
        key: "relevant",
        found,
        expected: "ids with grades that are not negative, at least one above 0".into(),
    };
    let grade = |(id, value): (String, serde_json::Value)| match value.as_f64() {
        Some(grade) if grade >= 0.0 && grade.is_finite() => Ok((id, grade)),
        _ => Err(bad(format!("{value} for `{id}`"))),
    };
    let relevant: Vec<_> = relevant.into_iter().map(grade).collect::<Result<_, _>>()?;
    match relevant.iter().any(|(_, grade)| *grade > 0.0) {
        true => Ok(relevant),
        false => Err(bad(format!("{} ids without a grade above 0", relevant.len()))),
    }
}

/// Refuses a query that can't be ranked against the pool of its task, whose ids are given.
pub(crate) fn check_query(
    query: &EvalQuery,
    task: &EvalTask,
    ids: &HashSet<&str>,
) -> Result<(), ManifestError> {
    check_pool_name(query, task)?;
    check_answers(query, task, ids)
}

/// A query says which pool it is for; ranking it against another would only look like bad scores.
fn check_pool_name(query: &EvalQuery, task: &EvalTask) -> Result<(), ManifestError> {
    let stem = task.pool.file_stem().unwrap_or_default().to_string_lossy();
    if stem == format!("pool_{}", query.pool) {
        return Ok(());
    }
    Err(ManifestError::BadValue {
        origin: query.origin.clone(),
        key: "pool",
        found: format!("`{}`", query.pool),
        expected: format!(
            "the pool of its task, `{}` (a pool NAME is a file `pool_NAME.jsonl`)",
            task.pool.display()
        ),
    })
}

fn check_answers(query: &EvalQuery, task: &EvalTask, ids: &HashSet<&str>) -> Result<(), ManifestError> {
    let unknown = |key, id: &str, expected| {
        Err(ManifestError::UnknownId { origin: query.origin.clone(), key, id: id.to_owned(), expected })
    };
    let pool = || format!("the pool `{}`", task.pool.display());
    if let Some((id, _)) = query.relevant.iter().find(|(id, _)| !ids.contains(id.as_str())) {
        return unknown("relevant", id, pool());
    }
    let Some(candidates) = &query.candidates else { return Ok(()) };
    let mut seen = HashSet::new();
    for id in candidates {
        if !ids.contains(id.as_str()) {
            return unknown("candidates", id, pool());
        }
        if !seen.insert(id.as_str()) {
            return Err(ManifestError::BadValue {
                origin: query.origin.clone(),
                key: "candidates",
                found: format!("a list with `{id}` twice"),
                expected: "each id once".into(),
            });
        }
    }
    match query.relevant.iter().find(|(id, grade)| *grade > 0.0 && !seen.contains(id.as_str())) {
        Some((id, _)) => unknown("relevant", id, "the query's own `candidates`".into()),
        None => Ok(()),
    }
}
