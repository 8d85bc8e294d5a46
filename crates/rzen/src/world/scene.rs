//! What is in a picture.

use super::dice::Dice;
use super::held_out::{HeldOut, Kind, Side, all_kinds};
use super::words::{Background, Colour, Place, Shape, Size};

/// One shape of a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Thing {
    pub colour: Colour,
    pub shape: Shape,
    /// [`Size::Large`] where sizes are not told.
    pub size: Size,
}

impl Thing {
    /// Colour and shape.
    pub fn kind(self) -> Kind {
        (self.colour, self.shape)
    }
}

/// How the shapes of a scene stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Layout {
    /// One shape.
    Alone(Place),
    /// Two, from left to right.
    Beside,
    /// Two, from top to bottom.
    Stacked,
    /// Three, from left to right.
    Row,
    /// Three, from top to bottom.
    Column,
    /// Four, two above two.
    Grid,
}

impl Layout {
    fn things(self) -> usize {
        match self {
            Layout::Alone(_) => 1,
            Layout::Beside | Layout::Stacked => 2,
            Layout::Row | Layout::Column => 3,
            Layout::Grid => 4,
        }
    }

    /// Whether the shapes come in two sizes.
    pub fn has_sizes(self) -> bool {
        self.things() <= 2
    }

    /// Width and height of the picture, multiples of 28.
    pub fn canvas(self) -> (u32, u32) {
        match self {
            Layout::Alone(_) => (84, 84),
            Layout::Beside => (112, 84),
            Layout::Stacked => (84, 112),
            Layout::Row => (140, 84),
            Layout::Column => (84, 140),
            Layout::Grid => (112, 112),
        }
    }
}

/// A picture's meaning. Equal scenes look alike but for jitter.
///
/// The shapes of a scene all differ in shape and in colour, so that "the star" and "the red one"
/// name one of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Scene {
    pub layout: Layout,
    pub things: Vec<Thing>,
    pub background: Background,
}

/// Centre and radius of a shape, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spot {
    pub x: f32,
    pub y: f32,
    pub radius: f32,
}

impl Scene {
    /// Where each shape stands before jitter.
    pub fn spots(&self) -> Vec<Spot> {
        let (width, height) = self.layout.canvas();
        let (width, height) = (width as f32, height as f32);
        let count = self.things.len();
        let place = |(at, thing): (usize, &Thing)| {
            let step = (at as f32 + 0.5) / count as f32;
            let (x, y, radius) = match self.layout {
                Layout::Alone(place) => return alone(place, thing.size, width),
                Layout::Beside => (width * step, height / 2.0, pair_radius(thing.size)),
                Layout::Stacked => (width / 2.0, height * step, pair_radius(thing.size)),
                Layout::Row => (width * step, height / 2.0, 19.0),
                Layout::Column => (width / 2.0, height * step, 19.0),
                Layout::Grid => {
                    let (column, row) = ((at % 2) as f32, (at / 2) as f32);
                    (width * (0.25 + column / 2.0), height * (0.25 + row / 2.0), 21.0)
                }
            };
            Spot { x, y, radius }
        };
        self.things.iter().enumerate().map(place).collect()
    }

    /// The scene on a white background: what remains of it in a caption that is silent about that.
    pub fn without_background(&self) -> Scene {
        Scene { background: Background::White, ..self.clone() }
    }

    /// The place of the first held-out shape.
    pub fn held_out_thing(&self, held: &HeldOut) -> Option<usize> {
        self.things.iter().position(|thing| held.kinds.contains(&thing.kind()))
    }

    fn is_clear(&self) -> bool {
        let pairs = |f: fn(&Thing, &Thing) -> bool| {
            self.things.iter().enumerate().all(|(at, a)| self.things[..at].iter().all(|b| f(a, b)))
        };
        pairs(|a, b| a.shape != b.shape && a.colour != b.colour)
    }
}

fn alone(place: Place, size: Size, side: f32) -> Spot {
    let radius = match size {
        Size::Small => 0.17 * side,
        Size::Large => 0.27 * side,
    };
    let (near, middle, far) = (radius + 4.0, side / 2.0, side - radius - 4.0);
    let (x, y) = match place {
        Place::Left => (near, middle),
        Place::Right => (far, middle),
        Place::Top => (middle, near),
        Place::Bottom => (middle, far),
        Place::Centre => (middle, middle),
    };
    Spot { x, y, radius }
}

