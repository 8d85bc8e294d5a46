//! Methods on updates against sums, votes and arcs that are formed in full, in f64.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nalgebra::DMatrix;
use rzen_merge::{Adapter, Cut, Existing, Ingredient, Method, Soup, SoupRecord, SoupSettings};
use safetensors::tensor::Dtype;
use serde_json::json;

use crate::{MODULES, Tensors, config, cook, cook_cut, factors, read, relative, write, write_adapter};

/// Three adapters of different ranks, scalings and modules.
pub fn unlike(home: &Path, weights: [f64; 3]) -> Vec<Ingredient> {
    let paths: Vec<PathBuf> = ["plain", "stabilised", "half"].iter().map(|n| home.join(n)).collect();
    write_adapter(&paths[0], config(2, 4.0), &factors(1, 2, &MODULES));
    let mut stabilised = config(3, 5.0);
    stabilised["use_rslora"] = json!(true);
    write_adapter(&paths[1], stabilised, &factors(2, 3, &MODULES[..2]));
    write_adapter(&paths[2], config(1, 0.5), &Tensors::new());
    write(&paths[2].join("adapter_model.safetensors"), &factors(3, 1, &MODULES[1..]), Dtype::BF16);
    paths.into_iter().zip(weights).map(|(path, weight)| Ingredient { path, weight }).collect()
}

/// `s B A` of each module of each adapter, in f64.
fn updates(ingredients: &[Ingredient]) -> Vec<BTreeMap<String, Vec<f64>>> {
    let update = |one: &Ingredient| {
        let adapter = Adapter::load(&one.path).unwrap();
        let of = |update: &rzen_merge::LowRank| {
            let wide = |m: &rzen_merge::Matrix| {
                DMatrix::from_row_iterator(m.rows(), m.cols(), m.data().iter().map(|x| f64::from(*x)))
            };
            let product = wide(update.b()) * wide(update.a()) * adapter.config().scaling();
            product.transpose().iter().copied().collect::<Vec<f64>>()
        };
        adapter.modules().iter().map(|(name, update)| (name.clone(), of(update))).collect()
    };
    ingredients.iter().map(update).collect()
}

/// The parts of a module that adapters have, with their weights.
fn parts<'a>(
    ingredients: &[Ingredient],
    updates: &'a [BTreeMap<String, Vec<f64>>],
    module: &str,
) -> Vec<(f64, &'a Vec<f64>)> {
    let each = ingredients.iter().zip(updates);
    each.filter_map(|(one, update)| Some((one.weight, update.get(module)?))).collect()
}

fn ties_in_full(parts: &[(f64, &Vec<f64>)], density: f64, total: f64) -> Vec<f64> {
    let trimmed: Vec<(f64, Vec<f64>)> = parts
        .iter()
        .map(|(weight, update)| {
            let mut sizes: Vec<f64> = update.iter().map(|x| x.abs()).collect();
            sizes.sort_by(|a, b| b.total_cmp(a));
            let least = sizes[((density * sizes.len() as f64).ceil() as usize).max(1) - 1];
            // The program computes them in f32.
            let kept = |x: &f64| if x.abs() > least * (1.0 - 1e-6) { *x } else { 0.0 };
            (*weight, update.iter().map(kept).collect())
        })
        .collect();
    (0..parts[0].1.len())
        .map(|i| {
            let vote: f64 = trimmed.iter().map(|(weight, update)| weight * update[i]).sum();
            let agree =
                trimmed.iter().filter(|(_, update)| update[i].signum() == vote.signum() && update[i] != 0.0);
            let (sum, weights) =
                agree.fold((0.0, 0.0), |(s, w), (weight, update)| (s + weight * update[i], w + weight));
            if weights > 0.0 { total * sum / weights } else { 0.0 }
        })
        .collect()
}

