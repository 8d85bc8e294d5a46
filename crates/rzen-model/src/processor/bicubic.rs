//! Bicubic resizing with Pillow's numbers, bit for bit.
//!
//! Pillow 13 widens the kernel when it shrinks a picture, rounds the weights to 22 bits, and resizes
//! one axis after the other with bytes in between; which goes first depends on the sizes. Everything
//! here is the same integer arithmetic, laid out so that 16 rows (across) or 64 columns (down) go
//! side by side through vector registers.

use rayon::prelude::*;
use rzen_core::Picture;

/// Bits of a weight behind the point: 32 less 8 of a byte and 2 for overshoot and sign.
const PRECISION: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION - 1);
/// Rows that the pass across handles side by side.
const ROWS: usize = 16;
const CHANNELS: usize = 3;
/// Columns (of single bytes) that the pass down handles side by side.
const COLUMNS: usize = 64;

/// Resizes a picture as Pillow's `resize((width, height))` does: bicubic (a = -0.5), antialiased.
///
/// # Panics
/// If a side is 0.
pub fn resize(picture: &Picture, width: u32, height: u32) -> Picture {
    assert!(width > 0 && height > 0, "a picture can't be resized to {width}x{height}");
    let (old_width, old_height) = (picture.width() as usize, picture.height() as usize);
    let (new_width, new_height) = (width as usize, height as usize);
    let across = |rgb: &[u8]| resize_rows(rgb, old_width, new_width);
    let down = |rgb: &[u8], width: usize| resize_columns(rgb, width, old_height, new_height);
    let rgb = picture.rgb();
    let resized = match (old_width != new_width, old_height != new_height) {
        (false, false) => rgb.to_vec(),
        (true, false) => across(rgb),
        (false, true) => down(rgb, old_width),
        (true, true) if columns_first([old_width, old_height], [new_width, new_height]) => {
            across(&down(rgb, old_width))
        }
        (true, true) => down(&across(rgb), new_width),
    };
    Picture::new(width, height, resized)
}

/// Whether Pillow 13 shortens columns before rows: it does where more than twice as many rows of
/// pixels vanish as columns.
///
/// The two orders differ in single levels, since bytes stand between them. Earlier versions always
/// began with rows. The rule was found by comparing both orders with Pillow 13.0.0 on 2500 random
/// pairs of sizes, most of them close to the limit, and held for all of them.
fn columns_first([old_width, old_height]: [usize; 2], [new_width, new_height]: [usize; 2]) -> bool {
    let removed = |old: usize, new: usize| old as i64 - new as i64;
    let rows = removed(old_height, new_height);
    rows > 0 && rows > 2 * removed(old_width, new_width)
}

/// The weights of one output position: those of the inputs from `first` on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// For each output position, which inputs it is made of.
fn taps(old: usize, new: usize) -> Vec<Taps> {
    let scale = old as f64 / new as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let at = |position: usize| {
        let center = (position as f64 + 0.5) * scale;
        // Casts cut towards 0 and negative numbers become 0, as in Pillow.
        let first = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(old);
        let step = 1.0 / stretch;
        let raw: Vec<f64> = (first..end).map(|x| cubic((x as f64 - center + 0.5) * step)).collect();
        let total: f64 = raw.iter().sum();
        let normal = raw.iter().map(|weight| if total == 0.0 { *weight } else { weight / total });
        Taps { first, weights: normal.map(fixed_point).collect() }
    };
    (0..new).map(at).collect()
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

fn resize_rows(rgb: &[u8], old: usize, new: usize) -> Vec<u8> {
    let (taps, rows) = (taps(old, new), rgb.len() / (old * CHANNELS));
    let mut out = vec![0; rows * new * CHANNELS];
    let blocks = out.par_chunks_mut(ROWS * new * CHANNELS).zip(rgb.par_chunks(ROWS * old * CHANNELS));
    blocks.with_min_len(2).for_each_init(
        || vec![[0; ROWS * CHANNELS]; old],
        |block, (out, rgb)| dispatch(RowPass { taps: &taps, rgb, block, out }),
    );
    out
}

fn resize_columns(rgb: &[u8], width: usize, old: usize, new: usize) -> Vec<u8> {
    let (taps, row_bytes) = (taps(old, new), width * CHANNELS);
    let mut out = vec![0; new * row_bytes];
    out.par_chunks_exact_mut(row_bytes).zip(taps.par_iter()).with_min_len(8).for_each(|(out, taps)| {
        let rows = &rgb[taps.first * row_bytes..(taps.first + taps.weights.len()) * row_bytes];
        dispatch(ColumnPass { weights: &taps.weights, rows, out });
    });
    out
}

/// A loop over integers that gets faster with wider registers.
trait Pass {
    fn run(self);
}

/// Up to [`ROWS`] rows of the pass across.
struct RowPass<'a> {
    taps: &'a [Taps],
    rgb: &'a [u8],
    /// The input with its rows side by side: for each pixel, first red of all rows, then green, then blue.
    block: &'a mut [[u8; ROWS * CHANNELS]],
    out: &'a mut [u8],
}

impl Pass for RowPass<'_> {
    #[inline(always)]
    fn run(self) {
        let row_bytes = self.block.len() * CHANNELS;
        for (y, row) in self.rgb.chunks_exact(row_bytes).enumerate() {
            for (pixel, side_by_side) in row.as_chunks::<CHANNELS>().0.iter().zip(self.block.iter_mut()) {
                for channel in 0..CHANNELS {
                    side_by_side[channel * ROWS + y] = pixel[channel];
                }
            }
        }
        let out_bytes = self.taps.len() * CHANNELS;
        for (x, taps) in self.taps.iter().enumerate() {
            let mut sums = [HALF; ROWS * CHANNELS];
            for (weight, pixel) in taps.weights.iter().zip(&self.block[taps.first..]) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            let bytes = sums.map(clip);
            for (y, row) in self.out.chunks_exact_mut(out_bytes).enumerate() {
                for channel in 0..CHANNELS {
                    row[x * CHANNELS + channel] = bytes[channel * ROWS + y];
                }
            }
        }
    }
}