fn pair_radius(size: Size) -> f32 {
    match size {
        Size::Small => 13.0,
        Size::Large => 22.0,
    }
}

/// Draws scenes for one side of the split.
pub(super) struct Studio<'a> {
    pub held: &'a HeldOut,
    pub side: Side,
    pub dice: Dice,
}

impl<'a> Studio<'a> {
    /// A studio with the stream of chance called `name`.
    pub fn new(held: &'a HeldOut, side: Side, seed: u64, name: &str) -> Self {
        Studio { held, side, dice: Dice::named(seed, &format!("{side:?} {name}")) }
    }

    /// A scene with one shape.
    pub fn alone(&mut self) -> Scene {
        let place = self.dice.pick(Place::ALL);
        self.scene(Layout::Alone(place))
    }

    /// A scene with two shapes.
    pub fn pair(&mut self) -> Scene {
        let layout = self.dice.pick(&[Layout::Beside, Layout::Stacked]);
        self.scene(layout)
    }

    /// A scene with three shapes.
    pub fn trio(&mut self) -> Scene {
        let layout = self.dice.pick(&[Layout::Row, Layout::Column]);
        self.scene(layout)
    }

    /// A scene with one to three shapes.
    pub fn any(&mut self) -> Scene {
        match self.dice.below(10) {
            0..4 => self.alone(),
            4..8 => self.pair(),
            _ => self.trio(),
        }
    }

    /// A scene of this layout; for evaluation, one of its shapes is held out.
    pub fn scene(&mut self, layout: Layout) -> Scene {
        let kinds = self.cast(layout.things());
        let background = self.dice.pick(Background::ALL);
        let size = |dice: &mut Dice| if layout.has_sizes() { dice.pick(Size::ALL) } else { Size::Large };
        let things =
            kinds.into_iter().map(|(colour, shape)| Thing { colour, shape, size: size(&mut self.dice) });
        Scene { layout, things: things.collect(), background }
    }

    /// The shape that a question is about: a held-out one where there is one.
    pub fn focus(&mut self, scene: &Scene) -> usize {
        scene.held_out_thing(self.held).unwrap_or_else(|| self.dice.below(scene.things.len()))
    }

    /// Whether the scene may stand on this side as the result of a change.
    pub fn may_show(&self, scene: &Scene) -> bool {
        scene.is_clear() && scene.held_out_thing(self.held).is_some() == (self.side == Side::Evaluation)
    }

    /// `count` kinds that share no colour and no shape.
    fn cast(&mut self, count: usize) -> Vec<Kind> {
        let lead = self.held.kinds_of(self.side);
        let extras: Vec<Kind> = all_kinds().filter(|kind| !self.held.kinds.contains(kind)).collect();
        let lead_at = self.dice.below(count);
        loop {
            let cast: Vec<Kind> =
                (0..count).map(|at| self.dice.pick(if at == lead_at { &lead } else { &extras })).collect();
            let clash =
                |at: usize| cast[..at].iter().any(|kind| kind.0 == cast[at].0 || kind.1 == cast[at].1);
            if !(0..count).any(clash) {
                return cast;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_stand_inside_the_picture_and_apart() {
        let held = HeldOut::draw(5);
        let mut studio = Studio::new(&held, Side::Training, 5, "test");
        for layout in [Layout::Beside, Layout::Stacked, Layout::Row, Layout::Column, Layout::Grid] {
            for _ in 0..50 {
                let scene = studio.scene(layout);
                let (width, height) = layout.canvas();
                let spots = scene.spots();
                for (at, spot) in spots.iter().enumerate() {
                    assert!(spot.x - spot.radius > 3.0 && spot.x + spot.radius < width as f32 - 3.0);
                    assert!(spot.y - spot.radius > 3.0 && spot.y + spot.radius < height as f32 - 3.0);
                    for other in &spots[..at] {
                        let apart = (spot.x - other.x).hypot(spot.y - other.y);
                        assert!(apart > spot.radius + other.radius + 4.0, "{scene:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn each_side_shows_what_it_may() {
        let held = HeldOut::draw(5);
        for (side, expected) in [(Side::Training, false), (Side::Evaluation, true)] {
            let mut studio = Studio::new(&held, side, 5, "test");
            for _ in 0..200 {
                let scene = studio.any();
                assert!(scene.is_clear());
                assert_eq!(scene.held_out_thing(&held).is_some(), expected, "{scene:?}");
            }
        }
    }
}
