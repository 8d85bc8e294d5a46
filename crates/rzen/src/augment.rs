//! Random changes of training items that leave what they show or say much the same.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rzen_core::{LoadedItem, Media, Picture};
use serde::{Deserialize, Serialize};

/// How items of a dataset are changed each time they are drawn; the default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Share of each side that may be cut off, 0 to 0.9.
    pub crop: f64,
    /// Whether half of the pictures are mirrored.
    pub mirror: bool,
    /// Degrees that a picture may be turned by to either side, 0 to 180.
    pub turn: f64,
    /// Most that brightness and contrast change, as a share, 0 to 0.9.
    pub light: f64,
    /// Share of each side of three rectangles that may be painted grey, 0 to 0.9.
    pub erase: f64,
    /// Share of the words of a text that are left out, 0 to 0.9, one of them staying in any case; what is left is
    /// joined by single spaces.
    pub words: f64,
}

impl Augment {
    /// Says which setting makes no sense, if any.
    ///
    /// # Errors
    /// The setting, what was found, what was expected.
    pub fn check(&self) -> Result<(), String> {
        let Augment { crop, turn, light, erase, words, .. } = *self;
        let shares = [("crop", crop), ("light", light), ("erase", erase), ("words", words)];
        let limits = shares.map(|(name, value)| (name, value, 0.9));
        for (name, value, most) in limits.into_iter().chain([("turn", turn, 180.0)]) {
            if !(0.0..=most).contains(&value) {
                return Err(format!("`augment.{name}` is {value}, expected 0 to {most}"));
            }
        }
        Ok(())
    }

    /// Changes every part of an item; `seed` decides how. The frames of a clip change alike, an instruction stays.
    pub fn apply(&self, item: &mut LoadedItem, seed: u64) {
        if *self == Augment::default() {
            return;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for part in &mut item.parts {
            let change = Change::draw(self, &mut rng);
            match part {
                Media::Text(text) => self.leave_words_out(text, &mut rng),
                Media::Image(picture) => *picture = change.of(picture),
                Media::Frames(frames) => frames.iter_mut().for_each(|frame| *frame = change.of(frame)),
            }
        }
    }

    fn leave_words_out(&self, text: &mut String, rng: &mut ChaCha8Rng) {
        if self.words == 0.0 {
            return;
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let stays = (unit(rng) * words.len() as f64) as usize;
        let chosen = words.iter().enumerate().filter(|(place, _)| unit(rng) >= self.words || *place == stays);
        *text = chosen.map(|(_, word)| *word).collect::<Vec<_>>().join(" ");
    }
}

/// A number from 0 to below 1.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    f64::from(rng.next_u32()) / (f64::from(u32::MAX) + 1.0)
}

/// Rectangles that are erased.
const ERASED: usize = 3;
/// What erased pixels become.
const GREY: [u8; 3] = [128; 3];

/// One drawing of the dice.
struct Change {
    cut: Window,
    mirror: bool,
    /// Sine and cosine of the angle, where the picture is turned.
    turn: Option<(f64, f64)>,
    table: [u8; 256],
    /// Of what is left after the cut.
    erased: Vec<Window>,
}

/// A rectangle in shares of a picture's width and height.
struct Window {
    size: [f64; 2],
    /// The part of the rest that lies before it.
    before: [f64; 2],
}

impl Window {
    /// First pixel and number of pixels along each side.
    fn pixels(&self, sides: [u32; 2]) -> [(usize, usize); 2] {
        [0, 1].map(|i| {
            let size = ((f64::from(sides[i]) * self.size[i]).round() as u32).clamp(1, sides[i]);
            let start = (f64::from(sides[i] - size) * self.before[i]).round() as usize;
            (start, size as usize)
        })
    }
}

impl Change {
    fn draw(augment: &Augment, rng: &mut ChaCha8Rng) -> Self {
        let mut unit = || unit(rng);
        let size = [1.0 - augment.crop * unit(), 1.0 - augment.crop * unit()];
        let cut = Window { size, before: [unit(), unit()] };
        let mirror = augment.mirror && unit() < 0.5;
        let mut around_one = || 1.0 + augment.light * (2.0 * unit() - 1.0);
        let (brightness, contrast) = (around_one(), around_one());
        let light = |byte: usize| {
            ((byte as f64 * brightness - 128.0) * contrast + 128.0).round().clamp(0.0, 255.0) as u8
        };
        let table = std::array::from_fn(light);
        let turn = (augment.turn > 0.0).then(|| (augment.turn * (2.0 * unit() - 1.0)).to_radians().sin_cos());
        let mut window =
            || Window { size: [augment.erase * unit(), augment.erase * unit()], before: [unit(), unit()] };
        let count = if augment.erase > 0.0 { ERASED } else { 0 };
        let erased = (0..count).map(|_| window()).collect();
        Change { cut, mirror, turn, table, erased }
    }

