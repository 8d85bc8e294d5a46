//! Products of f32 as those of three bf16 each, in matrix registers, with f32 sums.
//!
//! Of the nine products of parts the six largest are taken; what is left out is about 2^-24 of a product, as much as
//! f32 rounds off.

use std::arch::x86_64::*;

use super::softmax::{Running, rescale, soften_to_words};
use super::{Arithmetic, LANES, Rows};
use crate::matmul::amx::{self, SplitTile};
use crate::matmul::{PARTS, avx512};
use crate::scratch::Scratch;

/// Rows of a tile; keys and values are whole tiles.
const TILE: usize = amx::TILE_ROWS;
/// Rows that are asked for before their turn.
const AHEAD: usize = 8;

/// A block of keys and values in three parts, words of two bf16 each.
pub(super) struct Split {
    width: usize,
    /// Words of a part of a key.
    part: usize,
    /// Words of a part of all values of a block.
    pairs: usize,
    /// Blocks of `[middle, high, high, low]` of [`TILE`] keys.
    keys: Scratch,
    /// Blocks of `[middle, high, low]` for [`TILE`] numbers of the values each, the last may be half as many: two keys
    /// in a word.
    values: Scratch,
    /// `[KEYS, LANES]`.
    scores: Scratch,
    /// `[low, high, middle, high]` of `[pairs, LANES]`.
    weights: Scratch,
    _registers: amx::Registers,
}

impl Arithmetic for Split {
    /// Parts of a block stay in the first cache or near it.
    const KEYS: usize = 128;

    fn new(width: usize) -> Self {
        let part = (width / 2).next_multiple_of(8);
        Split {
            width,
            part,
            pairs: 0,
            keys: Scratch::new(Self::KEYS * 4 * part),
            values: Scratch::new(width.next_multiple_of(16) * PARTS * Self::KEYS / 2),
            scores: Scratch::new(Self::KEYS * LANES),
            weights: Scratch::new(4 * Self::KEYS / 2 * LANES),
            // SAFETY: whoever asks for this arithmetic knows that they are there and permitted.
            _registers: unsafe { amx::Registers::new() },
        }
    }

    fn queries(&self, rows: Rows<'_>) -> Scratch {
        let part = self.part;
        let mut split = Scratch::new(LANES * PARTS * part);
        for (row, words) in split.as_mut_words().chunks_exact_mut(PARTS * part).take(rows.count).enumerate() {
            put_parts(rows.get(row, self.width), words);
        }
        let mut panel = Scratch::new(4 * part * LANES);
        for (from, panel) in [2, 1, 0, 1].into_iter().zip(panel.as_mut_words().chunks_exact_mut(part * LANES))
        {
            // SAFETY: both have as many words as are read and written.
            unsafe {
                let from = split.as_words()[from * part..].as_ptr();
                avx512::pack_panel(from, PARTS * part, rows.count, part, panel.as_mut_ptr());
            }
        }
        panel
    }

    fn take<'a>(&mut self, rows: impl Iterator<Item = [&'a [f32]; 2]>) {
        let rows: Vec<[&[f32]; 2]> = rows.collect();
        let count = rows.len().next_multiple_of(TILE);
        self.pairs = count / 2;
        // Keys and values that are not there are zero.
        let nothing = vec![0.0; self.width];
        let row = |i: usize| rows.get(i).map_or([&nothing[..]; 2], |row| *row);
        let mut parts = Scratch::new(PARTS * self.part);
        for i in 0..count {
            // They are far apart, and nothing but this reads them.
            rows.get(i + AHEAD).into_iter().flatten().for_each(|row| prefetch(row));
            put_parts(row(i)[0], parts.as_mut_words());
            self.put_key(i, parts.as_words());
        }
        for first in (0..count).step_by(TILE) {
            let values: [&[f32]; TILE] = std::array::from_fn(|i| row(first + i)[1]);
            // SAFETY: where there are matrix registers there are these instructions.
            unsafe { self.turn_values(first / 2, &values) };
        }
    }

    fn scores(&mut self, q: &Scratch, count: usize) -> &mut [f32] {
        let rows = (self.keys.as_words(), count.next_multiple_of(TILE), [4 * self.part, 2 * self.part]);
        product(rows, q.as_words(), self.part, false, &mut self.scores);
        &mut self.scores[..count * LANES]
    }

    fn add_values(&mut self, count: usize, scale: f32, running: &mut Running, y: &mut [f32]) {
        let weights = &mut self.weights.as_mut_words()[..4 * self.pairs * LANES];
        // SAFETY: as above.
        let factor =
            unsafe { soften_to_words::<true>(&self.scores[..count * LANES], scale, running, weights) };
        rescale(y, &factor);
        let rows = (self.values.as_words(), self.width.next_multiple_of(16), [3 * self.pairs, self.pairs]);
        product(rows, self.weights.as_words(), self.pairs, true, y);
    }
}

