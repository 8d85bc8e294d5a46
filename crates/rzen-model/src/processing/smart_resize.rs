//! The size that a picture is brought to: sides that are multiples of a token, area between limits.

/// Python's `round`: halves go to the even neighbour.
fn round_to(side: u32, factor: u32) -> u32 {
    (f64::from(side) / f64::from(factor)).round_ties_even() as u32 * factor
}

/// The size `(height, width)` after a resize to sides of whole tokens.
///
/// - `factor`: side of a token in pixels
/// - `[low, high]`: least and most tokens
///
/// The order of operations is the reference's (`floor((H / beta) / factor)`, `ceil((H * beta) / factor)`).
/// A side never falls below one token: the library versions that let it fail on such pictures.
pub fn smart_resize(height: u32, width: u32, factor: u32, [low, high]: [usize; 2]) -> (u32, u32) {
    let f = f64::from(factor);
    let (min_pixels, max_pixels) = (low as f64 * f * f, high as f64 * f * f);
    let sides = (round_to(height, factor).max(factor), round_to(width, factor).max(factor));
    let (h, w) = (f64::from(height), f64::from(width));
    let area = f64::from(sides.0) * f64::from(sides.1);
    if area > max_pixels {
        let beta = (h * w / max_pixels).sqrt();
        let side = |x: f64| ((x / beta / f).floor() as u32 * factor).max(factor);
        (side(h), side(w))
    } else if area < min_pixels {
        let beta = (min_pixels / (h * w)).sqrt();
        let side = |x: f64| (x * beta / f).ceil() as u32 * factor;
        (side(h), side(w))
    } else {
        sides
    }
}

/// The size at loading: as [`smart_resize`], and no side more than 200 times the other.
pub fn load_size(height: u32, width: u32, factor: u32, tokens: [usize; 2]) -> (u32, u32) {
    let (h, w) = smart_resize(height, width, factor, tokens);
    if h > w { (h.min(w * MAX_RATIO), w) } else { (h, w.min(h * MAX_RATIO)) }
}

/// Longest side over shortest.
const MAX_RATIO: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_pictures_keep_a_token_on_each_side() {
        for (height, width) in [(1, 1), (3, 20_000), (20_000, 3), (200, 1), (1, 65_535), (9000, 9000)] {
            let (h, w) = load_size(height, width, 28, [4, 16384]);
            let (h, w) = smart_resize(h, w, 28, [160, 180]);
            assert!(h >= 28 && w >= 28 && h % 28 == 0 && w % 28 == 0, "{height}x{width} -> {h}x{w}");
        }
    }

    #[test]
    fn halves_round_to_even() {
        assert_eq!((round_to(42, 28), round_to(70, 28), round_to(98, 28)), (56, 56, 112));
    }
}
