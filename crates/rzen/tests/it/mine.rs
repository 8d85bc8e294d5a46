//! Mining on the command line, and a training on what was mined.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::command::{refuse, rzen, succeed, text, tiny_model};

const RECIPE: &str = concat!(
    "seed = 5\n",
    tiny_model!(),
    r#"
[data.world]
captions = 24
edits = 4
pages = 6
clips = 8
texts = 8
instructed = 8
labels = 8
queries = 4
[[stage]]
name = "one"
batch_size = 6
micro_batch_size = 6
epochs = 1
datasets = [{ dataset = "pictures" }]
objective = { symmetric = true }
training = { learning_rate = 1e-3 }
"#
);

fn rows(manifest: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(manifest).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_mined_corpus_trains_and_is_measured_as_the_one_it_came_from() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    fs::write(folder.join("tiny.toml"), RECIPE).unwrap();
    succeed(folder, &["train", "--config", "tiny.toml"]);
    let world = "runs/tiny/world";
    let mine = |more: &[&'static str]| {
        let fixed = ["data", "mine", "--model", "runs/tiny/one/model", "--corpus", world];
        [&fixed[..], &["--dataset", "pictures,clips", "--output", "mined", "--negatives", "2"], more].concat()
    };
    let told = succeed(folder, &mine(&["--scores"]));
    for words in
        [" items, 0 of them embedded before", "mined.vectors", "candidates", "  query  ", "  negative  "]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    let record: Value = serde_json::from_slice(&fs::read(folder.join("mined/mine.json")).unwrap()).unwrap();
    let vectors = || fs::metadata(folder.join("mined.vectors").join(stored(folder))).unwrap().len();
    let before = vectors();
    let settings = &record["settings"];
    assert_eq!(settings["datasets"], serde_json::json!(["pictures", "clips"]));
    assert_eq!((&settings["dtype"], &settings["device"]), (&"f32".into(), &"cpu".into()));
    assert!(settings["processor"]["image_tokens"].is_array(), "{settings}");
    assert!(settings["load"]["max_pixels"].is_u64() && settings["teacher_processor"].is_null(), "{settings}");

    // A changed filter embeds nothing; changed settings of pictures embed all of them again.
    assert!(refuse(folder, &mine(&["--scores"])).contains("--overwrite"));
    let again = succeed(folder, &mine(&["--scores", "--overwrite", "--rank", "2..9"]));
    let items = record["items"].as_u64().unwrap();
    assert!(again.contains(&format!("{items} items, {items} of them embedded before")), "{again}");
    assert_eq!(vectors(), before);
    let other = succeed(folder, &mine(&["--scores", "--overwrite", "--image-tokens", "4..9"]));
    assert!(other.contains(&format!("{items} items, 0 of them")), "{other}");
    let told = succeed(folder, &mine(&["--scores", "--overwrite"]));
    let same: Value = serde_json::from_slice(&fs::read(folder.join("mined/mine.json")).unwrap()).unwrap();
    assert!(told.contains(&format!("{items} of them embedded before")) && same == record, "{told}");

    let (old, new) = (
        rows(&folder.join(world).join("pictures/train.jsonl")),
        rows(&folder.join("mined/pictures/train.jsonl")),
    );
    assert_eq!((old.len(), new.len()), (8, 8));
    for (old, new) in old.iter().zip(&new) {
        let count = |row: &Value, key: &str| row[key].as_array().map_or(0, Vec::len);
        let expected = count(old, "negatives") + 2;
        assert_eq!((count(new, "negatives"), count(new, "negative_scores")), (expected, expected), "{new}");
    }
    let page = fs::read_to_string(folder.join("mined/report.html")).unwrap();
    assert!(page.contains("<img src=\"data:image/jpeg") && page.contains("answer at rank"), "no pictures");

    let teacher = ["--overwrite", "--teacher-model", "runs/tiny/one/model"];
    assert!(refuse(folder, &mine(&teacher)).contains("--teacher-model holds the model"));

    // The same tasks, from elsewhere.
    let eval = |data: &str| {
        succeed(
            folder,
            &["eval", "--model", "runs/tiny/one/model", "--data", data, "--output", "scores.json"],
        );
        fs::read_to_string(folder.join("scores.json")).unwrap()
    };
    assert_eq!(eval("mined"), eval(world));
    let dataset = "datasets = [{ dataset = \"pictures\", teacher = { percent = 100 } }]\nhard_negatives = 2";
    let recipe = RECIPE.replace("datasets = [{ dataset = \"pictures\" }]", dataset);
    fs::write(folder.join("mined.toml"), recipe).unwrap();
    let output = rzen(folder, &["train", "--config", "mined.toml", "--data", "mined"]);
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(folder.join("runs/mined/one/model/config.json").is_file());
}

/// The file of the model's vectors.
fn stored(folder: &Path) -> String {
    let record: Value = serde_json::from_slice(&fs::read(folder.join("mined/mine.json")).unwrap()).unwrap();
    format!("{}.vectors", &record["settings"]["key"].as_str().unwrap()[..16])
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_is_read() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let refused = |more: &[&'static str]| {
        let fixed = ["data", "mine", "--model", "gone", "--corpus", "corpus", "--output", "mined"];
        refuse(folder, &[&fixed[..], more].concat())
    };
    for (options, named) in [
        (&["--negatives", "0"][..], "ask for 1 or more"),
        (&["--rank", "3..4"], "hold 2 candidates, and 5 negatives"),
        (&["--percent", "101"], "`--percent` is 101"),
        (&["--min-score", "0.5", "--max-score", "0.1"], "0.5 or more and 0.1 or less"),
        (&["--sample", "best"], "best"),
        (&["--seed", "3"], "--sample random"),
        (&["--vectors", "mined/vectors"], "lies in the output"),
        (&["--vectors", "./gone/../mined/vectors"], "lies in the output"),
        (&["--dataset", "../d"], "no folder of the corpus"),
        (&["--dataset", "d"], "corpus/d/train.jsonl"),
    ] {
        let error = refused(options);
        assert!(error.contains(named), "{error}");
    }
    fs::create_dir_all(folder.join("corpus/d")).unwrap();
    assert!(refused(&[]).contains("no folder there holds a train.jsonl"));
    let row = r#"{"dataset": "d", "task": "t", "query": [{"text": "q"}], "positive": [{"text": "p"}]}"#;
    fs::write(folder.join("corpus/d/train.jsonl"), row).unwrap();
    let gone = refused(&[]);
    assert!(gone.contains("gone") && gone.contains("config.json"), "{gone}");
    assert!(!folder.join("mined").exists() && !folder.join("mined.vectors").exists());
}
