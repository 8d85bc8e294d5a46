//! Vectors of rows from the command line.

use std::path::Path;
use std::process::Output;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::command::{first_with, rzen};
use crate::program::{bytes, run};

fn embed(folder: &Path, rows: &str, more: &[&str]) -> Output {
    std::fs::write(folder.join("rows.jsonl"), rows).unwrap();
    let model = run().join("runs/tiny/soup/model");
    let mut args = vec!["embed", "--model", model.to_str().unwrap(), "--input", "rows.jsonl"];
    args.extend(more);
    rzen(folder, &args)
}

#[test]
fn rows_become_unit_vectors_in_order() {
    let place = tempfile::tempdir().unwrap();
    let world = run().join("runs/tiny/world");
    let picture = first_with(&world, ".png");
    let clip = first_with(&world, ".gif");
    let document = first_with(&world, ".pdf");
    let rows = format!(
        "{}\n{}\n{}\n{}\n",
        serde_json::json!({"id": "t", "content": [{"text": "a red star"}], "instruction": "Find: "}),
        serde_json::json!({"id": "p", "content": [{"image": picture}, {"text": "blue"}]}),
        serde_json::json!({"id": "v", "content": [{"video": clip}]}),
        serde_json::json!({"id": "d", "content": [{"document": document, "page": 1}]}),
    );
    let output = embed(place.path(), &rows, &["--output", "all.safetensors"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = bytes(&place.path().join("all.safetensors"));
    let (_, metadata) = SafeTensors::read_metadata(&file).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["ids"], r#"["t","p","v","d"]"#);
    let view = SafeTensors::deserialize(&file).unwrap();
    let view = view.tensor("embeddings").unwrap();
    assert_eq!(view.shape(), [4, 32]);
    let values: Vec<f32> = view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    for row in values.chunks(32) {
        rzen_core::check_unit_vector(row).unwrap();
    }
    // Alone, and as JSON lines.
    let single = rows.lines().nth(1).unwrap();
    assert!(embed(place.path(), single, &["--output", "one.jsonl", "--batch-size", "1"]).status.success());
    let line: Value = serde_json::from_slice(&bytes(&place.path().join("one.jsonl"))).unwrap();
    let alone: Vec<f32> =
        line["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    let cosine: f32 = alone.iter().zip(&values[32..64]).map(|(a, b)| a * b).sum();
    assert!(line["id"] == "p" && cosine > 0.999_99, "{cosine}");
}

#[test]
fn bad_rows_are_named_and_nothing_is_written() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("cut.png"), b"\x89PNG\r\n\x1a\n\0\0\0").unwrap();
    let cases = [
        (r#"{"id": "x", "content": [{"image": "nowhere.png"}]}"#, vec!["row `x`", "nowhere.png"]),
        (r#"{"id": "x", "content": [{"image": "cut.png"}]}"#, vec!["row `x`", "cut.png"]),
        (r#"{"id": "x", "content": [{"picture": "a.png"}]}"#, vec!["rows.jsonl", "1", "picture"]),
        (
            r#"{"id": "x", "kontent": []}"#,
            vec!["rows.jsonl:1", "`content` is missing", "`kontent` is not known"],
        ),
        (r#"{"id": "x", "content": [{"text": "a"}"#, vec!["rows.jsonl", "1"]),
        ("", vec!["no rows"]),
    ];
    for (row, named) in cases {
        let output = embed(place.path(), row, &["--output", "out.safetensors"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{row}");
        assert!(named.iter().all(|word| error.contains(word)), "{row}: {error}");
        let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{row}: {left:?}");
    }
}

#[test]
fn rows_that_can_not_be_read_are_left_out_where_that_is_allowed() {
    let place = tempfile::tempdir().unwrap();
    let rows: String = ["a", "bad", "b", "worse", "c"]
        .map(|id| match id.len() {
            1 => format!("{{\"id\": \"{id}\", \"content\": [{{\"text\": \"{id}\"}}]}}\n"),
            _ => format!("{{\"id\": \"{id}\", \"content\": [{{\"image\": \"{id}.png\"}}]}}\n"),
        })
        .concat();
    let run = |more: &[&str]| embed(place.path(), &rows, &[&["--output", "out.jsonl"], more].concat());
    for (limit, named) in [("0", "--bad-row-limit"), ("1", "2 rows can't be embedded")] {
        let output = run(&["--bad-row-limit", limit]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("bad.png") && error.contains(named), "{error}");
        assert!(!place.path().join("out.jsonl").exists());
    }
    let output = run(&["--bad-row-limit", "2", "--batch-size", "1152921504606846976"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("left out: ").count(), 2, "{told}");
    assert!(told.contains("rows.jsonl:4: row `worse`") && told.contains("worse.png"), "{told}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("3 vectors of 32 numbers, 2 rows left out"), "{said}");
    let lines = std::fs::read_to_string(place.path().join("out.jsonl")).unwrap();
    let ids: Vec<String> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids, ["a", "b", "c"]);
}

#[test]
fn what_was_computed_before_a_run_stopped_is_not_computed_again() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let text =
        |n: usize| format!("{{\"id\": \"{n}\", \"content\": [{{\"text\": \"number {}\"}}]}}\n", n % 35);
    let picture = "{\"id\": \"picture\", \"content\": [{\"image\": \"cut.png\"}]}\n";
    let rows = (0..40).map(text).collect::<String>() + picture;
    std::fs::write(folder.join("cut.png"), b"\x89PNG\r\n\x1a\n\0\0\0").unwrap();
    // Parts of 16 rows.
    let run_with = |rows: &str, more: &[&str]| {
        let output = embed(folder, rows, &[&["--output", "out.jsonl", "--batch-size", "1"], more].concat());
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.success(), said)
    };
    let (done, said) = run_with(&rows, &[]);
    assert!(!done && said.contains("rows.jsonl:41: row `picture`") && said.contains("cut.png"), "{said}");
    assert!(said.contains("kept in out.jsonl.part.vectors") && said.contains("--bad-row-limit"), "{said}");
    assert!(!folder.join("out.jsonl").exists() && folder.join("out.jsonl.part.vectors").is_dir());

    std::fs::copy(first_with(&run().join("runs/tiny/world"), ".png"), folder.join("cut.png")).unwrap();
    let (done, said) = run_with(&rows, &[]);
    // The largest come first: with the picture, 15 texts were.
    assert!(
        done && said.contains("41 vectors of 32 numbers, 15 of them computed before: out.jsonl"),
        "{said}"
    );
    assert!(!folder.join("out.jsonl.part.vectors").exists(), "nothing is left of what was kept");
    let lines = || std::fs::read_to_string(folder.join("out.jsonl")).unwrap();
    let first = lines();
    let row = |line: usize| serde_json::from_str::<Value>(first.lines().nth(line).unwrap()).unwrap();
    assert!(row(1)["embedding"] == row(36)["embedding"] && row(1)["embedding"] != row(2)["embedding"]);
    assert_eq!((row(36)["id"].as_str(), row(40)["id"].as_str()), (Some("36"), Some("picture")));

    // Kept where it is asked for.
    for expected in ["41 vectors of 32 numbers: ", "41 vectors of 32 numbers, 36 of them computed before: "] {
        let (done, said) = run_with(&rows, &["--vectors", "kept"]);
        assert!(done && said.contains(expected), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.join("kept")).unwrap().count(), 1);

    // What isn't there is told before anything is computed.
    std::fs::remove_file(folder.join("cut.png")).unwrap();
    let (done, said) = run_with(&rows, &["--vectors", "other"]);
    assert!(
        !done && said.contains("row `picture`: can't read `cut.png`") && !folder.join("other").exists(),
        "{said}"
    );
    let (done, said) = run_with(&rows, &["--vectors", "kept", "--bad-row-limit", "1"]);
    assert!(done && said.contains("40 vectors") && said.contains("1 rows left out"), "{said}");
}
