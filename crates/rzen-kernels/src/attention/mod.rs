//! Scaled dot-product attention inside windows of rows, without ever holding a row of scores for each query.
//!
//! Keys go by in blocks and the sums are rescaled when a larger score turns up (Milakov and Gimelshein 2018,
//! arXiv 1805.02867; Dao 2022, arXiv 2205.14135). The lanes of a register are queries.

#[cfg(target_arch = "x86_64")]
mod narrow;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod split;
mod wide;

use std::ops::Range;

use rayon::prelude::*;

use crate::scratch::Scratch;
use softmax::{Running, divide, hide_later};

/// Queries that are computed side by side.
const LANES: usize = 32;
/// Groups of queries that share a copied block of keys and values.
const GROUPS: usize = 40;

/// Keys that make it worth to split numbers in parts.
#[cfg(target_arch = "x86_64")]
const SPLIT_KEYS: usize = 600;

type Way = fn(&Attention, &Task<'_>, Heads<'_>, Heads<'_>, Heads<'_>, Shared);

/// Rows that hold the heads of queries, keys or values.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The first head of the first row and all that follows.
    pub data: &'a [f32],
    /// Numbers from a row to the next.
    pub stride: usize,
}

/// Rows that attend and rows that they attend to: those of a picture, of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Rows of the queries and outputs.
    pub queries: Range<usize>,
    /// Rows of keys and values that come first: a beginning that several windows share.
    pub prefix: Range<usize>,
    /// Rows of keys and values that follow.
    pub keys: Range<usize>,
}

impl Window {
    /// Rows that attend to one another.
    pub fn of(rows: Range<usize>) -> Self {
        Window { queries: rows.clone(), prefix: 0..0, keys: rows }
    }

    fn key_count(&self) -> usize {
        self.prefix.len() + self.keys.len()
    }

    /// The row of a key.
    fn key_row(&self, key: usize) -> usize {
        match key.checked_sub(self.prefix.len()) {
            None => self.prefix.start + key,
            Some(key) => self.keys.start + key,
        }
    }

    /// The key that belongs to a query: the last query has the last key.
    fn own_key(&self, query: usize) -> usize {
        self.key_count() - (self.queries.end - query)
    }
}

/// Attention of several heads.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of the keys and values: each serves `heads / key_heads` heads of queries.
    pub key_heads: usize,
    /// Numbers of a head.
    pub width: usize,
    /// What scores are multiplied by, commonly `1 / sqrt(width)`; positive.
    pub scale: f32,
    /// A query attends to its own key and those before it only: the last query's is the last key.
    pub causal: bool,
    /// Queries, keys, values and weights may be rounded to bf16 where the processor multiplies such numbers;
    /// sums are f32.
    pub narrow: bool,
}

impl Attention {
    /// Computes `y = softmax(scale · q kᵀ) v` for each head in each window.
    ///
    /// `q`, `k`, `v`: rows with the heads side by side; `y`: `[rows, heads · width]`. Rows that are queries
    /// of no window are left as they are. What comes out for a row depends on its window alone.
    ///
    /// # Panics
    /// If a slice is too short, queries overlap or are not in order, or a causal window has fewer keys than
    /// queries.
    pub fn forward(&self, q: Heads<'_>, k: Heads<'_>, v: Heads<'_>, windows: &[Window], y: &mut [f32]) {
        assert!(
            self.heads.is_multiple_of(self.key_heads),
            "{} heads over {} keys",
            self.heads,
            self.key_heads
        );
        assert!(windows.iter().all(|window| window.queries.start <= window.queries.end), "queries forwards");
        assert!(windows.is_sorted_by(|a, b| a.queries.end <= b.queries.start), "queries in order");
        let rows = windows.last().map_or(0, |window| window.queries.end);
        let keys = windows.iter().map(|window| window.keys.end.max(window.prefix.end)).max().unwrap_or(0);
        for (part, heads, rows) in
            [(q, self.heads, rows), (k, self.key_heads, keys), (v, self.key_heads, keys)]
        {
            let needed = rows.saturating_sub(1) * part.stride + heads * self.width;
            assert!(rows == 0 || part.data.len() >= needed, "size of queries, keys or values");
        }
        assert!(y.len() >= rows * self.heads * self.width, "size of the outputs");
        for window in windows {
            let enough = if self.causal { window.queries.len() } else { 1.min(window.queries.len()) };
            assert!(window.key_count() >= enough, "keys of a window");
        }
        let tasks: Vec<Task> = windows.iter().flat_map(|window| self.tasks(window)).collect();
        let y = Shared(y.as_mut_ptr());
        tasks.into_par_iter().for_each(|task| self.way(task.window)(self, &task, q, k, v, y));
    }

