//! What the verbs' options do, and what is left where a verb fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::command::{first_with, refuse, rzen, succeed, text, tiny_model};

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
name = "first"
batch_size = 8
micro_batch_size = 4
epochs = 1
instructions = false
datasets = [{ dataset = "stage1_captions" }]
objective = { alpha = 0.0, delta = 2.0 }
training = { learning_rate = 1e-3, recompute = false, checkpoint_every = 2, keep_last = 1 }
[[stage]]
name = "a"
from = "first"
train = { kind = "lora", rank = 2, alpha = 4 }
batch_size = 6
micro_batch_size = 3
epochs = 2
datasets = [{ dataset = "pictures" }]
objective = { alpha = 0.0, delta = 2.0 }
training = { learning_rate = 1e-2 }
[[stage]]
name = "b"
from = "first"
train = { kind = "lora", rank = 2, alpha = 4 }
batch_size = 6
micro_batch_size = 3
epochs = 2
datasets = [{ dataset = "clips" }]
objective = { alpha = 0.0, delta = 2.0 }
training = { learning_rate = 1e-2, checkpointing = "blocks" }
[soup]
ingredients = ["a", "b"]
"#
);

/// The folder of a run of the tiny recipe, and what the training printed.
pub struct Trained {
    pub run: PathBuf,
    table: String,
    lines: String,
}

impl Trained {
    pub fn path(&self, name: &str) -> String {
        self.run.join(name).to_str().unwrap().to_owned()
    }
}

/// Made once for all tests.
pub fn trained() -> &'static Trained {
    static RUN: OnceLock<Trained> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        std::fs::write(folder.join("tiny.toml"), RECIPE).unwrap();
        let output = rzen(&folder, &["train", "--config", "tiny.toml"]);
        let (table, lines) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{lines}");
        Trained { run: folder.join("runs/tiny"), table, lines }
    })
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn picture() -> PathBuf {
    first_with(&trained().run.join("world"), ".png")
}

fn clip() -> PathBuf {
    first_with(&trained().run.join("world"), ".gif")
}

/// Rows of every kind: text, picture with text, clip, and the same text with an instruction.
fn rows() -> Vec<Value> {
    let text = "a red star over a blue square and a green circle, ".repeat(6);
    vec![
        json!({"id": "text", "content": [{"text": text}]}),
        json!({"id": "picture", "content": [{"image": picture()}, {"text": "blue"}]}),
        json!({"id": "clip", "content": [{"video": clip()}]}),
        json!({
            "id": "asked",
            "content": [{"text": text}],
            "instruction": "Find a picture that shows this."
        }),
    ]
}

const TEXT: usize = 0;
const PICTURE: usize = 1;
const CLIP: usize = 2;
const ASKED: usize = 3;

