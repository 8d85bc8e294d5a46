//! Tiles of a matrix product in AVX-512 registers.
//!
//! Numbers travel as 32-bit words: an f32, or two neighbouring bf16 that one instruction multiplies and
//! adds. So both element types share every loop here but for that one instruction.
//!
//! The lanes of a register are input rows (tokens), packed in panels; weights are read where they lie, one
//! word for all lanes. So weights, which are large and used once a call, are never copied as a whole.

use std::arch::x86_64::*;

use super::PANEL;
use crate::exp::avx512 as lanes;

/// Weight rows of a tile: with two registers a row and what is read, 32 registers are full.
pub(crate) const TILE_ROWS: usize = 14;

/// Where a tile reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// The first word of the first weight row.
    pub(crate) w: *const u32,
    /// Words from a weight row to the next.
    pub(crate) ldw: usize,
    /// Words from a word of a weight row to the next.
    pub(crate) step: usize,
    /// A packed panel of inputs: for each word of the inner dimension, [`PANEL`] lanes, on a cache line.
    pub(crate) x: *const u32,
    /// Words of the inner dimension.
    pub(crate) words: usize,
    /// Panels of which the inputs are the sum, one or, for [`amx::rows`](super::amx::rows) alone, [`PARTS`](super::PARTS).
    pub(crate) parts: usize,
    /// Words from a panel to the next of the same inputs.
    pub(crate) part: usize,
    /// The sums: for each weight row, [`PANEL`] lanes, on a cache line.
    pub(crate) sums: *mut f32,
    /// Adds to the sums that are there.
    pub(crate) add: bool,
    /// Lanes that are used, 1 to [`PANEL`].
    pub(crate) lanes: usize,
}

/// Where the sums of a tile go, and through what.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    /// The first output of the first input row.
    pub(crate) y: *mut f32,
    /// Numbers from an output row to the next.
    pub(crate) ldy: usize,
    /// Adds to the outputs that are there.
    pub(crate) add: bool,
    /// For each output.
    pub(crate) bias: Option<*const f32>,
    /// What is done to them in the end.
    pub(crate) then: Then,
}

/// What follows the last word, with the gate's numbers laid out as the outputs.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    Nothing,
    QuickGelu,
    /// Multiplies by SiLU of what stands here.
    Gate(*const f32),
}

impl Output {
    /// The same `outputs` to the right and `rows` below.
    ///
    /// # Safety
    /// They must be inside what the pointers point into.
    pub(crate) unsafe fn at(mut self, rows: usize, outputs: usize) -> Self {
        // SAFETY: as the caller's.
        unsafe {
            let distance = rows * self.ldy + outputs;
            self.y = self.y.add(distance);
            self.bias = self.bias.map(|bias| bias.add(outputs));
            if let Then::Gate(gate) = &mut self.then {
                *gate = gate.add(distance);
            }
        }
        self
    }

    /// One row of up to sixteen outputs.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn put(&self, row: usize, mask: __mmask16, mut sums: __m512) {
        // SAFETY: the caller's mask keeps to the outputs.
        unsafe {
            let y = self.y.add(row * self.ldy);
            if self.add {
                sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, y));
            }
            if let Some(bias) = self.bias {
                sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, bias));
            }
            match self.then {
                Then::Nothing => {}
                Then::QuickGelu => sums = lanes::quick_gelu(sums),
                Then::Gate(gate) => {
                    let gate = _mm512_maskz_loadu_ps(mask, gate.add(row * self.ldy));
                    sums = _mm512_mul_ps(lanes::silu(gate), sums);
                }
            }
            _mm512_mask_storeu_ps(y, mask, sums);
        }
    }
}

