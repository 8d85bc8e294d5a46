//! What can be said of a picture in a few numbers.

use std::sync::LazyLock;

use rzen_core::Picture;

/// A picture in short, for finding others that look like it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Print {
    /// Which of the 63 lowest frequencies of brightness are above their median (a DCT hash).
    pub hash: u64,
    /// Mean brightness in 16 x 16 fields.
    pub light: [u8; 256],
    /// The two differences of colour in 4 x 4 fields each.
    pub colors: [u8; 32],
}

/// What pictures that look the same may differ in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nearness {
    /// Bits of their hashes.
    pub bits: u32,
    /// Levels of brightness in 8 x 8 fields, and of colour in 4 x 4.
    pub levels: u8,
    /// The least correlation of their detail (the Laplacian of 16 x 16 fields): pages of one layout have the same hash
    /// and brightness, and other lines.
    pub detail: f32,
}

/// Numbers of a picture.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PictureFacts {
    pub width: u32,
    pub height: u32,
    /// The variance of the Laplacian.
    pub sharpness: f32,
    /// The standard deviation of brightness and colour.
    pub contrast: f32,
    /// The print of the picture, then those of its middle (see [`CROPS`]).
    pub prints: Vec<Print>,
}

/// The longer side of a picture when it is measured; smaller ones stay as they are.
const MEASURED_SIDE: u32 = 256;

/// Shares of the sides that are cut off on each edge for a print, so that crops are found.
const CROPS: [f32; 3] = [0.0, 0.05, 0.1];

impl PictureFacts {
    /// Measures a picture; `crops` says whether prints of its middle are wanted.
    pub fn of(picture: &Picture, crops: bool) -> Self {
        let (width, height) = (picture.width(), picture.height());
        let whole = [0.0, 0.0, width as f32, height as f32];
        let scale = (MEASURED_SIDE as f32 / width.max(height) as f32).min(1.0);
        let side = |side: u32| ((side as f32 * scale).round() as usize).max(1);
        let at = |x: usize, y: usize| {
            let place = (y * width as usize + x) * 3;
            let rgb = &picture.rgb()[place..place + 3];
            let [red, green, blue] = [rgb[0], rgb[1], rgb[2]].map(f32::from);
            let light = 0.299 * red + 0.587 * green + 0.114 * blue;
            // The differences of colour of JPEG, around 128.
            [light, 128.0 + 0.564 * (blue - light), 128.0 + 0.713 * (red - light)]
        };
        let small = Field::mean(at, whole, side(width), side(height));
        let crops = if crops { &CROPS[..] } else { &CROPS[..1] };
        PictureFacts {
            width,
            height,
            sharpness: small.laplacian_variance(),
            contrast: small.deviation(),
            prints: crops.iter().map(|cut| small.print(*cut)).collect(),
        }
    }
}

/// Brightness and two differences of colour, rows from the top.
struct Field {
    width: usize,
    height: usize,
    values: Vec<[f32; 3]>,
}

impl Field {
    /// The means of `width` x `height` equal rectangles of `area`: left, top, right, bottom in pixels of `at`.
    fn mean(at: impl Fn(usize, usize) -> [f32; 3], area: [f32; 4], width: usize, height: usize) -> Self {
        let [left, top, right, bottom] = area;
        let columns = spans(left, right, width);
        let mut values = Vec::with_capacity(width * height);
        for row in spans(top, bottom, height) {
            let mut sums = vec![[0.0_f32; 3]; width];
            for (y, share) in row {
                for (sum, column) in sums.iter_mut().zip(&columns) {
                    for (x, part) in column {
                        let value = at(*x, y);
                        (0..3).for_each(|i| sum[i] += value[i] * part * share);
                    }
                }
            }
            values.extend(sums);
        }
        Field { width, height, values }
    }

    fn cut(&self, share: f32, width: usize, height: usize) -> Field {
        let [right, bottom] = [self.width, self.height].map(|side| side as f32);
        let area = [right * share, bottom * share, right * (1.0 - share), bottom * (1.0 - share)];
        Field::mean(|x, y| self.values[y * self.width + x], area, width, height)
    }

