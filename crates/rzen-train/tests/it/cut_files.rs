//! A checkpoint that lost the end of a file is never taken for whole.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use rzen_train::{Checkpoint, StageConfig, latest, train_stage};

use crate::child::{check_same_files, files};
use crate::toy::{config, model_of, run, source, train};

const BLOCK: u64 = 4096;

/// Where a file of `size` bytes is cut: at each block, and before its last byte.
fn cuts(size: u64) -> impl Iterator<Item = u64> {
    (0..size).step_by(BLOCK as usize).chain([size - 1])
}

#[test]
fn a_checkpoint_cut_anywhere_is_passed_over_and_the_run_ends_in_the_same_bytes() {
    let place = tempfile::tempdir().unwrap();
    let config = StageConfig { keep_last: 0, ..config() };
    let folder = place.path().join("run");
    train(&folder, &config);
    let expected = files(&folder);
    let last = folder.join("checkpoints/step_000012");
    let names = files(&last);
    let mut counted = 0;
    for name in names.keys() {
        let path = last.join(name);
        let bytes = &fs::read(&path).unwrap();
        for cut in cuts(bytes.len() as u64) {
            File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
            check_passed_over(&folder, name, cut);
            fs::write(&path, bytes).unwrap();
            counted += 1;
        }
        assert_eq!(Checkpoint::open(&last).unwrap().folder, last, "whole again");

        File::options().write(true).open(&path).unwrap().set_len(bytes.len() as u64 / 2).unwrap();
        let checkpoint = check_passed_over(&folder, name, bytes.len() as u64 / 2);
        let (model, never) = (model_of(&checkpoint), AtomicBool::new(false));
        train_stage(model, &config, &mut source, &run(&folder), Some(checkpoint), &mut (), &never).unwrap();
        check_same_files(&folder, &expected, &format!("{name} cut in half"));
    }
    assert!(names.len() == 4 && counted > 20, "{counted} cuts of {:?}", names.keys());
}

/// The checkpoint before, which is what a cut one leaves.
fn check_passed_over(folder: &Path, name: &str, cut: u64) -> Checkpoint {
    let found = latest(folder).unwrap();
    let message = found.skipped.first().map(ToString::to_string).unwrap_or_default();
    assert!(
        message.contains("step_000012") && message.contains(&format!("`{name}`")),
        "{name} cut at {cut}: {message}"
    );
    let checkpoint = found.checkpoint.unwrap();
    assert_eq!(checkpoint.state.step, 10, "{name} cut at {cut}");
    checkpoint
}