    fn of(&self, picture: &Picture) -> Picture {
        let sides = [picture.width(), picture.height()];
        let [(left, width), (top, height)] = self.cut.pixels(sides);
        let mut rgb = Vec::with_capacity(width * height * 3);
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let x = if self.mirror { width - 1 - x } else { x };
            let (x, y) = self.source(sides, left + x, top + y);
            let pixel = &picture.rgb()[(y * sides[0] as usize + x) * 3..][..3];
            rgb.extend(pixel.iter().map(|byte| self.table[usize::from(*byte)]));
        }
        for erased in &self.erased {
            let [(left, across), (top, down)] = erased.pixels([width as u32, height as u32]);
            for row in rgb.chunks_exact_mut(width * 3).skip(top).take(down) {
                row[left * 3..][..across * 3].as_chunks_mut::<3>().0.fill(GREY);
            }
        }
        Picture::new(width as u32, height as u32, rgb)
    }

    /// The pixel that stands at `x`, `y` of the turned picture; beyond the border the border goes on.
    fn source(&self, sides: [u32; 2], x: usize, y: usize) -> (usize, usize) {
        let Some((sine, cosine)) = self.turn else { return (x, y) };
        let [across, down] = sides.map(|side| f64::from(side - 1));
        let (dx, dy) = (x as f64 - across / 2.0, y as f64 - down / 2.0);
        let x = (across / 2.0 + cosine * dx + sine * dy).round().clamp(0.0, across);
        let y = (down / 2.0 - sine * dx + cosine * dy).round().clamp(0.0, down);
        (x as usize, y as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> LoadedItem {
        let rgb = (0..20 * 10 * 3).map(|i| (i % 251) as u8).collect();
        LoadedItem { parts: vec![Media::Image(Picture::new(20, 10, rgb))], instruction: None }
    }

    fn changed(augment: Augment, seed: u64) -> LoadedItem {
        let mut item = item();
        augment.apply(&mut item, seed);
        item
    }

    #[test]
    fn the_default_changes_nothing_and_a_seed_decides_the_rest() {
        assert_eq!(changed(Augment::default(), 1), item());
        let augment = Augment { crop: 0.5, mirror: true, turn: 20.0, light: 0.3, erase: 0.5, words: 0.5 };
        assert_eq!(changed(augment, 1), changed(augment, 1));
        assert_ne!(changed(augment, 1), changed(augment, 2));
        assert!(Augment { crop: 1.0, ..augment }.check().unwrap_err().contains("augment.crop"));
        assert!(Augment { turn: -1.0, ..augment }.check().unwrap_err().contains("augment.turn"));
    }

    #[test]
    fn some_words_are_left_out_and_never_all() {
        let text = "a red star left of a blue ring";
        let cut = |share, text: &str, seed| {
            let mut item =
                LoadedItem { parts: vec![Media::Text(text.to_owned())], instruction: Some(text.to_owned()) };
            Augment { words: share, ..Augment::default() }.apply(&mut item, seed);
            assert_eq!(item.instruction.as_deref(), Some(text));
            let Media::Text(left) = item.parts.remove(0) else { unreachable!() };
            left
        };
        let words: usize = (0..100).map(|seed| cut(0.5, text, seed).split_whitespace().count()).sum();
        assert!((300..500).contains(&words), "{words} of 800");
        let ones = (0..100).filter(|seed| cut(0.9, "red star", *seed).split(' ').count() == 1).count();
        assert!(ones > 75, "{ones} of 100");
        for seed in 0..100 {
            let left = cut(0.5, text, seed);
            let mut all = text.split(' ');
            assert!(left.split_whitespace().all(|word| all.any(|other| other == word)), "{left}");
            assert_eq!(cut(0.9, "star", seed), "star");
            assert_eq!(cut(0.0, "a  star", seed), "a  star");
        }
    }

    /// Nothing but what is said.
    fn plain() -> Change {
        Change {
            cut: Window { size: [1.0; 2], before: [0.0; 2] },
            mirror: false,
            turn: None,
            table: std::array::from_fn(|i| i as u8),
            erased: Vec::new(),
        }
    }

    #[test]
    fn mirroring_and_turning_twice_is_nothing() {
        let Media::Image(picture) = &item().parts[0] else { unreachable!() };
        assert_eq!(plain().of(picture), *picture);
        let half_turn = Some(180_f64.to_radians().sin_cos());
        for change in [Change { mirror: true, ..plain() }, Change { turn: half_turn, ..plain() }] {
            assert_ne!(change.of(picture), *picture);
            assert_eq!(change.of(&change.of(picture)), *picture);
        }
    }

    #[test]
    fn a_rectangle_is_erased_and_no_more() {
        let Media::Image(picture) = &item().parts[0] else { unreachable!() };
        let erased = vec![Window { size: [0.5, 0.2], before: [1.0, 0.0] }];
        let after = Change { erased, ..plain() }.of(picture);
        let pixels = |picture: &Picture| picture.rgb().as_chunks::<3>().0.to_vec();
        for (place, (old, new)) in pixels(picture).into_iter().zip(pixels(&after)).enumerate() {
            let inside = place / 20 < 2 && place % 20 >= 10;
            assert_eq!(new, if inside { GREY } else { old }, "pixel {place}");
        }
    }
}
