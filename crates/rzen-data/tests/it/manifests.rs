//! Training manifests and rows to embed.

use std::collections::HashSet;
use std::path::Path;

use rzen_core::{Item, Part, Sample, VideoSource};
use rzen_data::{draw_positive, each_positive, embed_rows, train_manifests, train_rows};

use serde_json::{Value, json};

use crate::made::{Folder, check_message};
use crate::made_parquet::write_parquet;

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
fn rows_with_several_positives_groups_labels_and_scores() {
    let folder = Folder::new();
    let row = r#"{"dataset": "d", "task": "t", "query": [{"text": "q"}], "label": "l", "group": "g",
        "positives": [[{"text": "a"}], [{"text": "b"}], [{"image": "c.png"}]], "negatives": [[{"text": "n"}]],
        "positive_scores": [0.9, 0.8, 0.7], "negative_scores": [0.3]}"#;
    let path = folder.write("train.jsonl", format!("{GOOD}\n{}\n", row.replace('\n', " ")));
    let samples = train_rows(&path, Path::new("/data")).unwrap();
    let plain = &samples[0];
    assert_eq!((&plain.label, &plain.group, &plain.teacher), (&None, &None, &None));
    let sample = &samples[1];
    assert_eq!(sample.positive, Item::text("a"));
    assert_eq!(sample.other_positives, [Item::text("b"), Item::image("/data/c.png")]);
    assert_eq!((sample.label.as_deref(), sample.group.as_deref()), (Some("l"), Some("g")));
    let teacher = sample.teacher.as_ref().unwrap();
    assert_eq!(
        (teacher.positives.as_slice(), teacher.negatives.as_slice()),
        (&[0.9, 0.8, 0.7][..], &[0.3][..])
    );

    // One is drawn for each epoch; its score goes with it, and the others stay.
    let mut seen = [0; 3];
    for epoch in 0..300 {
        let drawn = draw_positive(sample, 5, epoch);
        assert_eq!(drawn, draw_positive(sample, 5, epoch));
        let place = sample.positives().position(|item| *item == drawn.positive).unwrap();
        seen[place] += 1;
        assert_eq!(drawn.teacher.as_ref().unwrap().positives[0], [0.9, 0.8, 0.7][place]);
        let all = |sample: &Sample| sample.positives().cloned().collect::<HashSet<_>>();
        assert_eq!(all(&drawn), all(sample));
    }
    assert!(seen.iter().all(|count| *count > 70), "{seen:?}");
    let order =
        |seed| (0..20).map(|epoch| draw_positive(sample, seed, epoch).positive.clone()).collect::<Vec<_>>();
    assert_ne!(order(5), order(6));
    assert_eq!(draw_positive(plain, 5, 1).as_ref(), plain);
    let each: Vec<_> = each_positive(sample).map(|sample| sample.positive.clone()).collect();
    assert_eq!(each, sample.positives().cloned().collect::<Vec<_>>());
}

#[test]
fn mistakes_in_positives_labels_and_scores_are_named() {
    let folder = Folder::new();
    let check = |key: &str, value: &str, expected: &[&str]| {
        let row = GOOD.replacen('{', &format!("{{\"{key}\": {value}, "), 1);
        let error = train_rows(&folder.write("train.jsonl", row), Path::new("")).unwrap_err();
        check_message(&error, &[&["train.jsonl:1"], expected].concat());
    };
    check("positives", r#"[[{"text": "a"}]]"#, &["`positive` and `positives`", "keep one"]);
    check("positives", "[]", &["`positives`", "empty", "at least one positive"]);
    let several =
        GOOD.replace(r#""positive": [{"image": "p.png"}]"#, r#""positives": [[{"text": "a"}], []]"#);
    let error = train_rows(&folder.write("train.jsonl", several), Path::new("")).unwrap_err();
    check_message(&error, &["train.jsonl:1", "`positives`", "empty"]);
    check("positive_scores", "[1, 2]", &["`positive_scores` has 2 entries for 1 positives"]);
    check("negative_scores", "[1]", &["`positive_scores` has 0 entries for 1 positives"]);
    check("label", "\"\"", &["`label`", "empty"]);
    check("group", "3", &["`group`", "`3`", "a string"]);
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

#[test]
fn a_parquet_manifest_has_the_same_columns() {
    let folder = Folder::new();
    let schema = "message rows {
        required binary dataset (UTF8); required binary task (UTF8); required binary query (UTF8);
        optional group positives (LIST) { repeated group list { optional group element (LIST) { repeated group list {
            optional group element { optional binary text (UTF8);
                optional group image { optional binary bytes; optional binary path (UTF8); } } } } } }
        optional binary label (UTF8); }";
    let row = |label: Value, bytes: Value| {
        json!({
            "dataset": "d", "task": "t", "query": "[{\"text\": \"q\"}]", "label": label,
            "positives": [
                [{ "text": "a", "image": null }],
                [{ "text": null, "image": { "bytes": bytes, "path": "p.png" } }, { "text": "of it", "image": null }],
            ],
        })
    };
    let path = folder.path().join("train.parquet");
    write_parquet(&path, schema, &[row(json!("x"), Value::Null), row(Value::Null, Value::Null)]);
    let samples = train_rows(&train_manifests(folder.path()).unwrap()[0], Path::new("/data")).unwrap();
    assert_eq!(samples.len(), 2);
    assert_eq!(samples[0].query, Item::text("q"));
    assert_eq!(samples[0].positive, Item::text("a"));
    let parts = [Part::Image("/data/p.png".into()), Part::Text("of it".into())];
    assert_eq!(samples[0].other_positives[0].content, parts);
    assert_eq!((samples[0].label.as_deref(), samples[1].label.as_deref()), (Some("x"), None));
    assert_eq!(samples[1].origin.to_string(), format!("{}:2", path.display()));

    folder.write("train.jsonl", GOOD);
    check_message(&train_manifests(folder.path()).unwrap_err(), &["train.jsonl", "train.parquet", "keep"]);
    let error = train_rows(&folder.write("cut.parquet", "PAR1 and no more"), Path::new("")).unwrap_err();
    check_message(&error, &["cut.parquet", "Parquet", "whole"]);
}
