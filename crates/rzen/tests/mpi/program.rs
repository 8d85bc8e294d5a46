//! `rzen train` on several ranks: what it leaves, what it survives.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use safetensors::SafeTensors;

use crate::command;
use crate::command::tiny_model;
use crate::launch::{refuse, succeed, train};

/// Twenty steps of everything, twenty of an adapter with hard negatives.
const RECIPE: &str = concat!(
    "seed = 3\n",
    tiny_model!(),
    r#"
[data.world]
captions = 40
edits = 8
pages = 8
clips = 12
texts = 12
instructed = 12
labels = 8
queries = 4
[[stage]]
name = "full"
batch_size = 8
micro_batch_size = 4
epochs = 2.86
instructions = false
datasets = [{ dataset = "stage1_captions" }, { dataset = "stage1_clips" }, { dataset = "stage1_texts" }]
objective = { alpha = 2.0, delta = 2.0 }
training = { learning_rate = 1e-3, checkpoint_every = 5, keep_last = 0 }
[[stage]]
name = "lora"
from = "full"
train = { kind = "lora", rank = 2, alpha = 4 }
batch_size = 5
micro_batch_size = 3
epochs = 4
hard_negatives = 1
share_hard_negatives = false
datasets = [{ dataset = "pictures" }, { dataset = "shapes", group = "labels" }, { dataset = "colours", group = "labels" }]
training = { learning_rate = 1e-3, checkpointing = "blocks", checkpoint_every = 5, keep_last = 0 }
[evaluation]
tasks = []
"#
);

const ARGS: [&str; 4] = ["--config", "tiny.toml", "--output", "run"];

const FULL: &str = "run/full/model/model.safetensors";
const LORA: &str = "run/lora/adapter/adapter_model.safetensors";

