//! The two passes over a strip of rows, in the widest registers that the processor has.

use super::{CHANNELS, HALF, PRECISION, Taps};

/// Rows that the pass across handles side by side.
pub(super) const ROWS: usize = 16;
/// Columns (of single bytes) that the pass down handles side by side.
const COLUMNS: usize = 64;

/// Resizes each row of `old` pixels.
pub(super) fn across(taps: &[Taps], rgb: &[u8], old: usize, out: &mut [u8]) {
    dispatch(Across { taps, rgb, old, out });
}

/// Makes an output row of each of `taps`; `rows` begins with the first row that the first of them wants.
pub(super) fn down(taps: &[Taps], rows: &[u8], out: &mut [u8]) {
    dispatch(Down { taps, rows, out });
}

/// A loop over integers that gets faster with wider registers.
trait Pass {
    fn run(self);
    /// The same with AVX512-VNNI.
    #[cfg(target_arch = "x86_64")]
    fn run_vnni(self);
}

struct Across<'a> {
    taps: &'a [Taps],
    rgb: &'a [u8],
    old: usize,
    out: &'a mut [u8],
}

impl Pass for Across<'_> {
    #[inline(always)]
    fn run(self) {
        let new = self.taps.len();
        // The input with its rows side by side: for each pixel, first red of all rows, then green, then blue.
        let mut block = vec![[0; ROWS * CHANNELS]; self.old];
        let outs = self.out.chunks_mut(ROWS * new * CHANNELS);
        for (out, rgb) in outs.zip(self.rgb.chunks(ROWS * self.old * CHANNELS)) {
            for (y, row) in rgb.chunks_exact(self.old * CHANNELS).enumerate() {
                for (pixel, side_by_side) in row.as_chunks::<CHANNELS>().0.iter().zip(block.iter_mut()) {
                    for channel in 0..CHANNELS {
                        side_by_side[channel * ROWS + y] = pixel[channel];
                    }
                }
            }
            for (x, taps) in self.taps.iter().enumerate() {
                let mut sums = [HALF; ROWS * CHANNELS];
                for (weight, pixel) in taps.weights.iter().zip(&block[taps.first..]) {
                    for (sum, value) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(*value) * weight;
                    }
                }
                let bytes = sums.map(clip);
                for (y, row) in out.chunks_exact_mut(new * CHANNELS).enumerate() {
                    for channel in 0..CHANNELS {
                        row[x * CHANNELS + channel] = bytes[channel * ROWS + y];
                    }
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn run_vnni(self) {
        // SAFETY: `dispatch` has asked the processor.
        unsafe { super::vnni::across(self.taps, self.rgb, self.old, self.out) }
    }
}

struct Down<'a> {
    taps: &'a [Taps],
    rows: &'a [u8],
    out: &'a mut [u8],
}

impl Pass for Down<'_> {
    #[inline(always)]
    fn run(self) {
        let width = self.out.len() / self.taps.len();
        for (out, taps) in self.out.chunks_exact_mut(width).zip(self.taps) {
            let rows = &self.rows[(taps.first - self.taps[0].first) * width..];
            let (blocks, rest) = out.as_chunks_mut::<COLUMNS>();
            for (i, out) in blocks.iter_mut().enumerate() {
                let mut sums = [HALF; COLUMNS];
                for (weight, row) in taps.weights.iter().zip(rows.chunks_exact(width)) {
                    for (sum, value) in sums.iter_mut().zip(&row[i * COLUMNS..(i + 1) * COLUMNS]) {
                        *sum += i32::from(*value) * weight;
                    }
                }
                *out = sums.map(clip);
            }
            let done = width - rest.len();
            for (x, out) in rest.iter_mut().enumerate() {
                let column = rows[done + x..].iter().step_by(width);
                *out = clip(
                    taps.weights.iter().zip(column).fold(HALF, |sum, (w, value)| sum + i32::from(*value) * w),
                );
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn run_vnni(self) {
        // SAFETY: `dispatch` has asked the processor.
        unsafe { super::vnni::down(self.taps, self.rows, self.out) }
    }
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Runs `pass` in the widest registers; the integers are the same.
#[cfg(target_arch = "x86_64")]
fn dispatch(pass: impl Pass) {
    #[target_feature(enable = "avx2")]
    fn wide(pass: impl Pass) {
        pass.run();
    }
    if super::vnni::available() {
        pass.run_vnni();
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
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
    use super::super::{QUAD, taps};
    use super::*;

    #[test]
    fn all_instruction_sets_agree() {
        for (width, rows, new) in [(333, 11, 100), (70, 40, 84), (4, 1, 28), (129, 33, 28), (1, 17, 28)] {
            let rgb: Vec<u8> = (0..width * rows * CHANNELS)
                .map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect();
            let (columns, lines) = (taps(width, new, QUAD), taps(rows, 5, 1));
            let mut plain = vec![0; new * rows * CHANNELS];
            let mut dispatched = plain.clone();
            Across { taps: &columns, rgb: &rgb, old: width, out: &mut plain }.run();
            across(&columns, &rgb, width, &mut dispatched);
            assert!(plain == dispatched, "across, {width}x{rows} to {new}");
            let mut plain = vec![0; 5 * width * CHANNELS];
            let mut dispatched = plain.clone();
            Down { taps: &lines, rows: &rgb, out: &mut plain }.run();
            down(&lines, &rgb, &mut dispatched);
            assert!(plain == dispatched, "down, {width}x{rows} to 5 rows");
        }
    }
}
