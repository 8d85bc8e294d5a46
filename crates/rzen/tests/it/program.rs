//! The program as a user runs it: what it writes, what it refuses, what it survives.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use safetensors::SafeTensors;
use serde_json::Value;

const RECIPE: &str = r#"
seed = 3
[data.world]
captions = 40
edits = 8
pages = 8
clips = 12
texts = 12
instructed = 12
labels = 8
queries = 4
[model]
kind = "scratch"
vocab_size = 400
text = { hidden_size = 32, intermediate_size = 48, num_hidden_layers = 2, num_attention_heads = 2, num_key_value_heads = 1 }
vision = { depth = 1, embed_dim = 32, num_heads = 2, mlp_ratio = 2 }
[processor]
system_prompt = "Embed."
image_tokens = [4, 12]
frame_tokens = [4, 4]
num_frames = 2
pdf_dpi = 36.0
[[stage]]
name = "first"
batch_size = 8
micro_batch_size = 4
epochs = 1
instructions = false
datasets = [{ dataset = "stage1_captions" }, { dataset = "stage1_clips" }, { dataset = "stage1_texts" }]
objective = { alpha = 0.0, delta = 2.0 }
training = { learning_rate = 1e-3, recompute = false, checkpoint_every = 1, keep_last = 0 }
[[stage]]
name = "a"
from = "first"
train = { kind = "lora", rank = 2, alpha = 4 }
batch_size = 6
micro_batch_size = 3
epochs = 1
hard_negatives = 1
datasets = [{ dataset = "pictures" }, { dataset = "shapes", group = "labels" }, { dataset = "colours", group = "labels" }]
[[stage]]
name = "b"
from = "first"
train = { kind = "lora", rank = 2, alpha = 4 }
batch_size = 6
micro_batch_size = 3
epochs = 1
datasets = [{ dataset = "page_lists" }, { dataset = "clips" }]
[soup]
ingredients = ["a", "b"]
"#;

fn rzen(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rzen"))
        .current_dir(folder)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = rzen(folder, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "rzen {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn refuse(folder: &Path, args: &[&str]) -> String {
    let output = rzen(folder, args);
    assert!(!output.status.success(), "rzen {args:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// A run of the tiny recipe, made once for all tests.
fn run() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        std::fs::write(folder.join("tiny.toml"), RECIPE).unwrap();
        let table = succeed(&folder, &["train", "--config", "tiny.toml"]);
        for column in ["start", "first", "soup"] {
            assert!(table.lines().next().unwrap().contains(column), "{table}");
        }
        folder
    })
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_run_leaves_models_scores_and_a_report() {
    let run = run().join("runs/tiny");
    for file in [
        "recipe.toml",
        "world/tasks.jsonl",
        "start/model.safetensors",
        "first/model/config.json",
        "first/model/tokenizer.json",
        "first/model/processor.json",
        "first/metrics.jsonl",
        "first/temperatures.json",
        "a/adapter/adapter_config.json",
        "b/adapter/adapter_model.safetensors",
        "soup/adapter/adapter_model.safetensors",
        "soup/model/model.safetensors",
        "results/soup.json",
        "report.html",
    ] {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
    let results: Value = serde_json::from_slice(&bytes(&run.join("results/soup.json"))).unwrap();
    for (task, scores) in results.as_object().unwrap() {
        assert!(scores["queries"].as_u64().unwrap() > 0, "{task}");
        assert!(scores["hit_rate@1"].as_f64().is_some(), "{task}");
    }
    let page = String::from_utf8(bytes(&run.join("report.html"))).unwrap();
    assert!(page.contains("</html>") && !page.contains("http://") && !page.contains("https://"));
}

/// Copies a run without what came after its `steps`-th step of the first stage.
fn cut_back(run: &Path, copy: &Path, steps: usize) {
    let status = Command::new("cp").arg("-r").arg(run).arg(copy).status().unwrap();
    assert!(status.success());
    for name in ["a", "b", "soup", "results", "report.html", "first/model", "first/temperatures.json"] {
        let path = copy.join(name);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
    }
    let mut checkpoints: Vec<PathBuf> = std::fs::read_dir(copy.join("first/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    checkpoints.sort();
    assert!(checkpoints.len() > steps, "a checkpoint after each step");
    checkpoints[steps..].iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
}

#[test]
fn a_stopped_run_goes_on_to_the_same_weights() {
    let whole = run().join("runs/tiny");
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("tiny.toml"), RECIPE).unwrap();
    std::fs::create_dir(place.path().join("runs")).unwrap();
    let copy = place.path().join("runs/tiny");
    cut_back(&whole, &copy, 2);
    succeed(place.path(), &["train", "--config", "tiny.toml"]);
    for file in [
        "first/model/model.safetensors",
        "first/temperatures.json",
        "a/adapter/adapter_model.safetensors",
        "b/adapter/adapter_model.safetensors",
        "soup/model/model.safetensors",
        "results/soup.json",
    ] {
        assert!(bytes(&whole.join(file)) == bytes(&copy.join(file)), "{file} differs after a stop");
    }
}

#[test]
fn another_recipe_does_not_overwrite_a_run() {
    let error = refuse(run(), &["train", "--config", "tiny.toml", "--set", "seed=4"]);
    assert!(error.contains("--overwrite") && error.contains("runs/tiny"), "{error}");
}

#[test]
#[cfg(unix)]
fn ctrl_c_leaves_a_checkpoint_to_go_on_from() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(
        place.path().join("tiny.toml"),
        RECIPE.replace("epochs = 1\ninstructions", "epochs = 400\ninstructions"),
    )
    .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rzen"))
        .current_dir(place.path())
        .args(["train", "--config", "tiny.toml"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let checkpoints = place.path().join("runs/tiny/first/checkpoints");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(240);
    while std::fs::read_dir(&checkpoints).map_or(0, Iterator::count) < 2 {
        assert!(std::time::Instant::now() < deadline, "no checkpoint came");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut text).unwrap();
    assert!(text.contains("checkpoint") && text.contains("stop"), "{text}");
    let whole = std::fs::read_dir(&checkpoints)
        .unwrap()
        .all(|entry| entry.unwrap().path().join("state.json").is_file());
    assert!(whole, "a checkpoint is not complete");
    assert!(!place.path().join("runs/tiny/first/model").exists());
}

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

fn first_with(folder: &Path, ending: &str) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                return path;
            }
        }
    }
    panic!("no {ending} file");
}

