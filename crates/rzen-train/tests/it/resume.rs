//! A run that was stopped and resumed equals the uninterrupted one.

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::{Device, Tensor};
use rzen_train::{Checkpoint, Observer, RunFolder, StageConfig, StepRecord, TrainError, latest, train_stage};

use crate::toy::{Toy, bytes, config, model, model_of, run, source, stopping, timeless, train};

fn metrics(path: &Path) -> Vec<StepRecord> {
    let text = fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    timeless(&text).collect()
}

fn resume(run: &RunFolder, config: &StageConfig) -> Result<Toy, TrainError> {
    let checkpoint = latest(&run.path).unwrap().checkpoint.unwrap();
    let never = AtomicBool::new(false);
    train_stage(model_of(&checkpoint), config, &mut source, run, Some(checkpoint), &mut (), &never)
}

/// Trains and stops while the step with index `at` is at work; gives its checkpoint.
fn stop_at(path: &Path, config: &StageConfig, at: usize) -> Checkpoint {
    let (stop, asked) = (AtomicBool::new(false), Cell::new(0));
    let mut source = stopping(&stop, at, &asked);
    let stopped = train_stage(model(), config, &mut source, &run(path), None, &mut (), &stop);
    let Err(TrainError::Interrupted { step, checkpoint }) = stopped else { panic!("{stopped:?}") };
    assert_eq!(step, at + 1, "the step at work is finished");
    assert_eq!(asked.get(), at + 1, "and none begun after it");
    Checkpoint::open(&checkpoint).unwrap()
}

#[test]
fn resumed_run_equals_the_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let expected = train(&whole, &config());
    assert_ne!(bytes(&expected), bytes(&model()));
    // At 3 in the warm-up, at 5 with a checkpoint that was due anyway.
    for at in [2, 4, 7] {
        assert_eq!(stop_at(&cut, &config(), at).state.step, at + 1);
        let found = resume(&run(&cut), &config()).unwrap();
        assert_eq!(bytes(&found), bytes(&expected), "stopped at {at}");
        assert_eq!(metrics(&cut), metrics(&whole));
        for name in ["encoder/weights.bin", "objective/theta.bin"] {
            let read = |path: &Path| fs::read(path.join("checkpoints/step_000012").join(name)).unwrap();
            assert_eq!(read(&cut), read(&whole), "{name}");
        }
        fs::remove_dir_all(&cut).unwrap();
    }
}

#[test]
fn a_run_that_died_repeats_the_steps_after_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, dead) = (folder.path().join("whole"), folder.path().join("dead"));
    let expected = train(&whole, &config());
    let mut dying = |step: usize| if step == 8 { panic!("the power went") } else { source(step) };
    let never = AtomicBool::new(false);
    let die =
        AssertUnwindSafe(|| train_stage(model(), &config(), &mut dying, &run(&dead), None, &mut (), &never));
    assert!(catch_unwind(die).is_err());
    assert_eq!(metrics(&dead).len(), 8);
    assert_eq!(latest(&dead).unwrap().checkpoint.unwrap().state.step, 5);

    let found = resume(&run(&dead), &config()).unwrap();
    assert_eq!(bytes(&found), bytes(&expected));
    assert_eq!(metrics(&dead), metrics(&whole));
}

#[test]
fn a_run_without_a_batch_keeps_the_steps_before() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let expected = train(&whole, &config());
    let mut ending = |step: usize| if step == 8 { Err("the row is bad".into()) } else { source(step) };
    let never = AtomicBool::new(false);
    let error = train_stage(model(), &config(), &mut ending, &run(&cut), None, &mut (), &never).unwrap_err();
    assert_eq!(error.to_string(), "the batch of step 9 could not be made");
    assert_eq!(latest(&cut).unwrap().checkpoint.unwrap().state.step, 8);
    assert_eq!(bytes(&resume(&run(&cut), &config()).unwrap()), bytes(&expected));
    assert_eq!(metrics(&cut), metrics(&whole));
}

#[test]
fn a_run_stopped_before_its_first_step_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let expected = train(&whole, &config());
    let stop = AtomicBool::new(true);
    let stopped = train_stage(model(), &config(), &mut source, &run(&cut), None, &mut (), &stop);
    let Err(TrainError::Interrupted { step: 0, checkpoint }) = stopped else { panic!("{stopped:?}") };
    assert!(checkpoint.ends_with("step_000000"), "{checkpoint:?}");
    assert_eq!(Checkpoint::open(&checkpoint).unwrap().state.optimizer_tensors, 0);
    assert_eq!(bytes(&resume(&run(&cut), &config()).unwrap()), bytes(&expected));
    assert_eq!(metrics(&cut), metrics(&whole));
}

#[test]
fn a_finished_stage_resumes_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let expected = train(folder.path(), &config());
    let found = resume(&run(folder.path()), &config()).unwrap();
    assert_eq!(bytes(&found), bytes(&expected));
}

#[test]
fn threads_and_saving_may_change_on_resume() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let expected = train(&whole, &config());
    stop_at(&cut, &config(), 6);
    let changed = StageConfig { threads: 1, checkpoint_every: 1, keep_last: 0, log_every: 2, ..config() };
    assert_eq!(bytes(&resume(&run(&cut), &changed).unwrap()), bytes(&expected));
}

