//! Runs that stop, by a kill, a signal, a full disk or bad rows, and go on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::{refuse, rzen, succeed};
use crate::program::{RECIPE, bytes, copy_folder, remove, run};

/// A place with the tiny recipe, and with a copy of the run that ends after `steps` steps of `stage`.
fn cut_run(stage: &str, steps: usize) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("tiny.toml"), RECIPE).unwrap();
    std::fs::create_dir(place.path().join("runs")).unwrap();
    let copy = place.path().join("runs/tiny");
    copy_folder(&run().join("runs/tiny"), &copy);
    let later = ["first", "a", "b", "soup", "results", "report.html"];
    let at = later.iter().position(|name| *name == stage).unwrap();
    for name in &later[at + 1..] {
        remove(&copy.join(name));
    }
    for name in ["model", "adapter", "temperatures.json"] {
        remove(&copy.join(stage).join(name));
    }
    let checkpoints = checkpoints(&copy.join(stage));
    assert!(checkpoints.len() > steps, "a checkpoint after each step");
    checkpoints[steps..].iter().for_each(|folder| remove(folder));
    (place, copy)
}

fn checkpoints(stage: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(stage.join("checkpoints")).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// Files that a resumed run must leave as the whole one did.
const RESULTS: [&str; 6] = [
    "first/model/model.safetensors",
    "first/temperatures.json",
    "a/adapter/adapter_model.safetensors",
    "b/adapter/adapter_model.safetensors",
    "soup/model/model.safetensors",
    "results/soup.json",
];

fn check_same_results(copy: &Path) {
    for file in RESULTS {
        let same = bytes(&run().join("runs/tiny").join(file)) == bytes(&copy.join(file));
        assert!(same, "{file} differs after a stop");
    }
}

#[test]
fn a_stopped_run_goes_on_to_the_same_weights() {
    let (place, copy) = cut_run("first", 2);
    succeed(place.path(), &["train", "--config", "tiny.toml"]);
    check_same_results(&copy);
}

#[test]
fn a_stopped_adapter_goes_on_to_the_same_weights() {
    let (place, copy) = cut_run("a", 1);
    let output = rzen(place.path(), &["train", "--config", "tiny.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("first: done before"), "{said}");
    assert!(said.contains("from 1"), "{said}");
    check_same_results(&copy);
}

#[test]
fn rows_edited_between_stop_and_resume_are_noticed() {
    let (place, copy) = cut_run("first", 2);
    let manifest = copy.join("world/stage1_captions/train.jsonl");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.swap(0, 1);
    std::fs::write(&manifest, lines.join("\n") + "\n").unwrap();
    let error = refuse(place.path(), &["train", "--config", "tiny.toml"]);
    assert!(error.contains("manifests.stage1_captions"), "{error}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_whole_files_to_go_on_from() {
    let (place, copy) = cut_run("first", 2);
    // No file may grow beyond 100 or 200 kB, whichever unit the shell counts in; the model's has more.
    let script = "trap '' XFSZ; ulimit -f 200; exec \"$0\" train --config tiny.toml";
    let output = Command::new("sh")
        .current_dir(place.path())
        .args(["-c", script, env!("CARGO_BIN_EXE_rzen")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{error}");
    assert!(error.contains("step_000003") && error.contains("untouched"), "{error}");
    let names = checkpoints(&copy.join("first"));
    assert!(names.iter().all(|folder| folder.join("state.json").is_file()), "{names:?}");
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(!copy.join("first/model").exists() && !copy.join("first/temperatures.json").exists());
    succeed(place.path(), &["train", "--config", "tiny.toml"]);
    check_same_results(&copy);
}

/// The tiny recipe without its adapters, measured on little.
fn first_stage_alone() -> String {
    let first = RECIPE.split("[[stage]]\nname = \"a\"").next().unwrap();
    format!("{first}[evaluation]\ntasks = [\"pictures\"]\nstart = false\n")
}

/// A picture of the training rows of `dataset` that the task `pictures` does not need.
fn training_picture(corpus: &Path, dataset: &str) -> String {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let evaluation = std::fs::read_dir(corpus.join("pictures")).unwrap().map(|entry| entry.unwrap().path());
    let evaluation: String = evaluation
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl") && !path.ends_with("train.jsonl"))
        .map(|path| read(&path))
        .collect();
    let rows = read(&corpus.join(dataset).join("train.jsonl"));
    let paths = rows.split('"').filter(|word| word.ends_with(".png"));
    paths.filter(|path| !evaluation.contains(*path)).map(str::to_owned).next().unwrap()
}

#[test]
fn a_run_stops_at_bad_rows_until_they_are_allowed() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("tiny.toml"), first_stage_alone()).unwrap();
    copy_folder(&run().join("runs/tiny/world"), &place.path().join("corpus"));
    let picture = training_picture(&place.path().join("corpus"), "stage1_captions");
    remove(&place.path().join("corpus").join(&picture));
    let args = ["train", "--config", "tiny.toml", "--data", "corpus", "--output", "run"];
    for attempt in 1..3 {
        let error = refuse(place.path(), &args);
        assert!(error.contains(&picture), "attempt {attempt}: {error}");
        assert!(error.contains("stage1_captions/train.jsonl"), "attempt {attempt}: {error}");
        assert!(error.contains("raise `bad_row_limit`"), "attempt {attempt}: {error}");
        assert!(!place.path().join("run/first/model").exists());
    }
    succeed(place.path(), &[&args[..], &["--set", "data.bad_row_limit=9"]].concat());
    let list = String::from_utf8(bytes(&place.path().join("run/first/bad_rows.jsonl"))).unwrap();
    assert!(list.contains(&picture) && list.lines().count() <= 9, "{list}");
    let resolved = String::from_utf8(bytes(&place.path().join("run/recipe.toml"))).unwrap();
    assert!(resolved.contains("bad_row_limit = 9"), "{resolved}");
}

#[test]
#[cfg(unix)]
fn ctrl_c_leaves_a_checkpoint_to_go_on_from() {
    a_signal_leaves_a_checkpoint("-INT");
}

#[test]
#[cfg(unix)]
fn termination_leaves_a_checkpoint_to_go_on_from() {
    a_signal_leaves_a_checkpoint("-TERM");
}

#[cfg(unix)]
fn a_signal_leaves_a_checkpoint(signal: &str) {
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
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
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
