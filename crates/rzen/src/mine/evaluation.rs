//! The tasks of a corpus, written into another one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Component, Path, PathBuf, absolute};

use anyhow::{Context, Result};
use rzen_core::Part;
use rzen_data::{EvalCorpus, json_rows};
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// The tasks of a corpus and the files that they name, as they are written elsewhere: with whole paths of media, so that a training on
/// the other corpus measures what one on this corpus does.
#[derive(Debug, Default)]
pub struct Tasks {
    /// Relative names, each with its rows; the list of tasks last.
    files: Vec<(PathBuf, Vec<Object>)>,
}

impl Tasks {
    /// Reads and checks `tasks.jsonl` of `corpus` and the files that it names; none where there is no such list.
    ///
    /// # Errors
    /// Names the file and line that can't be read, or that no evaluation can use.
    pub fn read(corpus: &Path) -> Result<Self> {
        let list = corpus.join("tasks.jsonl");
        if !list.exists() {
            return Ok(Tasks::default());
        }
        let checked = EvalCorpus::open(corpus)?;
        for task in &checked.tasks {
            checked.load(task)?;
        }
        let root = absolute(corpus)?;
        let mut tasks: Vec<Object> = json_rows(&list)?.into_iter().map(|(_, task)| task).collect();
        let places = places(&tasks);
        let mut files: Vec<(PathBuf, Vec<Object>)> = Vec::new();
        for (key, content) in [("queries", "query"), ("pool", "content")] {
            for task in &mut tasks {
                let Some(name) = named(task, key) else { continue };
                let place = &places[&name];
                task.insert(key.to_owned(), Value::String(place.display().to_string()));
                if files.iter().any(|(written, _)| written == place) {
                    continue;
                }
                let rows = json_rows(&corpus.join(&name))?.into_iter().map(|(origin, row)| {
                    with_whole_paths(row, content, &root).with_context(|| origin.to_string())
                });
                files.push((place.clone(), rows.collect::<Result<_>>()?));
            }
        }
        files.push(("tasks.jsonl".into(), tasks));
        Ok(Tasks { files })
    }

    /// Writes the files below `output`. Returns their relative names.
    ///
    /// # Errors
    /// If one can't be written.
    pub fn write(&self, output: &Path) -> Result<Vec<PathBuf>> {
        for (name, rows) in &self.files {
            write_rows(&output.join(name), rows)?;
        }
        Ok(self.files.iter().map(|(name, _)| name.clone()).collect())
    }
}

/// Where each file that tasks name is written: under its name, or where that leads out of the corpus, in a folder of its own, for a
/// pool must keep the name that queries know it by.
fn places(tasks: &[Object]) -> HashMap<PathBuf, PathBuf> {
    let names: Vec<PathBuf> =
        tasks.iter().flat_map(|task| ["queries", "pool"].map(|key| named(task, key))).flatten().collect();
    let inside = |name: &&PathBuf| name.components().all(|part| matches!(part, Component::Normal(_)));
    let mut places: HashMap<PathBuf, PathBuf> =
        names.iter().filter(inside).map(|name| (name.clone(), name.clone())).collect();
    let mut folders = (0..).map(|number: usize| Path::new("evaluation").join(number.to_string()));
    for name in &names {
        if !places.contains_key(name) {
            let free = |folder: &PathBuf| !places.values().any(|place| place.starts_with(folder));
            let folder = folders.find(free).expect("numbers don't end");
            places.insert(name.clone(), folder.join(name.file_name().unwrap_or_default()));
        }
    }
    places
}

/// The file that a task names.
fn named(task: &Object, key: &str) -> Option<PathBuf> {
    task.get(key).and_then(Value::as_str).map(PathBuf::from)
}

fn with_whole_paths(mut row: Object, key: &str, root: &Path) -> Result<Object> {
    if let Some(parts) = row.get_mut(key) {
        let read: Vec<Part> = serde_json::from_value(parts.take())?;
        *parts = serde_json::to_value(read.into_iter().map(|part| part.under(root)).collect::<Vec<_>>())?;
    }
    Ok(row)
}

