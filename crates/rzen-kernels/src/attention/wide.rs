//! Products in f32.

use super::softmax::{Running, soften};
use super::{Arithmetic, LANES, Rows};
use crate::scratch::Scratch;

/// A block of keys and values, copied next to one another.
pub(super) struct Wide {
    width: usize,
    keys: Scratch,
    values: Scratch,
    scores: Scratch,
}

impl Arithmetic for Wide {
    fn new(width: usize) -> Self {
        let [keys, values] = [(); 2].map(|()| Scratch::new(Self::KEYS * width));
        Wide { width, keys, values, scores: Scratch::new(Self::KEYS * LANES) }
    }

    fn queries(&self, rows: Rows<'_>) -> Scratch {
        let mut panel = Scratch::new(self.width * LANES);
        transpose_in(rows, self.width, &mut panel);
        panel
    }

    fn take<'a>(&mut self, rows: impl Iterator<Item = [&'a [f32]; 2]>) {
        for (i, [key, value]) in rows.enumerate() {
            self.keys[i * self.width..][..self.width].copy_from_slice(key);
            self.values[i * self.width..][..self.width].copy_from_slice(value);
        }
    }

    fn scores(&mut self, q: &Scratch, count: usize) -> &mut [f32] {
        let scores = &mut self.scores[..count * LANES];
        panel_product(&self.keys, (self.width, 1), count, q, self.width, false, scores);
        scores
    }

    fn add_values(&mut self, count: usize, scale: f32, running: &mut Running, y: &mut [f32]) {
        let scores = &mut self.scores[..count * LANES];
        soften(scores, scale, running, y);
        panel_product(&self.values, (1, self.width), self.width, scores, count, true, y);
    }
}

/// `sums[r][lane] (+)= Σ w[r][i] x[i][lane]`: `w` has `strides` from a row to the next and along it.
fn panel_product(
    w: &[f32],
    strides: (usize, usize),
    rows: usize,
    x: &[f32],
    words: usize,
    add: bool,
    sums: &mut [f32],
) {
    assert!(w.len() > (rows - 1) * strides.0 + (words - 1) * strides.1, "size of the rows");
    assert!(x.len() >= words * LANES && sums.len() >= rows * LANES, "sizes of the panels");
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::features().avx512 {
        assert!(
            [x.as_ptr(), sums.as_ptr()].iter().all(|panel| panel.addr().is_multiple_of(64)),
            "panels on lines"
        );
        use crate::matmul::avx512::{TILE_ROWS, Tile, rows_f32};
        // Equally high tiles: a low one has too few sums under way.
        let height = rows.div_ceil(rows.div_ceil(TILE_ROWS));
        for row in (0..rows).step_by(height) {
            // SAFETY: the sizes were checked, and the processor has the instructions.
            unsafe {
                let tile = Tile {
                    w: w.as_ptr().add(row * strides.0).cast(),
                    ldw: strides.0,
                    step: strides.1,
                    x: x.as_ptr().cast(),
                    words,
                    parts: 1,
                    part: 0,
                    sums: sums.as_mut_ptr().add(row * LANES),
                    add,
                    lanes: LANES,
                };
                rows_f32(height.min(rows - row), &tile);
            }
        }
        return;
    }
    plain_panel_product(w, strides, rows, x, words, add, sums);
}

fn plain_panel_product(
    w: &[f32],
    strides: (usize, usize),
    rows: usize,
    x: &[f32],
    words: usize,
    add: bool,
    sums: &mut [f32],
) {
    assert!(w.len() > (rows - 1) * strides.0 + (words - 1) * strides.1, "size of the rows");
    assert!(x.len() >= words * LANES && sums.len() >= rows * LANES, "sizes of the panels");
    // SAFETY: the sizes were checked.
    unsafe {
        gemm::gemm(
            rows,
            LANES,
            words,
            sums.as_mut_ptr(),
            1,
            LANES as isize,
            add,
            w.as_ptr(),
            strides.1 as isize,
            strides.0 as isize,
            x.as_ptr(),
            1,
            LANES as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `panel[i][lane] = rows[lane][i]`; lanes without a row are zero.
fn transpose_in(rows: Rows<'_>, width: usize, panel: &mut [f32]) {
    assert!(panel.len() >= width * LANES && rows.count <= LANES, "size of the panel");
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::features().avx512 {
        assert_eq!(panel.as_ptr().addr() % 64, 0, "a panel on lines");
        let first = rows.get(0, width).as_ptr();
        rows.get(rows.count - 1, width);
        // SAFETY: the first and the last row are there, and the panel's size was checked.
        return unsafe {
            let panel = panel.as_mut_ptr().cast();
            crate::matmul::avx512::pack_panel(first.cast(), rows.stride, rows.count, width, panel)
        };
    }
    panel.fill(0.0);
    for lane in 0..rows.count {
        for (i, x) in rows.get(lane, width).iter().enumerate() {
            panel[i * LANES + lane] = *x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::wave;
    use super::*;

    #[test]
    fn products_without_wide_registers_agree() {
        let (w, x) = (wave(700, 0.61), wave(40 * LANES, 0.17));
        for (rows, words, strides) in [(1, 1, (1, 1)), (17, 40, (40, 1)), (40, 17, (1, 41))] {
            for add in [false, true] {
                let mut sums = Scratch::new(rows * LANES);
                sums.fill(0.5);
                let mut plain = sums.to_vec();
                let mut panel = Scratch::new(x.len());
                panel.copy_from_slice(&x);
                panel_product(&w, strides, rows, &panel, words, add, &mut sums);
                plain_panel_product(&w, strides, rows, &panel, words, add, &mut plain);
                assert!(sums.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-4));
            }
        }
    }
}