#[test]
fn bad_rows_are_named_and_nothing_is_written() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("cut.png"), b"\x89PNG\r\n\x1a\n\0\0\0").unwrap();
    let cases = [
        (r#"{"id": "x", "content": [{"image": "nowhere.png"}]}"#, vec!["row `x`", "nowhere.png"]),
        (r#"{"id": "x", "content": [{"image": "cut.png"}]}"#, vec!["row `x`", "cut.png"]),
        (r#"{"id": "x", "content": [{"picture": "a.png"}]}"#, vec!["rows.jsonl", "1", "picture"]),
        (r#"{"id": "x", "kontent": []}"#, vec!["rows.jsonl:1", "`content` is missing"]),
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
fn wrong_options_are_named() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    std::fs::write(folder.join("rows.jsonl"), r#"{"id": "x", "content": [{"text": "a"}]}"#).unwrap();
    let model = run().join("runs/tiny/soup/model");
    let model = model.to_str().unwrap();
    let with = |more: &[&str]| {
        let mut args = vec!["embed", "--model", model, "--input", "rows.jsonl", "--output", "o.jsonl"];
        args.extend(more);
        refuse(folder, &args)
    };
    assert!(with(&["--device", "tpu"]).contains("cpu"));
    assert!(with(&["--dtype", "int8"]).contains("bf16"));
    assert!(with(&["--positions", "spiral"]).contains("mrope"));
    assert!(with(&["--image-tokens", "9..4"]).contains("9..4"));
    assert!(with(&["--batch-size", "0"]).contains("--batch-size"));
    assert!(
        refuse(folder, &["embed", "--model", "nowhere", "--input", "rows.jsonl", "--output", "o.jsonl"])
            .contains("nowhere")
    );
    assert!(
        refuse(folder, &["embed", "--model", model, "--input", "rows.jsonl", "--output", "o.txt"])
            .contains(".safetensors")
    );
    assert!(refuse(folder, &["inspect", "."]).contains("adapter_config.json"));
    assert!(refuse(folder, &["train", "--config", "no.toml"]).contains("no.toml"));
}

#[test]
fn soups_and_scores_from_the_command_line() {
    let run = run().join("runs/tiny");
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| run.join(name).to_str().unwrap().to_owned();
    let (a, b, base) = (path("a/adapter"), path("b/adapter"), path("first/model"));
    let adapters = ["soup", "--adapter", &a, "--adapter", &b];
    let said = succeed(place.path(), &[&adapters[..], &["--base", &base, "--output", "model"]].concat());
    assert!(said.contains("relative error 0"), "{said}");
    let (merged, ours) =
        (place.path().join("model/model.safetensors"), run.join("soup/model/model.safetensors"));
    let (merged, ours) = (bytes(&merged), bytes(&ours));
    let (merged, ours) =
        (SafeTensors::deserialize(&merged).unwrap(), SafeTensors::deserialize(&ours).unwrap());
    for (name, view) in ours.iter() {
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let (left, right) = (floats(view.data()), floats(merged.tensor(name).unwrap().data()));
        assert!(left.iter().zip(&right).all(|(a, b)| (a - b).abs() <= 1e-5), "{name}");
    }
    let said =
        succeed(place.path(), &[&adapters[..], &["--method", "mean-ab", "--output", "naive"]].concat());
    assert!(said.contains("all modules"), "{said}");
    assert!(refuse(place.path(), &[&adapters[..], &["--output", "naive"]].concat()).contains("naive"));
    assert!(
        refuse(place.path(), &[&adapters[..], &["--weights", "1", "--output", "w"]].concat())
            .contains("2 adapters")
    );
    assert!(
        refuse(place.path(), &[&adapters[..], &["--method", "magic", "--output", "w"]].concat())
            .contains("svd")
    );
    let said = succeed(place.path(), &["inspect", &a]);
    assert!(said.contains("LoRA") && said.contains("rank"), "{said}");
    let world = path("world");
    let soup = path("soup/model");
    let eval = ["eval", "--model", &soup, "--data", &world, "--tasks", "pictures", "--output", "scores.json"];
    let table = succeed(place.path(), &eval);
    assert!(table.contains("pictures"), "{table}");
    let ours: Value = serde_json::from_slice(&bytes(&place.path().join("scores.json"))).unwrap();
    let before: Value = serde_json::from_slice(&bytes(&run.join("results/soup.json"))).unwrap();
    assert_eq!(ours["pictures"], before["pictures"]);
    assert!(
        refuse(place.path(), &["eval", "--model", &soup, "--data", &world, "--tasks", "nothing"])
            .contains("pictures")
    );
}
