//! Short clips of one shape that does something.

use image::RgbImage;
use tiny_skia::Pixmap;

use super::dice::Dice;
use super::draw::{paint_background, paint_shape, tinted, to_rgb};
use super::held_out::{Kind, Side};
use super::scene::{Spot, Studio};
use super::words::{Background, Motion};

/// Frames of a clip.
pub(super) const FRAMES: usize = 8;
/// Width and height of a clip, in pixels.
const SIDE: f32 = 84.0;
/// Plain backgrounds: with few colours a GIF frame keeps each of them.
const BACKGROUNDS: [Background; 3] = [Background::White, Background::Grey, Background::Black];

/// A clip's meaning. Equal clips look alike but for jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Clip {
    pub kind: Kind,
    pub motion: Motion,
    pub background: Background,
}

impl Studio<'_> {
    /// A clip; for evaluation, its shape never moves like this in training.
    pub fn clip(&mut self) -> Clip {
        let motions = self.held.motions_of(self.side);
        let kinds = self.held.kinds_of(Side::Training);
        loop {
            let (shape, motion) = self.dice.pick(&motions);
            let kind = self.dice.pick(&kinds);
            if kind.1 == shape {
                return Clip { kind, motion, background: self.dice.pick(&BACKGROUNDS) };
            }
        }
    }

    /// A clip of this side that differs from `clip` in its motion alone.
    pub fn other_motion(&mut self, clip: &Clip) -> Clip {
        let mut motions = self.held.motions_of(self.side);
        motions.retain(|(shape, motion)| *shape == clip.kind.1 && *motion != clip.motion);
        Clip { motion: self.dice.pick(&motions).1, ..*clip }
    }
}

/// Draws the frames of a clip; `seed` decides the jitter.
pub(super) fn draw_clip(clip: &Clip, seed: u64) -> Vec<RgbImage> {
    let mut dice = Dice::seeded(seed);
    let tint = tinted(clip.kind.0, &mut dice);
    let (shift_x, shift_y) = (dice.uniform(-3.0, 3.0), dice.uniform(-3.0, 3.0));
    let (tilt, scale) = (dice.uniform(-6.0, 6.0), dice.uniform(0.95, 1.05));
    let frame = |at: usize| {
        let mut canvas = Pixmap::new(SIDE as u32, SIDE as u32).expect("a clip has a size");
        paint_background(&mut canvas, clip.background, &mut Dice::seeded(seed));
        if let Some((spot, turn)) = pose(clip.motion, at) {
            let spot = Spot { x: spot.x + shift_x, y: spot.y + shift_y, radius: spot.radius * scale };
            let dark = clip.background == Background::Black;
            paint_shape(&mut canvas, clip.kind.1, tint, spot, tilt + turn, dark);
        }
        to_rgb(&canvas)
    };
    (0..FRAMES).map(frame).collect()
}

/// Where the shape stands in frame `at` and how many degrees it is turned; `None` while it is gone.
fn pose(motion: Motion, at: usize) -> Option<(Spot, f32)> {
    let done = at as f32 / (FRAMES - 1) as f32;
    let (near, far, middle) = (20.0, SIDE - 20.0, SIDE / 2.0);
    let spot = |x: f32, y: f32, radius: f32| Some((Spot { x, y, radius }, 0.0));
    let between = |from: f32, to: f32| from + (to - from) * done;
    match motion {
        Motion::Right => spot(between(near, far), middle, 16.0),
        Motion::Left => spot(between(far, near), middle, 16.0),
        Motion::Up => spot(middle, between(far, near), 16.0),
        Motion::Down => spot(middle, between(near, far), 16.0),
        Motion::Growing => spot(middle, middle, between(9.0, 34.0)),
        Motion::Shrinking => spot(middle, middle, between(34.0, 9.0)),
        // Two frames on, two frames off: seen at any even sampling of 4 or 8 frames.
        Motion::Blinking => spot(middle, middle, 24.0).filter(|_| at % 4 < 2),
        Motion::Turning => spot(middle, middle, 26.0).map(|(spot, _)| (spot, 168.0 * done)),
        Motion::Orbiting => {
            let angle = std::f32::consts::TAU * (at as f32 / FRAMES as f32 - 0.25);
            spot(middle + 21.0 * angle.cos(), middle + 21.0 * angle.sin(), 15.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::held_out::HeldOut;
    use crate::world::words::{Colour, Shape};

    #[test]
    fn frames_of_every_motion_move() {
        for &motion in Motion::ALL {
            let clip = Clip { kind: (Colour::Red, Shape::Star), motion, background: Background::White };
            let frames = draw_clip(&clip, 4);
            assert_eq!(frames.len(), FRAMES);
            assert_ne!(frames[0], frames[2], "{motion:?}");
            let colours = |frame: &RgbImage| frame.pixels().collect::<std::collections::HashSet<_>>().len();
            assert!(frames.iter().all(|frame| colours(frame) <= 256), "{motion:?} loses colours in a GIF");
        }
    }

    #[test]
    fn opposite_motions_show_the_same_places_in_reverse() {
        for (there, back) in [(Motion::Left, Motion::Right), (Motion::Growing, Motion::Shrinking)] {
            for at in 0..FRAMES {
                let (a, b) = (pose(there, at).unwrap().0, pose(back, FRAMES - 1 - at).unwrap().0);
                assert!((a.x - b.x).abs() + (a.radius - b.radius).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn evaluation_clips_are_unseen() {
        let held = HeldOut::draw(3);
        let mut training = Studio::new(&held, Side::Training, 3, "test");
        let mut evaluation = Studio::new(&held, Side::Evaluation, 3, "test");
        for _ in 0..100 {
            let (seen, unseen) = (training.clip(), evaluation.clip());
            assert!(!held.motions.contains(&(seen.kind.1, seen.motion)));
            assert!(held.motions.contains(&(unseen.kind.1, unseen.motion)));
            assert!(!held.kinds.contains(&unseen.kind));
            let other = training.other_motion(&seen);
            assert!(other.kind == seen.kind && other.motion != seen.motion);
        }
    }
}
