//! Several ranks train as one process does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use burn::module::Param;
use burn::tensor::{Int, Tensor, TensorData};
use rzen_core::{Batch, Ranks};
use rzen_train::{
    BoxError, Checkpoint, Checkpointing, Control, Share, StageConfig, StepOptions, TrainBatch, TrainError,
    cached_gradients, latest, shared_gradients, train_stage_on,
};

use crate::gradients::values;
use crate::threads::on_ranks;
use crate::toy::{Toy, batch, bytes, config, floats, model, model_of, run, timeless, train};

/// Rows dealt unevenly; with many ranks some have none.
fn share(size: usize) -> Share {
    let deal = |rows: usize, stride: usize| (0..rows).map(|row| row * stride % 5 % size).collect();
    Share { queries: deal(7, 3), candidates: deal(9, 2) }
}

/// The batch of a step with the rows of one rank alone, in micro-batches of at most two.
fn part(step: usize, share: &Share, rank: usize) -> Batch<Tensor<2>> {
    let whole = batch(step);
    let own = |inputs: Vec<Tensor<2>>, owners: &[usize]| -> Vec<Tensor<2>> {
        let whole = Tensor::cat(inputs, 0);
        let own: Vec<i64> =
            (0..owners.len()).filter(|row| owners[*row] == rank).map(|row| row as i64).collect();
        let rows = |rows: &[i64]| {
            let places: Tensor<1, Int> = Tensor::from_data(TensorData::from(rows), &whole.device());
            whole.clone().select(0, places)
        };
        own.chunks(2).map(rows).collect()
    };
    Batch {
        queries: own(whole.queries, &share.queries),
        candidates: own(whole.candidates, &share.candidates),
        targets: whole.targets,
    }
}

fn source_of(ranks: &dyn Ranks) -> impl FnMut(usize) -> Result<TrainBatch<Tensor<2>>, BoxError> {
    let (share, rank) = (share(ranks.size()), ranks.rank());
    move |step| {
        let batch = part(step, &share, rank);
        Ok(TrainBatch { batch, share: Some(share.clone()), label: format!("set-{}", step % 2), tokens: 14 })
    }
}

#[test]
fn gradients_of_shares_add_up_to_those_of_the_whole() {
    let model = model();
    let (stats, gradients) = cached_gradients(&model, &batch(0), StepOptions::default());
    let (loss, expected) = (stats.loss.into_scalar::<f32>(), values(&model, &gradients));
    let largest = expected.iter().flatten().fold(0.0_f32, |most, x| most.max(x.abs()));
    for size in [1, 2, 3, 4, 9] {
        for (recompute, checkpointing) in [(true, Checkpointing::Blocks), (false, Checkpointing::None)] {
            let options = StepOptions { recompute, checkpointing, threads: 2 };
            let found = on_ranks(size, |ranks| {
                let share = share(size);
                let batch = part(0, &share, ranks.rank());
                let (stats, gradients) = shared_gradients(&model, &batch, &share, ranks, options);
                assert_eq!(stats.samples, 7);
                (stats.loss.into_scalar::<f32>(), values(&model, &gradients))
            });
            assert!(found.iter().all(|rank| *rank == found[0]), "{size} ranks: the same bits everywhere");
            let (found_loss, found) = &found[0];
            assert!((found_loss - loss).abs() < 1e-6, "{size} ranks: {found_loss} is not {loss}");
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                assert!(
                    (found - expected).abs() <= 1e-5 * largest,
                    "{size} ranks: {found} is not {expected}"
                );
            }
        }
    }
}

#[test]
fn a_parameter_without_a_gradient_on_any_rank_stays_without() {
    let mut model = model();
    model.encoder.hidden_bias = model.encoder.hidden_bias.set_require_grad(false);
    let found = on_ranks(2, |ranks| {
        let share = share(2);
        let batch = part(0, &share, ranks.rank());
        values(&model, &shared_gradients(&model, &batch, &share, ranks, StepOptions::default()).1)
    });
    let lengths: Vec<usize> = found[1].iter().map(Vec::len).collect();
    assert!(lengths[0] > 0 && lengths[1] == 0 && lengths[2] > 0 && lengths[3] == 1, "{lengths:?}");
}

type Outcome = Result<Toy, TrainError>;

fn train_on(ranks: &dyn Ranks, folder: &Path, config: &StageConfig, resume: Option<Checkpoint>) -> Outcome {
    let model = resume.as_ref().map_or_else(model, model_of);
    let control = Control { ranks, observer: &mut (), stop: &AtomicBool::new(false) };
    train_stage_on(model, config, &mut source_of(ranks), &run(folder), resume, control)
}

fn newest(folder: &Path) -> Option<Checkpoint> {
    latest(folder).unwrap().checkpoint
}

/// The largest difference of two models' parameters, and of the first's from the start.
fn distance(found: &Toy, expected: &Toy) -> (f32, f32) {
    let most = |a: &Toy, b: &Toy| {
        let pairs = floats(&bytes(a)).into_iter().zip(floats(&bytes(b)));
        pairs.fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()))
    };
    (most(found, expected), most(&model(), expected))
}

