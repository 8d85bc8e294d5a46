//! Nothing half-written is picked up, nothing bad gets into the weights.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use burn::module::{Module, Param};
use rzen_train::{Checkpoint, CheckpointError, StageConfig, TrainError, latest, train_stage};

use crate::toy::{Toy, batch, config, model, model_of, run, source, stopping, train};

fn start(path: &Path, model: Toy, config: &StageConfig) -> Result<Toy, TrainError> {
    train_stage(model, config, &mut source, &run(path), None, &mut (), &AtomicBool::new(false))
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A run with checkpoints at 5, 10 and 12; gives the folder of the last.
fn trained(path: &Path) -> PathBuf {
    train(path, &StageConfig { keep_last: 0, ..config() });
    path.join("checkpoints/step_000012")
}

fn check_passed_over(path: &Path, problem: &str) {
    let found = latest(path).unwrap();
    assert_eq!(found.checkpoint.unwrap().state.step, 10);
    assert_eq!(found.skipped.len(), 1);
    let message = found.skipped[0].to_string();
    assert!(message.contains("step_000012") && message.contains(problem), "{message}");
}

#[test]
fn a_checkpoint_without_state_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::remove_file(trained(folder.path()).join("state.json")).unwrap();
    check_passed_over(folder.path(), "`state.json` can't be read");
}

#[test]
fn a_cut_state_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let state = trained(folder.path()).join("state.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, &text[..text.len() / 2]).unwrap();
    check_passed_over(folder.path(), "`state.json` is not JSON");
}

#[test]
fn a_cut_optimizer_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let optimizer = trained(folder.path()).join("optimizer.bpk");
    let bytes = fs::read(&optimizer).unwrap();
    fs::write(&optimizer, &bytes[..bytes.len() - 10]).unwrap();
    check_passed_over(folder.path(), "`optimizer.bpk` has");
}

#[test]
fn missing_weights_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::remove_file(trained(folder.path()).join("encoder/weights.bin")).unwrap();
    check_passed_over(folder.path(), "`encoder/weights.bin` can't be read");
}

#[test]
fn garbage_of_the_right_size_is_refused_on_resume() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&trained(folder.path())).unwrap();
    let optimizer = checkpoint.folder.join("optimizer.bpk");
    fs::write(&optimizer, vec![7; fs::metadata(&optimizer).unwrap().len() as usize]).unwrap();
    let checkpoint = Checkpoint::open(&checkpoint.folder).unwrap();
    let never = AtomicBool::new(false);
    let run = run(folder.path());
    let error =
        train_stage(model(), &config(), &mut source, &run, Some(checkpoint), &mut (), &never).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint(CheckpointError::Optimizer { .. })), "{error}");
}

#[test]
fn an_incomplete_checkpoint_never_displaces_a_complete_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::remove_file(trained(folder.path()).join("state.json")).unwrap();
    let checkpoint = latest(folder.path()).unwrap().checkpoint.unwrap();
    let config = StageConfig { keep_last: 1, ..config() };
    let (stop, asked) = (AtomicBool::new(false), Cell::new(0));
    let mut source = stopping(&stop, 10, &asked);
    let (model, run) = (model_of(&checkpoint), run(folder.path()));
    train_stage(model, &config, &mut source, &run, Some(checkpoint), &mut (), &stop).unwrap_err();
    assert_eq!(names(folder.path()), ["step_000011", "step_000012"]);
    assert_eq!(latest(folder.path()).unwrap().checkpoint.unwrap().state.step, 11);
}

#[test]
fn another_format_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let state = trained(folder.path()).join("state.json");
    let text = fs::read_to_string(&state).unwrap().replace("\"format\": 1", "\"format\": 99");
    fs::write(&state, text).unwrap();
    // Not passed over: the version that wrote it could go on, and this one would overwrite it.
    let error = latest(folder.path()).unwrap_err().to_string();
    assert!(error.contains("step_000012") && error.contains("has format 99, expected 1"), "{error}");
}

#[test]
fn a_spoilt_byte_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let last = trained(folder.path());
    for file in ["encoder/weights.bin", "optimizer.bpk"] {
        let path = last.join(file);
        let whole = fs::read(&path).unwrap();
        let mut spoilt = whole.clone();
        spoilt[whole.len() / 2] ^= 1;
        fs::write(&path, spoilt).unwrap();
        check_passed_over(folder.path(), &format!("`{file}` is not as it was written"));
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(latest(folder.path()).unwrap().checkpoint.unwrap().state.step, 12);
}

#[test]
fn a_stage_never_begins_anew_over_checkpoints_that_are_not_whole() {
    let folder = tempfile::tempdir().unwrap();
    trained(folder.path());
    for name in names(folder.path()) {
        fs::remove_file(folder.path().join("checkpoints").join(name).join("state.json")).unwrap();
    }
    let error = latest(folder.path()).unwrap_err().to_string();
    assert!(error.contains("none of the checkpoints") && error.contains("step_000012"), "{error}");
}