/// A place with the recipe, and the run of so many ranks in it; made once for all tests.
fn run_of(ranks: usize) -> Option<&'static Path> {
    static RUNS: [OnceLock<Option<PathBuf>>; 3] = [const { OnceLock::new() }; 3];
    let at = [1, 2, 4].iter().position(|number| *number == ranks).unwrap();
    let make = || {
        let folder = tempfile::tempdir().unwrap().keep();
        std::fs::write(folder.join("tiny.toml"), RECIPE).unwrap();
        let said = succeed(&mut train(ranks, &folder, &ARGS)?);
        assert_eq!(said.matches("full: ").count(), 1, "one rank speaks: {said}");
        Some(folder)
    };
    RUNS[at].get_or_init(make).as_deref()
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn numbers(path: &Path) -> Vec<f32> {
    let file = bytes(path);
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut names = tensors.names();
    names.sort();
    let of = |name: &&str| tensors.tensor(name).unwrap().data().to_vec();
    let all: Vec<u8> = names.iter().flat_map(of).collect();
    all.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// How far apart two files' numbers are, by the root of the sum of squares, as a share of how far training has moved them.
fn apart(found: &Path, expected: &Path, start: &Path) -> f64 {
    let length = |a: &Path, b: &Path| {
        let (a, b) = (numbers(a), numbers(b));
        assert_eq!(a.len(), b.len());
        a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    length(found, expected) / length(expected, start)
}

fn checkpoint(place: &Path, stage: &str, step: usize) -> PathBuf {
    place.join(format!("run/{stage}/checkpoints/step_{step:06}"))
}

/// The weights of two runs of one recipe agree to this share of the way that training has moved them.
///
/// Gradients agree to 1e-5 of the largest. AdamW divides each by its own size, so that one that is itself rounding moves by
/// a whole step in a direction that rounding chose; few are, and what is found is some 1e-5.
const ALIKE: f64 = 1e-4;

fn assert_alike(found: &Path, expected: &Path) {
    let full = apart(&found.join(FULL), &expected.join(FULL), &expected.join("run/start/model.safetensors"));
    let first = checkpoint(expected, "lora", 5).join("encoder/adapter_model.safetensors");
    let lora = apart(&found.join(LORA), &expected.join(LORA), &first);
    println!("full off by {full:e}, lora by {lora:e} of the way");
    assert!(full <= ALIKE && lora <= ALIKE, "{full:e} {lora:e}");
}

#[test]
fn weights_after_twenty_steps_are_the_same_on_1_2_and_4_ranks() {
    let alone = tempfile::tempdir().unwrap();
    std::fs::write(alone.path().join("tiny.toml"), RECIPE).unwrap();
    command::succeed(alone.path(), &[&["train"], &ARGS[..]].concat());
    for stage in ["full", "lora"] {
        assert!(checkpoint(alone.path(), stage, 20).is_dir(), "{stage} has twenty steps");
    }
    for ranks in [1, 2, 4] {
        let Some(place) = run_of(ranks) else { return };
        if ranks == 1 {
            assert_eq!(bytes(&place.join(FULL)), bytes(&alone.path().join(FULL)));
            assert_eq!(bytes(&place.join(LORA)), bytes(&alone.path().join(LORA)));
        }
        assert_alike(place, alone.path());
    }
}

/// A copy of the run of two ranks that ends after `steps` steps of `stage`.
fn cut_run(stage: &str, steps: usize) -> Option<tempfile::TempDir> {
    let whole = run_of(2)?;
    let place = tempfile::tempdir().unwrap();
    for name in ["tiny.toml", "run"] {
        let copied = Command::new("cp").arg("-r").arg(whole.join(name)).arg(place.path()).status().unwrap();
        assert!(copied.success());
    }
    let run = place.path().join("run");
    if stage == "full" {
        std::fs::remove_dir_all(run.join("lora")).unwrap();
    }
    for result in ["model", "adapter"].map(|name| run.join(stage).join(name)) {
        if result.is_dir() {
            std::fs::remove_dir_all(result).unwrap();
        }
    }
    for step in (steps + 5..=20).step_by(5) {
        std::fs::remove_dir_all(checkpoint(place.path(), stage, step)).unwrap();
    }
    Some(place)
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    for (ranks, stage, steps) in [(4, "full", 10), (1, "lora", 5)] {
        let Some(place) = cut_run(stage, steps) else { return };
        let said = succeed(&mut train(ranks, place.path(), &ARGS).unwrap());
        assert!(said.contains(&format!("from {steps}")), "{said}");
        assert_alike(place.path(), run_of(2).unwrap());
    }
}

/// A signal to rank `rank`, once a checkpoint of its own is there. What was said, and the exit code.
fn signal(place: &Path, rank: usize, name: &str) -> Option<(String, Option<i32>)> {
    let stages = place.join("run");
    let counted = || {
        let stages = ["full", "lora"].map(|stage| stages.join(stage).join("checkpoints"));
        stages.iter().map(|folder| std::fs::read_dir(folder).map_or(0, Iterator::count)).sum::<usize>()
    };
    let before = counted();
    let mut command = train(2, place, &ARGS)?;
    let said = std::fs::File::create(place.join("said")).unwrap();
    let mut job = command.stdout(Stdio::null()).stderr(said).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(240);
    while counted() == before {
        assert!(Instant::now() < deadline && job.try_wait().unwrap().is_none(), "no checkpoint came");
        std::thread::sleep(Duration::from_millis(20));
    }
    let process =
        |rank| std::fs::read_to_string(place.join(format!("pid.{rank}"))).unwrap().trim().to_owned();
    let processes = [0, 1].map(process);
    assert!(Command::new("kill").args([name, &processes[rank]]).status().unwrap().success());
    // Within seconds, also where other work takes turns.
    let told = Instant::now();
    let deadline = told + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = job.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the job does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    let alive = |process: &String| {
        Command::new("kill").args(["-0", process]).stderr(Stdio::null()).status().unwrap().success()
    };
    while processes.iter().any(alive) {
        assert!(Instant::now() < deadline, "of {processes:?} one is left");
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{name} to rank {rank}: all have ended after {:.1} s", told.elapsed().as_secs_f64());
    Some((std::fs::read_to_string(place.join("said")).unwrap(), status.code()))
}

#[test]
#[cfg(unix)]
fn a_killed_rank_ends_the_job_which_goes_on_to_the_same_bytes() {
    let Some(place) = cut_run("full", 5) else { return };
    for rank in [1, 0] {
        let (said, code) = signal(place.path(), rank, "-KILL").unwrap();
        assert_ne!(code, Some(0), "{said}");
    }
    succeed(&mut train(2, place.path(), &ARGS).unwrap());
    for file in [FULL, LORA] {
        assert!(bytes(&place.path().join(file)) == bytes(&run_of(2).unwrap().join(file)), "{file} differs");
    }
}

#[test]
#[cfg(unix)]
fn a_rank_that_is_told_to_stop_stops_all_with_a_checkpoint() {
    let Some(place) = cut_run("full", 5) else { return };
    let (said, code) = signal(place.path(), 1, "-TERM").unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("stopped after step") && said.contains("resume"), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    succeed(&mut train(2, place.path(), &ARGS).unwrap());
    assert!(bytes(&place.path().join(FULL)) == bytes(&run_of(2).unwrap().join(FULL)));
}

/// A place with the first stage's recipe and a corpus of which one caption's picture is gone, and its line in the manifest.
fn spoiled_corpus() -> Option<(tempfile::TempDir, usize)> {
    let place = tempfile::tempdir().unwrap();
    let first = RECIPE.split("[[stage]]\nname = \"lora\"").next().unwrap();
    std::fs::write(place.path().join("tiny.toml"), format!("{first}[evaluation]\ntasks = []\n")).unwrap();
    let world = run_of(2)?.join("run/world");
    let copied = Command::new("cp").arg("-r").arg(world).arg(place.path().join("corpus")).status().unwrap();
    assert!(copied.success());
    let manifest = place.path().join("corpus/stage1_captions/train.jsonl");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let row = text.lines().position(|line| line.contains(".png")).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[row] = lines[row].replace(".png", ".gone.png");
    std::fs::write(manifest, lines.join("\n") + "\n").unwrap();
    Some((place, row + 1))
}

#[test]
fn a_bad_row_of_one_rank_is_bad_for_all() {
    let Some((place, line)) = spoiled_corpus() else { return };
    let args = |output| {
        [&ARGS[..2], &["--data", "corpus", "--set", "data.bad_row_limit=1", "--output", output]].concat()
    };
    let strict = [&args("run")[..], &["--set", "data.bad_row_limit=0"]].concat();
    let said = refuse(&mut train(2, place.path(), &strict).unwrap());
    assert!(
        said.contains(&format!("train.jsonl:{line}")) && said.contains("raise `bad_row_limit`"),
        "{said}"
    );
    assert_eq!(said.matches("error: ").count(), 1, "all ranks end by the same error: {said}");
    succeed(&mut train(2, place.path(), &args("run")).unwrap());
    let list = String::from_utf8(bytes(&place.path().join("run/full/bad_rows.jsonl"))).unwrap();
    assert_eq!(list.lines().count(), 1, "{list}");
    command::succeed(place.path(), &[&["train"], &args("alone")[..]].concat());
    let model = |run: &str| place.path().join(run).join("full/model/model.safetensors");
    let start = place.path().join("alone/start/model.safetensors");
    let off = apart(&model("run"), &model("alone"), &start);
    assert!(off <= ALIKE, "{off:e}");
}

#[test]
fn a_mistake_is_told_once() {
    let place = tempfile::tempdir().unwrap();
    let Some(mut command) = train(2, place.path(), &["--config", "nowhere.toml"]) else { return };
    let said = refuse(&mut command);
    assert_eq!(said.matches("nowhere.toml").count(), 1, "{said}");
    std::fs::write(place.path().join("tiny.toml"), RECIPE.replace("\"stage1_clips\"", "\"clops\"")).unwrap();
    let said = refuse(&mut train(2, place.path(), &ARGS).unwrap());
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(said.contains("clops"), "{said}");
}
