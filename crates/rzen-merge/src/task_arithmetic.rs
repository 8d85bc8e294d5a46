//! Sums of same-shaped tensors as `peft` 0.21 forms them, with and without leaving entries out.
//!
//! `tensors` are the same factor of several adapters, flattened, and `factors` what each is multiplied
//! with. All must have one length.

/// `Σ factor · tensor`.
pub fn linear(tensors: &[&[f32]], factors: &[f64]) -> Vec<f32> {
    sum(tensors, factors, |_, _| true)
}

/// [`linear`] over the share `density` of each tensor's entries that is largest in magnitude.
pub fn magnitude_prune(tensors: &[&[f32]], factors: &[f64], density: f64) -> Vec<f32> {
    let kept: Vec<_> = tensors.iter().map(|tensor| largest(tensor, density)).collect();
    sum(tensors, factors, |n, i| kept[n][i])
}

/// Prunes as [`magnitude_prune`] and takes, entry by entry, the mean over the tensors whose sign is
/// that of the sum ([TIES](https://arxiv.org/abs/2306.01708)).
///
/// The sign is voted on before the factors, and the mean divides by the number of tensors that agree.
pub fn ties(tensors: &[&[f32]], factors: &[f64], density: f64) -> Vec<f32> {
    let kept: Vec<_> = tensors.iter().map(|tensor| largest(tensor, density)).collect();
    let value = |n: usize, i: usize| if kept[n][i] { f64::from(tensors[n][i]) } else { 0.0 };
    let entry = |i: usize| {
        let votes: f64 = (0..tensors.len()).map(|n| value(n, i)).sum();
        let agrees = |x: f64| if votes >= 0.0 { x > 0.0 } else { x < 0.0 };
        let agreeing = (0..tensors.len()).filter(|n| agrees(value(*n, i)));
        let (sum, count) =
            agreeing.fold((0.0, 0.0), |(sum, count), n| (sum + factors[n] * value(n, i), count + 1.0));
        (sum / f64::max(count, 1.0)) as f32
    };
    (0..tensors[0].len()).map(entry).collect()
}

/// [`linear`] over the entries that `keep` names, divided by `density`
/// ([DARE](https://arxiv.org/abs/2311.03099)).
pub fn dare_linear(tensors: &[&[f32]], factors: &[f64], keep: &[Vec<bool>], density: f64) -> Vec<f32> {
    let factors: Vec<f64> = factors.iter().map(|factor| factor / density).collect();
    sum(tensors, &factors, |n, i| keep[n][i])
}

fn sum(tensors: &[&[f32]], factors: &[f64], keep: impl Fn(usize, usize) -> bool) -> Vec<f32> {
    let mut sums = vec![0.0f64; tensors[0].len()];
    for (n, (tensor, factor)) in tensors.iter().zip(factors).enumerate() {
        for (i, (sum, x)) in sums.iter_mut().zip(*tensor).enumerate() {
            if keep(n, i) {
                *sum += factor * f64::from(*x);
            }
        }
    }
    sums.into_iter().map(|x| x as f32).collect()
}

/// Marks the `⌊density · len⌋` entries that are largest in magnitude, the earlier of two equal ones.
fn largest(tensor: &[f32], density: f64) -> Vec<bool> {
    let count = (density * tensor.len() as f64) as usize;
    let mut order: Vec<usize> = (0..tensor.len()).collect();
    let larger = |a: &usize, b: &usize| tensor[*b].abs().total_cmp(&tensor[*a].abs()).then(a.cmp(b));
    if count < order.len() {
        order.select_nth_unstable_by(count, larger);
    }
    let mut kept = vec![false; tensor.len()];
    for i in &order[..count] {
        kept[*i] = true;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f32; 4] = [4.0, -1.0, 2.0, 2.0];
    const Y: [f32; 4] = [-1.0, -3.0, 8.0, 0.5];

    #[test]
    fn the_largest_are_kept() {
        assert_eq!(largest(&X, 0.5), [true, false, true, false], "the earlier of two equal ones");
        assert_eq!(largest(&X, 0.99), [true, false, true, true]);
        assert_eq!(largest(&X, 1.0), [true; 4]);
        assert_eq!(largest(&X, 0.1), [false; 4]);
    }

    #[test]
    fn sums_leave_out_what_they_should() {
        let both: [&[f32]; 2] = [&X, &Y];
        assert_eq!(linear(&both, &[1.0, 2.0]), [2.0, -7.0, 18.0, 3.0]);
        assert_eq!(magnitude_prune(&both, &[1.0, 2.0], 0.5), [4.0, -6.0, 18.0, 0.0]);
        let keep = [vec![true, false, false, true], vec![false, false, true, true]];
        assert_eq!(dare_linear(&both, &[1.0, 2.0], &keep, 0.5), [8.0, 0.0, 32.0, 6.0]);
    }

    #[test]
    fn ties_follows_the_majority() {
        // Signs of the sums: +, -, +, +; X disagrees in the second, Y in the first.
        assert_eq!(ties(&[&X, &Y], &[1.0, 2.0], 1.0), [4.0, (-1.0 - 6.0) / 2.0, 9.0, 1.5]);
    }
}