fn slerp_in_full(first: (f64, &[f64]), second: (f64, &[f64])) -> Vec<f64> {
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let (total, lengths) = (first.0 + second.0, [norm(first.1), norm(second.1)]);
    let t = second.0 / total;
    let cosine: f64 = first.1.iter().zip(second.1).map(|(x, y)| x / lengths[0] * y / lengths[1]).sum();
    let angle = cosine.acos();
    let length = (1.0 - t) * lengths[0] + t * lengths[1];
    let entry = |(x, y): (&f64, &f64)| {
        let direction = ((1.0 - t) * angle).sin() * x / lengths[0] + (t * angle).sin() * y / lengths[1];
        total * length * direction / angle.sin()
    };
    first.1.iter().zip(second.1).map(entry).collect()
}

/// The matrix's nearest of this rank, and the share of its squared singular values that it has.
fn nearest_in_full(full: &[f64], [out, input]: [usize; 2], rank: usize) -> (Vec<f64>, f64) {
    let svd = DMatrix::from_row_slice(out, input, full).svd(true, true);
    let mut values = svd.singular_values.clone();
    values.iter_mut().skip(rank).for_each(|value| *value = 0.0);
    let energy = values.norm_squared() / svd.singular_values.norm_squared();
    let cut = svd.u.unwrap() * DMatrix::from_diagonal(&values) * svd.v_t.unwrap();
    (cut.transpose().iter().copied().collect(), energy)
}

/// A base of zeros, to which a soup is added in f32.
fn merged(home: &Path, ingredients: &[Ingredient], settings: SoupSettings) -> (Tensors, SoupRecord) {
    let (base, output) = (home.join("base"), home.join("merged"));
    std::fs::create_dir_all(&base).unwrap();
    let zeros = MODULES
        .map(|(name, [out, input])| (format!("{name}.weight"), (vec![out, input], vec![0.0; out * input])));
    write(&base.join("model.safetensors"), &Tensors::from(zeros), Dtype::F32);
    let soup = Soup::new(ingredients, settings).unwrap();
    let record = soup.merge_into(&base, &output, Existing::Replace).unwrap();
    let written = SoupRecord::read(&output).unwrap().unwrap();
    assert_eq!((&written.ingredients, written.method), (&record.ingredients, record.method));
    (read(&output.join("model.safetensors")), record)
}

/// Compares a soup, whole in a base and cut to rank 2 in an adapter, with what `full` gives of each module.
fn check(weights: [f64; 3], count: usize, method: Method, full: impl Fn(&[(f64, &Vec<f64>)]) -> Vec<f64>) {
    let home = tempfile::tempdir().unwrap();
    let ingredients = &unlike(home.path(), weights)[..count];
    let updates = updates(ingredients);
    let (whole, record) = merged(home.path(), ingredients, SoupSettings::new(method));
    let (cut, cut_record) = cook_cut(ingredients, method, Cut::Rank(2)).unwrap();
    assert_eq!((record.kept_energy, cut.config().r), (1.0, 2));
    for (module, shape) in &MODULES[..count.max(2)] {
        let parts = parts(ingredients, &updates, module);
        let expected = full(&parts);
        let found = &whole[&format!("{module}.weight")].1;
        let difference = relative(found, &expected);
        assert!(difference < 1e-5, "{method:?}, {module}: {difference:e}");
        let sum: Vec<f64> = (0..expected.len())
            .map(|i| parts.iter().map(|(weight, update)| weight * update[i]).sum())
            .collect();
        let error = record.modules[*module].relative_error.unwrap();
        assert!((error - relative(found, &sum)).abs() < 1e-5, "{method:?}, {module}: {error}");

        let (nearest, energy) = nearest_in_full(&expected, *shape, 2);
        let difference = relative(cut.delta(module).unwrap().data(), &nearest);
        assert!(difference < 1e-4, "{method:?}, {module}, cut: {difference:e}");
        let kept = cut_record.modules[*module].kept_energy;
        assert!((kept - energy).abs() < 1e-5, "{method:?}, {module}: kept {kept}, expected {energy}");
    }
}

