//! What holds for any input.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor};
use rzen_core::{Loss, Objective, Targets};
use rzen_loss::InfoNceConfig;

use crate::{host, matrix, noise, targets};

const DIM: usize = 5;

fn plain() -> InfoNceConfig {
    InfoNceConfig { alpha: 0.0, delta: None, ..one_task() }
}

fn one_task() -> InfoNceConfig {
    InfoNceConfig { tasks: vec!["only".into()], initial_temperature: 0.1, ..InfoNceConfig::default() }
}

fn loss(config: &InfoNceConfig, queries: &[f32], candidates: &[f32], targets: &Targets) -> Loss {
    let device = Device::flex();
    let (queries, candidates) = (matrix(queries, DIM, &device), matrix(candidates, DIM, &device));
    config.init(&device).unwrap().loss(queries, candidates, targets)
}

fn value(loss: Loss) -> f32 {
    loss.value.into_scalar()
}

fn stats(loss: Loss) -> BTreeMap<String, f32> {
    loss.stats.into_iter().map(|(name, stat)| (name, stat.into_scalar())).collect()
}

/// The value, and every gradient: queries, candidates, theta.
fn gradients(
    config: &InfoNceConfig,
    queries: &[f32],
    candidates: &[f32],
    targets: &Targets,
) -> (f32, Vec<f32>) {
    let device = Device::flex().autodiff();
    let queries = matrix(queries, DIM, &device).require_grad();
    let candidates = matrix(candidates, DIM, &device).require_grad();
    let objective = config.init(&device).unwrap();
    let loss = objective.loss(queries.clone(), candidates.clone(), targets).value;
    let grads = loss.backward();
    let mut all = host(queries.grad(&grads).unwrap());
    all.extend(host(candidates.grad(&grads).unwrap()));
    all.extend(host(objective.theta().grad(&grads).unwrap()));
    (loss.into_scalar(), all)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// InfoNCE as it stands in the textbooks: the mean of -log softmax at the positive.
fn textbook(queries: &[f32], candidates: &[f32], positive: &[i32], temperature: f64) -> f64 {
    textbook_without(&[], queries, candidates, positive, temperature)
}

/// The same, where the pairs of query and candidate in `exempt` are left out of the sum.
fn textbook_without(
    exempt: &[(usize, usize)],
    queries: &[f32],
    candidates: &[f32],
    positive: &[i32],
    temperature: f64,
) -> f64 {
    let rows: Vec<f64> = queries
        .chunks(DIM)
        .zip(positive)
        .enumerate()
        .map(|(row, (query, positive))| {
            let logits: Vec<f64> = candidates.chunks(DIM).map(|c| cosine(query, c) / temperature).collect();
            let counts = |(column, _): &(usize, &f64)| !exempt.contains(&(row, *column));
            let sum: f64 = logits.iter().enumerate().filter(counts).map(|(_, x)| x.exp()).sum();
            sum.ln() - logits[*positive as usize]
        })
        .collect();
    rows.iter().sum::<f64>() / rows.len() as f64
}

fn transposed(candidates: &[f32], positive: &[i32]) -> Vec<f32> {
    positive.iter().flat_map(|p| candidates[*p as usize * DIM..][..DIM].to_vec()).collect()
}

#[test]
fn exempt_candidates_are_no_negatives_in_either_direction() {
    let (queries, candidates) = (noise(3, 4 * DIM), noise(4, 5 * DIM));
    let positive = [0, 1, 2, 3];
    let pairs = [(0, 1), (0, 4), (2, 3)];
    let mask: [[bool; 5]; 4] =
        std::array::from_fn(|row| std::array::from_fn(|column| pairs.contains(&(row, column))));
    let exempt = Some(Tensor::<2, Bool>::from_data(mask, &Device::flex()));
    let targets = Targets { exempt, ..targets(&positive, &[0; 4], None, &Device::flex()) };
    let there = textbook_without(&pairs, &queries, &candidates, &positive, 0.1);
    let one = loss(&InfoNceConfig { symmetric: false, ..plain() }, &queries, &candidates, &targets);
    assert!((f64::from(value(one)) - there).abs() < 1e-5);
    // Positive 1 no longer looks for query 0, nor positive 3 for query 2.
    let back =
        textbook_without(&[(1, 0), (3, 2)], &transposed(&candidates, &positive), &queries, &positive, 0.1);
    let both = loss(&InfoNceConfig { symmetric: true, ..plain() }, &queries, &candidates, &targets);
    assert!((f64::from(value(both)) - (there + back) / 2.0).abs() < 1e-5);
    assert!(there < textbook(&queries, &candidates, &positive, 0.1));
}

#[test]
fn without_hardness_and_mask_it_is_plain_info_nce() {
    for seed in 1..6 {
        let (queries, candidates) = (noise(seed, 4 * DIM), noise(seed + 100, 7 * DIM));
        let positive = [2, 0, 6, 3];
        let targets = targets(&positive, &[0; 4], None, &Device::flex());
        let found = value(loss(&plain(), &queries, &candidates, &targets));
        let expected = textbook(&queries, &candidates, &positive, 0.1);
        assert!((f64::from(found) - expected).abs() < 1e-5 * expected, "{found} instead of {expected}");

        let both = InfoNceConfig { symmetric: true, ..plain() };
        let found = value(loss(&both, &queries, &candidates, &targets));
        let back = textbook(&transposed(&candidates, &positive), &queries, &[0, 1, 2, 3], 0.1);
        let expected = (expected + back) / 2.0;
        assert!((f64::from(found) - expected).abs() < 1e-5 * expected, "{found} instead of {expected}");
    }
}

#[test]
fn order_of_the_batch_does_not_matter() {
    let device = Device::flex();
    for symmetric in [false, true] {
        let config = InfoNceConfig {
            tasks: vec!["a".into(), "b".into()],
            delta: Some(0.5),
            symmetric,
            temperature_min: Some(0.01),
            ..InfoNceConfig::default()
        };
        let (queries, candidates) = (noise(7, 3 * DIM), noise(8, 5 * DIM));
        let before = targets(&[0, 1, 2], &[0, 1, 1], Some(&[-1, -1, -1, 0, 2]), &device);
        let before = loss(&config, &queries, &candidates, &before);

        // Queries 2, 0, 1 and candidates 4, 1, 3, 0, 2.
        let pick = |rows: &[f32], order: &[usize]| -> Vec<f32> {
            order.iter().flat_map(|i| rows[i * DIM..][..DIM].to_vec()).collect()
        };
        let queries = pick(&queries, &[2, 0, 1]);
        let candidates = pick(&candidates, &[4, 1, 3, 0, 2]);
        let after = targets(&[4, 3, 1], &[1, 0, 1], Some(&[0, -1, 1, -1, -1]), &device);
        let after = loss(&config, &queries, &candidates, &after);

        assert!((value(before.clone()) - value(after.clone())).abs() < 1e-5);
        for (name, stat) in stats(before) {
            assert!((stat - stats(after.clone())[&name]).abs() < 1e-4 * stat.abs() + 1e-6, "{name}");
        }
    }
}

#[test]
fn without_a_negative_loss_and_gradients_are_zero() {
    let device = Device::flex();
    let (queries, candidates) = (noise(3, 3 * DIM), noise(4, 3 * DIM));
    let three = targets(&[0, 1, 2], &[0; 3], None, &device);
    for symmetric in [false, true] {
        for differentiate_hardness in [false, true] {
            let config = InfoNceConfig { delta: Some(-1.5), symmetric, differentiate_hardness, ..one_task() };
            let (value, grads) = gradients(&config, &queries, &candidates, &three);
            assert_eq!(value, 0.0);
            assert!(grads.iter().all(|g| *g == 0.0), "{grads:?}");
        }
    }
    let masked =
        stats(loss(&InfoNceConfig { delta: Some(-1.5), ..one_task() }, &queries, &candidates, &three));
    assert_eq!((masked["masked"], masked["mean_weight"], masked["accuracy"]), (1.0, 0.0, 1.0));

    let one = targets(&[0], &[0], None, &device);
    let (value, _) = gradients(&one_task(), &queries[..DIM], &candidates[..DIM], &one);
    assert_eq!(value, 0.0, "a single pair has no negative");
}

#[test]
fn nothing_but_finite_numbers_comes_out() {
    let device = Device::flex();
    let targets = targets(&[0, 1, 2], &[0; 3], None, &device);
    let rows = noise(5, 3 * DIM);
    let scaled = |by: f32| rows.iter().map(|x| x * by).collect::<Vec<_>>();
    let mut with_zero = rows.clone();
    with_zero[..DIM].fill(0.0);
    let inputs =
        [rows.clone(), scaled(3e38), scaled(1e-30), vec![0.0; 3 * DIM], vec![1.0; 3 * DIM], with_zero];
    for temperature in [1e-13, 1e-4, 0.05, 1e4, 1e13] {
        for (alpha, delta) in [(0.0, None), (9.0, Some(0.95)), (1000.0, None), (-1000.0, Some(2.0))] {
            let config = InfoNceConfig {
                alpha,
                delta,
                initial_temperature: temperature,
                symmetric: true,
                differentiate_hardness: true,
                ..one_task()
            };
            for queries in &inputs {
                for candidates in &inputs {
                    let (value, grads) = gradients(&config, queries, candidates, &targets);
                    assert!(value.is_finite() && value >= 0.0, "{value} at {temperature}");
                    let broken = grads.iter().position(|g| !g.is_finite());
                    assert!(
                        broken.is_none(),
                        "gradient {broken:?} at {temperature}, {queries:?}, {candidates:?}"
                    );
                    let stats = stats(loss(&config, queries, candidates, &targets));
                    assert!(stats.values().all(|x| x.is_finite()), "{stats:?}");
                }
            }
        }
    }
}

#[test]
fn queries_may_share_a_positive() {
    let device = Device::flex();
    let (queries, candidates) = (noise(11, 3 * DIM), noise(12, 2 * DIM));
    let shared = targets(&[0, 0, 1], &[0; 3], None, &device);
    let found = value(loss(&plain(), &queries, &candidates, &shared));
    let expected = textbook(&queries, &candidates, &[0, 0, 1], 0.1);
    assert!((f64::from(found) - expected).abs() < 1e-5 * expected, "{found} instead of {expected}");

    // A copy of the positive in a row of its own is masked, which comes to the same.
    let copies = [&candidates[..DIM], &candidates[..DIM], &candidates[DIM..]].concat();
    let config = InfoNceConfig { delta: Some(0.95), ..plain() };
    let one = targets(&[0], &[0], None, &device);
    let once = value(loss(&config, &queries[..DIM], &candidates, &one));
    let twice = value(loss(&config, &queries[..DIM], &copies, &one));
    assert!((once - twice).abs() < 1e-6 * once, "{once} and {twice}");
}

#[test]
fn looking_back_two_queries_of_one_positive_do_not_compete() {
    let device = Device::flex();
    let (queries, candidates) = (noise(13, 2 * DIM), noise(14, DIM));
    let config = InfoNceConfig { symmetric: true, ..plain() };
    let both = targets(&[0, 0], &[0, 0], None, &device);
    assert_eq!(value(loss(&config, &queries, &candidates, &both)), 0.0);
}

#[test]
fn statistics_say_what_happened() {
    let device = Device::flex();
    // Candidate 2 copies candidate 0; query 1 ties between its positive and candidate 3.
    let queries = [[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0, 0.0]].concat();
    let candidates = [
        [1.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0, 0.0],
        [2.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0],
    ]
    .concat();
    let config = InfoNceConfig {
        alpha: 2.0,
        tasks: vec!["a".into(), "b".into()],
        initial_temperature: 0.25,
        ..InfoNceConfig::default()
    };
    let found = stats(loss(&config, &queries, &candidates, &targets(&[0, 1], &[0, 1], None, &device)));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["accuracy", "masked", "mean_weight", "tau.a", "tau.b"]);
    assert_eq!(found["masked"], 1.0 / 6.0, "the copy, for query 0, of three negatives each");
    assert_eq!(found["accuracy"], 0.5, "the tie of query 1 counts against it");
    let hard = (2.0 * 0.5f32.sqrt()).exp();
    assert!((found["mean_weight"] - (4.0 + hard) / 5.0).abs() < 1e-5, "{found:?}");
    assert!((found["tau.b"] - 0.25).abs() < 1e-6);
}