    fn laplacian_variance(&self) -> f32 {
        let at = |x: usize, y: usize| f64::from(self.values[y * self.width + x][0]);
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        for y in 1..self.height.saturating_sub(1) {
            for x in 1..self.width.saturating_sub(1) {
                let value = at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1) - 4.0 * at(x, y);
                (sum, squares, count) = (sum + value, squares + value * value, count + 1.0);
            }
        }
        // Without an inside there is nothing to be blurred.
        if count == 0.0 { f32::INFINITY } else { (squares / count - (sum / count) * (sum / count)) as f32 }
    }

    fn deviation(&self) -> f32 {
        let count = self.values.len() as f64;
        let of = |channel: usize| {
            let values = || self.values.iter().map(|value| f64::from(value[channel]));
            let mean = values().sum::<f64>() / count;
            values().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count
        };
        (0..3).map(of).fold(0.0, f64::max).sqrt() as f32
    }

    fn print(&self, cut: f32) -> Print {
        let light: Vec<f32> = self.cut(cut, SIDE, SIDE).values.iter().map(|value| value[0]).collect();
        let level = |value: f32| value.round().clamp(0.0, 255.0) as u8;
        let (fields, colors) = (self.cut(cut, 16, 16).values, self.cut(cut, 4, 4).values);
        Print {
            hash: dct_hash(&light),
            light: std::array::from_fn(|place| level(fields[place][0])),
            colors: std::array::from_fn(|place| level(colors[place % 16][1 + place / 16])),
        }
    }
}

/// Which pixels, and with which share, make each of `count` equal pieces of a line from `start` to `end`.
fn spans(start: f32, end: f32, count: usize) -> Vec<Vec<(usize, f32)>> {
    let step = (end - start) / count as f32;
    let span = |piece: usize| {
        let (from, to) = (start + step * piece as f32, start + step * (piece + 1) as f32);
        let last = (end.ceil() as usize).max(1) - 1;
        let (first, last) = ((from as usize).min(last), ((to.ceil() as usize).max(1) - 1).min(last));
        let share = |pixel: usize| ((to.min(pixel as f32 + 1.0) - from.max(pixel as f32)) / step).max(0.0);
        (first..=last).map(|pixel| (pixel, share(pixel))).collect()
    };
    (0..count).map(span).collect()
}

/// Fields along a side of what the hash is taken from.
const SIDE: usize = 32;

/// Cosines of the 8 lowest frequencies at each of [`SIDE`] places.
static COSINES: LazyLock<[[f32; SIDE]; 8]> = LazyLock::new(|| {
    std::array::from_fn(|frequency| {
        std::array::from_fn(|place| {
            let angle = std::f64::consts::PI * frequency as f64 * (place as f64 + 0.5) / SIDE as f64;
            angle.cos() as f32
        })
    })
});

/// Each bit says whether a low frequency is above the median of all; the mean brightness has none.
fn dct_hash(light: &[f32]) -> u64 {
    let cosines = &*COSINES;
    let mut along = [[0.0_f32; 8]; SIDE];
    for (y, row) in light.chunks_exact(SIDE).enumerate() {
        along[y] =
            std::array::from_fn(|u| row.iter().zip(&cosines[u]).map(|(value, cosine)| value * cosine).sum());
    }
    let frequency = |place: usize| {
        let (v, u) = (place / 8, place % 8);
        (0..SIDE).map(|y| along[y][u] * cosines[v][y]).sum::<f32>()
    };
    let frequencies: Vec<f32> = (1..64).map(frequency).collect();
    let mut sorted = frequencies.clone();
    sorted.sort_by(f32::total_cmp);
    let median = sorted[sorted.len() / 2];
    let bits = frequencies.iter().enumerate().filter(|(_, value)| **value > median);
    bits.fold(0, |hash, (bit, _)| hash | 1 << bit)
}

