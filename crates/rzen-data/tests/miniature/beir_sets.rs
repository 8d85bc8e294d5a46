//! Two sets in BEIR's layout.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Expected, ExpectedQuery, Meant};

pub fn write(dir: &Path) -> Vec<Expected> {
    // The second as CQADupStack has it: one folder more.
    vec![write_set(dir, "fever"), write_set(dir, "forums/cats")]
}

fn write_set(dir: &Path, name: &str) -> Expected {
    let folder = dir.join(name);
    fs::create_dir_all(folder.join("qrels")).unwrap();
    let lines = |rows: &[Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let corpus: Vec<Value> = ["a", "b", "c"]
        .iter()
        .map(|id| json!({ "_id": format!("{name}-{id}"), "title": "On", "text": format!("the letter {id}"), "metadata": {} }))
        .collect();
    fs::write(folder.join("corpus.jsonl"), lines(&corpus)).unwrap();
    let queries: Vec<Value> =
        ["1", "2", "3"].iter().map(|id| json!({ "_id": id, "text": format!("letter {id}?") })).collect();
    fs::write(folder.join("queries.jsonl"), lines(&queries)).unwrap();
    let qrels = format!(
        "query-id\tcorpus-id\tscore\n1\t{name}-a\t2\n1\t{name}-b\t1\n1\t{name}-c\t0\n2\t{name}-c\t1\n"
    );
    fs::write(folder.join("qrels/test.tsv"), qrels).unwrap();
    let candidates =
        ["a", "b", "c"].map(|id| (format!("{name}-{id}"), Meant::new(&[], &format!("On the letter {id}"))));
    let query = |id: &str, relevant: &[(&str, f64)]| ExpectedQuery {
        id: id.to_owned(),
        meant: Meant::new(&[], &format!("letter {id}?")),
        candidates: None,
        relevant: relevant.iter().map(|(letter, grade)| (format!("{name}-{letter}"), *grade)).collect(),
    };
    Expected {
        task: name.to_owned(),
        // The third has no judgements.
        queries: vec![query("1", &[("a", 2.0), ("b", 1.0)]), query("2", &[("c", 1.0)])],
        candidates: candidates.into(),
        pool: 3,
    }
}
