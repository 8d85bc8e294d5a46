//! Pictures and clips in words.

use super::clip::Clip;
use super::dice::Dice;
use super::held_out::Kind;
use super::scene::{Layout, Scene, Thing};
use super::words::{Background, Shape, with_article};

/// How something is worded.
pub(super) enum Voice<'a> {
    /// Always the same way, with the usual words.
    Plain,
    /// One of several ways, with other words now and then.
    Varied(&'a mut Dice),
}

impl Voice<'_> {
    /// One of the names of a thing.
    pub fn name(&mut self, names: &[&'static str]) -> &'static str {
        match (self, names) {
            (Voice::Varied(dice), [usual, others @ ..]) if !others.is_empty() => {
                if dice.percent(30) {
                    dice.pick(others)
                } else {
                    usual
                }
            }
            _ => names[0],
        }
    }

    /// Which of `count` ways.
    pub fn way(&mut self, count: usize) -> usize {
        match self {
            Voice::Plain => 0,
            Voice::Varied(dice) => dice.below(count),
        }
    }
}

/// Says all of a scene, its background included.
pub(super) fn caption(scene: &Scene, mut voice: Voice) -> String {
    let way = voice.way(2);
    let words = arrangement(scene, way, &mut voice);
    match voice.way(3) {
        2 => format!("{} {words}", on(scene.background, &mut voice)),
        _ => format!("{words} {}", on(scene.background, &mut voice)),
    }
}

/// Says all of a scene but its background.
pub(super) fn short_caption(scene: &Scene, mut voice: Voice) -> String {
    let way = voice.way(2);
    arrangement(scene, way, &mut voice)
}

/// Says the same scene in two ways, without its background.
pub(super) fn paraphrases(scene: &Scene, dice: &mut Dice) -> (String, String) {
    let way = dice.below(2);
    let first = arrangement(scene, way, &mut Voice::Varied(dice));
    (first, arrangement(scene, 1 - way, &mut Voice::Varied(dice)))
}

/// Which shapes stand where; `way` is 0 or 1, and the two ways never give the same words.
fn arrangement(scene: &Scene, way: usize, voice: &mut Voice) -> String {
    let things: Vec<String> = scene.things.iter().map(|thing| a_thing(scene.layout, *thing, voice)).collect();
    let (a, b) = (&things[0], things.last().expect("a scene holds a shape"));
    match (scene.layout, way) {
        (Layout::Alone(place), 0) => format!("{a} {}", voice.name(place.names())),
        (Layout::Alone(place), _) => format!("{} there is {a}", voice.name(place.names())),
        (Layout::Beside, 0) => format!("{a} {} {b}", voice.name(&["left of", "to the left of"])),
        (Layout::Beside, _) => format!("{b} {} {a}", voice.name(&["right of", "to the right of"])),
        (Layout::Stacked, 0) => format!("{a} {} {b}", voice.name(&["above", "over"])),
        (Layout::Stacked, _) => format!("{b} {} {a}", voice.name(&["below", "under"])),
        (Layout::Row, 0) => format!("{} from left to right", listed(&things)),
        (Layout::Row, _) => format!("from left to right {}", listed(&things)),
        (Layout::Column, 0) => format!("{} from top to bottom", listed(&things)),
        (Layout::Column, _) => format!("from top to bottom {}", listed(&things)),
        (Layout::Grid, 0) => format!("{} above {}", listed(&things[..2]), listed(&things[2..])),
        (Layout::Grid, _) => format!("{} below {}", listed(&things[2..]), listed(&things[..2])),
    }
}

/// "a small red star"; without the size where sizes are not told.
pub(super) fn a_thing(layout: Layout, thing: Thing, voice: &mut Voice) -> String {
    let kind = kind_words(thing.kind(), voice);
    match layout.has_sizes() {
        true => with_article(&format!("{} {kind}", voice.name(thing.size.names()))),
        false => with_article(&kind),
    }
}

/// "red star".
pub(super) fn kind_words((colour, shape): Kind, voice: &mut Voice) -> String {
    format!("{} {}", voice.name(colour.names()), voice.name(shape.names()))
}

/// "on white".
pub(super) fn on(background: Background, voice: &mut Voice) -> String {
    format!("on {}", voice.name(background.names()))
}

/// "the star".
pub(super) fn the(shape: Shape, voice: &mut Voice) -> String {
    format!("the {}", voice.name(shape.names()))
}

/// "a, b and c".
pub(super) fn listed(things: &[String]) -> String {
    match things {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Says all of a clip, its background included.
pub(super) fn clip_caption(clip: &Clip, mut voice: Voice) -> String {
    let way = voice.way(3);
    let thing = with_article(&kind_words(clip.kind, &mut voice));
    let motion = voice.name(clip.motion.names());
    let behind = on(clip.background, &mut voice);
    match way {
        0 => format!("{thing} {motion} {behind}"),
        1 => format!("{thing} is {motion} {behind}"),
        _ => format!("{behind} {thing} is {motion}"),
    }
}

/// Says all of a clip but its background.
pub(super) fn short_clip_caption(clip: &Clip, mut voice: Voice) -> String {
    let way = voice.way(2);
    let thing = with_article(&kind_words(clip.kind, &mut voice));
    let motion = voice.name(clip.motion.names());
    match way {
        0 => format!("{thing} {motion}"),
        _ => format!("{thing} is {motion}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::words::{Colour, Place, Size};

    fn pair(layout: Layout) -> Scene {
        let star = Thing { colour: Colour::Orange, shape: Shape::Star, size: Size::Small };
        let ring = Thing { colour: Colour::Blue, shape: Shape::Ring, size: Size::Large };
        Scene { layout, things: vec![star, ring], background: Background::Stripes }
    }

    #[test]
    fn plain_words_say_everything() {
        let text = caption(&pair(Layout::Beside), Voice::Plain);
        assert_eq!(text, "a small orange star left of a large blue ring on stripes");
        let mut one = pair(Layout::Alone(Place::Top));
        one.things.pop();
        assert_eq!(caption(&one, Voice::Plain), "a small orange star at the top on stripes");
        let text = caption(&pair(Layout::Row), Voice::Plain);
        assert_eq!(text, "an orange star and a blue ring from left to right on stripes");
    }

    #[test]
    fn paraphrases_turn_the_relation_round() {
        let mut dice = Dice::seeded(1);
        for _ in 0..50 {
            let (first, second) = paraphrases(&pair(Layout::Stacked), &mut dice);
            let says = |words: [&str; 2]| {
                [&first, &second].iter().any(|text| words.iter().any(|w| text.contains(w)))
            };
            assert_ne!(first, second);
            assert!(says([" above ", " over "]) && says([" below ", " under "]), "{first} / {second}");
        }
    }
}