#[test]
fn exact_is_the_sum() {
    let sum = |parts: &[(f64, &Vec<f64>)]| {
        (0..parts[0].1.len()).map(|i| parts.iter().map(|(weight, update)| weight * update[i]).sum()).collect()
    };
    check([0.5, 0.3, -0.2], 3, Method::Exact, sum);
    // All numbers are kept, and divided by 1.
    check([0.5, 0.3, -0.2], 3, Method::Dare { density: 1.0, seed: 4 }, sum);
}

#[test]
fn ties_is_the_weighted_mean_of_those_that_agree() {
    for density in [0.3, 0.7, 1.0] {
        let weights = [0.5, 0.3, 0.2];
        check(weights, 3, Method::Ties { density }, |parts| ties_in_full(parts, density, 1.0));
    }
    check([1.0, 0.6, 0.4], 3, Method::Ties { density: 0.5 }, |parts| ties_in_full(parts, 0.5, 2.0));
}

#[test]
fn slerp_goes_along_the_sphere() {
    let arc = |parts: &[(f64, &Vec<f64>)]| match parts {
        [first, second] => slerp_in_full((first.0, first.1), (second.0, second.1)),
        others => panic!("{} updates", others.len()),
    };
    check([0.5, 0.5, 0.0], 2, Method::Slerp, |parts| match parts.len() {
        2 => arc(parts),
        _ => parts[0].1.iter().map(|x| parts[0].0 * x).collect(),
    });
    check([0.2, 1.3, 0.0], 2, Method::Slerp, arc);
}

#[test]
fn updates_that_are_nearly_opposite_are_added_in_a_straight_line() {
    let home = tempfile::tempdir().unwrap();
    let paths = ["one", "other"].map(|name| home.path().join(name));
    write_adapter(&paths[0], config(2, 4.0), &factors(1, 2, &MODULES));
    let other = |turned: f32| {
        let mut other = factors(1, 2, &MODULES);
        let away = factors(8, 2, &MODULES);
        for (name, (_, data)) in other.iter_mut().filter(|(name, _)| name.contains("lora_A")) {
            data.iter_mut().zip(&away[name].1).for_each(|(x, y)| *x = -3.0 * (*x + turned * y));
        }
        write_adapter(&paths[1], config(2, 4.0), &other);
    };
    let soup = |method, weights: [f64; 2]| {
        let ingredients: Vec<_> = paths
            .iter()
            .zip(weights)
            .map(|(path, weight)| Ingredient { path: path.clone(), weight })
            .collect();
        cook(&ingredients, method).unwrap()
    };
    for turned in [0.0, 1e-4, 1e-3] {
        other(turned);
        let (arc, record) = soup(Method::Slerp, [0.6, 0.4]);
        assert_eq!(arc.modules(), soup(Method::Exact, [0.6, 0.4]).0.modules(), "{turned}");
        assert_eq!(record.relative_error, Some(0.0), "{turned}");
        let [note] = &record.notes[..] else { panic!("{:?}", record.notes) };
        assert!(note.contains("opposite") && note.contains(MODULES[0].0) && note.ends_with("(3)"), "{note}");
    }
    other(0.1);
    let (arc, record) = soup(Method::Slerp, [0.6, 0.4]);
    assert_ne!(arc.modules(), soup(Method::Exact, [0.6, 0.4]).0.modules());
    assert!(record.notes.is_empty());
}

