//! What the verbs' options do, and what is left where a verb fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

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
fn embed(options: &[&str]) -> Vec<Vec<f32>> {
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
fn methods_and_weights_of_a_soup() {
    let trained = trained();
    let [base, a, b] = ["first/model", "a/adapter", "b/adapter"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let soup = |more: &[&str]| -> Vec<&str> {
        [&["soup", "--adapter", &a, "--adapter", &b], more].concat().into_iter().map(leak).collect()
    };
    let rank = |name: &str| -> Value {
        let path = folder.join(name).join("adapter_config.json");
        serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()["r"].clone()
    };
    succeed(folder, &soup(&["--output", "exact"]));
    succeed(folder, &soup(&["--method", "svd", "--rank", "1", "--output", "deep/down/svd"]));
    assert_eq!((rank("exact"), rank("deep/down/svd")), (json!(4), json!(1)));
    for method in [
        "mean-ab",
        "peft-linear",
        "peft-ties",
        "magnitude-prune",
        "peft-dare-linear",
        "ties",
        "dare",
        "slerp",
    ] {
        let said = succeed(folder, &soup(&["--method", method, "--output", method]));
        assert!(said.contains("relative error") && said.contains("kept energy"), "{said}");
    }
    assert_eq!((rank("ties"), rank("dare"), rank("slerp")), (json!(2), json!(2), json!(4)));
    let record: Value =
        serde_json::from_slice(&std::fs::read(folder.join("ties/soup.json")).unwrap()).unwrap();
    assert_eq!(record["method"], json!({"name": "ties", "density": 0.5}));
    assert_eq!(record["base"]["checked_by"], "hash");
    assert_eq!(record["ingredients"][1]["path"], b.as_str());
    assert_eq!(record["ingredients"][1]["base_sha256"], record["base"]["sha256"]);
    // Full rank fits a base.
    succeed(folder, &soup(&["--method", "ties", "--base", &base, "--output", "whole"]));
    succeed(folder, &soup(&["--method", "svd", "--energy", "0.9", "--output", "energy"]));
    let processor = std::fs::read(Path::new(&a).join("processor.json")).unwrap();
    assert_eq!(std::fs::read(folder.join("exact/processor.json")).unwrap(), processor);

    let negative = rzen(folder, &soup(&["--weights", "-0.2,1.2", "--output", "negative"]));
    assert!(negative.status.success() && !text(&negative.stderr).contains("add up"), "{negative:?}");
    let strong = rzen(folder, &soup(&["--weights", "1,1", "--output", "strong"]));
    assert!(strong.status.success() && text(&strong.stderr).contains("add up to 2"), "{strong:?}");

    let before = names(folder);
    for (more, words) in [
        (["--rank", "3"], "svd"),
        (["--density", "0.4"], "magnitude-prune"),
        (["--energy", "0.9"], "svd"),
        (["--seed", "3"], "dare"),
        (["--weights", "1e300,1"], "smaller weights"),
        (["--weights", "nan,1"], "expected a number"),
    ] {
        let error = refuse(folder, &soup(&[&more[..], &["--output", "wrong"]].concat()));
        assert!(error.contains(words), "{more:?}: {error}");
    }
    assert_eq!(names(folder), before, "nothing is left");
    // What options alone get wrong is told before anything is read, and no folder is made.
    let nowhere =
        ["soup", "--adapter", "no/a", "--adapter", "no/b", "--base", "no/base", "--output", "new/x"];
    let find = ["--search", "greedy", "--data", "no/data", "--tasks", "t"];
    for (more, words) in [
        (&["--method", "ties", "--weights", "-0.5,1.5"][..], "a weight is -0.5"),
        (&["--method", "slerp", "--adapter", "no/c"], "3 are given"),
        (&["--weights", "1"], "1 weights for 2 adapters"),
        (&[&find[..], &["--metric", "mad"]].concat(), "--metric"),
        (&[&find[..], &["--dtype", "f8"]].concat(), "dtype `f8`"),
        (&[&find[..], &["--load", "max_side"]].concat(), "--load max_side"),
        (&[&find[..], &["--trials", "2"]].concat(), "more --trials"),
    ] {
        let error = refuse(folder, &[&nowhere[..], more].concat());
        assert!(error.contains(words) && !error.contains("no/"), "{more:?}: {error}");
    }
    assert_eq!(names(folder), before);
    // What stands there is told before anything is read.
    let missing = ["soup", "--adapter", "nowhere", "--base", &base, "--output", "exact"];
    let error = refuse(folder, &missing);
    assert!(error.contains("exact exists") && !error.contains("nowhere"), "{error}");
}

#[test]
fn adapters_stay_with_their_base() {
    let trained = trained();
    let [base, start, a, b] =
        ["first/model", "start", "a/adapter", "b/adapter"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let read =
        |path: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.join(path)).unwrap()).unwrap() };
    assert_eq!(read(&format!("{a}/base.json")), read(&format!("{b}/base.json")));
    let soup = ["soup", "--adapter", &a, "--adapter", &b];
    let error = refuse(folder, &[&soup[..], &["--base", &start, "--output", "wrong"]].concat());
    assert!(error.contains("SHA-256") && error.contains("any base") && error.contains("start"), "{error}");
    succeed(folder, &[&soup[..], &["--base", &start, "--any-base", "--output", "any"]].concat());
    std::fs::write(folder.join("rows.jsonl"), "{\"id\": \"1\", \"content\": [{\"text\": \"a\"}]}\n").unwrap();
    let embed = ["embed", "--input", "rows.jsonl", "--output", "a.jsonl", "--adapter", &a, "--model"];
    let error = refuse(folder, &[&embed[..], &[&start]].concat());
    assert!(error.contains("was trained on weights") && error.contains("--any-base"), "{error}");
    succeed(folder, &[&embed[..], &[&start, "--any-base"]].concat());
    succeed(folder, &[&embed[..], &[&base]].concat());
    succeed(folder, &[&soup[..], &["--base", &base, "--output", "right"]].concat());
    let records =
        ["right/soup.json", &trained.path("soup/adapter/soup.json"), &trained.path("soup/model/soup.json")]
            .map(read);
    assert_eq!(records[0]["base"]["checked_by"], "hash");
    for record in &records[1..] {
        assert_eq!(record["scores"]["ingredients"].as_array().unwrap().len(), 2, "{record}");
        assert!(record["scores"]["soup"].is_number() && record["base"]["sha256"].is_string());
    }
}

