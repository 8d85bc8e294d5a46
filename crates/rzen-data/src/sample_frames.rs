//! Which frames stand for a clip.

/// The frames to keep of a clip of `total`: `linspace(0, total - 1, wanted)` cut to whole numbers,
/// as NumPy gives it, or all of them where there are no more than wanted.
///
/// `wanted` of 0 is read as 1; the answer is empty only for an empty clip.
pub fn sample_frames(total: usize, wanted: usize) -> Vec<usize> {
    if total <= wanted {
        return (0..total).collect();
    }
    if wanted <= 1 {
        return vec![0];
    }
    let step = (total - 1) as f64 / (wanted - 1) as f64;
    // The last one is set and not computed, as NumPy does: the product may fall short of it.
    (0..wanted).map(|i| if i + 1 == wanted { total - 1 } else { (i as f64 * step) as usize }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_evenly_and_ends_at_the_last() {
        assert_eq!(sample_frames(181, 8), [0, 25, 51, 77, 102, 128, 154, 180]);
        assert_eq!(sample_frames(9, 8), [0, 1, 2, 3, 4, 5, 6, 8]);
    }

    #[test]
    fn short_clips_give_all_their_frames() {
        assert_eq!(sample_frames(3, 8), [0, 1, 2]);
        assert_eq!(sample_frames(8, 8), (0..8).collect::<Vec<_>>());
        assert_eq!(sample_frames(0, 8), [] as [usize; 0]);
        assert_eq!(sample_frames(5, 0), [0]);
    }

    #[test]
    fn never_repeats_a_frame() {
        for total in 1..200 {
            for wanted in 1..40 {
                let frames = sample_frames(total, wanted);
                assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "{total} {wanted}: {frames:?}");
                assert_eq!(frames.len(), total.min(wanted));
            }
        }
    }
}
