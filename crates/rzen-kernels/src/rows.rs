//! What is done to rows of numbers: activations, norms, rotary positions.
//!
//! Plain loops, compiled for wider registers as well; the processor chooses.

use rayon::prelude::*;

use crate::exp;

/// Rows that a task takes: enough to be worth a thread.
fn rows_of_task(width: usize) -> usize {
    (1 << 14) / width.max(1) + 1
}

/// Runs a loop compiled for AVX-512, AVX2 or neither, whichever is the widest there is.
macro_rules! widest {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),*) $body:block) => {
        $(#[$doc])*
        $vis fn $name($($arg: $type),*) {
            #[inline(always)]
            fn plain($($arg: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
                fn avx512($($arg: $type),*) {
                    plain($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) {
                    plain($($arg),*)
                }
                let cpu = crate::cpu::features();
                if cpu.avx512 {
                    // SAFETY: the processor has the instructions.
                    return unsafe { avx512($($arg),*) };
                }
                if cpu.avx2 {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    };
}
pub(crate) use widest;

widest! {
    /// `x · sigmoid(1.702 x)`, in place.
    pub(crate) fn quick_gelu(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = exp::quick_gelu(*x));
    }
}

widest! {
    fn gelu_rows(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = exp::gelu(*x));
    }
}

/// `x · Φ(x)` with the normal distribution's Φ, in place: the exact GELU, to 1.5e-7 of `x`.
pub fn gelu(x: &mut [f32]) {
    x.par_chunks_mut(1 << 14).for_each(gelu_rows);
}

widest! {
    /// `silu(gate) · y`, in place.
    pub(crate) fn gate(gate: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(gate).for_each(|(y, gate)| *y *= exp::silu(*gate));
    }
}

widest! {
    fn rms_norm_rows(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) {
        let width = gain.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let inverse = (sum(x, |x| x * x) / width as f32 + epsilon).sqrt().recip();
            y.iter_mut().zip(x).zip(gain).for_each(|((y, x), gain)| *y = x * inverse * gain);
        }
    }
}

widest! {
    fn layer_norm_rows(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) {
        let width = gain.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let mean = sum(x, |x| x) / width as f32;
            let inverse = (sum(x, |x| (x - mean) * (x - mean)) / width as f32 + epsilon).sqrt().recip();
            for (((y, x), gain), bias) in y.iter_mut().zip(x).zip(gain).zip(bias) {
                *y = (x - mean) * inverse * gain + bias;
            }
        }
    }
}

widest! {
    /// Turns the heads of one row, in place.
    fn turn(x: &mut [f32], cos: &[f32], sin: &[f32]) {
        let half = cos.len();
        for head in x.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// A sum in sixteen lanes: of little error however long the row, and the same wherever it stands.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (blocks, rest) = x.as_chunks::<16>();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, x)| *lane += f(*x));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += f(*x));
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// Root-mean-square normalisation: `x / sqrt(mean(x²) + epsilon) · gain`, row by row.
///
/// `x`, `y`: `[rows, width]`; `gain`: `[width]`.
///
/// # Panics
/// If the sizes differ.
pub fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32]) {
    assert_eq!((x.len(), x.len() % gain.len()), (y.len(), 0), "sizes of a norm");
    let size = rows_of_task(gain.len()) * gain.len();
    y.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| rms_norm_rows(x, gain, epsilon, y));
}

/// Layer normalisation: `(x - mean) / sqrt(variance + epsilon) · gain + bias`, row by row.
///
/// `x`, `y`: `[rows, width]`; `gain`, `bias`: `[width]`.
///
/// # Panics
/// If the sizes differ.
pub fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) {
    assert_eq!((x.len(), x.len() % gain.len(), bias.len()), (y.len(), 0, gain.len()), "sizes of a norm");
    let size = rows_of_task(gain.len()) * gain.len();
    y.par_chunks_mut(size)
        .zip(x.par_chunks(size))
        .for_each(|(y, x)| layer_norm_rows(x, gain, bias, epsilon, y));
}

/// Rotary positions of the first `width` numbers of each row, in place: both halves of a head turn by the same angles.
///
/// - `x`: `[rows, stride]`, of which heads of `2 · half` numbers fill the first `width`
/// - `cos`, `sin`: `[rows, half]`
///
/// # Panics
/// If the sizes don't fit.
pub fn rotate(x: &mut [f32], stride: usize, width: usize, cos: &[f32], sin: &[f32], half: usize) {
    let rows = x.len() / stride;
    assert_eq!(x.len() % stride, 0, "whole rows");
    assert!(width <= stride && width.is_multiple_of(2 * half), "width of the heads");
    assert_eq!((cos.len(), sin.len()), (rows * half, rows * half), "sizes of the angles");
    x.par_chunks_exact_mut(stride)
        .zip(cos.par_chunks_exact(half).zip(sin.par_chunks_exact(half)))
        .with_min_len(rows_of_task(width))
        .for_each(|(row, (cos, sin))| turn(&mut row[..width], cos, sin));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.37).sin() * 3.0 + 0.1).collect()
    }

    #[test]
    fn norms_follow_their_definitions() {
        let (rows, width) = (37, 83);
        let (x, gain, bias) = (wave(rows * width), wave(width), wave(2 * width)[width..].to_vec());
        let (mut rms, mut layer) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        rms_norm(&x, &gain, 1e-6, &mut rms);
        layer_norm(&x, &gain, &bias, 1e-6, &mut layer);
        for (r, row) in x.chunks(width).enumerate() {
            let wide: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let mean = wide.iter().sum::<f64>() / width as f64;
            let square = wide.iter().map(|x| x * x).sum::<f64>() / width as f64;
            for c in 0..width {
                let (gain, bias) = (f64::from(gain[c]), f64::from(bias[c]));
                let exact = wide[c] / (square + 1e-6).sqrt() * gain;
                assert!((f64::from(rms[r * width + c]) - exact).abs() < 1e-5);
                let exact = (wide[c] - mean) / (square - mean * mean + 1e-6).sqrt() * gain + bias;
                assert!((f64::from(layer[r * width + c]) - exact).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn rotation_keeps_lengths_and_what_stands_beside_the_heads() {
        let (rows, half, heads) = (9, 5, 3);
        let (width, stride) = (2 * half * heads, 2 * half * heads + 4);
        let before = wave(rows * stride);
        let angles = wave(rows * half);
        let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
        let mut after = before.clone();
        rotate(&mut after, stride, width, &cos, &sin, half);
        for r in 0..rows {
            let (old, new) = (&before[r * stride..][..stride], &after[r * stride..][..stride]);
            assert_eq!(old[width..], new[width..]);
            for h in 0..heads {
                for i in 0..half {
                    let (at, other) = (h * 2 * half + i, h * 2 * half + half + i);
                    let (c, s) = (cos[r * half + i], sin[r * half + i]);
                    assert!((new[at] - (old[at] * c - old[other] * s)).abs() < 1e-5);
                    assert!((new[other] - (old[other] * c + old[at] * s)).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn activations_in_place() {
        let (gates, mut y) = (wave(101), wave(101));
        let (mut quick, mut exact) = (y.clone(), y.clone());
        gate(&gates, &mut y);
        quick_gelu(&mut quick);
        gelu(&mut exact);
        for (i, x) in wave(101).into_iter().enumerate() {
            assert!((y[i] - x * exp::silu(gates[i])).abs() < 1e-6);
            assert!((quick[i] - exp::quick_gelu(x)).abs() < 1e-6);
            assert!((exact[i] - exp::gelu(x)).abs() < 1e-6);
        }
    }
}