fn write_rows(path: &Path, rows: &[Object]) -> Result<()> {
    fs::create_dir_all(path.parent().expect("the file lies in a folder"))?;
    let mut file = BufWriter::new(File::create(path)?);
    for row in rows {
        serde_json::to_writer(&mut file, row)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    fn task(name: &str, queries: &str, pool: &str) -> Object {
        map(json!({
            "name": name, "dataset": "d", "task": "t", "metric": "mrr", "queries": queries, "pool": pool, "chance": 0.5,
        }))
    }

    /// A corpus with files of tasks in it and around it.
    fn corpus(place: &Path) -> PathBuf {
        let corpus = place.join("corpus");
        let query = |pool: &str, text: &str| {
            map(json!({
                "id": "q", "query": [{ "text": text }, { "image": "a.png" }], "pool": pool, "relevant": { "c": 1 },
            }))
        };
        let candidate = |text: &str| {
            map(json!({
                "id": "c", "content": [{ "text": text }, { "video": ["d/1.png", "/x/2.png"] }], "note": "kept",
            }))
        };
        for (name, row) in [
            ("corpus/d/queries.jsonl", query("all", "a cat")),
            ("corpus/d/pool_all.jsonl", candidate("one")),
            ("pool_all.jsonl", candidate("two")),
            ("1/pool_all.jsonl", query("all", "a dog")),
            ("2/pool_all.jsonl", candidate("three")),
        ] {
            write_rows(&place.join(name), &[row]).unwrap();
        }
        corpus
    }

    #[test]
    fn tasks_find_the_same_items_from_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        let corpus = corpus(place.path());
        let tasks = [
            task("inside", "d/queries.jsonl", "d/pool_all.jsonl"),
            task("outside", "d/queries.jsonl", "../pool_all.jsonl"),
            // Files of one name.
            task("both outside", "../1/pool_all.jsonl", "../2/pool_all.jsonl"),
            task("again", "../1/pool_all.jsonl", "../pool_all.jsonl"),
        ];
        write_rows(&corpus.join("tasks.jsonl"), &tasks).unwrap();
        let output = place.path().join("output");
        let written = Tasks::read(&corpus).unwrap().write(&output).unwrap();
        let expected = [
            "d/queries.jsonl",
            "evaluation/1/pool_all.jsonl",
            "d/pool_all.jsonl",
            "evaluation/0/pool_all.jsonl",
            "evaluation/2/pool_all.jsonl",
            "tasks.jsonl",
        ];
        assert_eq!(written, expected.map(PathBuf::from));
        let read = |folder: &Path| {
            let corpus = EvalCorpus::open(folder).unwrap();
            let sets = corpus.tasks.iter().map(|task| corpus.load(task).unwrap());
            let items = sets.flat_map(|set| {
                let queries = set.queries.into_iter().map(|query| query.item);
                queries.chain(set.pool.into_iter().map(|candidate| candidate.item)).collect::<Vec<_>>()
            });
            items.collect::<Vec<_>>()
        };
        assert_eq!(read(&output), read(&corpus));
        let text = |name: &str| fs::read_to_string(output.join(name)).unwrap();
        assert!(text("d/pool_all.jsonl").contains("kept") && text("tasks.jsonl").contains("chance"));

        // What was written is a corpus like others: its files stay where they are, new ones come beside them.
        write_rows(
            &output.join("tasks.jsonl"),
            &[
                task("new", "../1/pool_all.jsonl", "evaluation/2/pool_all.jsonl"),
                task("old", "evaluation/1/pool_all.jsonl", "evaluation/0/pool_all.jsonl"),
            ],
        )
        .unwrap();
        let third = place.path().join("third");
        let written = Tasks::read(&output).unwrap().write(&third).unwrap();
        assert!(written.contains(&"evaluation/3/pool_all.jsonl".into()), "{written:?}");
        assert_eq!(read(&third), read(&output));
        let none = Tasks::read(&output.join("d")).unwrap();
        assert_eq!(none.write(place.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_no_evaluation_can_use_is_named() {
        let place = tempfile::tempdir().unwrap();
        let corpus = corpus(place.path());
        let refusal = |tasks: &str| {
            fs::write(corpus.join("tasks.jsonl"), tasks).unwrap();
            format!("{:#}", Tasks::read(&corpus).unwrap_err())
        };
        let row = |queries: &str, pool: &str| Value::Object(task("t", queries, pool)).to_string();
        for (tasks, named) in [
            (row("d/queries.jsonl", "d/pool_all.jsonl") + "\n{", "tasks.jsonl:2"),
            (row("d/gone.jsonl", "d/pool_all.jsonl"), "gone.jsonl"),
            (row("d/pool_all.jsonl", "d/pool_all.jsonl"), "pool_all.jsonl:1"),
        ] {
            let error = refusal(&tasks);
            assert!(error.contains(named), "{error}");
        }
    }
}