macro_rules! tiles {
    ($tile:ident, $rows:ident, $dot:ident, $features:literal, |$acc:ident, $x:ident, $w:ident| $step:expr) => {
        /// `R` weight rows by 16 `V` lanes.
        #[target_feature(enable = $features)]
        unsafe fn $tile<const R: usize, const V: usize>(t: &Tile) {
            // SAFETY: the caller vouches for the pointers of the tile.
            unsafe {
                let at = |r: usize, v: usize| t.sums.add(r * PANEL + 16 * v);
                let mut acc = [[_mm512_setzero_ps(); V]; R];
                if t.add {
                    for r in 0..R {
                        for v in 0..V {
                            acc[r][v] = _mm512_load_ps(at(r, v));
                        }
                    }
                }
                let (mut w, mut x) = (t.w, t.x);
                for _ in 0..t.words {
                    let lanes: [__m512i; V] =
                        std::array::from_fn(|v| _mm512_load_si512(x.add(16 * v).cast()));
                    for r in 0..R {
                        let $w = _mm512_set1_epi32(*w.add(r * t.ldw) as i32);
                        for v in 0..V {
                            let ($acc, $x) = (acc[r][v], lanes[v]);
                            acc[r][v] = $step;
                        }
                    }
                    w = w.add(t.step);
                    x = x.add(PANEL);
                }
                for r in 0..R {
                    for v in 0..V {
                        _mm512_store_ps(at(r, v), acc[r][v]);
                    }
                }
            }
        }

        /// The tile of `rows` weight rows, 1 to [`TILE_ROWS`].
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn $rows(rows: usize, t: &Tile) {
            // SAFETY: as the caller's.
            unsafe {
                macro_rules! pick {
                    ($count:literal) => {
                        if t.lanes > 16 { $tile::<$count, 2>(t) } else { $tile::<$count, 1>(t) }
                    };
                }
                match rows {
                    1 => pick!(1),
                    2 => pick!(2),
                    3 => pick!(3),
                    4 => pick!(4),
                    5 => pick!(5),
                    6 => pick!(6),
                    7 => pick!(7),
                    8 => pick!(8),
                    9 => pick!(9),
                    10 => pick!(10),
                    11 => pick!(11),
                    12 => pick!(12),
                    13 => pick!(13),
                    TILE_ROWS => pick!(14),
                    _ => unreachable!("a tile has 1 to {TILE_ROWS} rows, not {rows}"),
                }
            }
        }

        /// Sums along the words of `rows` input rows and `outputs` weight rows, 1 to 4 of each, both as stored.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn $dot(
            (x, rows): (*const u32, usize),
            (w, outputs): (*const u32, usize),
            words: usize,
            output: Output,
        ) {
            // SAFETY: the caller vouches for the pointers; rows past the last are read as the last.
            unsafe {
                let x: [*const u32; 4] = std::array::from_fn(|r| x.add(r.min(rows - 1) * words));
                let w: [*const u32; 4] = std::array::from_fn(|c| w.add(c.min(outputs - 1) * words));
                let mut acc = [[_mm512_setzero_ps(); 4]; 4];
                let mut at = 0;
                while at < words {
                    let mask = first_lanes(words - at);
                    let load = |from: *const u32| _mm512_maskz_loadu_epi32(mask, from.add(at).cast());
                    let w = w.map(load);
                    for r in 0..4 {
                        let $x = load(x[r]);
                        for c in 0..4 {
                            let ($acc, $w) = (acc[r][c], w[c]);
                            acc[r][c] = $step;
                        }
                    }
                    at += 16;
                }
                for (r, acc) in acc.iter().enumerate().take(rows) {
                    let sums = acc.map(|acc| _mm512_reduce_add_ps(acc));
                    let sums = _mm512_maskz_loadu_ps(first_lanes(4), sums.as_ptr());
                    output.put(r, first_lanes(outputs), sums);
                }
            }
        }
    };
}

tiles!(tile_f32, rows_f32, dot_f32, "avx512f", |acc, x, w| _mm512_fmadd_ps(
    _mm512_castsi512_ps(x),
    _mm512_castsi512_ps(w),
    acc
));
tiles!(tile_bf16, rows_bf16, dot_bf16, "avx512f,avx512bf16", |acc, x, w| _mm512_dpbf16_ps(
    acc,
    std::mem::transmute::<__m512i, __m512bh>(x),
    std::mem::transmute::<__m512i, __m512bh>(w)
));

/// The first `count` lanes of sixteen.
#[inline(always)]
pub(crate) fn first_lanes(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

/// Turns the sums of `outputs` weight rows and `rows` lanes round and puts them out.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn put(sums: *const f32, outputs: usize, rows: usize, output: &Output) {
    // SAFETY: the caller vouches for the pointers; sums are read up to the last output.
    unsafe {
        for column in (0..outputs).step_by(16) {
            let count = 16.min(outputs - column);
            for lane in (0..rows).step_by(16) {
                let mut block: [__m512i; 16] = std::array::from_fn(|i| {
                    let row = sums.add((column + i.min(count - 1)) * PANEL + lane);
                    _mm512_load_si512(row.cast())
                });
                transpose(&mut block);
                let output = output.at(lane, column);
                for (row, sums) in block.iter().enumerate().take(rows - lane) {
                    output.put(row, first_lanes(count), _mm512_castsi512_ps(*sums));
                }
            }
        }
    }
}

/// Packs up to [`PANEL`] rows of `words` words, `ldw` apart, as a panel; rows that are not there are zero.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn pack_panel(w: *const u32, ldw: usize, rows: usize, words: usize, panel: *mut u32) {
    // SAFETY: the caller vouches for both pointers; masks keep to the words that are there.
    unsafe {
        for half in 0..PANEL / 16 {
            let mut at = 0;
            while at < words {
                let mask = first_lanes(words - at);
                let mut block: [__m512i; 16] = std::array::from_fn(|i| {
                    let row = half * 16 + i;
                    match row < rows {
                        true => _mm512_maskz_loadu_epi32(mask, w.add(row * ldw + at).cast()),
                        false => _mm512_setzero_si512(),
                    }
                });
                transpose(&mut block);
                for (i, lane) in block.iter().enumerate().take(words - at) {
                    _mm512_store_si512(panel.add((at + i) * PANEL + half * 16).cast(), *lane);
                }
                at += 16;
            }
        }
    }
}