/// Splits a row, `[middle, high, low]`; what is left of the words of each part is zero.
fn put_parts(row: &[f32], words: &mut [u32]) {
    let part = words.len() / PARTS;
    let (middle, rest) = words.split_at_mut(part);
    let (high, low) = rest.split_at_mut(part);
    // SAFETY: whoever asks has matrix registers, and so these instructions.
    unsafe { avx512::split_to_pairs(row, [high, middle, low]) };
}

fn prefetch(row: &[f32]) {
    for line in row.chunks(16) {
        // SAFETY: nothing is read; the place is inside the row.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

impl Split {
    /// Puts `[middle, high, low]` of a key where its tile has them.
    fn put_key(&mut self, i: usize, parts: &[u32]) {
        let words = 2 * self.part;
        let tile = &mut self.keys.as_mut_words()[i / TILE * TILE * 2 * words..];
        for (half, parts) in [&parts[..words], &parts[self.part..]].into_iter().enumerate() {
            let blocks = tile[half * TILE * words..].chunks_exact_mut(TILE * 16);
            for (parts, block) in parts.chunks_exact(16).zip(blocks) {
                block[i % TILE * 16..][..16].copy_from_slice(parts);
            }
        }
    }

    /// Puts `values`, two in a word, the first at word `at` of each part.
    #[target_feature(enable = "avx512f")]
    fn turn_values(&mut self, at: usize, values: &[&[f32]; TILE]) {
        let (width, pairs) = (self.width.next_multiple_of(16), self.pairs);
        let words = self.values.as_mut_words();
        for first in (0..width).step_by(16) {
            let mask = avx512::first_lanes(self.width - first);
            // SAFETY: masks keep to the row.
            let load = |row: &[f32]| unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().add(first)) };
            let mut parts = [[_mm512_setzero_si512(); 16]; PARTS];
            for j in 0..16 {
                let split = avx512::split_pair(load(values[2 * j]), load(values[2 * j + 1]));
                (0..PARTS).for_each(|part| parts[part][j] = split[part]);
            }
            let tile = first / TILE * TILE;
            let rows = TILE.min(width - tile);
            for (part, place) in parts.iter_mut().zip([1, 0, 2]) {
                avx512::transpose(part);
                let block =
                    &mut words[tile * PARTS * pairs + (place * pairs + at) * rows + (first - tile) * 16..];
                for (part, row) in part.iter().zip(block[..16 * 16].chunks_exact_mut(16)) {
                    // SAFETY: sixteen words.
                    unsafe { _mm512_store_si512(row.as_mut_ptr().cast(), *part) };
                }
            }
        }
    }
}

/// `sums[r][lane] (+)= Σ w[r][i] x[i][lane]` over numbers in parts of `part` words: whole sixteens of rows in blocks, with
/// the words of a row and those before its `[high, low]`, and panels of `[low, high, middle, high]`.
fn product(
    (w, rows, [words, second]): (&[u32], usize, [usize; 2]),
    x: &[u32],
    part: usize,
    add: bool,
    sums: &mut [f32],
) {
    assert!(w.len() >= rows * words, "size of the rows");
    assert!(x.len() >= 4 * part * LANES && sums.len() >= rows * LANES, "sizes of the panels");
    for row in (0..rows).step_by(TILE) {
        let count = TILE.min(rows - row);
        // SAFETY: the sizes were checked, and whoever asks holds the registers.
        unsafe {
            let w = w.as_ptr().add(row * words);
            let tile = SplitTile {
                w: [w, w.add(second * count)],
                x: x.as_ptr(),
                part,
                sums: sums.as_mut_ptr().add(row * LANES),
                add,
            };
            amx::split_rows(count, &tile);
        }
    }
}