/// The masks are not told, but what they leave is: entries are zero or divided by the density, as many as they should be.
#[test]
fn dare_keeps_its_share_and_divides_by_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("wide");
    let wide = [("model.layers.0.self_attn.q_proj", [400, 300])];
    write_adapter(&path, config(2, 4.0), &factors(1, 2, &wide));
    let one = [Ingredient { path: path.clone(), weight: 0.5 }];
    let base = home.path().join("base");
    std::fs::create_dir_all(&base).unwrap();
    let zeros = (format!("{}.weight", wide[0].0), (vec![400, 300], vec![0.0; 400 * 300]));
    write(&base.join("model.safetensors"), &Tensors::from([zeros]), Dtype::F32);
    let soup = |seed| {
        let settings = SoupSettings::new(Method::Dare { density: 0.3, seed });
        let output = home.path().join("out");
        Soup::new(&one, settings).unwrap().merge_into(&base, &output, Existing::Replace).unwrap();
        read(&output.join("model.safetensors")).into_values().next().unwrap().1
    };
    let (found, update) = (soup(5), updates(&one)[0][wide[0].0].clone());
    let mut kept = 0;
    for (x, full) in found.iter().zip(&update) {
        let expected = 0.5 * full / 0.3;
        assert!(
            *x == 0.0 || (f64::from(*x) - expected).abs() < 1e-5 * expected.abs() + 1e-6,
            "{x} {expected}"
        );
        kept += usize::from(*x != 0.0);
    }
    // Three standard deviations of 120000 trials are 0.4 %.
    assert!((kept as f64 / 120_000.0 - 0.3).abs() < 0.004, "{kept}");
    assert_eq!(found, soup(5));
    assert_ne!(found, soup(6));
}

#[test]
fn the_order_of_ingredients_does_not_matter() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = unlike(home.path(), [0.5, 0.3, 0.2]);
    let turned: Vec<_> = [2, 0, 1].map(|i| ingredients[i].clone()).into();
    for (method, cut) in [
        (Method::Exact, Cut::Nothing),
        (Method::Exact, Cut::Rank(3)),
        (Method::Ties { density: 0.5 }, Cut::Rank(3)),
        (Method::Dare { density: 0.5, seed: 2 }, Cut::Rank(3)),
    ] {
        let one = cook_cut(&ingredients, method, cut).unwrap();
        let other = cook_cut(&turned, method, cut).unwrap();
        for module in one.0.modules().keys() {
            let expected: Vec<f64> =
                one.0.delta(module).unwrap().data().iter().map(|x| f64::from(*x)).collect();
            let difference = relative(other.0.delta(module).unwrap().data(), &expected);
            assert!(difference < 1e-5, "{method:?}, {module}: {difference:e}");
        }
        let errors = [one.1, other.1].map(|record| record.relative_error.unwrap());
        assert!((errors[0] - errors[1]).abs() < 1e-6, "{method:?}: {errors:?}");
    }
    let (first, other) = (ingredients[..2].to_vec(), vec![ingredients[1].clone(), ingredients[0].clone()]);
    let [one, other] = [first, other].map(|pair| cook(&pair, Method::Slerp).unwrap().0);
    for module in one.modules().keys() {
        let expected: Vec<f64> = one.delta(module).unwrap().data().iter().map(|x| f64::from(*x)).collect();
        assert!(relative(other.delta(module).unwrap().data(), &expected) < 1e-5);
    }
}

#[test]
fn all_of_the_weight_on_one_gives_that_one() {
    let home = tempfile::tempdir().unwrap();
    let paths = ["one", "other"].map(|name| home.path().join(name));
    for (seed, path) in [7, 8].into_iter().zip(&paths) {
        write_adapter(path, config(2, 4.0), &factors(seed, 2, &MODULES));
    }
    let ingredients: Vec<_> =
        paths.into_iter().zip([1.0, 0.0]).map(|(path, weight)| Ingredient { path, weight }).collect();
    let first = updates(&ingredients[..1]).remove(0);
    for (method, cut) in [
        (Method::Exact, Cut::Nothing),
        (Method::Exact, Cut::LargestRank),
        (Method::Slerp, Cut::Nothing),
        (Method::Slerp, Cut::LargestRank),
        (Method::Ties { density: 1.0 }, Cut::LargestRank),
        (Method::Dare { density: 1.0, seed: 2 }, Cut::LargestRank),
        (Method::MeanAb, Cut::Nothing),
        (Method::PeftLinear, Cut::Nothing),
    ] {
        let (soup, record) = cook_cut(&ingredients, method, cut).unwrap();
        for (module, expected) in &first {
            let difference = relative(soup.delta(module).unwrap().data(), expected);
            assert!(difference < 2e-6, "{method:?}, {module}: {difference:e}");
        }
        assert!(record.relative_error.unwrap() < 2e-6, "{method:?}: {:?}", record.relative_error);
    }
}