#[test]
fn a_stage_is_the_same_on_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let alone = train(&folder.path().join("alone"), &config());
    for size in [1, 2, 4] {
        let place = folder.path().join(format!("{size}"));
        let found = on_ranks(size, |ranks| train_on(ranks, &place, &config(), None).unwrap());
        for other in &found {
            assert_eq!(bytes(other), bytes(&found[0]), "{size} ranks");
        }
        let (off, moved) = distance(&found[0], &alone);
        assert!(off <= 1e-4 * moved, "{size} ranks: off by {off} of {moved}");
        let lines = std::fs::read_to_string(place.join("metrics.jsonl")).unwrap();
        let steps: Vec<usize> = timeless(&lines).map(|line| line.step).collect();
        assert_eq!(steps, (1..=12).collect::<Vec<_>>(), "one rank writes");
    }
}

#[test]
fn a_stage_goes_on_with_the_same_number_of_ranks_bit_for_bit_and_with_another() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let whole = on_ranks(3, |ranks| train_on(ranks, &whole, &config(), None).unwrap()).remove(0);
    for (size, most) in [(3, 0.0), (2, 1e-4), (1, 1e-4)] {
        let place = folder.path().join(format!("{size}"));
        let stopped = on_ranks(3, |ranks| {
            let stop = AtomicBool::new(false);
            let mut source = source_of(ranks);
            // One rank is told to stop, in its sixth step.
            let mut source = |step| {
                stop.store(step == 5 && ranks.rank() == 1, Ordering::SeqCst);
                source(step)
            };
            let control = Control { ranks, observer: &mut (), stop: &stop };
            train_stage_on(model(), &config(), &mut source, &run(&place), None, control).unwrap_err()
        });
        for error in stopped {
            assert!(matches!(error, TrainError::Interrupted { step: 6, .. }), "{error}");
        }
        let found =
            on_ranks(size, |ranks| train_on(ranks, &place, &config(), newest(&place)).unwrap()).remove(0);
        let (off, moved) = distance(&found, &whole);
        assert!(off <= most * moved, "{size} ranks: off by {off} of {moved}");
    }
}

#[test]
fn one_rank_s_bad_batch_ends_the_stage_on_all_with_the_steps_before_it_kept() {
    let folder = tempfile::tempdir().unwrap();
    let errors = on_ranks(3, |ranks| {
        let mut source = source_of(ranks);
        let mut source = |step| match (step, ranks.rank()) {
            (7, 2) => Err("the row is bad".into()),
            _ => source(step),
        };
        let control = Control { ranks, observer: &mut (), stop: &AtomicBool::new(false) };
        train_stage_on(model(), &config(), &mut source, &run(folder.path()), None, control).unwrap_err()
    });
    assert!(matches!(errors[2], TrainError::Source { step: 8, .. }), "{}", errors[2]);
    for error in &errors[..2] {
        let message = error.to_string();
        assert!(message.contains("rank 2: ") && message.contains("step 8"), "{message}");
        assert!(message.contains("the row is bad"), "{message}");
    }
    assert_eq!(newest(folder.path()).unwrap().state.step, 7);
}

/// `/dev/full` is a Linux device.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_of_rank_0_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let errors = on_ranks(2, |ranks| {
        let mut model = model();
        model.encoder.disk_full_after = Arc::new(AtomicUsize::new(1));
        let control = Control { ranks, observer: &mut (), stop: &AtomicBool::new(false) };
        let mut source = source_of(ranks);
        train_stage_on(model, &config(), &mut source, &run(folder.path()), None, control).unwrap_err()
    });
    assert!(matches!(errors[0], TrainError::Checkpoint(_)), "{}", errors[0]);
    let message = errors[1].to_string();
    assert!(message.starts_with("rank 0: ") && message.contains("No space left on device"), "{message}");
    assert_eq!(newest(folder.path()).unwrap().state.step, 5);
}

#[test]
fn numbers_that_are_not_finite_are_refused_on_all_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let errors = on_ranks(2, |ranks| {
        let mut source = source_of(ranks);
        let mut source = |step| {
            let mut given: TrainBatch<Tensor<2>> = source(step)?;
            if step == 3 && ranks.rank() == 1 {
                given.batch.queries[0] = given.batch.queries[0].clone() * f32::NAN;
            }
            Ok(given)
        };
        let control = Control { ranks, observer: &mut (), stop: &AtomicBool::new(false) };
        train_stage_on(model(), &config(), &mut source, &run(folder.path()), None, control).unwrap_err()
    });
    for error in errors {
        assert!(matches!(error, TrainError::NotFinite { step: 4, kept: Some(_), .. }), "{error}");
    }
    assert_eq!(newest(folder.path()).unwrap().state.step, 3);
}

#[test]
fn ranks_that_drift_apart_are_found_before_anything_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let errors = on_ranks(3, |ranks| {
        let mut model = model();
        if ranks.rank() == 2 {
            let moved = model.encoder.hidden_bias.val() + 1e-6;
            model.encoder.hidden_bias =
                Param::initialized(model.encoder.hidden_bias.id, moved).set_require_grad(true);
        }
        let control = Control { ranks, observer: &mut (), stop: &AtomicBool::new(false) };
        let mut source = source_of(ranks);
        train_stage_on(model, &config(), &mut source, &run(folder.path()), None, control).unwrap_err()
    });
    for error in errors {
        assert!(matches!(error, TrainError::Apart { step: 5, rank: 2 }), "{error}");
    }
    assert!(newest(folder.path()).is_none());
}
