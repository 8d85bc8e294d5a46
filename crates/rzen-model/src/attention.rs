//! Attention among the rows of a batch, and its gradient in bounded memory.

use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, FloatDType, Int, Tensor};

use crate::encoder::beside;

/// Equally long windows, one after another; rows see the keys of their window.
#[derive(Clone, Debug)]
pub(crate) struct Windows<'a> {
    pub(crate) count: usize,
    /// Rows of a window that attend.
    pub(crate) queries: usize,
    /// Rows of a window that are seen.
    pub(crate) keys: usize,
    /// A row sees itself and those before it only; there are as many queries as keys then.
    pub(crate) causal: bool,
    /// `[count, 1, 1, keys]`: true on what nobody sees, on the plain device.
    pub(crate) hidden: Option<&'a Tensor<4, Bool>>,
}

/// Queries `[queries, heads, head_dim]`, keys and values `[rows, key_heads, head_dim]`: as many rows as the windows
/// have together, each key head serving `heads / key_heads` heads.
pub(crate) type Projected = [Tensor<3>; 3];

/// Returns `[queries, heads · head_dim]`.
pub(crate) fn attend([q, k, v]: Projected, windows: &[Windows]) -> Tensor<2> {
    let [_, heads, size] = q.dims();
    let (mut query, mut key) = (0, 0);
    let parts = windows.iter().map(|part| {
        let (queries, keys) = (part.count * part.queries, part.count * part.keys);
        let q = windowed(q.clone().narrow(0, query, queries), part.count);
        let [k, v] = [&k, &v].map(|x| repeat(windowed(x.clone().narrow(0, key, keys), part.count), heads));
        (query, key) = (query + queries, key + keys);
        let hidden =
            part.hidden.map(|hidden| beside(hidden, &q).expand([part.count, heads, part.queries, part.keys]));
        let options = AttentionModuleOptions { scale: None, softcap: None, is_causal: part.causal };
        attention(q, k, v, hidden, None, options).swap_dims(1, 2).reshape([queries, heads * size])
    });
    let mut parts: Vec<Tensor<2>> = parts.collect();
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
}

/// `[count · rows, heads, head_dim]` to `[count, heads, rows, head_dim]`.
fn windowed(x: Tensor<3>, count: usize) -> Tensor<4> {
    let [rows, heads, size] = x.dims();
    x.reshape([count, rows / count, heads, size]).swap_dims(1, 2)
}

/// Gives each query head its key head.
fn repeat(x: Tensor<4>, heads: usize) -> Tensor<4> {
    let [count, key_heads, rows, size] = x.dims();
    if key_heads == heads {
        return x;
    }
    let times = heads / key_heads;
    x.unsqueeze_dim::<5>(2).expand([count, key_heads, times, rows, size]).reshape([count, heads, rows, size])
}

/// Scores that are computed at once, unless a single row has more.
pub(crate) const SCORES: usize = 1 << 22;

/// The gradients of queries, keys and values, given that of `y`, which [`attend`] made of them; all on the plain device.
///
/// Scores are computed again, some heads and some rows at a time, so that memory does not grow with their number.
pub(crate) fn attend_backward(
    x: Projected,
    y: Tensor<2>,
    gradient: Tensor<2>,
    windows: &[Windows],
) -> Projected {
    backward_by(SCORES, x, y, gradient, windows)
}

