//! Products of bf16 pairs with f32 sums.

use std::arch::x86_64::*;

use super::softmax::{Running, rescale, soften_to_words};
use super::{Arithmetic, LANES, Rows};
use crate::cpu;
use crate::matmul::amx;
use crate::matmul::avx512::{self, Tile};
use crate::scratch::Scratch;

/// Keys of a block.
const KEYS: usize = <Narrow as Arithmetic>::KEYS;
/// Words of the inner dimension, and rows, that matrix registers take.
const STEP: usize = 16;

/// A block of keys and values in words of two bf16.
pub(super) struct Narrow {
    width: usize,
    /// Words of a key, whole steps.
    words: usize,
    /// `[KEYS, words]`.
    keys: Scratch,
    /// `[width, KEYS / 2]`: turned round, two keys in a word.
    values: Scratch,
    /// `[KEYS, LANES]`.
    scores: Scratch,
    /// `[KEYS / 2, LANES]`.
    weights: Scratch,
    _registers: Option<amx::Registers>,
}

impl Arithmetic for Narrow {
    fn new(width: usize) -> Self {
        let words = (width / 2).next_multiple_of(STEP);
        Narrow {
            width,
            words,
            keys: Scratch::new(KEYS * words),
            values: Scratch::new(width.next_multiple_of(STEP) * KEYS / 2),
            scores: Scratch::new(KEYS * LANES),
            weights: Scratch::new(KEYS / 2 * LANES),
            // SAFETY: the processor has them, and the system has permitted it.
            _registers: cpu::features().amx.then(|| unsafe { amx::Registers::new() }),
        }
    }

    fn queries(&self, rows: Rows<'_>) -> Scratch {
        let mut pairs = Scratch::new(LANES * self.words);
        for (row, pairs) in pairs.as_mut_words().chunks_exact_mut(self.words).take(rows.count).enumerate() {
            put_pairs(rows.get(row, self.width), pairs);
        }
        let mut panel = Scratch::new(self.words * LANES);
        // SAFETY: both have as many words as are read and written.
        unsafe {
            let (from, to) = (pairs.as_words().as_ptr(), panel.as_mut_words().as_mut_ptr());
            avx512::pack_panel(from, self.words, rows.count, self.words, to);
        }
        panel
    }

    fn take<'a>(&mut self, rows: impl Iterator<Item = [&'a [f32]; 2]>) {
        let rows: Vec<[&[f32]; 2]> = rows.collect();
        // Up to whole steps, keys and values that are not there are zero.
        let nothing = vec![0.0; self.width];
        let row = |i: usize| rows.get(i).map_or([&nothing[..]; 2], |row| *row);
        for i in 0..rows.len().next_multiple_of(2 * STEP) {
            put_pairs(row(i)[0], &mut self.keys.as_mut_words()[i * self.words..][..self.words]);
        }
        for first in (0..rows.len()).step_by(2 * STEP) {
            let values: [&[f32]; 2 * STEP] = std::array::from_fn(|i| row(first + i)[1]);
            let words = &mut self.values.as_mut_words()[first / 2..];
            // SAFETY: whoever asks multiplies pairs, so the processor has the instructions.
            unsafe { turn_values(&values, self.width, words) };
        }
    }

    fn scores(&mut self, q: &Scratch, count: usize) -> &mut [f32] {
        product(
            (self.keys.as_words(), self.words),
            count.next_multiple_of(STEP),
            (q.as_words(), self.words),
            false,
            &mut self.scores,
        );
        &mut self.scores[..count * LANES]
    }

    fn add_values(&mut self, count: usize, scale: f32, running: &mut Running, y: &mut [f32]) {
        let whole = count.next_multiple_of(2 * STEP);
        let weights = &mut self.weights.as_mut_words()[..whole / 2 * LANES];
        // SAFETY: as above.
        let factor =
            unsafe { soften_to_words::<false>(&self.scores[..count * LANES], scale, running, weights) };
        rescale(y, &factor);
        product(
            (self.values.as_words(), KEYS / 2),
            self.width.next_multiple_of(STEP),
            (self.weights.as_words(), whole / 2),
            true,
            y,
        );
    }
}

/// Rounds a row to pairs; what is left of the words is zero.
fn put_pairs(row: &[f32], words: &mut [u32]) {
    let (pairs, rest) = words.split_at_mut(row.len() / 2);
    // SAFETY: whoever asks multiplies pairs, so the processor has the instructions.
    unsafe { avx512::round_to_pairs(row, pairs) };
    rest.fill(0);
}

/// `words[i][j]`, rows [`KEYS`] / 2 apart: numbers `i` of values `2 j` and `2 j + 1`.
#[target_feature(enable = "avx512f,avx512bf16")]
fn turn_values(values: &[&[f32]; 2 * STEP], width: usize, words: &mut [u32]) {
    for first in (0..width).step_by(STEP) {
        let mask = avx512::first_lanes(width - first);
        // SAFETY: masks keep to the row.
        let load = |row: &[f32]| unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().add(first)) };
        let mut block: [__m512i; STEP] =
            std::array::from_fn(|j| avx512::pair(load(values[2 * j]), load(values[2 * j + 1])));
        avx512::transpose(&mut block);
        for (i, block) in block.iter().enumerate() {
            let words = &mut words[(first + i) * KEYS / 2..][..STEP];
            // SAFETY: sixteen words.
            unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), *block) };
        }
    }
}

/// `sums[r][lane] (+)= Σ w[r][i] x[i][lane]`, a whole number of steps of rows and words.
fn product((w, ldw): (&[u32], usize), rows: usize, (x, words): (&[u32], usize), add: bool, sums: &mut [f32]) {
    assert!(w.len() >= (rows - 1) * ldw + words, "size of the rows");
    assert!(x.len() >= words * LANES && sums.len() >= rows * LANES, "sizes of the panels");
    assert!(
        [x.as_ptr().addr(), sums.as_ptr().addr()].iter().all(|place| place.is_multiple_of(64)),
        "panels on lines"
    );
    let (height, run): (usize, unsafe fn(usize, &Tile)) = match cpu::features().amx {
        true => (amx::TILE_ROWS, amx::rows),
        false => (rows.div_ceil(rows.div_ceil(avx512::TILE_ROWS)), avx512::rows_bf16),
    };
    for row in (0..rows).step_by(height) {
        // SAFETY: the sizes were checked, and the processor has the instructions.
        unsafe {
            let tile = Tile {
                w: w.as_ptr().add(row * ldw),
                ldw,
                step: 1,
                x: x.as_ptr(),
                words,
                parts: 1,
                part: 0,
                sums: sums.as_mut_ptr().add(row * LANES),
                add,
                lanes: LANES,
            };
            run(height.min(rows - row), &tile);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::tests::wave;
    use super::*;

    #[test]
    fn values_are_turned_in_pairs() {
        if !cpu::features().avx512_bf16 {
            return println!("skipped: this processor has no AVX512-BF16");
        }
        let width = 20;
        let rows = wave(40 * width, 0.3);
        let mut block = Narrow::new(width);
        block.take(rows.chunks(width).map(|row| [row, row]));
        for key in 0..40 {
            for i in 0..width {
                let word = block.values.as_words()[i * KEYS / 2 + key / 2];
                let found = bf16::from_bits((word >> (16 * (key % 2))) as u16);
                assert_eq!(found, bf16::from_f32(rows[key * width + i]));
            }
        }
        assert!((0..width).all(|i| block.values.as_words()[i * KEYS / 2 + 20..][..12] == [0; 12]));
    }
}
