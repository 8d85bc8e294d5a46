//! Changes to scenes, and the words that ask for them.

use super::caption::{Voice, kind_words, on, the};
use super::scene::{Layout, Scene, Studio};
use super::words::{Background, Colour, Place, Shape, Size, with_article};

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Recolour,
    Reshape,
    Resize,
    Move,
    Swap,
    Background,
}

impl Change {
    /// Every change.
    pub const ALL: &[Change] =
        &[Change::Recolour, Change::Reshape, Change::Resize, Change::Move, Change::Swap, Change::Background];

    /// The changes that a caption without background notices.
    pub const OF_SHAPES: &[Change] = Change::ALL.split_last().expect("there are changes").1;
}

impl Studio<'_> {
    /// The scene after one of these changes, and the words that ask for it.
    pub fn edit(&mut self, scene: &Scene, changes: &[Change]) -> (Scene, String) {
        loop {
            let change = self.dice.pick(changes);
            let at = self.dice.below(scene.things.len());
            let edited = self.apply(change, scene, at);
            if edited != *scene && self.may_show(&edited) {
                let words = self.request(change, scene, &edited, at);
                return (edited, words);
            }
        }
    }

    /// A scene that differs in one property, told even by a caption without background.
    pub fn near_miss(&mut self, scene: &Scene) -> Scene {
        self.edit(scene, Change::OF_SHAPES).0
    }

    /// The scene itself where the change does not fit it.
    fn apply(&mut self, change: Change, scene: &Scene, at: usize) -> Scene {
        let mut edited = scene.clone();
        let dice = &mut self.dice;
        match (change, scene.layout) {
            (Change::Recolour, _) => edited.things[at].colour = dice.pick(Colour::ALL),
            (Change::Reshape, _) => edited.things[at].shape = dice.pick(Shape::ALL),
            (Change::Resize, layout) if layout.has_sizes() => {
                edited.things[at].size = dice.pick(Size::ALL);
            }
            (Change::Move, Layout::Alone(_)) => edited.layout = Layout::Alone(dice.pick(Place::ALL)),
            (Change::Swap, Layout::Beside | Layout::Stacked) => edited.things.reverse(),
            (Change::Background, _) => edited.background = dice.pick(Background::ALL),
            _ => {}
        }
        edited
    }

    fn request(&mut self, change: Change, old: &Scene, new: &Scene, at: usize) -> String {
        let way = self.dice.below(2);
        let mut voice = Voice::Varied(&mut self.dice);
        let alone = old.things.len() == 1;
        let it = if alone { "it".to_owned() } else { the(old.things[at].shape, &mut voice) };
        let thing = new.things[at];
        match change {
            Change::Recolour if way == 0 => format!("make {it} {}", voice.name(thing.colour.names())),
            Change::Recolour => format!("paint {it} {}", voice.name(thing.colour.names())),
            Change::Reshape if way == 0 => {
                format!("turn {it} into {}", with_article(voice.name(thing.shape.names())))
            }
            Change::Reshape => {
                format!("replace {it} by {}", with_article(&kind_words(thing.kind(), &mut voice)))
            }
            Change::Resize => format!("make {it} {}", comparative(thing.size)),
            Change::Move => format!("move it {}", towards(new.layout)),
            Change::Swap => ["swap the two shapes", "let the two change places"][way].to_owned(),
            Change::Background => {
                format!("put {} {}", if alone { "it" } else { "them" }, on(new.background, &mut voice))
            }
        }
    }
}

fn comparative(size: Size) -> &'static str {
    match size {
        Size::Small => "smaller",
        Size::Large => "bigger",
    }
}

fn towards(layout: Layout) -> &'static str {
    match layout {
        Layout::Alone(Place::Left) => "to the left",
        Layout::Alone(Place::Right) => "to the right",
        Layout::Alone(Place::Top) => "to the top",
        Layout::Alone(Place::Bottom) => "to the bottom",
        _ => "to the centre",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::held_out::{HeldOut, Side};

    #[test]
    fn every_change_changes_one_thing_and_stays_on_its_side() {
        let held = HeldOut::draw(6);
        for side in [Side::Training, Side::Evaluation] {
            let mut studio = Studio::new(&held, side, 6, "test");
            let mut requests = std::collections::BTreeSet::new();
            for _ in 0..300 {
                let scene = studio.any();
                let (edited, words) = studio.edit(&scene, Change::ALL);
                assert_ne!(scene, edited);
                assert_eq!(edited.held_out_thing(&held).is_some(), side == Side::Evaluation);
                requests.insert(words.split(' ').next().unwrap().to_owned());
            }
            assert_eq!(requests.len(), 8, "{requests:?}");
        }
    }

    #[test]
    fn a_near_miss_differs_without_its_background_too() {
        let held = HeldOut::draw(6);
        let mut studio = Studio::new(&held, Side::Training, 6, "test");
        for _ in 0..100 {
            let scene = studio.any();
            assert_ne!(studio.near_miss(&scene).without_background(), scene.without_background());
        }
    }
}
