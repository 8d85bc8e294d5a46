//! From scores to weights, a block of keys at a time.

use super::LANES;
use crate::exp::exp;
use crate::rows::widest;

/// How far above the largest score of earlier blocks one may be, scaled, before sums are rescaled: their weights are up to
/// 3000 then instead of 1.
#[cfg(target_arch = "x86_64")]
const MOST: f32 = 8.0;

/// What is known of the scores so far, lane by lane.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) largest: [f32; LANES],
    /// Sums of weights.
    pub(super) total: [f32; LANES],
}

impl Running {
    pub(super) fn new() -> Self {
        Running { largest: [f32::NEG_INFINITY; LANES], total: [0.0; LANES] }
    }
}

/// Takes back the scores of keys, the first of them `key`, that come after the own key of the lane's query,
/// which is `own` for the first lane.
pub(super) fn hide_later(scores: &mut [f32], key: usize, own: usize) {
    for (i, lanes) in scores.chunks_exact_mut(LANES).enumerate().skip((own + 1).saturating_sub(key)) {
        lanes[..LANES.min((key + i).saturating_sub(own))].fill(f32::NEG_INFINITY);
    }
}

/// Makes weights of scores: `exp(scale · (score - largest))`; what was summed before is scaled likewise.
pub(super) fn soften(scores: &mut [f32], scale: f32, running: &mut Running, y: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::features().avx512 {
        // SAFETY: the processor has the instructions.
        return unsafe { soften_avx512(scores, scale, running, y) };
    }
    plain_soften(scores, scale, running, y);
}

