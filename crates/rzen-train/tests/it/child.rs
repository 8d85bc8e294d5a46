//! Trainings in processes of their own, which may be killed.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, exit};
use std::sync::atomic::AtomicBool;

use burn_pack::Reader;
use rzen_train::{StageConfig, latest, train_stage};

use crate::toy::{self, config, model, model_of, run, source};

const FOLDER: &str = "RZEN_TRAIN_CHILD_FOLDER";

/// What a child says before it looks for a checkpoint.
pub const READY: &str = "the training begins";

pub fn child_config() -> StageConfig {
    StageConfig { steps: 60, checkpoint_every: 2, threads: 1, ..config() }
}

/// This test program, to run the test `name` alone, which begins with [`train_if_asked`].
pub fn child(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]).env(FOLDER, folder);
    command
}

/// In a [`child`], trains from where its folder stands to the end, and ends the process.
pub fn train_if_asked() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    eprintln!("{READY}");
    let run = run(Path::new(&folder));
    let resume = latest(&run.path).unwrap().checkpoint;
    let model = resume.as_ref().map_or_else(model, model_of);
    let never = AtomicBool::new(false);
    let Err(error) = train_stage(model, &child_config(), &mut source, &run, resume, &mut (), &never) else {
        exit(0);
    };
    let mut cause: Option<&dyn Error> = Some(&error);
    while let Some(error) = cause {
        eprintln!("{error}");
        cause = error.source();
    }
    exit(1)
}

/// What the program said; it must have ended well.
pub fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every file under `folder` by path, such that equal states are equal bytes: times are taken out of `metrics.jsonl`,
/// and the tensors of the optimizer's file, which burn writes in no fixed order, are brought into one.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = match path.file_name().unwrap().to_str().unwrap() {
                "metrics.jsonl" => timeless(&fs::read_to_string(&path).unwrap()).into_bytes(),
                "optimizer.bpk" => in_order(&path),
                "state.json" => without_size_of_optimizer(&fs::read_to_string(&path).unwrap()).into_bytes(),
                _ => fs::read(&path).unwrap(),
            };
            found.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), bytes);
        }
    }
    found
}

fn timeless(metrics: &str) -> String {
    toy::timeless(metrics).map(|record| serde_json::to_string(&record).unwrap() + "\n").collect()
}

fn in_order(optimizer: &Path) -> Vec<u8> {
    let reader = Reader::from_file(optimizer).unwrap();
    let mut bytes = format!("{:?} {:?}", reader.metadata(), reader.scalars()).into_bytes();
    let mut tensors: Vec<_> =
        reader.into_tensors().unwrap().into_iter().map(|tensor| tensor.into_parts().unwrap()).collect();
    tensors.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    for (name, dtype, shape, id, data) in tensors {
        bytes.extend_from_slice(format!("{name} {dtype:?} {shape:?} {id:?}").as_bytes());
        bytes.extend_from_slice(&data);
    }
    bytes
}

/// The order of the tensors moves their offsets, and those may take more or fewer bytes.
fn without_size_of_optimizer(state: &str) -> String {
    let mut state: serde_json::Value = serde_json::from_str(state).unwrap();
    for of_each in ["files", "sums"] {
        state[of_each].as_object_mut().unwrap().remove("optimizer.bpk").unwrap();
    }
    state.to_string()
}

/// The same files, byte by byte.
pub fn check_same_files(found: &Path, expected: &BTreeMap<String, Vec<u8>>, case: &str) {
    let found = files(found);
    assert!(found.keys().eq(expected.keys()), "{case}: {:?}, expected {:?}", found.keys(), expected.keys());
    for (name, bytes) in &found {
        assert!(bytes == &expected[name], "{case}: {name} differs from the run that was never stopped");
    }
}
