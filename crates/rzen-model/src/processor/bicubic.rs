//! Bicubic resizing with Pillow's numbers, bit for bit.
//!
//! Pillow 13 widens the kernel when it shrinks a picture, rounds the weights to 22 bits, and resizes
//! one axis after the other with bytes in between; which goes first depends on the sizes. Everything
//! here is the same integer arithmetic. The two passes follow one another in strips of the picture, so
//! that what stands between them stays in the cache.

mod passes;
#[cfg(target_arch = "x86_64")]
mod vnni;

use rayon::prelude::*;
use rzen_core::{Picture, prefer_large_pages};

use passes::{across, down};

/// Bits of a weight behind the point: 32 less 8 of a byte and 2 for overshoot and sign.
const PRECISION: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION - 1);
const CHANNELS: usize = 3;
/// Output rows that one thread computes after another.
const STRIP: usize = 48;

/// Resizes a picture as Pillow's `resize((width, height))` does: bicubic (a = -0.5), antialiased.
///
/// # Panics
/// If a side is 0.
pub fn resize(picture: &Picture, width: u32, height: u32) -> Picture {
    assert!(width > 0 && height > 0, "a picture can't be resized to {width}x{height}");
    let (old_width, old_height) = (picture.width() as usize, picture.height() as usize);
    let (new_width, new_height) = (width as usize, height as usize);
    let rgb = picture.rgb();
    let resized = match (old_width != new_width, old_height != new_height) {
        (false, false) => rgb.to_vec(),
        (true, false) => resize_rows(rgb, old_width, new_width),
        (false, true) => resize_columns(rgb, old_width, old_height, new_height),
        (true, true) if columns_first([old_width, old_height], [new_width, new_height]) => {
            resize_rows(&resize_columns(rgb, old_width, old_height, new_height), old_width, new_width)
        }
        (true, true) => resize_both(rgb, [old_width, old_height], [new_width, new_height]),
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

/// Inputs that are multiplied at once where the processor does so.
const QUAD: usize = 4;
/// Bytes of a weight.
const DIGITS: usize = 3;

/// The weights of one output position: those of the inputs from `first` on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
    /// The same by fours, each digit of four weights in one number; the first may be 0.
    quads: Vec<[i32; DIGITS]>,
}

impl Taps {
    fn end(&self) -> usize {
        self.first + self.weights.len()
    }
}

/// For each output position, which inputs it is made of. Quads begin at a multiple of `align`.
fn taps(old: usize, new: usize, align: usize) -> Vec<Taps> {
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
        let weights: Vec<i32> = normal.map(fixed_point).collect();
        let quads = quads(first % align, &weights);
        Taps { first, weights, quads }
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

/// Cuts weights by fours, after `lead` zeros.
fn quads(lead: usize, weights: &[i32]) -> Vec<[i32; DIGITS]> {
    let weight = |at: usize| at.checked_sub(lead).and_then(|i| weights.get(i)).copied().unwrap_or(0);
    let quad = |first: usize| {
        let of_each: [_; QUAD] = std::array::from_fn(|k| digits(weight(first + k)));
        std::array::from_fn(|d| i32::from_le_bytes(of_each.map(|digits| digits[d] as u8)))
    };
    (0..lead + weights.len()).step_by(QUAD).map(quad).collect()
}

/// Signed bytes that make up a weight: `d0 + 256 d1 + 65536 d2`.
fn digits(weight: i32) -> [i8; DIGITS] {
    let low = weight as i8;
    let rest = (weight - i32::from(low)) >> 8;
    let middle = rest as i8;
    let high = (rest - i32::from(middle)) >> 8;
    [low, middle, i8::try_from(high).expect("weights of a sum of 1 are far below 2")]
}

fn resize_rows(rgb: &[u8], old: usize, new: usize) -> Vec<u8> {
    let taps = taps(old, new, QUAD);
    let mut out = vec![0; rgb.len() / old * new];
    prefer_large_pages(&mut out);
    out.par_chunks_mut(STRIP * new * CHANNELS)
        .zip(rgb.par_chunks(STRIP * old * CHANNELS))
        .for_each(|(out, rgb)| across(&taps, rgb, old, out));
    out
}

fn resize_columns(rgb: &[u8], width: usize, old: usize, new: usize) -> Vec<u8> {
    let (taps, row_bytes) = (taps(old, new, 1), width * CHANNELS);
    let mut out = vec![0; new * row_bytes];
    prefer_large_pages(&mut out);
    out.par_chunks_mut(STRIP * row_bytes).zip(taps.par_chunks(STRIP)).for_each(|(out, taps)| {
        let rows = taps[0].first..taps[taps.len() - 1].end();
        down(taps, &rgb[rows.start * row_bytes..rows.end * row_bytes], out);
    });
    out
}

/// First across, then down.
fn resize_both(rgb: &[u8], old: [usize; 2], new: [usize; 2]) -> Vec<u8> {
    let (columns, rows) = (taps(old[0], new[0], QUAD), taps(old[1], new[1], 1));
    let [old_bytes, new_bytes] = [old[0], new[0]].map(|width| width * CHANNELS);
    let mut out = vec![0; new[1] * new_bytes];
    prefer_large_pages(&mut out);
    let strips = out.par_chunks_mut(STRIP * new_bytes).zip(rows.par_chunks(STRIP));
    strips.for_each_init(Vec::new, |between, (out, rows)| {
        let (first, end) = (rows[0].first, rows[rows.len() - 1].end());
        between.resize((end - first) * new_bytes, 0);
        across(&columns, &rgb[first * old_bytes..end * old_bytes], old[0], between);
        down(rows, between, out);
    });
    out
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
            for (position, taps) in taps(along, new, 1).iter().enumerate() {
                for line in 0..across * 3 {
                    let value = |k: usize| i32::from(rgb[at(line, taps.first + k, along)]);
                    let sum = (0..taps.weights.len()).fold(HALF, |sum, k| sum + value(k) * taps.weights[k]);
                    out[at(line, position, new)] = (sum >> PRECISION).clamp(0, 255) as u8;
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
            ([500, 400], [140, 112]),
            ([333, 250], [336, 252]),
        ] {
            let picture = drawn(w, h);
            let resized = resize(&picture, ww, hh);
            assert_eq!(resized.rgb(), plain(&picture, ww as usize, hh as usize), "{w}x{h} to {ww}x{hh}");
        }
    }

    #[test]
    fn digits_make_up_the_weight() {
        for weight in [0, 1, -1, 127, 128, -129, 32_768, -40_000, 5_000_000, -1_000_000, 1 << PRECISION] {
            let [low, middle, high] = digits(weight).map(i32::from);
            assert_eq!(low + 256 * middle + 65536 * high, weight);
        }
    }

    #[test]
    fn a_flat_picture_stays_flat_and_an_equal_size_copies() {
        let flat = Picture::new(50, 40, vec![93; 50 * 40 * 3]);
        assert!(resize(&flat, 28, 84).rgb().iter().all(|byte| *byte == 93));
        let picture = drawn(31, 17);
        assert_eq!(resize(&picture, 31, 17), picture);
    }
}