    /// How this processor computes a window best.
    #[cfg(target_arch = "x86_64")]
    fn way(&self, window: &Window) -> Way {
        let (cpu, pairs) = (crate::cpu::features(), self.width.is_multiple_of(2));
        match self.narrow {
            true if cpu.avx512_bf16 && pairs => Self::run::<narrow::Narrow>,
            false if cpu.amx && pairs && window.key_count() >= SPLIT_KEYS => Self::run::<split::Split>,
            _ => Self::run::<wide::Wide>,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn way(&self, _window: &Window) -> Way {
        Self::run::<wide::Wide>
    }

    /// Each head of the window, in chunks of queries; those that see most come first.
    fn tasks<'a>(&self, window: &'a Window) -> impl Iterator<Item = Task<'a>> {
        let count = window.queries.len();
        let size = count.div_ceil(count.div_ceil(GROUPS * LANES).max(1)).next_multiple_of(LANES).max(1);
        let heads = self.heads;
        (0..count.div_ceil(size)).rev().flat_map(move |chunk| {
            let start = window.queries.start + chunk * size;
            let queries = start..window.queries.end.min(start + size);
            (0..heads).map(move |head| Task { window, queries: queries.clone(), head })
        })
    }

    fn run<A: Arithmetic>(&self, task: &Task<'_>, q: Heads<'_>, k: Heads<'_>, v: Heads<'_>, y: Shared) {
        let (width, window) = (self.width, task.window);
        let key_head = task.head / (self.heads / self.key_heads);
        let mut block = A::new(width);
        let mut groups: Vec<Group> = (task.queries.clone().step_by(LANES))
            .map(|start| {
                let queries = start..task.queries.end.min(start + LANES);
                let data = &q.data[start * q.stride + task.head * width..];
                let q = block.queries(Rows { data, stride: q.stride, count: queries.len() });
                Group::new(queries, q, width)
            })
            .collect();
        let seen = match self.causal {
            true => window.own_key(task.queries.end - 1) + 1,
            false => window.key_count(),
        };
        for start in (0..seen).step_by(A::KEYS) {
            let end = seen.min(start + A::KEYS);
            block.take((start..end).map(|key| {
                let row = window.key_row(key);
                [k, v].map(|x| &x.data[row * x.stride + key_head * width..][..width])
            }));
            for group in &mut groups {
                let last = window.own_key(group.queries.end - 1);
                let count = if self.causal { end.min(last + 1).saturating_sub(start) } else { end - start };
                if count == 0 {
                    continue;
                }
                let scores = block.scores(&group.q, count);
                if self.causal {
                    hide_later(scores, start, window.own_key(group.queries.start));
                }
                block.add_values(count, self.scale, &mut group.running, &mut group.y);
            }
        }
        for group in &mut groups {
            divide(&mut group.y, &group.running.total);
            let stride = self.heads * width;
            // SAFETY: the rows and the head are inside the outputs, and no other task has them.
            unsafe {
                let y = y.get().add(group.queries.start * stride + task.head * width);
                transpose_out(&group.y, width, group.queries.len(), y, stride);
            }
        }
    }
}

/// How products are computed, with room for a block of keys and values.
trait Arithmetic {
    /// Keys of a block.
    const KEYS: usize = 256;

    fn new(width: usize) -> Self;

    /// Queries as a panel.
    fn queries(&self, rows: Rows<'_>) -> Scratch;

    /// Copies a block: keys and values.
    fn take<'a>(&mut self, rows: impl Iterator<Item = [&'a [f32]; 2]>);

    /// The scores of the first `count` keys, [`LANES`] queries each.
    fn scores(&mut self, q: &Scratch, count: usize) -> &mut [f32];

    /// Makes weights of the scores and adds so much of each value to the sums `y`.
    fn add_values(&mut self, count: usize, scale: f32, running: &mut Running, y: &mut [f32]);
}

/// Rows of a head.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
    count: usize,
}

impl<'a> Rows<'a> {
    fn get(&self, row: usize, width: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..width]
    }
}

/// A head for some of the queries of a window.
struct Task<'a> {
    window: &'a Window,
    queries: Range<usize>,
    head: usize,
}

