//! The search for the weights of a soup: which ingredients, and how much of each.

use anyhow::{Context, Result, ensure};

/// How weights are searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Search {
    /// From the best ingredient on, each next best joins if the mean of all is no worse with it
    Greedy,
    /// From the best of all that is tried first, weight moves from one ingredient to another, in ever smaller steps
    Weights,
}

impl Search {
    /// The name that `--search` takes.
    pub fn name(self) -> &'static str {
        match self {
            Search::Greedy => "greedy",
            Search::Weights => "weights",
        }
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// One for each ingredient, none below 0, of the sum 1.
    pub weights: Vec<f64>,
    /// Their score.
    pub score: f64,
    /// The score of each ingredient alone.
    pub alone: Vec<f64>,
    /// The score of equal weights.
    pub uniform: f64,
}

/// Searches for weights of `count` ingredients; `measure` scores some, higher is better, or says that no more may be
/// scored. Each ingredient alone and equal weights come first.
///
/// The same scores lead to the same weights: nothing is drawn at random.
///
/// # Errors
/// If there is too little to begin with, or what `measure` says.
pub fn search(
    kind: Search,
    count: usize,
    measure: &mut dyn FnMut(&[f64]) -> Result<Option<f64>>,
) -> Result<Found> {
    check_count(count, usize::MAX)?;
    let mut first = |weights: &[f64]| measure(weights)?.with_context(|| too_few(count));
    let alone: Vec<f64> = (0..count).map(|i| first(&mean_of(&[i], count))).collect::<Result<_>>()?;
    let all: Vec<usize> = (0..count).collect();
    let uniform = first(&mean_of(&all, count))?;
    let (weights, score) = match kind {
        Search::Greedy => greedy(&alone, measure)?,
        Search::Weights => {
            let best = by_score(&alone)[0];
            let start = match uniform >= alone[best] {
                true => (mean_of(&all, count), uniform),
                false => (mean_of(&[best], count), alone[best]),
            };
            climb(start, measure)?
        }
    };
    Ok(Found { weights, score, alone, uniform })
}

/// Refuses what no search begins with: fewer than two ingredients, or `trials` that don't do for those alone and equal weights.
///
/// # Errors
/// Says how many there must be.
pub fn check_count(count: usize, trials: usize) -> Result<()> {
    ensure!(count >= 2, "a search needs two ingredients or more, and there is {count}");
    ensure!(trials > count, "{}", too_few(count));
    Ok(())
}

fn too_few(count: usize) -> String {
    format!("a search over {count} ingredients scores {} soups to begin with; allow more --trials", count + 1)
}

/// Equal weights of some of the ingredients.
fn mean_of(some: &[usize], count: usize) -> Vec<f64> {
    let mut weights = vec![0.0; count];
    some.iter().for_each(|i| weights[*i] = 1.0 / some.len() as f64);
    weights
}

/// Places from the highest score on, the earlier of two equal ones first.
fn by_score(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order
}

/// The greedy soup of [Wortsman et al.](https://arxiv.org/abs/2203.05482).
fn greedy(alone: &[f64], measure: &mut dyn FnMut(&[f64]) -> Result<Option<f64>>) -> Result<(Vec<f64>, f64)> {
    let order = by_score(alone);
    let (mut chosen, mut best) = (vec![order[0]], alone[order[0]]);
    for next in &order[1..] {
        let with: Vec<usize> = chosen.iter().copied().chain([*next]).collect();
        let Some(score) = measure(&mean_of(&with, alone.len()))? else { break };
        if score >= best {
            (chosen, best) = (with, score);
        }
    }
    Ok((mean_of(&chosen, alone.len()), best))
}

/// The weight that is moved at first, and at last.
const STEPS: [f64; 2] = [0.25, 1.0 / 64.0];

/// Moves weight from one ingredient to another while that is better, in the order of pairs.
fn climb(
    (mut weights, mut best): (Vec<f64>, f64),
    measure: &mut dyn FnMut(&[f64]) -> Result<Option<f64>>,
) -> Result<(Vec<f64>, f64)> {
    let count = weights.len();
    let mut step = STEPS[0];
    while step >= STEPS[1] {
        let mut better = false;
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            if from == to || weights[from] == 0.0 {
                continue;
            }
            let moved = step.min(weights[from]);
            let mut next = weights.clone();
            next[from] -= moved;
            next[to] += moved;
            let Some(score) = measure(&next)? else { return Ok((weights, best)) };
            if score > best {
                (weights, best, better) = (next, score, true);
            }
        }
        if !better {
            step /= 2.0;
        }
    }
    Ok((weights, best))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minus the squared distance to `goal`.
    fn hill(goal: &'static [f64]) -> impl FnMut(&[f64]) -> Result<Option<f64>> {
        move |weights| Ok(Some(-weights.iter().zip(goal).map(|(w, g)| (w - g) * (w - g)).sum::<f64>()))
    }

    #[test]
    fn weights_climb_to_the_top() {
        for goal in [&[0.7, 0.1, 0.2], &[0.0, 1.0, 0.0], &[0.34, 0.33, 0.33]] {
            let found = search(Search::Weights, 3, &mut hill(goal)).unwrap();
            let near = found.weights.iter().zip(goal).all(|(w, g)| (w - g).abs() < 0.02);
            assert!(near, "{goal:?}: {:?}", found.weights);
            assert!((found.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(found.score >= found.uniform && found.alone.iter().all(|alone| found.score >= *alone));
        }
    }

    #[test]
    fn greedy_takes_what_helps() {
        // Together the second and third are best; the first spoils every soup.
        let mut score = |weights: &[f64]| {
            Ok(Some(match (weights[0] > 0.0, weights[1] > 0.0, weights[2] > 0.0) {
                (false, true, true) => 0.9,
                (true, _, _) => 0.2,
                _ => 0.5,
            }))
        };
        let found = search(Search::Greedy, 3, &mut score).unwrap();
        assert_eq!((found.weights, found.score), (vec![0.0, 0.5, 0.5], 0.9));
        assert_eq!((found.alone, found.uniform), (vec![0.2, 0.5, 0.5], 0.2));
    }

    #[test]
    fn the_number_of_trials_is_kept() {
        for limit in [4, 6, 9] {
            let (mut hill, mut asked) = (hill(&[0.6, 0.3, 0.1]), 0);
            let mut measure = |weights: &[f64]| {
                asked += usize::from(asked < limit);
                if asked < limit { hill(weights) } else { Ok(None) }
            };
            let found = search(Search::Weights, 3, &mut measure);
            assert_eq!(found.is_ok(), limit > 4, "{limit}");
        }
        let error = search(Search::Greedy, 1, &mut hill(&[1.0])).unwrap_err().to_string();
        assert!(error.contains("two ingredients"), "{error}");
    }
}
