//! Training manifests and rows to embed.

use std::path::Path;

use rzen_core::{Item, Part, VideoSource};
use rzen_data::{embed_rows, train_rows};

use crate::made::{Folder, check_message};

const GOOD: &str =
    r#"{"dataset": "d", "task": "t", "query": [{"text": "q"}], "positive": [{"image": "p.png"}]}"#;

#[test]
fn training_rows_become_samples() {
    let folder = Folder::new();
    let full = r#"{"dataset": "d", "task": "image_retrieval", "name": "d_t2i", "instruction": "Find it.",
        "query": [{"text": "q"}, {"video": "q.webp"}], "positive": [{"image": "p.png"}],
        "negatives": [[{"image": "n.png"}], [{"document": "n.pdf", "page": 2}]]}"#;
    let path = folder.write("train.jsonl", format!("{GOOD}\n\n{}\n", full.replace('\n', " ")));
    let samples = train_rows(&path, Path::new("/data")).unwrap();
    assert_eq!(samples[0].hard_negatives, []);
    assert_eq!(samples[0].query.instruction, None);
    let sample = &samples[1];
    assert_eq!((sample.dataset.as_str(), sample.task.0.as_str()), ("d", "image_retrieval"));
    assert_eq!(sample.query.instruction.as_deref(), Some("Find it."));
    assert_eq!(sample.query.content[1], Part::Video(VideoSource::File("/data/q.webp".into())));
    assert_eq!(sample.positive, Item::image("/data/p.png"));
    assert_eq!(sample.hard_negatives[1].content, [Part::Document { path: "/data/n.pdf".into(), page: 2 }]);
    // The blank line counts.
    assert_eq!(sample.origin.to_string(), format!("{}:3", path.display()));
    assert_eq!(train_rows(&path, Path::new("")).unwrap()[0].positive, Item::image("p.png"));
}

#[test]
fn wrong_training_rows_are_named_by_line_and_key() {
    let folder = Folder::new();
    let check = |row: &str, expected: &[&str]| {
        let path = folder.write("train.jsonl", format!("{GOOD}\n{row}\n"));
        let error = train_rows(&path, Path::new("")).unwrap_err();
        check_message(&error, &[&["train.jsonl:2"], expected].concat());
    };
    let with = |key: &str, value: &str| GOOD.replacen('{', &format!("{{\"{key}\": {value}, "), 1);
    check(&with("postive", "[]"), &["`postive`", "not known", "`positive`", "`negatives`"]);
    check(&GOOD.replace("\"positive\"", "\"name\""), &["`name`"]);
    check(r#"{"dataset": "d", "task": "t", "query": [{"text": "q"}]}"#, &["`positive`", "missing"]);
    check(&GOOD.replace("\"t\"", "3"), &["`task`", "integer `3`", "expected a string"]);
    check(&GOOD.replace("[{\"text\": \"q\"}]", "[]"), &["`query`", "at least one part"]);
    check(&GOOD.replace("\"text\"", "\"txt\""), &["`query`", "`txt`", "`text`"]);
    check(&GOOD.replace("[{\"text\": \"q\"}]", "\"q\""), &["`query`", "\"q\"", "a sequence"]);
    check(&with("negatives", "[[]]"), &["`negatives`", "empty"]);
    check(&with("instruction", "[1]"), &["`instruction`", "a string"]);
    check(
        &GOOD.replace("[{\"image\": \"p.png\"}]", "[{\"document\": \"p.pdf\", \"page\": 0}]"),
        &["counted from 1"],
    );
    check("[1, 2]", &["not a JSON object"]);
    check("{\"dataset\": \"d\", \"ta", &["not a JSON object", "EOF"]);
}

#[test]
fn missing_and_empty_manifests_are_named() {
    let folder = Folder::new();
    let error = train_rows(&folder.path().join("gone.jsonl"), Path::new("")).unwrap_err();
    check_message(&error, &["gone.jsonl", "path"]);
    let error = train_rows(&folder.write("none.jsonl", "\n \n"), Path::new("")).unwrap_err();
    check_message(&error, &["none.jsonl", "no rows"]);
    let error = train_rows(&folder.write("binary.jsonl", b"\xFF\xFE\x00"), Path::new("")).unwrap_err();
    check_message(&error, &["binary.jsonl", "UTF-8"]);
}

#[test]
fn rows_to_embed_are_strict() {
    let folder = Folder::new();
    let row = r#"{"id": "a", "content": [{"text": ""}], "instruction": "Say."}"#;
    let rows = embed_rows(&folder.write("rows.jsonl", row), Path::new("")).unwrap();
    assert_eq!(rows[0].id, "a");
    assert_eq!(rows[0].item, Item { instruction: Some("Say.".into()), ..Item::text("") });
    let check = |second: &str, expected: &[&str]| {
        let path = folder.write("rows.jsonl", format!("{row}\n{second}"));
        let error = embed_rows(&path, Path::new("")).unwrap_err();
        check_message(&error, &[&["rows.jsonl:2"], expected].concat());
    };
    check(row, &["`a`", "line 1 already"]);
    check(r#"{"id": "b", "content": [{"text": ""}], "name": "b"}"#, &["`name`", "`instruction`"]);
    check(r#"{"id": 7, "content": [{"text": ""}]}"#, &["`id`", "`7`", "a string"]);
    check(r#"{"id": "", "content": [{"text": ""}]}"#, &["`id`", "empty"]);
    check(r#"{"id": "b"}"#, &["`content`", "missing"]);
}

#[test]
fn a_row_that_is_no_text_is_named() {
    let folder = Folder::new();
    let latin = [GOOD.as_bytes(), b"\r\n{\"dataset\": \"caf\xE9\"}\n"].concat();
    let error = train_rows(&folder.write("train.jsonl", latin), Path::new("")).unwrap_err();
    check_message(&error, &["train.jsonl:2", "not UTF-8", "after byte 16", "save"]);
}