impl Print {
    /// Whether two pictures look the same.
    pub fn is_near(&self, other: &Print, near: Nearness) -> bool {
        let level = |print: &Print, place: usize| {
            let corner = place / 8 * 32 + place % 8 * 2;
            let sum: u32 = [0, 1, 16, 17].iter().map(|step| u32::from(print.light[corner + step])).sum();
            (sum / 4) as u8
        };
        (self.hash ^ other.hash).count_ones() <= near.bits
            && self.colors.iter().zip(&other.colors).all(|(a, b)| a.abs_diff(*b) <= near.levels)
            && (0..64).all(|place| level(self, place).abs_diff(level(other, place)) <= near.levels)
            && correlation(&self.detail(), &other.detail()) >= near.detail
    }

    /// The Laplacian of brightness.
    fn detail(&self) -> [f32; 256] {
        let at = |x: usize, y: usize| f32::from(self.light[y * 16 + x]);
        std::array::from_fn(|place| {
            let (x, y) = (place % 16, place / 16);
            let around = at(x.saturating_sub(1), y)
                + at((x + 1).min(15), y)
                + at(x, y.saturating_sub(1))
                + at(x, (y + 1).min(15));
            around - 4.0 * at(x, y)
        })
    }
}

/// The correlation of two fields whose means are 0 or nearly so; 1 where both have no detail.
fn correlation(a: &[f32; 256], b: &[f32; 256]) -> f32 {
    let product = |a: &[f32; 256], b: &[f32; 256]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let scale = (product(a, a) * product(b, b)).sqrt();
    if scale > 0.0 { product(a, b) / scale } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(width: u32, height: u32, at: impl Fn(f32, f32) -> [u8; 3]) -> PictureFacts {
        let pixel = |i: u32| at((i % width) as f32 / width as f32, (i / width) as f32 / height as f32);
        let rgb = (0..width * height).flat_map(pixel).collect();
        PictureFacts::of(&Picture::new(width, height, rgb), true)
    }

    const NEAR: Nearness = Nearness { bits: 6, levels: 16, detail: 0.9 };

    fn waves(x: f32, y: f32) -> [u8; 3] {
        let wave = |k: f32, l: f32| ((k * x + l * y).sin() * 100.0 + 128.0) as u8;
        [wave(9.0, 4.0), wave(3.0, 11.0), wave(7.0, -8.0)]
    }

    #[test]
    fn sizes_do_not_matter_and_content_does() {
        let (large, small) = (made(400, 300, waves), made(97, 73, waves));
        assert!(large.prints[0].is_near(&small.prints[0], NEAR));
        let other = made(400, 300, |x, y| waves(y, x));
        assert!(!large.prints[0].is_near(&other.prints[0], NEAR));
        let tinted = made(400, 300, |x, y| waves(x, y).map(|level| level / 2));
        assert!(!large.prints[0].is_near(&tinted.prints[0], NEAR), "colour and light count");
    }

    #[test]
    fn a_middle_is_found_in_its_picture() {
        let whole = made(400, 300, waves);
        for (cut, print) in [(0.05, 1), (0.1, 2)] {
            let inner = made(320, 240, |x, y| {
                let inside = |place: f32| cut + place * (1.0 - 2.0 * cut);
                waves(inside(x), inside(y))
            });
            assert!(whole.prints[print].is_near(&inner.prints[0], NEAR), "{cut}");
        }
    }

    #[test]
    fn blur_and_emptiness_are_measured() {
        let grey = made(50, 50, |_, _| [90; 3]);
        assert!(grey.contrast < 0.01 && grey.sharpness < 0.01);
        let red = made(50, 50, |x, _| if x < 0.5 { [255, 0, 0] } else { [0, 130, 0] });
        assert!(red.contrast > 50.0, "equal brightness, two colours");
        let sharp = made(300, 300, |x, y| [255 * (((x * 40.0) as u8 + (y * 40.0) as u8) % 2); 3]);
        let soft = made(300, 300, |x, y| [(((x * 8.0).sin() * (y * 8.0).cos()) * 100.0 + 128.0) as u8; 3]);
        assert!(sharp.sharpness > 1000.0 && soft.sharpness < 5.0, "{} {}", sharp.sharpness, soft.sharpness);
        assert_eq!(made(2, 9, waves).sharpness, f32::INFINITY);
    }
}