widest! {
    fn plain_soften(scores: &mut [f32], scale: f32, running: &mut Running, y: &mut [f32]) {
        let Running { largest, total } = running;
        let (scores, _) = scores.as_chunks_mut::<LANES>();
        let mut now = *largest;
        for score in scores.iter() {
            now.iter_mut().zip(score).for_each(|(now, score)| *now = now.max(*score));
        }
        let factor: [f32; LANES] = std::array::from_fn(|i| exp(scale * (largest[i] - now[i])));
        *largest = now;
        total.iter_mut().zip(&factor).for_each(|(total, factor)| *total *= factor);
        for y in y.as_chunks_mut::<LANES>().0 {
            y.iter_mut().zip(&factor).for_each(|(y, factor)| *y *= factor);
        }
        for score in scores.iter_mut() {
            for i in 0..LANES {
                score[i] = exp(scale * (score[i] - now[i]));
                total[i] += score[i];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn soften_avx512(scores: &mut [f32], scale: f32, running: &mut Running, y: &mut [f32]) {
    use std::arch::x86_64::*;

    use crate::exp::avx512::exp;
    let Running { largest, total } = running;
    let scale = _mm512_set1_ps(scale);
    for half in [0, 16] {
        // SAFETY: each row of lanes is two registers.
        unsafe {
            let at = |lanes: &mut [f32; LANES]| lanes.as_mut_ptr().add(half);
            let before = _mm512_loadu_ps(at(largest));
            let mut now = before;
            for lanes in scores.as_chunks_mut::<LANES>().0 {
                now = _mm512_max_ps(now, _mm512_loadu_ps(at(lanes)));
            }
            let mut sum = _mm512_loadu_ps(at(total));
            if _mm512_cmpneq_ps_mask(now, before) != 0 {
                let factor = exp(_mm512_mul_ps(scale, _mm512_sub_ps(before, now)));
                sum = _mm512_mul_ps(sum, factor);
                for lanes in y.as_chunks_mut::<LANES>().0 {
                    _mm512_storeu_ps(at(lanes), _mm512_mul_ps(_mm512_loadu_ps(at(lanes)), factor));
                }
                _mm512_storeu_ps(at(largest), now);
            }
            for lanes in scores.as_chunks_mut::<LANES>().0 {
                let weight = exp(_mm512_mul_ps(scale, _mm512_sub_ps(_mm512_loadu_ps(at(lanes)), now)));
                sum = _mm512_add_ps(sum, weight);
                _mm512_storeu_ps(at(lanes), weight);
            }
            _mm512_storeu_ps(at(total), sum);
        }
    }
}

widest! {
    /// Divides the sums by the weights that went into them.
    pub(super) fn divide(y: &mut [f32], total: &[f32; LANES]) {
        for y in y.as_chunks_mut::<LANES>().0 {
            y.iter_mut().zip(total).for_each(|(y, total)| *y /= total);
        }
    }
}

/// Multiplies the sums.
#[cfg(target_arch = "x86_64")]
pub(super) fn rescale(y: &mut [f32], factor: &[f32; LANES]) {
    if *factor != [1.0; LANES] {
        rescale_all(y, factor);
    }
}

#[cfg(target_arch = "x86_64")]
widest! {
    fn rescale_all(y: &mut [f32], factor: &[f32; LANES]) {
        for y in y.as_chunks_mut::<LANES>().0 {
            y.iter_mut().zip(factor).for_each(|(y, factor)| *y *= factor);
        }
    }
}

/// As [`soften`], with weights rounded to bf16, those of two keys in a word, or in three parts of which they are the
/// sum: `[low, high, middle, high]`. There may be words for more keys than there are scores: those are zero. Returns
/// what earlier sums are to be multiplied by.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn soften_to_words<const IN_PARTS: bool>(
    scores: &[f32],
    scale: f32,
    running: &mut Running,
    words: &mut [u32],
) -> [f32; LANES] {
    use std::arch::x86_64::*;

    use crate::exp::avx512::{exp, exp_below};
    use crate::matmul::avx512::{pair, split_pair};
    let (scores, _) = scores.as_chunks::<LANES>();
    let (words, _) = words.as_chunks_mut::<LANES>();
    let pairs = if IN_PARTS { words.len() / 4 } else { words.len() };
    let scale = _mm512_set1_ps(scale);
    let mut factors = [1.0; LANES];
    for half in [0, 16] {
        // SAFETY: each row of lanes is two registers.
        unsafe {
            let load = |lanes: &[f32; LANES]| _mm512_loadu_ps(lanes.as_ptr().add(half));
            let before = load(&running.largest);
            // Four at a time, since one waits for another.
            let mut largest = [before; 4];
            for lanes in scores.chunks(4) {
                for (largest, lanes) in largest.iter_mut().zip(lanes) {
                    *largest = _mm512_max_ps(*largest, load(lanes));
                }
            }
            let [a, b, c, d] = largest;
            let largest = _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d));
            let grown = _mm512_mul_ps(scale, _mm512_sub_ps(largest, before));
            let grown = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(grown, _mm512_set1_ps(MOST));
            let now = _mm512_mask_mov_ps(before, grown, largest);
            let least = _mm512_mul_ps(scale, now);
            let factor = exp(_mm512_sub_ps(_mm512_mul_ps(scale, before), least));
            let mut sum = _mm512_mul_ps(load(&running.total), factor);
            let weight = |key: usize| match scores.get(key) {
                Some(lanes) => exp_below(_mm512_fmsub_ps(scale, load(lanes), least)),
                None => _mm512_setzero_ps(),
            };
            let mut put = |at: usize, pairs: __m512i| {
                _mm512_storeu_si512(words[at].as_mut_ptr().add(half).cast(), pairs);
            };
            for i in 0..pairs {
                let (first, second) = (weight(2 * i), weight(2 * i + 1));
                sum = _mm512_add_ps(sum, _mm512_add_ps(first, second));
                if IN_PARTS {
                    let [high, middle, low] = split_pair(first, second);
                    put(i, low);
                    put(pairs + i, high);
                    put(2 * pairs + i, middle);
                    put(3 * pairs + i, high);
                } else {
                    put(i, pair(first, second));
                }
            }
            _mm512_storeu_ps(running.largest.as_mut_ptr().add(half), now);
            _mm512_storeu_ps(running.total.as_mut_ptr().add(half), sum);
            _mm512_storeu_ps(factors.as_mut_ptr().add(half), factor);
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::super::tests::wave;
    use super::*;

    #[test]
    fn weights_without_wide_registers_agree() {
        let start = Running { largest: [0.5; LANES], total: [2.0; LANES] };
        let run = |soften: fn(&mut [f32], f32, &mut Running, &mut [f32])| {
            let (mut scores, mut running, mut y) =
                (wave(50 * LANES, 0.3), start.clone(), vec![1.5; 8 * LANES]);
            soften(&mut scores, 1.7, &mut running, &mut y);
            [scores, running.largest.to_vec(), running.total.to_vec(), y].concat()
        };
        assert!(run(soften).iter().zip(run(plain_soften)).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