/// Transposes sixteen rows of sixteen words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose(rows: &mut [__m512i; 16]) {
    let mut t = *rows;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut u = t;
    for i in 0..4 {
        u[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // u[4 g + j] holds, in 128-bit lane l, column 4 l + j of rows 4 g to 4 g + 3.
    for j in 0..4 {
        let ab_even = _mm512_shuffle_i32x4(u[j], u[4 + j], 0x88);
        let ab_odd = _mm512_shuffle_i32x4(u[j], u[4 + j], 0xdd);
        let cd_even = _mm512_shuffle_i32x4(u[8 + j], u[12 + j], 0x88);
        let cd_odd = _mm512_shuffle_i32x4(u[8 + j], u[12 + j], 0xdd);
        rows[j] = _mm512_shuffle_i32x4(ab_even, cd_even, 0x88);
        rows[8 + j] = _mm512_shuffle_i32x4(ab_even, cd_even, 0xdd);
        rows[4 + j] = _mm512_shuffle_i32x4(ab_odd, cd_odd, 0x88);
        rows[12 + j] = _mm512_shuffle_i32x4(ab_odd, cd_odd, 0xdd);
    }
}

/// Rounds to bf16 and joins lane by lane: `low` in the lower halves of the words.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn pair(low: __m512, high: __m512) -> __m512i {
    // SAFETY: registers of the same size.
    let [low, high] = unsafe {
        [low, high]
            .map(|x| _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x))))
    };
    _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
}

/// Splits into three bf16 of which the numbers are the sum, high, middle and low, and joins them as [`pair`] does.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn split_pair(low: __m512, high: __m512) -> [__m512i; 3] {
    let high_half = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let (mut low, mut high) = (low, high);
    // Rounded, halves away from zero, so that rests are small and of either sign. What is left in the end needs no
    // rounding, and so NaN stays NaN: adding makes zero of those whose bits are all set.
    [0x8000, 0x8000, 0].map(|half| {
        let round = |x: __m512| {
            _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(half)), high_half)
        };
        let rounded = [round(low), round(high)];
        low = _mm512_sub_ps(low, _mm512_castsi512_ps(rounded[0]));
        high = _mm512_sub_ps(high, _mm512_castsi512_ps(rounded[1]));
        _mm512_or_si512(_mm512_srli_epi32::<16>(rounded[0]), rounded[1])
    })
}

/// Splits a row into three of which it is the sum, two numbers in a word; what is left of the words is zero.
#[target_feature(enable = "avx512f")]
pub(crate) fn split_to_pairs(row: &[f32], parts: [&mut [u32]; 3]) {
    let even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    let odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
    let length = parts[0].len();
    assert!(
        row.len() <= 2 * length && parts.iter().all(|part| part.len() == length),
        "words for all numbers"
    );
    let parts = parts.map(|part| part.as_mut_ptr());
    for at in (0..length).step_by(16) {
        let rest = row.len().saturating_sub(2 * at);
        // SAFETY: masks keep to the slices.
        unsafe {
            let from = row.as_ptr().wrapping_add(2 * at);
            let first = _mm512_maskz_loadu_ps(first_lanes(rest), from);
            let second = _mm512_maskz_loadu_ps(first_lanes(rest.saturating_sub(16)), from.wrapping_add(16));
            let take = |which| _mm512_permutex2var_ps(first, which, second);
            for (part, pairs) in parts.iter().zip(split_pair(take(even), take(odd))) {
                _mm512_mask_storeu_epi32(part.add(at).cast(), first_lanes(length - at), pairs);
            }
        }
    }
}

/// Takes from each number what the pairs hold of it.
#[target_feature(enable = "avx512f")]
pub(crate) fn take_pairs(x: &mut [f32], words: &[u32]) {
    assert_eq!(x.len(), 2 * words.len(), "two numbers make a word");
    for (pair, word) in x.as_chunks_mut::<2>().0.iter_mut().zip(words) {
        pair[0] -= f32::from_bits(word << 16);
        pair[1] -= f32::from_bits(word & 0xffff_0000);
    }
}

/// The bits of f32 of as many bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) fn widen(x: &[half::bf16], words: &mut [u32]) {
    assert_eq!(x.len(), words.len(), "a word for each number");
    for at in (0..x.len()).step_by(16) {
        let mask = first_lanes(x.len() - at);
        // SAFETY: masks keep to the slices.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x.as_ptr().add(at).cast()));
            _mm512_mask_storeu_epi32(words.as_mut_ptr().add(at).cast(), mask, _mm512_slli_epi32::<16>(bits));
        }
    }
}

/// Rounds to bf16, ties to even, two in a word; the count is even.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn round_to_pairs(x: &[f32], words: &mut [u32]) {
    assert_eq!(x.len(), 2 * words.len(), "two numbers make a word");
    for at in (0..words.len()).step_by(16) {
        let count = words.len() - at;
        // SAFETY: masks keep to the slices.
        unsafe {
            let from = x.as_ptr().add(2 * at);
            let low = _mm512_maskz_loadu_ps(first_lanes(2 * count), from);
            let high =
                _mm512_maskz_loadu_ps(first_lanes((2 * count).saturating_sub(16)), from.wrapping_add(16));
            let pairs = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_mask_storeu_epi32(words.as_mut_ptr().add(at).cast(), first_lanes(count), pairs);
        }
    }
}