#[test]
fn models_are_averaged() {
    let trained = trained();
    let [base, start] = ["first/model", "start"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let models = ["soup", "--model", &start, "--model", &base];
    succeed(folder, &[&models[..], &["--weights", "0,1", "--output", "second"]].concat());
    let second = folder.join("second");
    assert_eq!(
        embed(&["--model", second.to_str().unwrap()]),
        embed(&["--model", &base]),
        "all of the weight on the second"
    );
    let record: Value = serde_json::from_slice(&std::fs::read(second.join("soup.json")).unwrap()).unwrap();
    assert_eq!((&record["of"], &record["ingredients"][0]["weight"]), (&json!("model"), &json!(0.0)));
    let error = refuse(folder, &[&models[..], &["--weights", "1,1", "--output", "wrong"]].concat());
    assert!(error.contains("add up to 2"), "{error}");
    let error = refuse(folder, &[&models[..], &["--method", "ties", "--output", "wrong"]].concat());
    assert!(error.contains("averaged by their weights alone"), "{error}");

    // Models that turn items into other input are refused without a search too.
    let other = folder.join("other");
    std::fs::create_dir(&other).unwrap();
    for name in names(Path::new(&start)) {
        std::fs::copy(Path::new(&start).join(&name), other.join(&name)).unwrap();
    }
    let processor = std::fs::read_to_string(other.join("processor.json")).unwrap();
    let mut processor: Value = serde_json::from_str(&processor).unwrap();
    processor["system_prompt"] = json!("Another.");
    std::fs::write(other.join("processor.json"), processor.to_string()).unwrap();
    let error = refuse(folder, &["soup", "--model", &start, "--model", "other", "--output", "wrong"]);
    assert!(error.contains("processor.json of ") && error.contains("`system_prompt` is"), "{error}");
    assert!(error.contains("\"Another.\"") && !folder.join("wrong").exists(), "{error}");
}

#[test]
fn weights_are_searched_on_held_out_tasks() {
    let trained = trained();
    let [base, a, b, world] =
        ["first/model", "a/adapter", "b/adapter", "world"].map(|name| trained.path(name));
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let soup = |more: &[&str]| -> Vec<&'static str> {
        let common = [
            "soup",
            "--adapter",
            &a,
            "--adapter",
            &b,
            "--base",
            &base,
            "--data",
            &world,
            "--tasks",
            "pictures",
        ];
        [&common[..], more].concat().into_iter().map(leak).collect()
    };
    let read = |path: &str| std::fs::read(folder.join(path)).unwrap();
    let find = ["--search", "weights", "--metric", "mrr", "--trials", "6"];
    // What appears under the output's name is whole.
    let output = folder.join("one");
    let whole = || (names(&output), String::from_utf8(read("one/soup.json")).unwrap());
    let appeared = std::thread::scope(|scope| {
        let args = soup(&[&find[..], &["--keep-adapter", "--output", "one"]].concat());
        let searching = scope.spawn(move || succeed(folder, &args));
        while !output.exists() && !searching.is_finished() {
            std::thread::sleep(Duration::from_micros(100));
        }
        output.exists().then(whole)
    });
    assert_eq!(appeared, Some(whole()));
    let log = read("one.search/trials.jsonl");
    let lines = log.iter().filter(|byte| **byte == b'\n').count();
    assert!((3..=6).contains(&lines), "{lines}");
    let record: Value = serde_json::from_slice(&read("one/soup.json")).unwrap();
    assert_eq!(
        (&record["search"]["tasks"], &record["search"]["metric"]),
        (&json!(["pictures"]), &json!("mrr"))
    );
    assert_eq!(record["scores"]["ingredients"].as_array().unwrap().len(), 2);
    let best = record["scores"]["soup"].as_f64().unwrap();
    for other in ["/scores/uniform", "/scores/ingredients/0/score", "/scores/ingredients/1/score"] {
        assert!(record.pointer(other).unwrap().as_f64().unwrap() <= best, "{record}");
    }
    // Killed within its third line, it goes on and ends the same.
    let cut = log.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 20;
    std::fs::create_dir(folder.join("two.search")).unwrap();
    std::fs::write(folder.join("two.search/trials.jsonl"), &log[..cut]).unwrap();
    let again = rzen(folder, &soup(&[&find[..], &["--keep-adapter", "--output", "two"]].concat()));
    assert!(again.status.success() && text(&again.stderr).matches("(known)").count() >= 2, "{again:?}");
    assert_eq!(read("two.search/trials.jsonl"), log);
    assert_eq!(read("two/adapter_model.safetensors"), read("one/adapter_model.safetensors"));

    // The rank that was asked for is that of an ingredient alone, too.
    let cut = ["--search", "weights", "--metric", "mrr", "--trials", "3", "--method", "svd", "--rank", "1"];
    succeed(folder, &soup(&[&cut[..], &["--keep-adapter", "--output", "cut"]].concat()));
    let record: Value = serde_json::from_slice(&read("cut/soup.json")).unwrap();
    assert_eq!((&record["rank"], &record["cut"]), (&json!(1), &json!({"rank": 1})), "{record}");

    succeed(folder, &soup(&["--search", "greedy", "--method", "ties", "--output", "model"]));
    let eval =
        ["eval", "--model", "model", "--data", &world, "--tasks", "pictures", "--output", "scores.json"];
    let warned = rzen(folder, &eval);
    assert!(text(&warned.stderr).contains("searched on pictures"), "{warned:?}");
    let error =
        refuse(folder, &["soup", "--adapter", &a, "--adapter", &b, "--search", "greedy", "--output", "x"]);
    assert!(error.contains("--data") && error.contains("--tasks"), "{error}");
    let error = refuse(folder, &soup(&["--search", "greedy", "--trials", "2", "--output", "x"]));
    assert!(error.contains("more --trials"), "{error}");
    assert!(!folder.join("x").exists());
}

/// Arguments that live as long as the test program.
fn leak(text: &str) -> &'static str {
    String::leak(text.to_owned())
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
