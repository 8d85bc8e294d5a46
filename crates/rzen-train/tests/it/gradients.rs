//! The cached step equals the plain one.

use std::sync::atomic::AtomicBool;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use rzen_core::{Encode, Objective};
use rzen_train::{
    Checkpointing, Contrastive, Optimizer, StepOptions, cached_gradients, clip_gradients, gradient_norm,
    train_stage,
};

use crate::toy::{Toy, batch, bytes, config, model, run, source, train};

/// The gradients of hidden, hidden_bias, output and theta.
pub fn values(model: &Toy, gradients: &GradientsParams) -> Vec<Vec<f32>> {
    struct Values<'a>(&'a GradientsParams, Vec<Vec<f32>>);
    impl ModuleVisitor for Values<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.0.get::<D>(param.id);
            self.1.push(gradient.map_or(Vec::new(), |g| g.into_data().try_to_vec().unwrap()));
        }
    }
    let mut visitor = Values(gradients, Vec::new());
    model.visit(&mut visitor);
    visitor.1
}

fn cached(model: &Toy, recompute: bool, threads: usize) -> (f32, Vec<Vec<f32>>) {
    let [found, by_blocks] = [Checkpointing::None, Checkpointing::Blocks].map(|checkpointing| {
        let options = StepOptions { recompute, checkpointing, threads };
        let (stats, gradients) = cached_gradients(model, &batch(0), options);
        assert_eq!(stats.samples, 7);
        assert_eq!(stats.stats[0].0, "tau.toy");
        (stats.loss.into_scalar::<f32>(), values(model, &gradients))
    });
    // This encoder is a single block.
    assert_eq!(found, by_blocks);
    found
}

/// One graph for everything.
fn plain(model: &Toy) -> (f32, Vec<Vec<f32>>) {
    let model = model.clone().train();
    let batch = batch(0);
    let embed = |inputs: Vec<Tensor<2>>| model.encoder.encode(Tensor::cat(inputs, 0));
    let loss = model.objective.loss(embed(batch.queries), embed(batch.candidates), &batch.targets).value;
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    (loss.into_scalar::<f32>(), values(&model, &gradients))
}

fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        assert!(largest > 1e-3, "a gradient that could hide a mistake: {largest}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-6 * largest.max(1.0), "{found} is not {expected}");
        }
    }
}

#[test]
fn cached_step_equals_plain_step() {
    let model = model();
    let (loss, gradients) = plain(&model);
    for recompute in [true, false] {
        let (found_loss, found) = cached(&model, recompute, 1);
        assert!((found_loss - loss).abs() < 1e-6, "{found_loss} is not {loss}");
        assert_close(&found, &gradients);
        // The model may as well be on the autodiff device.
        assert_eq!(cached(&model.clone().train(), recompute, 1), (found_loss, found));
    }
}

#[test]
fn threads_change_no_bit() {
    let model = model();
    for recompute in [true, false] {
        let one = cached(&model, recompute, 1);
        for threads in [2, 3, 16] {
            for _ in 0..5 {
                assert_eq!(cached(&model, recompute, threads), one, "{threads} threads");
            }
        }
    }
}

#[test]
fn frozen_parameters_get_no_gradient_and_do_not_move() {
    let freeze = |mut model: Toy| {
        model.encoder.hidden = model.encoder.hidden.set_require_grad(false);
        model.objective.theta = model.objective.theta.set_require_grad(false);
        model
    };
    let whole = cached(&model(), true, 1).1;
    for recompute in [true, false] {
        let found = cached(&freeze(model()), recompute, 2).1;
        assert!(found[0].is_empty() && found[3].is_empty());
        assert_close(&found[1..3], &whole[1..3]);
    }

    let folder = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let start = freeze(model());
    let run = run(folder.path());
    let end = train_stage(start.clone(), &config(), &mut source, &run, None, &mut (), &never).unwrap();
    assert_eq!(bytes(&end.encoder.hidden), bytes(&start.encoder.hidden));
    assert_eq!(bytes(&end.objective), bytes(&start.objective));
    assert_ne!(bytes(&end.encoder.output), bytes(&start.encoder.output));
}

#[test]
fn steps_taken_by_hand_equal_the_stage() {
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    let expected = train(folder.path(), &config);
    let options = StepOptions::default();
    // On the plain device, where the stage's own model is on the autodiff device.
    let mut found = model();
    let mut optimizer = Optimizer::new(&found, &config);
    for step in 0..config.steps {
        let (_, gradients) = cached_gradients(&found, &batch(step), options);
        let norm = gradient_norm(&found, &gradients).total;
        let gradients = clip_gradients(&found, gradients, norm, config.max_grad_norm);
        found = optimizer.step(found, gradients, config.learning_rates(step));
    }
    assert_eq!(bytes(&found), bytes(&expected));
}

#[test]
fn an_encoder_that_is_frozen_as_a_whole_leaves_the_temperature() {
    let Contrastive { encoder, objective } = model();
    let model = Contrastive { encoder: encoder.no_grad(), objective };
    for recompute in [true, false] {
        let found = cached(&model, recompute, 2).1;
        assert!(found[..3].iter().all(Vec::is_empty));
        assert_eq!(found[3].len(), 1);
    }
}

#[test]
fn clipping_scales_all_gradients_to_the_global_norm() {
    let model = model();
    let (_, gradients) = cached_gradients(&model, &batch(0), StepOptions::default());
    let before = values(&model, &gradients);
    let norm = gradient_norm(&model, &gradients).total;
    let expected = before.iter().flatten().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    assert!((norm - expected).abs() < 1e-6 * expected);

    let same = clip_gradients(&model, gradients, norm, norm * 2.0);
    assert_eq!(values(&model, &same), before);
    let clipped = clip_gradients(&model, same, norm, norm / 4.0);
    assert!((gradient_norm(&model, &clipped).total - norm / 4.0).abs() < 1e-5);
}

#[test]
fn both_ways_of_a_step_train_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let theta = |recompute: bool, name: &str| {
        let config = rzen_train::StageConfig { recompute, ..config() };
        train(&folder.path().join(name), &config).objective.theta.val().into_scalar::<f32>()
    };
    assert!((theta(true, "twice") - theta(false, "once")).abs() < 1e-5);
}