#[test]
fn another_configuration_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    stop_at(folder.path(), &config(), 4);
    let check = |run: RunFolder, config: StageConfig, expected: &str| {
        let error = resume(&run, &config).unwrap_err();
        assert!(matches!(error, TrainError::OtherRun { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let run = || run(folder.path());
    check(
        run(),
        StageConfig { learning_rate: 0.03, ..config() },
        "`config.learning_rate` was 0.02 and is 0.03",
    );
    check(run(), StageConfig { steps: 13, ..config() }, "`config.steps` was 12 and is 13");
    check(RunFolder { seed: 8, ..run() }, config(), "`seed` was 7 and is 8");
    check(RunFolder { stage: "stage-2".into(), ..run() }, config(), "`stage` was \"stage-1\"");
    let settings = serde_json::json!({"dim": 9});
    check(RunFolder { settings, ..run() }, config(), "`settings.dim` was 8 and is 9");
}

#[test]
fn another_set_of_trained_parameters_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = stop_at(folder.path(), &config(), 4);
    let mut model = model_of(&checkpoint);
    model.encoder.output = model.encoder.output.set_require_grad(false);
    let never = AtomicBool::new(false);
    let run = run(folder.path());
    let error =
        train_stage(model, &config(), &mut source, &run, Some(checkpoint), &mut (), &never).unwrap_err();
    assert!(error.to_string().contains("`encoder.output` was trained and is not now"), "{error}");
}

#[test]
fn the_newest_checkpoints_are_kept_and_the_observer_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = StageConfig { checkpoint_every: 3, keep_last: 2, log_every: 5, ..config() };
    let mut seen = Steps::default();
    let never = AtomicBool::new(false);
    train_stage(model(), &config, &mut source, &run(folder.path()), None, &mut seen, &never).unwrap();
    assert_eq!(seen.checkpoints, [3, 6, 9, 12]);
    assert_eq!(seen.lines, [(5, 35), (10, 35), (12, 14)]);
    assert_eq!(metrics(folder.path()).iter().map(|record| record.step).collect::<Vec<_>>(), [5, 10, 12]);
    let mut kept: Vec<_> = fs::read_dir(folder.path().join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, ["step_000009", "step_000012"]);
}

#[test]
fn the_best_checkpoint_outlasts_a_run_gone_astray() {
    // After six steps on one batch, its positives are others.
    let mut astray = |step: usize| {
        let mut batch = source(0)?;
        if step >= 6 {
            batch.batch.targets.positive = Tensor::from_ints([1, 2, 3, 4, 5, 6, 0], &Device::flex());
        }
        Ok(batch)
    };
    let mut kept = |keep_best: bool| {
        let folder = tempfile::tempdir().unwrap();
        let config = StageConfig { checkpoint_every: 1, keep_last: 2, keep_best, ..config() };
        let (mut losses, never) = (Losses::default(), AtomicBool::new(false));
        train_stage(model(), &config, &mut astray, &run(folder.path()), None, &mut losses, &never).unwrap();
        let entries = fs::read_dir(folder.path().join("checkpoints")).unwrap();
        let state = |path: &Path| Checkpoint::open(path).unwrap().state;
        let mut steps: Vec<_> = entries.map(|entry| state(&entry.unwrap().path()).step).collect();
        steps.sort();
        (steps, losses.0)
    };
    let (steps, losses) = kept(true);
    let mean = |step: &usize| losses[..*step].iter().sum::<f32>() / *step as f32;
    let best = (1..=12).min_by(|a, b| mean(a).total_cmp(&mean(b))).unwrap();
    assert!((2..11).contains(&best), "it did not go astray: {losses:?}");
    assert_eq!(steps, [best, 11, 12]);
    assert_eq!(kept(false).0, [11, 12]);
}

/// The loss of each step.
#[derive(Default)]
struct Losses(Vec<f32>);

impl Observer for Losses {
    fn step(&mut self, record: &StepRecord) {
        self.0.push(record.loss);
    }
}

#[test]
fn time_alone_brings_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = StageConfig { checkpoint_every: 0, checkpoint_minutes: 1e-9, ..config() };
    let mut seen = Steps::default();
    let never = AtomicBool::new(false);
    train_stage(model(), &config, &mut source, &run(folder.path()), None, &mut seen, &never).unwrap();
    assert_eq!(seen.checkpoints, (1..=12).collect::<Vec<_>>());
}

/// Steps and samples of the lines, and steps of the checkpoints.
#[derive(Default)]
struct Steps {
    lines: Vec<(usize, usize)>,
    checkpoints: Vec<usize>,
}

impl Observer for Steps {
    fn step(&mut self, record: &StepRecord) {
        self.lines.push((record.step, record.samples));
    }

    fn checkpoint(&mut self, step: usize, folder: &Path) {
        assert!(Checkpoint::open(folder).is_ok(), "it lies on the disk already");
        self.checkpoints.push(step);
    }
}