#[test]
fn temporary_folders_are_never_picked_up_and_go_with_the_next_save() {
    let folder = tempfile::tempdir().unwrap();
    let last = trained(folder.path());
    // A process killed between the last byte and the rename.
    let left = folder.path().join("checkpoints/step_000015.tmp");
    fs::rename(&last, &left).unwrap();
    let found = latest(folder.path()).unwrap();
    assert!(found.skipped.is_empty());
    let checkpoint = found.checkpoint.unwrap();
    assert_eq!(checkpoint.state.step, 10);
    let never = AtomicBool::new(false);
    let run = run(folder.path());
    let config = StageConfig { keep_last: 0, ..config() };
    let model = model_of(&checkpoint);
    train_stage(model, &config, &mut source, &run, Some(checkpoint), &mut (), &never).unwrap();
    assert_eq!(names(folder.path()), ["step_000005", "step_000010", "step_000012"]);
}

/// `/dev/full` is a Linux device.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = model();
    model.encoder.disk_full_after = Arc::new(AtomicUsize::new(1));
    let error = start(folder.path(), model, &config()).unwrap_err();
    let TrainError::Checkpoint(CheckpointError::Weights { part: "encoder", ref source, .. }) = error else {
        panic!("{error}");
    };
    assert!(source.to_string().contains("No space left on device"), "{source}");
    assert!(error.to_string().contains("earlier checkpoints are untouched"), "{error}");
    assert_eq!(names(folder.path()), ["step_000005"]);
    assert_eq!(latest(folder.path()).unwrap().checkpoint.unwrap().state.step, 5);
}

/// `/dev/full` is a Linux device.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_hides_no_other_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = model();
    model.encoder.disk_full_after = Arc::new(AtomicUsize::new(1));
    let mut ending = |step: usize| if step == 7 { Err("the row is bad".into()) } else { source(step) };
    let never = AtomicBool::new(false);
    let error =
        train_stage(model, &config(), &mut ending, &run(folder.path()), None, &mut (), &never).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, TrainError::NotSaved { .. }), "{error}");
    assert!(message.contains("step 8 could not be made") && message.contains("lost"), "{message}");
    assert_eq!(latest(folder.path()).unwrap().checkpoint.unwrap().state.step, 5);
}

#[test]
fn a_run_folder_that_can_not_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("checkpoints"), "a file in the way").unwrap();
    let error = start(folder.path(), model(), &config()).unwrap_err();
    assert!(error.to_string().contains("checkpoints"), "{error}");
}

#[test]
fn a_fresh_start_over_checkpoints_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    trained(folder.path());
    let error = start(folder.path(), model(), &config()).unwrap_err();
    assert!(matches!(error, TrainError::NotEmpty { .. }), "{error}");
    assert!(error.to_string().contains("step_000012"), "{error}");
}

#[test]
fn a_step_that_is_not_finite_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut spoiled = |step: usize| {
        let mut batch = source(step)?;
        if step == 6 {
            batch.batch.queries[1] = batch.batch.queries[1].clone() * f32::NAN;
        }
        Ok(batch)
    };
    let never = AtomicBool::new(false);
    let error = train_stage(model(), &config(), &mut spoiled, &run(folder.path()), None, &mut (), &never)
        .unwrap_err();
    let TrainError::NotFinite { step: 7, ref label, loss, ref parameters, ref kept } = error else {
        panic!("{error}")
    };
    assert_eq!(label, "set-0");
    assert!(loss.is_nan());
    assert_eq!(parameters, &["encoder.hidden", "encoder.hidden_bias", "encoder.output", "objective.theta"]);
    let message = error.to_string();
    assert!(message.contains("step 7 (set-0) was refused: the loss is NaN"), "{message}");
    assert!(message.contains("4 parameters are not finite, first `encoder.hidden`"), "{message}");
    let kept = kept.as_deref().expect("six steps were taken before");
    assert!(kept.ends_with("checkpoints/step_000006") && message.contains("step_000006"), "{message}");
    assert!(message.contains("learning_rate") && message.contains("another run"), "{message}");
    assert_eq!(latest(folder.path()).unwrap().checkpoint.unwrap().state.step, 6);
}

#[test]
fn an_infinite_gradient_under_a_finite_loss_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = model();
    // The gradient of the hidden layer grows with the input; the embedding, through tanh, does not.
    let mut huge = |step: usize| {
        let mut batch = source(step)?;
        batch.batch.queries[0] = batch.batch.queries[0].clone() * 0.0 + 1e30;
        Ok(batch)
    };
    model.encoder.hidden = Param::initialized(model.encoder.hidden.id, model.encoder.hidden.val() * 1e-31)
        .set_require_grad(true);
    let never = AtomicBool::new(false);
    let error =
        train_stage(model, &config(), &mut huge, &run(folder.path()), None, &mut (), &never).unwrap_err();
    let TrainError::NotFinite { step: 1, loss, ref parameters, kept: None, .. } = error else {
        panic!("{error}")
    };
    assert!(latest(folder.path()).unwrap().checkpoint.is_none(), "nothing was done that could be kept");
    assert!(loss.is_finite());
    assert_eq!(parameters, &["encoder.hidden"]);
}

#[test]
fn a_model_that_is_frozen_as_a_whole_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = start(folder.path(), model().no_grad(), &config()).unwrap_err();
    assert!(matches!(error, TrainError::NothingTrains), "{error}");
}

#[test]
#[should_panic(expected = "a batch has queries and candidates")]
fn a_batch_without_queries_is_a_bug() {
    let options = rzen_train::StepOptions::default();
    let mut batch = batch(0);
    batch.queries.clear();
    rzen_train::cached_gradients(&model(), &batch, options);
}
