//! A corpus in Parquet, its pictures inside.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::command::{succeed, tiny_model};
use crate::miniature::made_parquet::write_parquet;
use crate::program::{bytes, run};

const RECIPE: &str = concat!(
    "seed = 5\n",
    tiny_model!(),
    r#"
[[stage]]
name = "one"
batch_size = 4
micro_batch_size = 4
epochs = 2
hard_negatives = 1
datasets = [{ dataset = "pictures" }]
training = { learning_rate = 1e-3 }
[evaluation]
tasks = []
"#
);

const SCHEMA: &str = "message rows {
    required binary dataset (STRING); required binary task (STRING); optional binary name (STRING);
    optional binary instruction (STRING);
    required group query (LIST) { repeated group list { required group element { PART } } }
    required group positive (LIST) { repeated group list { required group element { PART } } }
    optional group negatives (LIST) { repeated group list {
        required group element (LIST) { repeated group list { required group element { PART } } } } } }";

const PART: &str = "optional binary text (STRING);
    optional group image { optional binary bytes; optional binary path (STRING); }";

/// Puts the bytes of pictures where their paths stood.
fn with_bytes(corpus: &Path, value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(|value| with_bytes(corpus, value)).collect(),
        Value::Object(keys) => {
            let entry = |(key, value): (&String, &Value)| match value.as_str().filter(|_| key == "image") {
                Some(path) => {
                    (key.clone(), json!({ "bytes": fs::read(corpus.join(path)).unwrap(), "path": path }))
                }
                None => (key.clone(), with_bytes(corpus, value)),
            };
            keys.iter().map(entry).collect::<serde_json::Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

#[test]
fn pictures_inside_parquet_train_and_are_mined_as_files_are() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let world = run().join("runs/tiny/world");
    let rows: Vec<Value> = fs::read_to_string(world.join("pictures/train.jsonl"))
        .unwrap()
        .lines()
        .map(|line| with_bytes(&world, &serde_json::from_str(line).unwrap()))
        .collect();
    let pictures = rows.iter().map(|row| row.to_string().matches("\"bytes\"").count()).sum::<usize>();
    assert!(pictures >= rows.len(), "{pictures} pictures");
    fs::create_dir_all(folder.join("packed/pictures")).unwrap();
    let (first, second) = rows.split_at(rows.len() / 2);
    for (number, rows) in [first, second].into_iter().enumerate() {
        let name = format!("packed/pictures/train-{number:05}-of-00002.parquet");
        write_parquet(&folder.join(name), &SCHEMA.replace("PART", PART), rows);
    }

    fs::write(folder.join("tiny.toml"), RECIPE).unwrap();
    let train = |data: &str, output: &str| {
        succeed(folder, &["train", "--config", "tiny.toml", "--data", data, "--output", output]);
        bytes(&folder.join(output).join("one/model/model.safetensors"))
    };
    assert!(train(world.to_str().unwrap(), "files") == train("packed", "inside"), "other weights");
    let card = fs::read_to_string(folder.join("inside/one/model/README.md")).unwrap();
    assert!(card.contains(&format!("| pictures | {} |", rows.len())), "{card}");

    // What reads rows otherwise: the check, which writes a corpus of its own, and mining.
    succeed(folder, &["data", "check", "packed", "--output", "checked"]);
    let mine = |corpus: &str, output: &str| -> Vec<Value> {
        let model = ["data", "mine", "--model", "files/one/model", "--corpus", corpus, "--output", output];
        succeed(folder, &[&model[..], &["--dataset", "pictures", "--negatives", "2"]].concat());
        let lines = fs::read_to_string(folder.join(output).join("pictures/mined.jsonl")).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let mined = mine(world.to_str().unwrap(), "mined_files");
    assert_eq!(mine("checked", "mined_checked"), mined);
    let inside = mine("packed", "mined_inside");
    assert_eq!(inside.len(), mined.len());
    for (number, (mut inside, mut mined)) in inside.into_iter().zip(mined).enumerate() {
        let shard = number / first.len();
        let row = inside.as_object_mut().unwrap();
        assert_eq!(row.shift_remove("file"), Some(json!(format!("train-{shard:05}-of-00002.parquet"))));
        assert_eq!(row.shift_remove("line"), Some(json!(number % first.len() + 1)));
        mined.as_object_mut().unwrap().shift_remove("line");
        assert_eq!(inside, mined, "row {number}");
    }
    let page = fs::read_to_string(folder.join("mined_inside/report.html")).unwrap();
    assert!(page.contains("<img src=\"data:image/jpeg") && page.contains(".parquet, row "), "no pictures");
}
