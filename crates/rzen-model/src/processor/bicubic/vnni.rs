//! Both passes with AVX512-VNNI, which multiplies and adds four bytes in each lane of 32 bits at once.
//!
//! Its second factors are signed bytes, so that a weight is cut into three digits; the sums of each make up
//! the exact one.

use std::arch::x86_64::*;

use super::passes::ROWS;
use super::{CHANNELS, DIGITS, HALF, PRECISION, QUAD, Taps};

/// Bytes of a register.
const BYTES: usize = 64;

/// Whether the processor has what [`across`] and [`down`] need.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

/// Resizes each row of `old` pixels.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn across(taps: &[Taps], rgb: &[u8], old: usize, out: &mut [u8]) {
    let (old_bytes, new_bytes) = (old * CHANNELS, taps.len() * CHANNELS);
    // For each quad of pixels and each channel, the four bytes of each row.
    let mut block = vec![[_mm512_setzero_si512(); CHANNELS]; old.div_ceil(QUAD)];
    // For each byte of an output row, that of each row.
    let mut columns = vec![_mm_setzero_si128(); new_bytes.next_multiple_of(ROWS)];
    for (rgb, out) in rgb.chunks(ROWS * old_bytes).zip(out.chunks_mut(ROWS * new_bytes)) {
        let rows: [&[u8]; ROWS] = {
            let mut rows = rgb.chunks_exact(old_bytes);
            // Rows below the last are computed and left out.
            std::array::from_fn(|_| rows.next().unwrap_or(&rgb[..old_bytes]))
        };
        for (i, quad) in block.iter_mut().enumerate() {
            *quad = side_by_side(&rows, i * QUAD * CHANNELS);
        }
        for (taps, columns) in taps.iter().zip(columns.as_chunks_mut::<CHANNELS>().0) {
            let mut sums = [[_mm512_setzero_si512(); DIGITS]; CHANNELS];
            for (digits, quad) in taps.quads.iter().zip(&block[taps.first / QUAD..]) {
                for (sums, pixels) in sums.iter_mut().zip(quad) {
                    for (sum, digit) in sums.iter_mut().zip(digits) {
                        *sum = _mm512_dpbusd_epi32(*sum, *pixels, _mm512_set1_epi32(*digit));
                    }
                }
            }
            for (column, sums) in columns.iter_mut().zip(sums) {
                let levels = _mm512_max_epi32(levels(sums), _mm512_setzero_si512());
                *column = _mm512_cvtusepi32_epi8(levels);
            }
        }
        for (i, columns) in columns.as_chunks::<ROWS>().0.iter().enumerate() {
            for (row, bytes) in out.chunks_exact_mut(new_bytes).zip(transpose(*columns)) {
                let rest = &mut row[i * ROWS..];
                match rest.first_chunk_mut() {
                    Some(sixteen) => *sixteen = bytes_of(bytes),
                    None => rest.copy_from_slice(&bytes_of(bytes)[..rest.len()]),
                }
            }
        }
    }
}

/// Makes an output row of each of `taps`; `rows` begins with the first row that the first of them wants.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn down(taps: &[Taps], rows: &[u8], out: &mut [u8]) {
    let width = out.len() / taps.len();
    for (out, one) in out.chunks_exact_mut(width).zip(taps) {
        let rows = &rows[(one.first - taps[0].first) * width..][..one.weights.len() * width];
        for (i, out) in out.chunks_mut(BYTES).enumerate() {
            let mask = u64::MAX >> (BYTES - out.len());
            let mut sums = [[_mm512_setzero_si512(); DIGITS]; QUAD];
            for (q, digits) in one.quads.iter().enumerate() {
                // Rows below the last have no weight.
                let row = |k: usize| (q * QUAD + k).min(one.weights.len() - 1);
                let at = [0, 1, 2, 3].map(|k| row(k) * width + i * BYTES);
                let [a, b, c, d] = [
                    load(&rows[at[0]..], mask),
                    load(&rows[at[1]..], mask),
                    load(&rows[at[2]..], mask),
                    load(&rows[at[3]..], mask),
                ];
                let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
                let (low2, high2) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
                let quads = [
                    _mm512_unpacklo_epi16(low, low2),
                    _mm512_unpackhi_epi16(low, low2),
                    _mm512_unpacklo_epi16(high, high2),
                    _mm512_unpackhi_epi16(high, high2),
                ];
                for (sums, pixels) in sums.iter_mut().zip(quads) {
                    for (sum, digit) in sums.iter_mut().zip(digits) {
                        *sum = _mm512_dpbusd_epi32(*sum, pixels, _mm512_set1_epi32(*digit));
                    }
                }
            }
            // The packing undoes the order of the unpacking, and clips.
            let [a, b, c, d] = [levels(sums[0]), levels(sums[1]), levels(sums[2]), levels(sums[3])];
            let bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            // SAFETY: the mask is as long as `out`.
            unsafe { _mm512_mask_storeu_epi8(out.as_mut_ptr().cast(), mask, bytes) };
        }
    }
}

