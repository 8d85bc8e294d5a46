//! The tasks of a corpus, written into another one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Component, Path, PathBuf, absolute};

use anyhow::{Context, Result};
use rzen_core::Part;
use serde_json::{Map, Value};

/// Writes `tasks.jsonl` of `corpus`, where there is one, and the files that it names below `output`, with whole paths of media, so
/// that a training on `output` measures what one on `corpus` does. Returns the files, relative.
///
/// # Errors
/// Names the file and line that can't be read or written.
pub(super) fn copy_tasks(corpus: &Path, output: &Path) -> Result<Vec<PathBuf>> {
    let list = corpus.join("tasks.jsonl");
    if !list.is_file() {
        return Ok(Vec::new());
    }
    let root = absolute(corpus)?;
    let mut written: Vec<PathBuf> = Vec::new();
    let mut tasks = Vec::new();
    for (number, mut task) in rows(&list)?.into_iter().enumerate() {
        for (key, content) in [("queries", "query"), ("pool", "content")] {
            let Some(name) = task.get(key).and_then(Value::as_str).map(PathBuf::from) else { continue };
            let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
            let place = match inside {
                true => name.clone(),
                false => {
                    let file = name.file_name().with_context(|| format!("{}: `{key}`", list.display()))?;
                    let place = Path::new("evaluation").join(number.to_string()).join(file);
                    task.insert(key.to_owned(), Value::String(place.display().to_string()));
                    place
                }
            };
            if !written.contains(&place) {
                let moved =
                    rows(&corpus.join(&name))?.into_iter().map(|row| with_whole_paths(row, content, &root));
                let moved = moved.collect::<Result<Vec<_>>>().with_context(|| name.display().to_string())?;
                write_rows(&output.join(&place), &moved)?;
                written.push(place);
            }
        }
        tasks.push(task);
    }
    write_rows(&output.join("tasks.jsonl"), &tasks)?;
    written.push("tasks.jsonl".into());
    Ok(written)
}

fn with_whole_paths(mut row: Map<String, Value>, key: &str, root: &Path) -> Result<Map<String, Value>> {
    if let Some(parts) = row.get_mut(key) {
        let read: Vec<Part> = serde_json::from_value(parts.take())?;
        *parts = serde_json::to_value(read.into_iter().map(|part| part.under(root)).collect::<Vec<_>>())?;
    }
    Ok(row)
}

fn rows(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut rows = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let place = || format!("{}:{}", path.display(), index + 1);
        let line = line.with_context(place)?;
        if !line.trim().is_empty() {
            rows.push(serde_json::from_str(&line).with_context(place)?);
        }
    }
    Ok(rows)
}

fn write_rows(path: &Path, rows: &[Map<String, Value>]) -> Result<()> {
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
    use rzen_data::EvalCorpus;
    use serde_json::json;

    use super::*;

    #[test]
    fn tasks_find_the_same_items_from_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        let corpus = place.path().join("corpus");
        let map = |value: Value| value.as_object().unwrap().clone();
        let query = json!({ "id": "q", "query": [{ "text": "a cat" }, { "image": "a.png" }], "pool": "all", "relevant": { "c": 1 } });
        let candidate =
            json!({ "id": "c", "content": [{ "video": ["d/1.png", "/x/2.png"] }], "note": "kept" });
        write_rows(&corpus.join("d/queries.jsonl"), &[map(query)]).unwrap();
        write_rows(&corpus.join("d/pool_all.jsonl"), &[map(candidate.clone())]).unwrap();
        write_rows(&place.path().join("pool_all.jsonl"), &[map(candidate)]).unwrap();
        let task = |name: &str, pool: &str| {
            let task = json!({ "name": name, "dataset": "d", "task": "t", "metric": "mrr", "queries": "d/queries.jsonl", "pool": pool });
            map(task)
        };
        write_rows(
            &corpus.join("tasks.jsonl"),
            &[task("inside", "d/pool_all.jsonl"), task("outside", "../pool_all.jsonl")],
        )
        .unwrap();
        let output = place.path().join("output");
        let written = copy_tasks(&corpus, &output).unwrap();
        let expected = ["d/queries.jsonl", "d/pool_all.jsonl", "evaluation/1/pool_all.jsonl", "tasks.jsonl"];
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
        assert!(fs::read_to_string(output.join("d/pool_all.jsonl")).unwrap().contains("kept"));
        assert_eq!(copy_tasks(&output.join("d"), place.path()).unwrap(), [PathBuf::new(); 0]);
    }
}