/// Loss and gradient of theta where it stands at `tau`.
fn at_temperature(config: &InfoNceConfig, tau: f64) -> (f32, f32) {
    let device = Device::flex().autodiff();
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{{\"only\": {{\"theta\": {}}}}}", tau.ln());
    std::fs::write(folder.path().join(rzen_loss::TEMPERATURES_FILE), text).unwrap();
    let objective = config.init(&device).unwrap().load_weights(folder.path()).unwrap();
    let queries = matrix(&noise(21, 3 * DIM), DIM, &device).require_grad();
    let candidates = matrix(&noise(22, 3 * DIM), DIM, &device).require_grad();
    let targets = targets(&[0, 1, 2], &[0; 3], None, &device);
    let loss = objective.loss(queries, candidates, &targets).value;
    let gradient = host(objective.theta().grad(&loss.backward()).unwrap())[0];
    (loss.into_scalar(), gradient)
}

#[test]
fn temperatures_are_led_back_into_their_range_and_never_out_of_it() {
    let free = InfoNceConfig { initial_temperature: 0.2, ..plain() };
    for symmetric in [false, true] {
        let free = InfoNceConfig { symmetric, ..free.clone() };
        let (value, gradient) = at_temperature(&free, 0.2);
        // Descent lowers the temperature where the gradient is above 0.
        assert_ne!(gradient, 0.0);
        let low = InfoNceConfig { temperature_min: Some(0.2), ..free.clone() };
        let high = InfoNceConfig { temperature_max: Some(0.2), ..free.clone() };
        let (out, back) = if gradient > 0.0 { (&low, &high) } else { (&high, &low) };
        for tau in [0.2, if gradient > 0.0 { 0.19 } else { 0.21 }] {
            let (found, gradient) = at_temperature(out, tau);
            assert!((found - value).abs() < 1e-6 * value && gradient == 0.0, "{found}, {gradient} at {tau}");
        }
        for tau in [0.2, if gradient > 0.0 { 0.21 } else { 0.19 }] {
            let (found, kept) = at_temperature(back, tau);
            assert!((found - value).abs() < 1e-6 * value, "{found} instead of {value}");
            assert!((kept - gradient).abs() < 1e-4 * gradient.abs(), "{kept} instead of {gradient}");
        }
        let wide = InfoNceConfig { temperature_min: Some(0.1), temperature_max: Some(0.4), ..free.clone() };
        assert_eq!(at_temperature(&wide, 0.2), (value, gradient), "nothing changes inside");
    }
}

#[test]
fn fixed_temperatures_get_no_gradient() {
    let device = Device::flex().autodiff();
    let config = InfoNceConfig { learn_temperature: false, ..one_task() };
    let objective = config.init(&device).unwrap();
    let queries = matrix(&noise(1, 2 * DIM), DIM, &device).require_grad();
    let candidates = matrix(&noise(2, 2 * DIM), DIM, &device);
    let grads = objective
        .loss(queries.clone(), candidates, &targets(&[0, 1], &[0; 2], None, &device))
        .value
        .backward();
    assert!(queries.grad(&grads).is_some());
    assert!(objective.theta().grad(&grads).is_none());
}

#[test]
fn plain_and_autodiff_tensors_mix() {
    let plain = Device::flex();
    let (queries, candidates) = (noise(1, 2 * DIM), noise(2, 2 * DIM));
    let (q, c) = (matrix(&queries, DIM, &plain), matrix(&candidates, DIM, &plain));
    let targets = targets(&[0, 1], &[0; 2], None, &plain);
    let fixed = one_task().init(&plain).unwrap();
    let trained = one_task().init(&plain).unwrap().train();
    let expected = value(fixed.loss(q.clone(), c.clone(), &targets));
    let lift = |t: &Tensor<2>| t.clone().autodiff().require_grad();
    for (objective, q, c) in [(&fixed, lift(&q), c.clone()), (&fixed, q.clone(), lift(&c)), (&trained, q, c)]
    {
        assert_eq!(value(objective.loss(q, c, &targets)), expected);
    }
    let grads =
        trained.loss(lift(&matrix(&queries, DIM, &plain)), matrix(&candidates, DIM, &plain), &targets);
    assert!(trained.theta().grad(&grads.value.backward()).is_some());
}
