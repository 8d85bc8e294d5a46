//! The tasks of the corpus that is mined, for the corpus that comes of it.

use std::path::Path;

use anyhow::Result;
use rzen_data::{EvalCopy, EvalCorpus};

/// Reads and checks `tasks.jsonl` of `corpus` and the files that it names; none where there is no such list.
///
/// # Errors
/// Names the file and line that can't be read, or that no evaluation can use.
pub fn tasks(corpus: &Path) -> Result<EvalCopy> {
    if corpus.join("tasks.jsonl").exists() {
        let checked = EvalCorpus::open(corpus)?;
        for task in &checked.tasks {
            checked.load(task)?;
        }
    }
    EvalCopy::read(corpus)
        .map_err(|(path, error)| anyhow::Error::new(error).context(path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_no_evaluation_can_use_is_named() {
        let place = tempfile::tempdir().unwrap();
        let corpus = place.path();
        fs::create_dir(corpus.join("d")).unwrap();
        let query =
            json!({ "id": "q", "query": [{ "text": "a cat" }], "pool": "all", "relevant": { "c": 1 } });
        fs::write(corpus.join("d/queries.jsonl"), query.to_string()).unwrap();
        let candidate = json!({ "id": "c", "content": [{ "text": "one" }] });
        fs::write(corpus.join("d/pool_all.jsonl"), candidate.to_string()).unwrap();
        let refusal = |list: &str| {
            fs::write(corpus.join("tasks.jsonl"), list).unwrap();
            format!("{:#}", tasks(corpus).unwrap_err())
        };
        let row = |queries: &str, pool: &str| {
            json!({ "name": "t", "dataset": "d", "task": "t", "metric": "mrr", "queries": queries, "pool": pool })
                .to_string()
        };
        for (list, named) in [
            (row("d/queries.jsonl", "d/pool_all.jsonl") + "\n{", "tasks.jsonl:2"),
            (row("d/gone.jsonl", "d/pool_all.jsonl"), "gone.jsonl"),
            (row("d/pool_all.jsonl", "d/pool_all.jsonl"), "pool_all.jsonl:1"),
        ] {
            let error = refusal(&list);
            assert!(error.contains(named), "{error}");
        }
    }
}
