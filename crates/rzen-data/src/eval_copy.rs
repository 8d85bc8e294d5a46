//! The tasks of a corpus, written into another one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Component, Path, PathBuf, absolute};

use rzen_core::Part;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// The tasks of a corpus and the files that they name, as they are written elsewhere: with whole paths of media, so that a training on
/// the other corpus measures what one on this corpus does.
///
/// Lines that can't be read stay as they are, and files that aren't there are left out; [`EvalCorpus`](crate::EvalCorpus) says what is
/// wrong with them.
#[derive(Debug, Default)]
pub struct EvalCopy {
    /// Relative names, each with its lines; the list of tasks last.
    files: Vec<(PathBuf, Vec<String>)>,
}

impl EvalCopy {
    /// Reads `tasks.jsonl` of `corpus` and the files that it names; none where there is no such list.
    ///
    /// # Errors
    /// The file that is there and can't be read.
    pub fn read(corpus: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let list = corpus.join("tasks.jsonl");
        if !list.is_file() {
            return Ok(EvalCopy::default());
        }
        let root = absolute(corpus).map_err(|error| (corpus.to_owned(), error))?;
        let mut tasks: Vec<Result<Object, String>> = lines(&list)?.into_iter().map(object).collect();
        let places = places(tasks.iter().flatten());
        let mut files: Vec<(PathBuf, Vec<String>)> = Vec::new();
        for key in FILES {
            for task in tasks.iter_mut().flatten() {
                let Some(name) = named(task, key) else { continue };
                let place = &places[&name];
                task.insert(key.to_owned(), Value::String(place.display().to_string()));
                let source = corpus.join(&name);
                if source.is_file() && !files.iter().any(|(written, _)| written == place) {
                    let rows = lines(&source)?.into_iter().map(|line| with_whole_paths(line, &root));
                    files.push((place.clone(), rows.collect()));
                }
            }
        }
        let tasks = tasks
            .into_iter()
            .map(|task| task.map_or_else(|line| line, |task| Value::Object(task).to_string()));
        files.push(("tasks.jsonl".into(), tasks.collect()));
        Ok(EvalCopy { files })
    }

    /// Writes the files below `output`. Returns their relative names.
    ///
    /// # Errors
    /// The file that can't be written.
    pub fn write(&self, output: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
        for (name, rows) in &self.files {
            let path = output.join(name);
            write_lines(&path, rows).map_err(|error| (path, error))?;
        }
        Ok(self.files.iter().map(|(name, _)| name.clone()).collect())
    }
}

/// Keys of a task that name files.
const FILES: [&str; 2] = ["queries", "pool"];

/// Where each file that tasks name is written: under its name, or where that leads out of the corpus, in a folder of its own, for a
/// pool must keep the name that queries know it by.
fn places<'a>(tasks: impl Iterator<Item = &'a Object>) -> HashMap<PathBuf, PathBuf> {
    let names: Vec<PathBuf> = tasks.flat_map(|task| FILES.map(|key| named(task, key))).flatten().collect();
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

fn object(line: String) -> Result<Object, String> {
    serde_json::from_str(&line).map_err(|_| line)
}

/// A query or candidate whose parts have `root` put before relative paths; what is neither stays as it is.
fn with_whole_paths(line: String, root: &Path) -> String {
    let Ok(mut row) = serde_json::from_str::<Object>(&line) else { return line };
    for key in ["query", "content"] {
        let Some(value) = row.get_mut(key) else { continue };
        let Ok(parts) = serde_json::from_value::<Vec<Part>>(value.clone()) else { return line };
        let parts: Vec<Part> = parts.into_iter().map(|part| part.under(root)).collect();
        *value = serde_json::to_value(parts).expect("parts become JSON");
    }
    Value::Object(row).to_string()
}

fn lines(path: &Path) -> Result<Vec<String>, (PathBuf, io::Error)> {
    let read = || BufReader::new(File::open(path)?).lines().collect::<io::Result<Vec<_>>>();
    read().map_err(|error| (path.to_owned(), error))
}

fn write_lines(path: &Path, lines: &[String]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
    let mut file = BufWriter::new(File::create(path)?);
    for line in lines {
        writeln!(file, "{line}")?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::EvalCorpus;

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
            write_rows(&place.join(name), &[row]);
        }
        corpus
    }

    fn write_rows(path: &Path, rows: &[Object]) {
        let lines: Vec<String> = rows.iter().map(|row| Value::Object(row.clone()).to_string()).collect();
        write_lines(path, &lines).unwrap();
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
        write_rows(&corpus.join("tasks.jsonl"), &tasks);
        let output = place.path().join("output");
        let written = EvalCopy::read(&corpus).unwrap().write(&output).unwrap();
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
        );
        let third = place.path().join("third");
        let written = EvalCopy::read(&output).unwrap().write(&third).unwrap();
        assert!(written.contains(&"evaluation/3/pool_all.jsonl".into()), "{written:?}");
        assert_eq!(read(&third), read(&output));
        let none = EvalCopy::read(&output.join("d")).unwrap();
        assert_eq!(none.write(place.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_can_not_be_read_stays_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let corpus = corpus(place.path());
        let list = format!("{{\n{}\n", Value::Object(task("t", "d/gone.jsonl", "d/pool_all.jsonl")));
        fs::write(corpus.join("tasks.jsonl"), &list).unwrap();
        fs::write(corpus.join("d/pool_all.jsonl"), "{\n{\"id\": \"c\", \"content\": 7}\n").unwrap();
        let output = place.path().join("output");
        let written = EvalCopy::read(&corpus).unwrap().write(&output).unwrap();
        assert_eq!(written, ["d/pool_all.jsonl", "tasks.jsonl"].map(PathBuf::from));
        for name in written {
            assert_eq!(
                fs::read(output.join(&name)).unwrap(),
                fs::read(corpus.join(&name)).unwrap(),
                "{name:?}"
            );
        }
    }
}