/// The same, for so many scores at once.
fn backward_by(
    scores: usize,
    [q, k, v]: Projected,
    y: Tensor<2>,
    gradient: Tensor<2>,
    windows: &[Windows],
) -> Projected {
    let dtype = FloatDType::from(q.dtype());
    let ([_, _, size], [_, key_heads, _]) = (q.dims(), k.dims());
    let [y, gradient] = [y, gradient].map(|x| x.reshape(q.dims()));
    let (mut query, mut key) = (0, 0);
    let mut gradients: [Vec<Tensor<3>>; 3] = Default::default();
    for part in windows {
        let grouped = |x: &Tensor<3>, first: usize, rows: usize| {
            let x = windowed(x.clone().narrow(0, first, part.count * rows).cast(FloatDType::F32), part.count);
            x.reshape([(part.count * key_heads) as i32, -1, rows as i32, size as i32])
        };
        let groups = Groups {
            own: [&q, &y, &gradient].map(|x| grouped(x, query, part.queries)),
            seen: [&k, &v].map(|x| grouped(x, key, part.keys).squeeze_dim::<3>(1)),
            hidden: part.hidden.map(|hidden| {
                let hidden = hidden.clone().expand([part.count, key_heads, 1, part.keys]);
                hidden.reshape([part.count * key_heads, 1, 1, part.keys])
            }),
            causal: part.causal,
        };
        query += part.count * part.queries;
        key += part.count * part.keys;
        let (dq, [dk, dv]) = groups.backward(scores);
        for (all, x) in gradients.iter_mut().zip([dq, dk.unsqueeze_dim(1), dv.unsqueeze_dim(1)]) {
            let [_, times, rows, _] = x.dims();
            let heads = key_heads * times;
            let x = x.reshape([part.count, heads, rows, size]).swap_dims(1, 2);
            all.push(x.reshape([part.count * rows, heads, size]).cast(dtype));
        }
    }
    gradients.map(|parts| Tensor::cat(parts, 0))
}

/// Key heads of windows, each with the `times` heads that it serves.
struct Groups {
    /// Queries, outputs and their gradients: `[groups, times, queries, head_dim]`.
    own: [Tensor<4>; 3],
    /// Keys and values: `[groups, keys, head_dim]`.
    seen: [Tensor<3>; 2],
    /// `[groups, 1, 1, keys]`.
    hidden: Option<Tensor<4, Bool>>,
    causal: bool,
}

impl Groups {
    /// The gradients of queries, and of keys and values.
    fn backward(&self, scores: usize) -> (Tensor<4>, [Tensor<3>; 2]) {
        let ([groups, times, queries, _], [_, keys, _]) = (self.own[0].dims(), self.seen[0].dims());
        let rows = (scores / (times * keys)).clamp(1, queries);
        let together = (scores / (times * rows * keys)).clamp(1, groups);
        let (mut dq, mut dk, mut dv) = (vec![], vec![], vec![]);
        for first in (0..groups).step_by(together) {
            let count = together.min(groups - first);
            let some = Groups {
                own: self.own.clone().map(|x| x.narrow(0, first, count)),
                seen: self.seen.clone().map(|x| x.narrow(0, first, count)),
                hidden: self.hidden.clone().map(|hidden| hidden.narrow(0, first, count)),
                causal: self.causal,
            };
            let (q, [k, v]) = some.backward_by_rows(rows);
            dq.push(q);
            dk.push(k);
            dv.push(v);
        }
        (Tensor::cat(dq, 0), [dk, dv].map(|parts| Tensor::cat(parts, 0)))
    }

    /// The same, for so many queries at a time.
    fn backward_by_rows(self, rows: usize) -> (Tensor<4>, [Tensor<3>; 2]) {
        let ([groups, times, queries, size], [_, keys, _]) = (self.own[0].dims(), self.seen[0].dims());
        let scale = (size as f64).sqrt().recip();
        let (mut dq, mut dk, mut dv) = (vec![], self.seen[0].zeros_like(), self.seen[1].zeros_like());
        for row in (0..queries).step_by(rows) {
            let rows = rows.min(queries - row);
            let [q, y, g] =
                self.own.clone().map(|x| x.narrow(2, row, rows).reshape([groups, times * rows, size]));
            // Nothing after the last of these rows is seen by one of them.
            let seen = if self.causal { row + rows } else { keys };
            let [k, v] = self.seen.clone().map(|x| x.narrow(1, 0, seen));

            let q = q.mul_scalar(scale);
            let shape = [groups, times, rows, seen];
            let scores = q.clone().matmul(k.clone().transpose()).reshape(shape);
            let scores = match self.unseen(row, shape) {
                Some(unseen) => scores.mask_fill(unseen, f32::NEG_INFINITY),
                None => scores,
            };
            let weights = softmax(scores, 3).reshape([groups, times * rows, seen]);
            let mean = (g.clone() * y).sum_dim(2);
            let ds = (g.clone().matmul(v.transpose()) - mean) * weights.clone();
            dq.push(ds.clone().matmul(k).mul_scalar(scale).reshape([groups, times, rows, size]));
            dk = add_rows(dk, ds.transpose().matmul(q));
            dv = add_rows(dv, weights.transpose().matmul(g));
        }
        (Tensor::cat(dq, 2), [dk, dv])
    }