/// The vectors of [`rows`] with these options.
pub fn embed(options: &[&str]) -> Vec<Vec<f32>> {
    let place = tempfile::tempdir().unwrap();
    let lines: String = rows().iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(place.path().join("rows.jsonl"), lines).unwrap();
    let fixed = ["embed", "--input", "rows.jsonl", "--output", "out.jsonl"];
    succeed(place.path(), &[&fixed, options].concat());
    let out = std::fs::read_to_string(place.path().join("out.jsonl")).unwrap();
    let vector = |line: &str| -> Vec<f32> {
        let row: Value = serde_json::from_str(line).unwrap();
        row["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    let vectors: Vec<Vec<f32>> = out.lines().map(vector).collect();
    vectors.iter().for_each(|vector| rzen_core::check_unit_vector(vector).unwrap());
    vectors
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Which rows of [`rows`] two runs embed differently.
fn changed(a: &[Vec<f32>], b: &[Vec<f32>]) -> Vec<usize> {
    (0..a.len()).filter(|&i| distance(&a[i], &b[i]) > 1e-5).collect()
}

#[test]
fn options_of_the_processor_change_what_they_name() {
    let model = trained().path("first/model");
    let with = |more: &[&str]| embed(&[&["--model", &model], more].concat());
    let plain = with(&[]);
    assert_eq!(changed(&plain, &with(&["--batch-size", "1"])), [0; 0], "a batch is a matter of speed");
    assert!(distance(&plain[TEXT], &plain[ASKED]) > 1e-3, "the instruction counts");
    let of = |more: &[&str]| changed(&plain, &with(more));
    assert_eq!(of(&["--positions", "sequential"]), [0; 0], "as the model says");
    assert_eq!(of(&["--positions", "mrope"]), [PICTURE, CLIP]);
    assert_eq!(of(&["--image-tokens", "16..25"]), [PICTURE]);
    assert_eq!(of(&["--frame-tokens", "9..16"]), [CLIP]);
    assert_eq!(of(&["--num-frames", "4"]), [CLIP]);
    // Long enough for the pictures, too short for the texts.
    assert_eq!(of(&["--max-length", "64"]), [TEXT, ASKED]);
}

#[test]
fn half_precision_points_the_same_way() {
    let model = trained().path("first/model");
    let whole = embed(&["--model", &model]);
    let half = embed(&["--model", &model, "--dtype", "bf16"]);
    assert!(!changed(&whole, &half).is_empty(), "bf16 rounds");
    for (whole, half) in whole.iter().zip(&half) {
        let cosine: f32 = whole.iter().zip(half).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.99, "{cosine}");
    }
}

#[test]
fn an_adapter_equals_the_model_it_is_merged_into() {
    let trained = trained();
    let [base, a, b] = ["first/model", "a/adapter", "b/adapter"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let soup = ["soup", "--adapter", &a, "--adapter", &b, "--base", &base];
    // All of `a` and nothing of `b`.
    succeed(place.path(), &[&soup[..], &["--weights", "1,0", "--output", "merged"]].concat());
    let merged = place.path().join("merged");
    let attached = embed(&["--model", &base, "--adapter", &a]);
    let difference = changed(&attached, &embed(&["--model", merged.to_str().unwrap()]));
    assert_eq!(difference, [0; 0]);
    assert_eq!(changed(&attached, &embed(&["--model", &base])).len(), 4, "the adapter counts");
}

#[test]
fn outputs_are_checked_before_the_work() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let rows: String = rows().iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(folder.join("rows.jsonl"), rows).unwrap();
    let (model, world) = (trained().path("soup/model"), trained().path("world"));
    for args in [
        ["embed", "--model", "nowhere", "--input", "rows.jsonl", "--output", "rows.jsonl/out.jsonl"],
        ["eval", "--model", "nowhere", "--data", &world, "--output", "rows.jsonl/scores.json"],
        ["soup", "--adapter", "nowhere", "--adapter", "nowhere", "--output", "rows.jsonl/soup"],
    ] {
        let error = refuse(folder, &args);
        assert!(error.contains("--output rows.jsonl/") && !error.contains("nowhere"), "{error}");
    }
    let error =
        refuse(folder, &["embed", "--model", &model, "--input", "rows.jsonl", "--output", "./rows.jsonl"]);
    assert!(error.contains("is the input"), "{error}");
    let [run, a, b] = ["", "a/adapter", "b/adapter"].map(|name| trained().path(name));
    let error = refuse(folder, &["soup", "--adapter", &a, "--adapter", &b, "--output", &run, "--overwrite"]);
    assert!(error.contains("which is read") && Path::new(&a).is_dir(), "{error}");
    assert_eq!(names(folder), ["rows.jsonl"]);

    succeed(folder, &["embed", "--model", &model, "--input", "rows.jsonl", "--output", "new/out.jsonl"]);
    let eval = ["eval", "--model", &model, "--data", &world, "--tasks", "pictures", "--output"];
    succeed(folder, &[&eval[..], &["also/new/scores.json"]].concat());
    assert_eq!((names(&folder.join("new")).len(), names(&folder.join("also/new")).len()), (1, 1));
    let scores = std::fs::read(folder.join("also/new/scores.json")).unwrap();
    let scores: Value = serde_json::from_slice(&scores).unwrap();
    assert!(scores["pictures"].as_object().unwrap().keys().all(|key| key != "ties" && key != "candidates"));
}

/// Runs a verb that may write no file past 512 or 1024 bytes, as on a full disk.
#[cfg(unix)]
fn on_a_full_disk(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("sh")
        .current_dir(folder)
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_rzen")])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success(), "rzen {args:?} succeeded");
    text(&output.stderr)
}

#[test]
#[cfg(unix)]
fn a_full_disk_leaves_nothing_behind() {
    let trained = trained();
    let [model, base, a, b, world] =
        ["soup/model", "first/model", "a/adapter", "b/adapter", "world"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let rows: String =
        (0..64).map(|i| format!("{}\n", json!({"id": i.to_string(), "content": [{"text": "a"}]}))).collect();
    std::fs::write(folder.join("rows.jsonl"), rows).unwrap();
    let adapters = ["soup", "--adapter", &a, "--adapter", &b];
    let cases: [(&str, Vec<&str>); 6] = [
        ("out.jsonl", vec!["embed", "--model", &model, "--input", "rows.jsonl"]),
        ("out.safetensors", vec!["embed", "--model", &model, "--input", "rows.jsonl"]),
        ("scores.json", vec!["eval", "--model", &model, "--data", &world]),
        ("adapter", adapters.to_vec()),
        ("model", [&adapters[..], &["--base", &base]].concat()),
        ("random", vec!["init", "--shape", "qwen2-vl-2b"]),
    ];
    for (output, args) in cases {
        let error = on_a_full_disk(folder, &[&args[..], &["--output", output]].concat());
        assert!(error.contains(output) && error.contains("too large"), "{output}: {error}");
        let advice = error.contains("is there room");
        // The advice for vectors is given where files are written.
        assert!(advice || output.starts_with("out."), "{output}: {error}");
        assert_eq!(names(folder), ["rows.jsonl"], "{output} left something");
    }
}

#[cfg(unix)]
#[test]
fn where_nobody_reads_the_program_ends_without_a_word() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_rzen"));
    command.args(["inspect", &trained().path("first/model")]).stdin(Stdio::null()).stdout(writer);
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(141), ""));
}

