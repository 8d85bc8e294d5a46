//! Evaluation corpora.

use rzen_core::Item;
use rzen_data::{EvalCorpus, EvalSet, ManifestError};

use crate::made::{Folder, check_message};

const TASK: &str = r#"{"dataset": "d", "name": "d_t2i", "task": "image_retrieval", "metric": "hit_rate@1", "instruction": "Find it.", "queries": "eval_d.jsonl", "pool": "pool_images.jsonl", "query_count": 1}"#;
const POOL: &str = r#"{"id": "a", "content": [{"image": "a.png"}], "name": "A"}
{"id": "b", "content": [{"image": "b.png"}], "document": "b.pdf", "page": 3}"#;
const QUERY: &str = r#"{"id": "q", "query": [{"text": "an a"}], "instruction": "Find it.", "pool": "images", "candidates": ["b", "a"], "relevant": {"a": 2}}"#;

fn load(tasks: &str, pool: &str, queries: &str) -> Result<EvalSet, ManifestError> {
    let folder = Folder::new();
    folder.write("tasks.jsonl", tasks);
    folder.write("pool_images.jsonl", pool);
    folder.write("eval_d.jsonl", queries);
    let corpus = EvalCorpus::open(folder.path())?;
    let set = corpus.load(corpus.task("d_t2i")?)?;
    for item in
        set.pool.iter().map(|candidate| &candidate.item).chain(set.queries.iter().map(|query| &query.item))
    {
        assert!(
            item.content
                .iter()
                .flat_map(|part| part.files("".as_ref()))
                .all(|file| file.starts_with(folder.path()))
        );
    }
    Ok(set)
}

#[test]
fn tasks_queries_and_pools_are_read() {
    let set = load(TASK, POOL, QUERY).unwrap();
    assert_eq!(set.pool.iter().map(|candidate| candidate.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(set.pool.iter().all(|candidate| candidate.item.instruction.is_none()));
    let query = &set.queries[0];
    assert_eq!(query.item, Item { instruction: Some("Find it.".into()), ..Item::text("an a") });
    assert_eq!(query.candidates.as_deref(), Some(&["b".to_owned(), "a".to_owned()][..]));
    assert_eq!(query.relevant, [("a".to_owned(), 2.0)]);
}

#[test]
fn wrong_rows_are_named_by_file_line_and_key() {
    let check = |result: Result<EvalSet, _>, expected: &[&str]| check_message(&result.unwrap_err(), expected);
    let query = |from: &str, to: &str| load(TASK, POOL, &QUERY.replace(from, to));
    check(query("{\"a\": 2}", "{\"c\": 1}"), &["eval_d.jsonl:1", "`relevant`", "`c`", "pool_images.jsonl"]);
    check(query("{\"a\": 2}", "{}"), &["eval_d.jsonl:1", "`relevant`", "0 ids", "above 0"]);
    check(query("{\"a\": 2}", "{\"a\": 0}"), &["`relevant`", "1 ids without a grade above 0"]);
    check(query("{\"a\": 2}", "{\"a\": -1}"), &["`relevant`", "-1 for `a`"]);
    check(query("{\"a\": 2}", "{\"a\": \"x\"}"), &["`relevant`", "\"x\" for `a`"]);
    check(query("{\"a\": 2}", "[\"a\"]"), &["`relevant`", "a map"]);
    check(query("[\"b\", \"a\"]", "[\"b\", \"c\"]"), &["`candidates`", "`c`", "pool_images.jsonl"]);
    check(query("[\"b\", \"a\"]", "[\"b\"]"), &["`relevant`", "`a`", "own `candidates`"]);
    check(query("[\"b\", \"a\"]", "[\"a\", \"a\"]"), &["`candidates`", "`a` twice"]);
    check(query("[\"b\", \"a\"]", "[]"), &["`candidates`", "empty"]);
    check(query("\"images\"", "\"texts\""), &["`pool`", "`texts`", "pool_images.jsonl"]);
    check(query("\"query\"", "\"content\""), &["`query`", "missing"]);
    check(query("\"relevant\"", "\"x\": 1, \"relevant\""), &["`x`", "not known", "`relevant`"]);
    check(load(TASK, POOL, &format!("{QUERY}\n{QUERY}")), &["eval_d.jsonl:2", "`q`", "line 1 already"]);
    check(load(TASK, &format!("{POOL}\n{POOL}"), QUERY), &["pool_images.jsonl:3", "`a`", "line 1 already"]);
    check(load(TASK, "", QUERY), &["pool_images.jsonl", "no rows"]);
    check(load(TASK, POOL, "\n"), &["eval_d.jsonl", "no rows"]);
    check(load(&format!("{TASK}\n{TASK}"), POOL, QUERY), &["tasks.jsonl:2", "`d_t2i`", "line 1 already"]);
    check(
        load(&TASK.replace("\"metric\"", "\"metrics\""), POOL, QUERY),
        &["tasks.jsonl:1", "`metric`", "missing"],
    );
    check(
        load(&TASK.replace("d_t2i", "other"), POOL, QUERY),
        &["tasks.jsonl", "no task `d_t2i`", "it has other"],
    );
    check(load(&TASK.replace("eval_d", "eval_e"), POOL, QUERY), &["eval_e.jsonl"]);
}
