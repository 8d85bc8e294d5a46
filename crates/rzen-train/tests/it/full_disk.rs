//! A disk that is full while a run writes: a limit on the size of files, and a small file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rzen_train::latest;

use crate::child::{check_same_files, child, files, succeeded, train_if_asked};

type Files = BTreeMap<String, Vec<u8>>;

/// The files of a run never stopped, and a copy of it that lacks its last checkpoint.
fn runs(name: &str, place: &Path) -> (Files, PathBuf) {
    let (whole, cut) = (place.join("whole"), place.join("cut"));
    succeeded(&child(name, &whole).output().unwrap());
    copy(&whole, &cut);
    fs::remove_dir_all(cut.join("checkpoints/step_000060")).unwrap();
    (files(&whole), cut)
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

/// Runs `script` in a shell, in which `"$0" "$@"` is the child of the test `name` that trains in `folder`.
fn shell(script: &str, name: &str, folder: &Path) -> Command {
    let child = child(name, folder);
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(child.get_program()).args(child.get_args());
    shell.envs(child.get_envs().filter_map(|(key, value)| Some((key, value?))));
    shell
}

fn check_advice(said: &str, case: &str) {
    assert!(said.contains("start again: the run goes on from its newest checkpoint"), "{case}: {said}");
}

#[test]
fn a_file_that_may_not_grow_is_named_and_the_run_goes_on_later() {
    const NAME: &str = "full_disk::a_file_that_may_not_grow_is_named_and_the_run_goes_on_later";
    train_if_asked();
    let place = tempfile::tempdir().unwrap();
    let (expected, cut) = runs(NAME, place.path());
    // Halves of a kilobyte: too little for the lines so far, the encoder's weights, the optimizer's state.
    for (limit, named) in [(8, "metrics.jsonl"), (50, "step_000060.tmp/encoder"), (80, "optimizer.bpk")] {
        let folder = place.path().join(format!("limit-{limit}"));
        copy(&cut, &folder);
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        let output = shell(&script, NAME, &folder).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("File too large"), "{limit}: {said}");
        assert!(said.contains(named), "{limit}: {said}");
        check_advice(&said, named);
        assert_eq!(latest(&folder).unwrap().checkpoint.unwrap().state.step, 58, "{named}");
        succeeded(&child(NAME, &folder).output().unwrap());
        check_same_files(&folder, &expected, named);
    }
}

/// In a file system of its own, which the kernel lets every user mount where it allows user namespaces.
#[test]
fn a_full_file_system_is_named_and_the_run_goes_on_later() {
    const NAME: &str = "full_disk::a_full_file_system_is_named_and_the_run_goes_on_later";
    train_if_asked();
    let place = tempfile::tempdir().unwrap();
    let (expected, cut) = runs(NAME, place.path());
    let disk = place.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs"]).arg(&disk).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let script = "set -e
        mount -t tmpfs -o size=$SIZE tmpfs \"$DISK\"
        cp -r \"$CUT\" \"$DISK/run\"
        ! \"$0\" \"$@\"
        mount -o remount,size=16m \"$DISK\"
        cp -r \"$DISK/run\" \"$OUT-full\"
        \"$0\" \"$@\"
        cp -r \"$DISK/run\" \"$OUT\"";
    let used = blocks(&cut);
    let mut met = BTreeMap::<&str, usize>::new();
    for more in 1..blocks(&cut.join("checkpoints/step_000058")) {
        let out = place.path().join(format!("more-{more}"));
        let mut inner = shell(script, NAME, &disk.join("run"));
        inner.env("SIZE", (4096 * (used + more)).to_string());
        inner.env("DISK", &disk).env("CUT", &cut).env("OUT", &out);
        let mut outer = Command::new("unshare");
        outer.args(["-rm", "sh"]).args(inner.get_args());
        outer.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = outer.output().unwrap();
        succeeded(&output);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("No space left on device"), "{more}: {said}");
        check_advice(&said, &format!("{more} blocks"));
        let full = out.with_file_name(format!("more-{more}-full"));
        assert_eq!(latest(&full).unwrap().checkpoint.unwrap().state.step, 58, "{more} blocks");
        check_same_files(&out, &expected, &format!("{more} blocks"));
        let places = ["metrics.jsonl", "encoder", "objective", "optimizer.bpk", "state.json"];
        let place = places.into_iter().find(|place| said.contains(&format!("{place}`")));
        *met.entry(place.unwrap_or_else(|| panic!("{more} blocks: {said}"))).or_default() += 1;
    }
    println!("the disk was full at {met:?}");
    assert!(met.contains_key("encoder") && met.contains_key("optimizer.bpk"), "{met:?}");
}

/// Blocks of 4 KiB that the files and folders under `folder` take.
fn blocks(folder: &Path) -> u64 {
    files_sizes(folder).iter().map(|size| size.div_ceil(4096)).sum()
}

fn files_sizes(folder: &Path) -> Vec<u64> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files_sizes(&path),
            false => vec![fs::metadata(&path).unwrap().len()],
        })
        .collect()
}
