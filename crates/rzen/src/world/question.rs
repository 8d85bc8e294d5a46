//! Questions about scenes, clips and pages, with their answers.

use rzen_core::Part;

use super::caption::{Voice, a_thing, kind_words, short_caption, the};
use super::clip::Clip;
use super::dice::Dice;
use super::page::{Entry, Page, entry_words, title_words};
use super::scene::{Layout, Scene};
use super::words::{Style, with_article};

/// A question about one of the two shapes of a picture: question, answer, and the answer that
/// would be right for the other shape.
pub(super) fn about_pair(scene: &Scene, at: usize, dice: &mut Dice) -> (String, &'static str, &'static str) {
    let (thing, other) = (scene.things[at], scene.things[1 - at]);
    let way = dice.below(2);
    let mut voice = Voice::Varied(dice);
    match way {
        0 => {
            let question = format!("what colour is {}?", the(thing.shape, &mut voice));
            (question, thing.colour.word(), other.colour.word())
        }
        _ => {
            let question = format!("what shape is {}?", voice.name(thing.colour.names()));
            (question, thing.shape.word(), other.shape.word())
        }
    }
}

/// A phrase that means the shape in place `at` of a grid, and no other.
pub(super) fn phrase(scene: &Scene, at: usize, dice: &mut Dice) -> String {
    let thing = scene.things[at];
    let way = dice.below(4);
    let mut voice = Voice::Varied(dice);
    match way {
        0 => format!("the {}", kind_words(thing.kind(), &mut voice)),
        1 => the(thing.shape, &mut voice),
        2 => format!("the {} shape", voice.name(thing.colour.names())),
        _ => format!("the shape at the {}", CORNERS[at]),
    }
}

const CORNERS: [&str; 4] = ["top left", "top right", "bottom left", "bottom right"];

/// A question about a clip, and its answer.
pub(super) fn about_clip(clip: &Clip, dice: &mut Dice) -> (&'static str, &'static str) {
    match dice.below(4) {
        0 => ("what colour is it?", clip.kind.0.word()),
        1 => ("what shape is it?", clip.kind.1.word()),
        _ => ("what is it doing?", clip.motion.word()),
    }
}

/// What a page is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub style: Option<Style>,
    pub entries: Vec<Entry>,
}

impl Wanted {
    /// Something that this page answers: two of its entries, or one and its style.
    pub fn of(page: &Page, dice: &mut Dice) -> Self {
        let style = dice.percent(50).then_some(page.style);
        let mut entries = dice.shuffled(&page.entries);
        entries.truncate(if style.is_some() && dice.percent(40) { 1 } else { 2 });
        Wanted { style, entries }
    }

    /// Whether the page answers.
    pub fn fits(&self, page: &Page) -> bool {
        page.lists(self.style, &self.entries)
    }

    /// The question.
    pub fn words(&self, dice: &mut Dice) -> String {
        let mut voice = Voice::Varied(dice);
        let noun = self.style.map_or("page", |style| voice.name(style.names()));
        let entries = entry_words(&self.entries, &mut voice);
        match voice.way(2) {
            0 => format!("which {noun} has {entries}?"),
            _ => format!("{} with {entries}", with_article(noun)),
        }
    }
}

/// A page's title as somebody would ask for it.
pub(super) fn title_query(page: &Page, dice: &mut Dice) -> String {
    match dice.below(3) {
        0 => format!("page of the {}", title_words(page.title)),
        _ => title_words(page.title),
    }
}

/// A sentence about two shapes and a question on it; then the answer, and the wrong one.
pub(super) fn about_sentence(scene: &Scene, dice: &mut Dice) -> (String, String, String) {
    let (asked, answer) = if dice.percent(50) { (0, 1) } else { (1, 0) };
    let relation = match (scene.layout, answer) {
        (Layout::Beside, 0) => "left of",
        (Layout::Beside, _) => "right of",
        (_, 0) => "above",
        (_, _) => "below",
    };
    let sentence = short_caption(scene, Voice::Varied(dice));
    let question =
        format!("{sentence}. what is {relation} {}?", the(scene.things[asked].shape, &mut Voice::Plain));
    let mut words = |at: usize| a_thing(scene.layout, scene.things[at], &mut Voice::Varied(dice));
    (question, words(answer), words(asked))
}

/// A part of words.
pub(super) fn text(words: impl Into<String>) -> Part {
    Part::Text(words.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::held_out::{HeldOut, Side};
    use crate::world::scene::Studio;
    use crate::world::words::{Firm, Town};

    #[test]
    fn answers_are_those_of_the_asked_shape() {
        let held = HeldOut::draw(4);
        let mut studio = Studio::new(&held, Side::Training, 4, "test");
        for _ in 0..100 {
            let scene = studio.pair();
            let (question, right, wrong) = about_pair(&scene, 1, &mut studio.dice);
            let thing = scene.things[1];
            let asks_colour = question.starts_with("what colour");
            assert_eq!(right, if asks_colour { thing.colour.word() } else { thing.shape.word() });
            assert_ne!(right, wrong);
            let (question, right, wrong) = about_sentence(&scene, &mut studio.dice);
            assert_ne!(right, wrong);
            assert!(question.contains(". what is "));
        }
    }

    #[test]
    fn a_page_fits_what_it_is_asked_for() {
        let held = HeldOut::draw(4);
        let mut studio = Studio::new(&held, Side::Training, 4, "test");
        for _ in 0..100 {
            let page = studio.page((Town::River, Firm::Club));
            let wanted = Wanted::of(&page, &mut studio.dice);
            assert!(wanted.fits(&page));
            assert!(wanted.entries.len() == 2 || wanted.style.is_some());
            let elsewhere = studio.page((Town::River, Firm::Fair));
            assert!(!wanted.fits(&elsewhere) || wanted.entries.iter().all(|e| elsewhere.entries.contains(e)));
        }
    }
}
