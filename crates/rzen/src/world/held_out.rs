//! The combinations that training never shows and evaluation asks for.

use std::collections::BTreeSet;

use super::dice::Dice;
use super::words::{Colour, Firm, Motion, Shape, Town};

/// A colour and a shape, such as a red star.
pub(super) type Kind = (Colour, Shape);

/// How many of a kind a page can list.
pub(super) const COUNTS: std::ops::RangeInclusive<u8> = 2..=9;

/// Which side of the split something is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Shows no held-out combination.
    Training,
    /// Shows at least one.
    Evaluation,
}

/// Every word stands in training; these combinations of two or three words do not.
///
/// Each set is spread evenly: every colour, shape, motion, town and firm keeps most of its
/// combinations for training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldOut {
    pub kinds: BTreeSet<Kind>,
    pub motions: BTreeSet<(Shape, Motion)>,
    pub counts: BTreeSet<(Kind, u8)>,
    pub titles: BTreeSet<(Town, Firm)>,
}

impl HeldOut {
    /// The split of the world with this seed.
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::named(seed, "held out");
        HeldOut {
            kinds: draw_kinds(&mut dice),
            motions: draw_motions(&mut dice),
            counts: draw_counts(&mut dice),
            titles: draw_titles(&mut dice),
        }
    }

    /// The colours and shapes that `side` may put forward, in a fixed order.
    pub fn kinds_of(&self, side: Side) -> Vec<Kind> {
        all_kinds().filter(|kind| self.kinds.contains(kind) == (side == Side::Evaluation)).collect()
    }

    /// The shapes and motions of `side`, in a fixed order.
    pub fn motions_of(&self, side: Side) -> Vec<(Shape, Motion)> {
        all_motions().filter(|pair| self.motions.contains(pair) == (side == Side::Evaluation)).collect()
    }

    /// The titles of `side`, in a fixed order.
    pub fn titles_of(&self, side: Side) -> Vec<(Town, Firm)> {
        all_titles().filter(|title| self.titles.contains(title) == (side == Side::Evaluation)).collect()
    }
}

/// Every colour and shape.
pub(super) fn all_kinds() -> impl Iterator<Item = Kind> {
    Colour::ALL.iter().flat_map(|&colour| Shape::ALL.iter().map(move |&shape| (colour, shape)))
}

fn all_motions() -> impl Iterator<Item = (Shape, Motion)> {
    let pairs = Shape::ALL.iter().flat_map(|&shape| Motion::ALL.iter().map(move |&motion| (shape, motion)));
    pairs.filter(|&(shape, motion)| motion != Motion::Turning || shape.can_turn())
}

fn all_titles() -> impl Iterator<Item = (Town, Firm)> {
    Town::ALL.iter().flat_map(|&town| Firm::ALL.iter().map(move |&firm| (town, firm)))
}

/// One colour of every shape and a second one of every other shape.
fn draw_kinds(dice: &mut Dice) -> BTreeSet<Kind> {
    let (colours, shapes) = (dice.shuffled(Colour::ALL), dice.shuffled(Shape::ALL));
    let first = shapes.iter().enumerate().map(|(at, &shape)| (colours[at % colours.len()], shape));
    let second = shapes.iter().enumerate().step_by(2);
    first.chain(second.map(|(at, &shape)| (colours[(at + 3) % colours.len()], shape))).collect()
}

/// Two shapes of every motion.
fn draw_motions(dice: &mut Dice) -> BTreeSet<(Shape, Motion)> {
    let (motions, shapes) = (dice.shuffled(Motion::ALL), dice.shuffled(Shape::ALL));
    let mut held = BTreeSet::new();
    for (at, &motion) in motions.iter().enumerate() {
        let from_here = (0..shapes.len()).map(|step| shapes[(at + 3 * step) % shapes.len()]);
        let able = from_here.filter(|shape| motion != Motion::Turning || shape.can_turn());
        held.extend(able.take(2).map(|shape| (shape, motion)));
    }
    held
}

/// Two numbers of every colour and shape.
fn draw_counts(dice: &mut Dice) -> BTreeSet<(Kind, u8)> {
    let counts: Vec<u8> = COUNTS.collect();
    let mut held = BTreeSet::new();
    for kind in all_kinds() {
        held.extend(dice.shuffled(&counts).into_iter().take(2).map(|count| (kind, count)));
    }
    held
}

/// A quarter of the titles: four firms of every town.
fn draw_titles(dice: &mut Dice) -> BTreeSet<(Town, Firm)> {
    let (towns, firms) = (dice.shuffled(Town::ALL), dice.shuffled(Firm::ALL));
    let mut held = BTreeSet::new();
    for (row, &town) in towns.iter().enumerate() {
        held.extend((0..firms.len()).filter(|at| (at + row) % 4 == 0).map(|at| (town, firms[at])));
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_keeps_most_of_its_combinations_for_training() {
        for seed in 0..20 {
            let held = HeldOut::draw(seed);
            assert_eq!((held.kinds.len(), held.motions.len()), (12, 18));
            assert_eq!((held.counts.len(), held.titles.len()), (128, 64));
            for shape in Shape::ALL {
                assert!(held.kinds.iter().filter(|kind| kind.1 == *shape).count() <= 2);
                assert!(held.motions.iter().filter(|pair| pair.0 == *shape).count() <= 4);
            }
            for colour in Colour::ALL {
                assert!(held.kinds.iter().filter(|kind| kind.0 == *colour).count() <= 2);
            }
        }
    }

    #[test]
    fn the_sides_share_nothing() {
        let held = HeldOut::draw(1);
        let (training, evaluation) = (held.kinds_of(Side::Training), held.kinds_of(Side::Evaluation));
        assert_eq!(training.len() + evaluation.len(), 64);
        assert!(training.iter().all(|kind| !evaluation.contains(kind)));
        assert_eq!(held.motions_of(Side::Training).len() + held.motions_of(Side::Evaluation).len(), 70);
    }

    #[test]
    fn worlds_differ_in_what_they_hold_out() {
        assert_ne!(HeldOut::draw(1), HeldOut::draw(2));
        assert_eq!(HeldOut::draw(1), HeldOut::draw(1));
    }
}
