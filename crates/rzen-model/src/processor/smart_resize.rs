//! The two size rules of Qwen2-VL's picture pipeline.
//!
//! Sizes are `(height, width)` in pixels. The order of the floating-point operations is that of the
//! published code, since another order rounds some sizes to another multiple.

/// Sides longer than this many times the shorter one are cut by the first rule.
const MAX_RATIO: u32 = 200;

/// The `(height, width)` that a picture gets when it is read: multiples of `factor`, `tokens[0]` to
/// `tokens[1]` squares of `factor` pixels, at most 200 times longer than wide.
///
/// The same as the loader of `qwen_vl_utils`, apart from shapes for which that computes a side of 0
/// and fails; here no side is shorter than `factor`.
pub fn load_size(height: u32, width: u32, factor: u32, tokens: [usize; 2]) -> (u32, u32) {
    let (height, width) = smart_resize(height, width, factor, tokens);
    let longest = |other: u32| other.saturating_mul(MAX_RATIO);
    if height > width { (height.min(longest(width)), width) } else { (height, width.min(longest(height))) }
}

/// The `(height, width)` that a model sees: multiples of `factor` near the picture's own, `tokens[0]`
/// to `tokens[1]` squares of `factor` pixels where the shape allows it.
///
/// The same as `smart_resize` of transformers. Where 4.51 refuses a shape (a ratio above 200, a side
/// under `factor`) or rounds a side down to 0, the side is `factor` here, as from 4.57 on.
pub fn smart_resize(height: u32, width: u32, factor: u32, tokens: [usize; 2]) -> (u32, u32) {
    let unit = f64::from(factor);
    let [least, most] = tokens.map(|tokens| tokens as f64 * unit * unit);
    let area = f64::from(height) * f64::from(width);
    let sides = [height, width].map(f64::from);
    let multiple = |count: f64| (count as u32).max(1).saturating_mul(factor);
    let rounded = sides.map(|side| multiple((side / unit).round_ties_even()));
    let rounded_area: f64 = rounded.into_iter().map(f64::from).product();
    let [height, width] = if rounded_area > most {
        let beta = (area / most).sqrt();
        sides.map(|side| multiple((side / beta / unit).floor()))
    } else if rounded_area < least {
        let beta = (least / area).sqrt();
        sides.map(|side| multiple((side * beta / unit).ceil()))
    } else {
        rounded
    };
    (height, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_shapes_get_a_size() {
        for (height, width) in
            [(1, 1), (3, 20_000), (20_000, 3), (1, 1_000_000), (7, 1400), (7, 1407), (60_000, 60_000)]
        {
            let (h, w) = load_size(height, width, 28, [4, 16384]);
            assert!(h.min(w) >= 28 && h.max(w) <= 200 * h.min(w), "{height}x{width}: {h}x{w}");
            for tokens in [[256, 1280], [160, 180], [4, 16]] {
                let (h, w) = smart_resize(h, w, 28, tokens);
                assert!(h.min(w) >= 28 && h % 28 == 0 && w % 28 == 0, "{height}x{width}: {h}x{w}");
            }
        }
    }

    #[test]
    fn halves_round_to_even() {
        assert_eq!(smart_resize(70, 98, 28, [1, 100_000]), (56, 112));
    }
}