/// Outputs that tasks share; each writes rows and heads of its own.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: as above.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn get(self) -> *mut f32 {
        self.0
    }
}

/// Queries side by side: for each number of a head, [`LANES`] of them.
struct Group {
    queries: Range<usize>,
    q: Scratch,
    /// Sums of values so far.
    y: Scratch,
    running: Running,
}

impl Group {
    fn new(queries: Range<usize>, q: Scratch, width: usize) -> Self {
        // Some arithmetics take sixteen at a time.
        let mut y = Scratch::new(width.next_multiple_of(16) * LANES);
        y.fill(0.0);
        Group { queries, q, y, running: Running::new() }
    }
}

/// `rows[lane][i] = panel[i][lane]`.
///
/// # Safety
/// There must be `count` rows of `width` numbers, `stride` apart.
unsafe fn transpose_out(panel: &[f32], width: usize, count: usize, rows: *mut f32, stride: usize) {
    assert!(panel.len() >= width * LANES && count <= LANES, "size of the panel");
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::features().avx512 {
        use crate::matmul::avx512::{Output, Then, put};
        assert_eq!(panel.as_ptr().addr() % 64, 0, "a panel on lines");
        let output = Output { y: rows, ldy: stride, add: false, bias: None, then: Then::Nothing };
        // SAFETY: the caller's rows, and a panel whose size was checked.
        return unsafe { put(panel.as_ptr(), width, count, &output) };
    }
    for lane in 0..count {
        for i in 0..width {
            // SAFETY: the caller's rows.
            unsafe { *rows.add(lane * stride + i) = panel[i * LANES + lane] };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn wave(count: usize, pace: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * pace).sin() * 2.0).collect()
    }

    /// One row of one head, in f64.
    fn exact(a: &Attention, [q, k, v]: [Heads; 3], window: &Window, row: usize, head: usize) -> Vec<f64> {
        let key_head = head / (a.heads / a.key_heads);
        let at = |x: &Heads, row: usize, head: usize, i: usize| {
            f64::from(x.data[row * x.stride + head * a.width + i])
        };
        let keys: Vec<usize> = window.prefix.clone().chain(window.keys.clone()).collect();
        let later = if a.causal { window.queries.end - 1 - row } else { 0 };
        let seen = &keys[..keys.len() - later];
        let score = |key: usize| -> f64 {
            (0..a.width).map(|i| at(&q, row, head, i) * at(&k, key, key_head, i)).sum()
        };
        let weights: Vec<f64> = seen.iter().map(|key| (score(*key) * f64::from(a.scale)).exp()).collect();
        let total: f64 = weights.iter().sum();
        let sum =
            |i| seen.iter().zip(&weights).map(|(key, w)| w * at(&v, *key, key_head, i)).sum::<f64>() / total;
        (0..a.width).map(sum).collect()
    }

    /// In f32, and with pairs of bf16, of which the inputs are some already: then weights alone are rounded.
    fn check(a: Attention, windows: &[Window]) {
        // Scores reach 16 and are sums of 16 or 20 products: in f32 their weights are sure to some millionths, in whatever order the
        // sums are taken.
        check_to(a, windows, |x| x, 1e-5);
        check_to(Attention { narrow: true, ..a }, windows, |x| half::bf16::from_f32(x).to_f32(), 1e-2);
    }

    fn check_to(a: Attention, windows: &[Window], round: fn(f32) -> f32, tolerance: f64) {
        let rows = windows.last().unwrap().queries.end;
        let stride = (a.heads + 2 * a.key_heads) * a.width + 3;
        let all: Vec<f32> = wave(rows * stride, 0.731).into_iter().map(round).collect();
        let heads = |first: usize| Heads { data: &all[first * a.width..], stride };
        let qkv = [heads(0), heads(a.heads), heads(a.heads + a.key_heads)];
        let mut y = vec![7.0; rows * a.heads * a.width];
        a.forward(qkv[0], qkv[1], qkv[2], windows, &mut y);
        for row in 0..rows {
            for head in 0..a.heads {
                let found = &y[(row * a.heads + head) * a.width..][..a.width];
                let Some(window) = windows.iter().find(|window| window.queries.contains(&row)) else {
                    assert!(found.iter().all(|y| *y == 7.0), "row {row} is in no window");
                    continue;
                };
                for (found, exact) in found.iter().zip(exact(&a, qkv, window, row, head)) {
                    assert!(
                        (f64::from(*found) - exact).abs() < tolerance,
                        "{a:?} row {row} head {head}: {found} {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_definition() {
        let vision =
            Attention { heads: 2, key_heads: 2, width: 20, scale: 0.22, causal: false, narrow: false };
        check(vision, &[0..1, 1..34, 40..340, 340..940].map(Window::of));
        let text = Attention { heads: 4, key_heads: 2, width: 16, scale: 0.25, causal: true, narrow: false };
        check(text, &[0..1, 1..33, 33..64, 66..180, 180..780].map(Window::of));
    }

    #[test]
    fn windows_may_share_a_beginning_and_have_few_queries() {
        let text = Attention { heads: 4, key_heads: 2, width: 16, scale: 0.25, causal: true, narrow: false };
        let beside = |rows: Range<usize>, prefix: Range<usize>| Window { prefix, ..Window::of(rows) };
        check(
            text,
            &[Window::of(0..300), beside(300..301, 0..300), beside(301..420, 0..300), beside(420..430, 3..4)],
        );
        let last = |queries: Range<usize>, prefix, keys| Window { queries, prefix, keys };
        check(text, &[last(0..1, 5..5, 0..1), last(1..2, 0..17, 20..50), last(2..60, 0..40, 10..50)]);
        // The same as one window.
        let (stride, rows) = (8 * 16, 70);
        let all = wave(rows * stride, 0.731);
        let heads = |first: usize| Heads { data: &all[first * 16..], stride };
        let run = |windows: &[Window]| {
            let mut y = vec![0.0; rows * 64];
            text.forward(heads(0), heads(4), heads(6), windows, &mut y);
            y
        };
        assert!(run(&[Window::of(0..70)]) == run(&[Window::of(0..33), beside(33..70, 0..33)]));
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let a = Attention { heads: 1, key_heads: 1, width: 4, scale: 1.0, causal: false, narrow: false };
        let q: Vec<f32> = (0..600 * 4).map(|i| if i % 4 == 0 { (i / 4) as f32 } else { 0.0 }).collect();
        let heads = Heads { data: &q, stride: 4 };
        let mut y = vec![0.0; q.len()];
        a.forward(heads, heads, heads, &[Window::of(0..600)], &mut y);
        assert_eq!(y[4 * 599], 599.0);
        assert!(y.iter().all(|y| y.is_finite()));
    }

    #[test]
    fn what_is_no_number_comes_out() {
        // All bits of the second are set.
        for nan in [f32::NAN, f32::from_bits(0x7fff_ffff)] {
            for (keys, narrow) in [(20, false), (20, true), (640, false), (640, true)] {
                let a = Attention { heads: 1, key_heads: 1, width: 16, scale: 0.3, causal: false, narrow };
                for place in 0..3 {
                    let mut parts = [0.3, 0.5, 0.7].map(|pace| wave(keys * 16, pace));
                    parts[place][5 * 16] = nan;
                    let [q, k, v] = [0, 1, 2].map(|i| Heads { data: &parts[i], stride: 16 });
                    let mut y = vec![0.0; keys * 16];
                    a.forward(q, k, v, &[Window::of(0..keys)], &mut y);
                    assert!(y[5 * 16].is_nan(), "{keys} keys, narrow {narrow}, place {place}");
                }
            }
        }
    }

    #[test]
    fn a_window_is_the_same_in_any_company() {
        let a = |narrow| Attention { heads: 2, key_heads: 1, width: 12, scale: 0.3, causal: true, narrow };
        let stride = 4 * 12;
        let run = |narrow: bool, rows: usize, before: usize, after: usize| {
            let one = wave(rows * stride, 0.37);
            let mut all = wave(before * stride, 0.5);
            all.extend(&one);
            all.extend(wave(after * stride, 0.9));
            let heads = |first: usize| Heads { data: &all[first * 12..], stride };
            let mut y = vec![0.0; (before + rows + after) * 24];
            let end = before + rows;
            let windows = [0..before, before..end, end..end + after].map(Window::of);
            a(narrow).forward(heads(0), heads(2), heads(3), &windows, &mut y);
            y[before * 24..][..rows * 24].to_vec()
        };
        for (narrow, rows) in [(false, 57), (true, 57), (false, 650), (true, 650)] {
            let alone = run(narrow, rows, 0, 0);
            assert!(run(narrow, rows, 31, 300) == alone && run(narrow, rows, 257, 1) == alone);
        }
    }
}