    /// What rows from `row` on don't see, true there: `[groups, times, rows, seen]`.
    fn unseen(&self, row: usize, shape: [usize; 4]) -> Option<Tensor<4, Bool>> {
        if self.causal {
            let [_, _, rows, seen] = shape;
            let places = |from: usize, count: usize| {
                Tensor::<1, Int>::arange(from as i64..(from + count) as i64, &self.seen[0].device())
            };
            let key = places(0, seen).unsqueeze_dim::<2>(0).expand([rows, seen]);
            let own = places(row, rows).unsqueeze_dim::<2>(1).expand([rows, seen]);
            return Some(key.greater(own).unsqueeze::<4>().expand(shape));
        }
        self.hidden.clone().map(|hidden| hidden.expand(shape))
    }
}

/// Adds `more` to the first rows of `x`, `[groups, rows, size]`.
fn add_rows(x: Tensor<3>, more: Tensor<3>) -> Tensor<3> {
    let [groups, rows, size] = more.dims();
    if x.dims()[1] == rows {
        return x + more;
    }
    let sum = x.clone().narrow(1, 0, rows) + more;
    x.slice_assign([0..groups, 0..rows, 0..size], sum)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    /// The gradients of [`attend`] by burn.
    fn by_graph(x: &Projected, gradient: &Tensor<2>, windows: &[Windows]) -> Projected {
        let leaves = x.clone().map(|x| x.autodiff().require_grad());
        let y = attend(leaves.clone(), windows);
        let mut gradients = (y * gradient.clone().autodiff()).sum().backward();
        leaves.map(|leaf| leaf.grad_remove(&mut gradients).unwrap())
    }

    fn check(windows: &[Windows], [heads, key_heads, size]: [usize; 3]) {
        let device = Device::flex();
        device.seed(7);
        let random =
            |rows, heads| Tensor::<3>::random([rows, heads, size], Distribution::Normal(0.0, 1.0), &device);
        let rows = |of: fn(&Windows) -> usize| windows.iter().map(|w| w.count * of(w)).sum::<usize>();
        let (queries, keys) = (rows(|w| w.queries), rows(|w| w.keys));
        let x = [random(queries, heads), random(keys, key_heads), random(keys, key_heads)];
        let gradient = random(queries, heads).reshape([queries, heads * size]);
        let y = attend(x.clone(), windows);
        let expected = by_graph(&x, &gradient, windows);
        // All at once, some groups, some rows of one, a single row.
        for scores in [SCORES, 3000, 400, 1] {
            let found = backward_by(scores, x.clone(), y.clone(), gradient.clone(), windows);
            for (found, expected) in found.into_iter().zip(&expected) {
                let largest = expected.clone().abs().max().into_scalar::<f32>();
                let off = (found - expected.clone()).abs().max().into_scalar::<f32>();
                assert!(
                    largest > 0.1 && off < 2e-6 * largest,
                    "off by {off}, largest {largest}, {scores} scores"
                );
            }
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_graph() {
        let windows =
            |count, length| Windows { count, queries: length, keys: length, causal: false, hidden: None };
        check(&[windows(3, 24), windows(1, 8), windows(2, 40)], [2, 2, 16]);
        check(&[Windows { causal: true, ..windows(3, 33) }], [4, 2, 8]);
        let hidden =
            Tensor::<2, Bool>::from_data([[false; 5], [false, false, false, true, true]], &Device::flex());
        let hidden = hidden.reshape([2, 1, 1, 5]);
        check(&[Windows { queries: 1, hidden: Some(&hidden), ..windows(2, 5) }], [6, 2, 8]);
    }
}