#[test]
fn folders_are_described() {
    let trained = trained();
    let place = tempfile::tempdir().unwrap();
    let checkpoint = succeed(place.path(), &["inspect", &trained.path("first/model")]);
    for words in ["Qwen2-VL checkpoint", "2 layers, width 32", "400 rows", "4..12"] {
        assert!(checkpoint.contains(words), "{words}: {checkpoint}");
    }
    let tensors = succeed(place.path(), &["inspect", "--tensors", &trained.path("a/adapter")]);
    assert!(
        tensors.contains("lora_A") && tensors.contains("F32") && tensors.contains("[2, 32]"),
        "{tensors}"
    );

    let steps = trained.run.join("first/checkpoints");
    let step = names(&steps).pop().unwrap();
    let said = succeed(&steps, &["inspect", &step]);
    assert!(said.contains("of stage `first`") && said.contains("encoder"), "{said}");
    assert!(said.contains("Qwen2-VL checkpoint"), "{said}");
}

#[test]
fn a_random_checkpoint_is_refused_before_it_is_written() {
    let trained = trained();
    let place = tempfile::tempdir().unwrap();
    let refused = |options: &[&str]| {
        let error = refuse(place.path(), &[&["init", "--output", "random"], options].concat());
        assert_eq!(names(place.path()), Vec::<String>::new(), "{error}");
        error
    };
    let unknown = refused(&["--shape", "qwen2-vl-72b"]);
    assert!(unknown.contains("qwen2-vl-72b") && unknown.contains("qwen2-vl-2b, qwen2-vl-7b"), "{unknown}");
    for (option, value) in
        [("--decoder-layers", "0"), ("--vision-blocks", "0"), ("--shard-size", "0"), ("--dtype", "int8")]
    {
        let error = refused(&["--shape", "qwen2-vl-2b", option, value]);
        assert!(error.contains(option.trim_start_matches("--")) && error.contains(value), "{error}");
    }
    let world = trained.path("world");
    let error = refused(&["--shape", "qwen2-vl-2b", "--tokenizer", &world]);
    assert!(error.contains(&world) && error.contains("tokenizer.json"), "{error}");
}

#[test]
fn a_plan_needs_no_weights() {
    let place = tempfile::tempdir().unwrap();
    let config = trained().run.join("first/model/config.json");
    std::fs::copy(config, place.path().join("config.json")).unwrap();
    let plan = |options: &[&str]| succeed(place.path(), &[&["plan", "--model", "."], options].concat());
    let json: Value = serde_json::from_str(&plan(&["--json", "--mix", "text:9=2,picture:4"])).unwrap();
    let inspected = succeed(place.path(), &["inspect", &trained().path("first/model")]);
    assert!(inspected.contains(&format!("{} (F32)", json["parameters"])), "{inspected}: {json}");
    assert!(json["seconds"].as_f64().unwrap() > 0.0 && json["flops"]["measured"] == true, "{json}");
    let table = plan(&["--gflops", "50", "--mix", "frames:2x4"]);
    assert!(table.contains("frames:2x4") && table.contains("50 GFLOP/s"), "{table}");
    let wrong = refuse(place.path(), &["plan", "--model", ".", "--mix", "film:3"]);
    assert!(wrong.contains("`film:3`") && wrong.contains("frames:NxTOKENS"), "{wrong}");
    let missing = refuse(place.path(), &["plan", "--model", "gone"]);
    assert!(missing.contains("gone") && missing.contains("config.json"), "{missing}");
    let neither = refuse(place.path(), &["plan"]);
    assert!(neither.contains("--model") && neither.contains("--shape"), "{neither}");
}

#[test]
fn every_verb_explains_itself() {
    for verb in ["train", "soup", "eval", "embed", "inspect", "init", "plan", "data import", "data mine"] {
        let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let help = succeed(Path::new("."), &words);
        assert!(help.contains("Example") && help.contains(&format!("rzen {verb}")), "{help}");
    }
}

#[test]
fn a_training_says_what_came_of_it() {
    let trained = trained();
    let verdict = trained.table.lines().find(|line| line.starts_with("soup: mean hit_rate@1 "));
    let verdict = verdict.unwrap_or_else(|| panic!("{}", trained.table));
    for words in ["× chance ", "start ", "first ", "a ", "b "] {
        assert!(verdict.contains(words), "{verdict}");
    }
    let page = std::fs::read_to_string(trained.run.join("report.html")).unwrap();
    assert!(page.contains(verdict) && !page.contains("NaN"), "{verdict}");
    for words in ["samples/s stall ", " eta 0:0", "checkpoint ", "measure soup: done"] {
        assert!(trained.lines.contains(words), "{words}: {}", trained.lines);
    }
}