/// The rounded sums, not yet clipped.
#[inline]
#[target_feature(enable = "avx512f")]
fn levels([low, middle, high]: [__m512i; DIGITS]) -> __m512i {
    let upper = _mm512_add_epi32(_mm512_slli_epi32::<8>(middle), _mm512_slli_epi32::<16>(high));
    let sum = _mm512_add_epi32(_mm512_add_epi32(low, upper), _mm512_set1_epi32(HALF));
    _mm512_srai_epi32::<PRECISION>(sum)
}

/// The first bytes of `row` that `mask` has.
#[inline]
#[target_feature(enable = "avx512bw")]
fn load(row: &[u8], mask: u64) -> __m512i {
    assert!(row.len() >= BYTES - mask.leading_zeros() as usize, "a row as long as the mask");
    // SAFETY: as many bytes as the mask has are there, and others are not read.
    unsafe { _mm512_maskz_loadu_epi8(mask, row.as_ptr().cast()) }
}

/// Four pixels of each row from byte `at` on: for each channel, the four bytes of each row. Pixels behind the last are 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn side_by_side(rows: &[&[u8]; ROWS], at: usize) -> [__m512i; CHANNELS] {
    let by_channel = _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1);
    let mut quarters = [[_mm_setzero_si128(); ROWS / QUAD]; CHANNELS];
    for (i, rows) in rows.as_chunks::<QUAD>().0.iter().enumerate() {
        let mut pixels = [_mm_setzero_si128(); QUAD];
        for (pixels, row) in pixels.iter_mut().zip(rows) {
            *pixels = _mm_shuffle_epi8(sixteen(&row[at..]), by_channel);
        }
        let [a, b, c, d] = pixels;
        let (red_green, blue) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
        let (red_green2, blue2) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
        quarters[0][i] = _mm_unpacklo_epi64(red_green, red_green2);
        quarters[1][i] = _mm_unpackhi_epi64(red_green, red_green2);
        quarters[2][i] = _mm_unpacklo_epi64(blue, blue2);
    }
    // SAFETY: four registers of 16 bytes are one of 64.
    quarters.map(|quarters| unsafe { std::mem::transmute::<[__m128i; ROWS / QUAD], __m512i>(quarters) })
}

/// The first 16 bytes of `row`, 0 where it ends before.
#[inline(always)]
fn sixteen(row: &[u8]) -> __m128i {
    let bytes = row.first_chunk().copied().unwrap_or_else(|| {
        let mut bytes = [0; 16];
        bytes[..row.len()].copy_from_slice(row);
        bytes
    });
    // SAFETY: every pattern of bits is a register's.
    unsafe { std::mem::transmute::<[u8; 16], __m128i>(bytes) }
}

#[inline(always)]
fn bytes_of(register: __m128i) -> [u8; 16] {
    // SAFETY: every pattern of bits is bytes.
    unsafe { std::mem::transmute(register) }
}

/// Rows to columns of 16 x 16 bytes: each round is half a shuffle of the 256 as of cards.
#[inline]
#[target_feature(enable = "sse2")]
fn transpose(mut rows: [__m128i; 16]) -> [__m128i; 16] {
    for _ in 0..4 {
        let old = rows;
        for i in 0..8 {
            rows[2 * i] = _mm_unpacklo_epi8(old[i], old[i + 8]);
            rows[2 * i + 1] = _mm_unpackhi_epi8(old[i], old[i + 8]);
        }
    }
    rows
}