/// Large enough that the subspace is smaller than the matrix.
#[test]
fn the_nearest_of_a_wide_update_keeps_what_is_best() {
    let home = tempfile::tempdir().unwrap();
    let wide = [("model.layers.0.mlp.down_proj", [90, 140])];
    let ingredients: Vec<_> = (0..3)
        .map(|n| {
            let path = home.path().join(format!("run_{n}"));
            let mut tensors = factors(n + 1, 4, &wide);
            // A common part, as adapters of one base have.
            let common = factors(9, 4, &wide);
            for (name, (_, data)) in &mut tensors {
                data.iter_mut().zip(&common[name].1).for_each(|(x, c)| *x = 0.3 * *x + c);
            }
            write_adapter(&path, config(4, 8.0), &tensors);
            Ingredient { path, weight: 1.0 / 3.0 }
        })
        .collect();
    let updates = updates(&ingredients);
    let expected = ties_in_full(&parts(&ingredients, &updates, wide[0].0), 0.5, 1.0);
    let (_, best) = nearest_in_full(&expected, wide[0].1, 8);
    let (soup, record) = cook_cut(&ingredients, Method::Ties { density: 0.5 }, Cut::Rank(8)).unwrap();
    let lost = relative(soup.delta(wide[0].0).unwrap().data(), &expected).powi(2);
    assert!((1.0 - record.kept_energy - lost).abs() < 1e-5, "kept {}, lost {lost}", record.kept_energy);
    assert!(
        record.kept_energy <= best + 1e-6 && record.kept_energy > best * 0.998,
        "{} of {best}",
        record.kept_energy
    );
}

#[test]
fn the_energy_chooses_the_rank() {
    let home = tempfile::tempdir().unwrap();
    let ingredients = unlike(home.path(), [0.5, 0.3, 0.2]);
    let of_rank = |rank| cook_cut(&ingredients, Method::Exact, Cut::Rank(rank)).unwrap().1.kept_energy;
    let kept: Vec<f64> = (1..=6).map(of_rank).collect();
    assert!(kept.is_sorted() && kept[5] > 1.0 - 1e-9 && kept[0] < 0.95, "{kept:?}");
    for share in [0.3, 0.8, 0.95, 0.999] {
        let (soup, record) = cook_cut(&ingredients, Method::Exact, Cut::Energy(share)).unwrap();
        let rank = kept.iter().position(|kept| *kept >= share).unwrap() + 1;
        assert_eq!(soup.config().r, rank, "{share} of {kept:?}");
        assert!((record.kept_energy - kept[rank - 1]).abs() < 1e-9);
        let error = record.relative_error.unwrap();
        assert!((error.powi(2) - (1.0 - record.kept_energy)).abs() < 1e-9, "{error}");
    }
}

#[cfg(unix)]
#[test]
fn soups_with_other_weights_read_no_file_again() {
    let home = tempfile::tempdir().unwrap();
    let weights = [0.5, 0.3, 0.2];
    let settings = SoupSettings::new(Method::Exact);
    let expected = cook(&unlike(home.path(), weights), Method::Exact).unwrap();
    let alone = cook(&unlike(home.path(), [1.0; 3])[1..2], Method::Exact).unwrap();
    let opened = Soup::new(&unlike(home.path(), [1.0 / 3.0; 3]), settings).unwrap();
    for name in ["plain", "stabilised", "half"] {
        std::fs::remove_dir_all(home.path().join(name)).unwrap();
    }
    assert_eq!(opened.reweighted(&weights, settings).unwrap().adapter().unwrap(), expected);
    assert_eq!(opened.reweighted(&[0.0, 1.0, 0.0], settings).unwrap().adapter().unwrap(), alone);
    let cut = SoupSettings { cut: Cut::Rank(1), ..settings };
    assert_eq!(opened.reweighted(&weights, cut).unwrap().adapter().unwrap().0.config().r, 1);
    assert!(opened.reweighted(&[0.0; 3], settings).is_err(), "nothing is left");
}
