//! Random changes of training pictures that leave what they show the same.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rzen_core::{LoadedItem, Media, Picture};
use serde::{Deserialize, Serialize};

/// How pictures of a dataset are changed each time they are drawn; the default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Share of each side that may be cut off, 0 to 0.9.
    pub crop: f64,
    /// Whether half of the pictures are mirrored.
    pub mirror: bool,
    /// Most that brightness and contrast change, as a share, 0 to 0.9.
    pub light: f64,
}

impl Augment {
    /// Says which setting makes no sense, if any.
    ///
    /// # Errors
    /// The setting, what was found, what was expected.
    pub fn check(&self) -> Result<(), String> {
        for (name, value) in [("crop", self.crop), ("light", self.light)] {
            if !(0.0..=0.9).contains(&value) {
                return Err(format!("`augment.{name}` is {value}, expected 0 to 0.9"));
            }
        }
        Ok(())
    }

    /// Changes every picture of an item; `seed` decides how. The frames of a clip change alike.
    pub fn apply(&self, item: &mut LoadedItem, seed: u64) {
        if *self == Augment::default() {
            return;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for part in &mut item.parts {
            let change = Change::draw(self, &mut rng);
            match part {
                Media::Text(_) => {}
                Media::Image(picture) => *picture = change.of(picture),
                Media::Frames(frames) => frames.iter_mut().for_each(|frame| *frame = change.of(frame)),
            }
        }
    }
}

/// One drawing of the dice.
struct Change {
    /// Shares of the sides that stay, and of what is cut the part before.
    keep: [f64; 2],
    before: [f64; 2],
    mirror: bool,
    table: [u8; 256],
}

impl Change {
    fn draw(augment: &Augment, rng: &mut ChaCha8Rng) -> Self {
        let mut unit = || f64::from(rng.next_u32()) / (f64::from(u32::MAX) + 1.0);
        let keep = [1.0 - augment.crop * unit(), 1.0 - augment.crop * unit()];
        let before = [unit(), unit()];
        let mirror = augment.mirror && unit() < 0.5;
        let mut around_one = || 1.0 + augment.light * (2.0 * unit() - 1.0);
        let (brightness, contrast) = (around_one(), around_one());
        let light = |byte: usize| {
            ((byte as f64 * brightness - 128.0) * contrast + 128.0).round().clamp(0.0, 255.0) as u8
        };
        Change { keep, before, mirror, table: std::array::from_fn(light) }
    }

    fn of(&self, picture: &Picture) -> Picture {
        let sides = [picture.width(), picture.height()];
        let size = [0, 1].map(|i| ((f64::from(sides[i]) * self.keep[i]).round() as u32).clamp(1, sides[i]));
        let start = [0, 1].map(|i| (f64::from(sides[i] - size[i]) * self.before[i]).round() as usize);
        let (width, stride) = (size[0] as usize, sides[0] as usize * 3);
        let mut rgb = Vec::with_capacity(width * size[1] as usize * 3);
        for row in picture.rgb().chunks_exact(stride).skip(start[1]).take(size[1] as usize) {
            let pixels = row[start[0] * 3..][..width * 3].chunks_exact(3);
            let mut put = |pixel: &[u8]| rgb.extend(pixel.iter().map(|byte| self.table[usize::from(*byte)]));
            match self.mirror {
                true => pixels.rev().for_each(&mut put),
                false => pixels.for_each(&mut put),
            }
        }
        Picture::new(size[0], size[1], rgb)
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
        let augment = Augment { crop: 0.5, mirror: true, light: 0.3 };
        assert_eq!(changed(augment, 1), changed(augment, 1));
        assert_ne!(changed(augment, 1), changed(augment, 2));
        assert!(Augment { crop: 1.0, ..augment }.check().unwrap_err().contains("augment.crop"));
    }

    #[test]
    fn mirroring_twice_is_nothing() {
        let mirror = Change {
            keep: [1.0; 2],
            before: [0.0; 2],
            mirror: true,
            table: std::array::from_fn(|i| i as u8),
        };
        let Media::Image(picture) = &item().parts[0] else { unreachable!() };
        assert_ne!(mirror.of(picture), *picture);
        assert_eq!(mirror.of(&mirror.of(picture)), *picture);
    }
}