/// One output row of the pass down.
struct ColumnPass<'a> {
    weights: &'a [i32],
    /// As many rows as weights.
    rows: &'a [u8],
    out: &'a mut [u8],
}

impl Pass for ColumnPass<'_> {
    #[inline(always)]
    fn run(self) {
        let width = self.out.len();
        let (blocks, rest) = self.out.as_chunks_mut::<COLUMNS>();
        for (i, out) in blocks.iter_mut().enumerate() {
            let mut sums = [HALF; COLUMNS];
            for (weight, row) in self.weights.iter().zip(self.rows.chunks_exact(width)) {
                for (sum, value) in sums.iter_mut().zip(&row[i * COLUMNS..(i + 1) * COLUMNS]) {
                    *sum += i32::from(*value) * weight;
                }
            }
            *out = sums.map(clip);
        }
        let done = width - rest.len();
        for (x, out) in rest.iter_mut().enumerate() {
            let column = self.rows[done + x..].iter().step_by(width);
            *out = clip(
                self.weights.iter().zip(column).fold(HALF, |sum, (w, value)| sum + i32::from(*value) * w),
            );
        }
    }
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Runs `pass` with AVX2 where the processor has it; the integers are the same.
#[cfg(target_arch = "x86_64")]
fn dispatch(pass: impl Pass) {
    #[target_feature(enable = "avx2")]
    fn wide(pass: impl Pass) {
        pass.run();
    }
    if is_x86_feature_detected!("avx2") {
        // Safety: the processor has AVX2.
        unsafe { wide(pass) }
    } else {
        pass.run();
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(pass: impl Pass) {
    pass.run();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(width: u32, height: u32) -> Picture {
        let bytes = (0..width * height * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
        Picture::new(width, height, bytes.collect())
    }

    /// The definition, a pixel at a time.
    fn plain(picture: &Picture, width: usize, height: usize) -> Vec<u8> {
        let pass = |rgb: &[u8],
                    across: usize,
                    along: usize,
                    new: usize,
                    at: &dyn Fn(usize, usize, usize) -> usize| {
            let mut out = vec![0; across * new * 3];
            for (position, taps) in taps(along, new).iter().enumerate() {
                for line in 0..across * 3 {
                    let value = |k: usize| i32::from(rgb[at(line, taps.first + k, along)]);
                    let sum = (0..taps.weights.len()).fold(HALF, |sum, k| sum + value(k) * taps.weights[k]);
                    out[at(line, position, new)] = clip(sum);
                }
            }
            out
        };
        let (w, h) = (picture.width() as usize, picture.height() as usize);
        let across = |rgb: &[u8], rows: usize| {
            pass(rgb, rows, w, width, &|line, x, along| (line / 3 * along + x) * 3 + line % 3)
        };
        let down =
            |rgb: &[u8], columns: usize| pass(rgb, columns, h, height, &|line, y, _| y * columns * 3 + line);
        match columns_first([w, h], [width, height]) {
            true => across(&down(picture.rgb(), w), height),
            false => down(&across(picture.rgb(), h), width),
        }
    }

    #[test]
    fn the_order_of_the_passes_follows_the_sizes() {
        for (old, new, columns) in [
            ([1000, 1000], [999, 996], true),
            ([900, 1200], [224, 300], false),
            ([700, 2000], [196, 1008], false),
            ([3, 3000], [28, 1000], true),
            ([1, 1], [56, 56], false),
        ] {
            assert_eq!(columns_first(old, new), columns, "{old:?} to {new:?}");
        }
    }

    #[test]
    fn blocks_and_remainders_agree_with_the_definition() {
        for ([w, h], [ww, hh]) in [
            ([37, 29], [28, 28]),
            ([1, 1], [56, 56]),
            ([700, 3], [280, 28]),
            ([3, 70], [28, 560]),
            ([100, 65], [84, 33]),
            ([20, 16], [22, 17]),
            ([45, 90], [44, 28]),
        ] {
            let picture = drawn(w, h);
            let resized = resize(&picture, ww, hh);
            assert_eq!(resized.rgb(), plain(&picture, ww as usize, hh as usize), "{w}x{h} to {ww}x{hh}");
        }
    }

    #[test]
    fn both_instruction_sets_agree() {
        let (width, rows) = (333, 11);
        let picture = drawn(width, rows);
        let taps = taps(rows as usize, 1);
        let (mut plain, mut dispatched) = (vec![0; width as usize * 3], vec![0; width as usize * 3]);
        ColumnPass { weights: &taps[0].weights, rows: picture.rgb(), out: &mut plain }.run();
        dispatch(ColumnPass { weights: &taps[0].weights, rows: picture.rgb(), out: &mut dispatched });
        assert_eq!(plain, dispatched);
    }

    #[test]
    fn a_flat_picture_stays_flat_and_an_equal_size_copies() {
        let flat = Picture::new(50, 40, vec![93; 50 * 40 * 3]);
        assert!(resize(&flat, 28, 84).rgb().iter().all(|byte| *byte == 93));
        let picture = drawn(31, 17);
        assert_eq!(resize(&picture, 31, 17), picture);
    }
}
