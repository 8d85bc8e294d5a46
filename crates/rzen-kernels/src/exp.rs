//! The exponential and what is made of it, in sixteen lanes or one.
//!
//! Cody and Waite's reduction with the polynomial of Cephes `expf`; the worst error is 2 units in the last place.

const LOG2_E: f32 = std::f32::consts::LOG2_E;
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
const POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
/// Below this the result is 0 for certain, above the negative of it infinity.
const LOWEST: f32 = -110.0;

/// e to the power of `x`; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x < LOWEST { LOWEST } else { x };
    let x = if x > -LOWEST { -LOWEST } else { x };
    let power = (x * LOG2_E).round_ties_even();
    let rest = (-power).mul_add(LN2_LOW, (-power).mul_add(LN2_HIGH, x));
    let sum = POLYNOMIAL[1..].iter().fold(POLYNOMIAL[0], |sum, factor| sum.mul_add(rest, *factor));
    let y = sum.mul_add(rest * rest, rest) + 1.0;
    // In two steps, since 2^power alone may leave the range.
    let half = (power as i32) >> 1;
    let two_to = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    y * two_to(half) * two_to(power as i32 - half)
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x · sigmoid(1.702 x)`.
#[inline(always)]
pub(crate) fn quick_gelu(x: f32) -> f32 {
    x / (1.0 + exp(-1.702 * x))
}

/// `x · Φ(x)`, Φ through the error function as in Abramowitz and Stegun 7.1.26.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / 0.327_591_1_f32.mul_add(z, 1.0);
    let factors = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6_f32];
    let sum = factors[1..].iter().fold(factors[0], |sum, factor| sum.mul_add(t, *factor)) * t;
    // What is left of the tail above |x|, both sides.
    let rest = sum * exp(-z * z);
    0.5 * x * if x < 0.0 { rest } else { 2.0 - rest }
}

/// The same in AVX-512 registers.
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512 {
    use std::arch::x86_64::*;

    use super::{LN2_HIGH, LN2_LOW, LOG2_E, LOWEST, POLYNOMIAL};

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn exp(x: __m512) -> __m512 {
        // The second operand wins where one is NaN.
        exp_below(_mm512_min_ps(_mm512_set1_ps(-LOWEST), x))
    }

    /// The same where no `x` is above 110.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn exp_below(x: __m512) -> __m512 {
        let all = |x: f32| _mm512_set1_ps(x);
        let x = _mm512_max_ps(all(LOWEST), x);
        let power = _mm512_roundscale_ps::<8>(_mm512_mul_ps(x, all(LOG2_E)));
        let rest = _mm512_fnmadd_ps(power, all(LN2_HIGH), x);
        let rest = _mm512_fnmadd_ps(power, all(LN2_LOW), rest);
        let mut sum = all(POLYNOMIAL[0]);
        for factor in &POLYNOMIAL[1..] {
            sum = _mm512_fmadd_ps(sum, rest, all(*factor));
        }
        let y = _mm512_fmadd_ps(sum, _mm512_mul_ps(rest, rest), rest);
        _mm512_scalef_ps(_mm512_add_ps(y, all(1.0)), power)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn silu(x: __m512) -> __m512 {
        let negative = _mm512_sub_ps(_mm512_setzero_ps(), x);
        _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0), exp(negative)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn quick_gelu(x: __m512) -> __m512 {
        let scaled = _mm512_mul_ps(x, _mm512_set1_ps(-1.702));
        _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0), exp(scaled)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_exact_exponential() {
        for i in -20_000..20_000 {
            let x = i as f32 * 0.004_37;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 3e-7, "exp({x}) = {}", exp(x));
        }
        assert_eq!((exp(-200.0), exp(f32::NEG_INFINITY), exp(200.0)), (0.0, 0.0, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
        // Φ from tables: the values of scipy.stats.norm.cdf.
        for (x, normal) in
            [(0.0, 0.5), (0.5, 0.691_462_46), (-1.0, 0.158_655_25), (2.5, 0.993_790_3), (-4.0, 3.167_124e-5)]
        {
            assert!((gelu(x) - x * normal).abs() <= 3e-7 * x.abs(), "gelu({x}) = {}", gelu(x));
        }
        assert!((silu(3.0) - 2.857_722).abs() < 1e-6 && (quick_gelu(-1.0) + 0.154_2).abs() < 1e-4);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn sixteen_lanes_agree_with_one() {
        use std::arch::x86_64::*;
        if !is_x86_feature_detected!("avx512f") {
            return println!("skipped: this processor has no AVX-512");
        }
        #[target_feature(enable = "avx512f")]
        fn run(x: [f32; 16]) -> [[f32; 16]; 3] {
            // SAFETY: an array of sixteen f32 and a register hold the same bits.
            unsafe {
                let lanes = std::mem::transmute::<[f32; 16], __m512>(x);
                [avx512::exp(lanes), avx512::silu(lanes), avx512::quick_gelu(lanes)]
                    .map(|y| std::mem::transmute(y))
            }
        }
        let close = |a: f32, b: f32| a == b || (a - b).abs() <= 4e-7 * b.abs() || (a.is_nan() && b.is_nan());
        for start in -40..40 {
            let mut x: [f32; 16] = std::array::from_fn(|i| (start * 16 + i as i32) as f32 * 0.171);
            x[3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0][start.rem_euclid(4) as usize];
            // SAFETY: the processor has AVX-512.
            let y = unsafe { run(x) };
            for i in 0..16 {
                assert!(close(y[0][i], exp(x[i])), "exp({}) {} {}", x[i], y[0][i], exp(x[i]));
                assert!(close(y[1][i], silu(x[i])), "silu({}) {} {}", x[i], y[1][i], silu(x[i]));
                assert!(close(y[2][i], quick_gelu(x[i])), "{} {} {}", x[i], y[2][i], quick_gelu(x[i]));
            }
        }
    }
}
