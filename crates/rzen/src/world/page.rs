//! Document pages: what they say.

use super::caption::{Voice, listed};
use super::held_out::{COUNTS, Kind, Side, all_kinds};
use super::scene::Studio;
use super::words::{Firm, NUMBERS, Style, Town};

/// A line of a table or a bar of a chart.
pub(super) type Entry = (Kind, u8);

/// A page's meaning. Equal pages look alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Page {
    pub style: Style,
    pub title: (Town, Firm),
    /// Two to four, all of different colours and shapes.
    pub entries: Vec<Entry>,
}

impl Page {
    /// Whether the page is in this style (if one is asked for) and lists all of these.
    pub fn lists(&self, style: Option<Style>, asked: &[Entry]) -> bool {
        style.is_none_or(|style| style == self.style)
            && asked.iter().all(|entry| self.entries.contains(entry))
    }

    /// The sum under a table.
    pub fn total(&self) -> u32 {
        self.entries.iter().map(|entry| u32::from(entry.1)).sum()
    }
}

impl Studio<'_> {
    /// A page with this title; for evaluation, training has none of its entries.
    pub fn page(&mut self, title: (Town, Firm)) -> Page {
        let style = if self.dice.percent(60) { Style::Table } else { Style::Chart };
        let count = 2 + self.dice.below(3);
        let mut entries: Vec<Entry> = Vec::new();
        while entries.len() < count {
            let entry = self.entry();
            if entries.iter().all(|other| other.0.0 != entry.0.0 && other.0.1 != entry.0.1) {
                entries.push(entry);
            }
        }
        Page { style, title, entries }
    }

    /// The page with one number changed.
    pub fn other_number(&mut self, page: &Page) -> Page {
        let mut page = page.clone();
        let at = self.dice.below(page.entries.len());
        let (kind, old) = page.entries[at];
        let mut counts: Vec<u8> = COUNTS.filter(|count| *count != old).collect();
        counts.retain(|count| self.may_list((kind, *count)));
        page.entries[at].1 = self.dice.pick(&counts);
        page
    }

    fn may_list(&self, entry: Entry) -> bool {
        match self.side {
            Side::Training => !self.held.counts.contains(&entry) && !self.held.kinds.contains(&entry.0),
            Side::Evaluation => self.held.counts.contains(&entry),
        }
    }

    fn entry(&mut self) -> Entry {
        let (kinds, counts): (Vec<Kind>, Vec<u8>) = (all_kinds().collect(), COUNTS.collect());
        loop {
            let entry = (self.dice.pick(&kinds), self.dice.pick(&counts));
            if self.may_list(entry) {
                return entry;
            }
        }
    }
}

/// "harbour shop".
pub(super) fn title_words((town, firm): (Town, Firm)) -> String {
    format!("{} {}", town.word(), firm.word())
}

/// "4 red stars and seven blue rings".
pub(super) fn entry_words(entries: &[Entry], voice: &mut Voice) -> String {
    let words = |((colour, shape), count): &Entry| {
        let number = match voice.way(4) {
            3 => NUMBERS[usize::from(*count)].to_owned(),
            _ => count.to_string(),
        };
        format!("{number} {} {}", colour.word(), shape.plural())
    };
    listed(&entries.iter().map(words).collect::<Vec<_>>())
}

/// Says all of a page.
pub(super) fn page_caption(page: &Page, mut voice: Voice) -> String {
    let style = voice.name(page.style.names());
    let entries = entry_words(&page.entries, &mut voice);
    match voice.way(2) {
        0 => format!("{} {style}: {entries}", title_words(page.title)),
        _ => format!("{style} of the {} with {entries}", title_words(page.title)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::held_out::HeldOut;
    use crate::world::words::{Colour, Shape};

    #[test]
    fn each_side_lists_what_it_may() {
        let held = HeldOut::draw(8);
        for side in [Side::Training, Side::Evaluation] {
            let mut studio = Studio::new(&held, side, 8, "test");
            for _ in 0..100 {
                let page = studio.page((Town::Farm, Firm::Shop));
                let changed = studio.other_number(&page);
                assert_ne!(page, changed);
                for entry in page.entries.iter().chain(&changed.entries) {
                    assert_eq!(held.counts.contains(entry), side == Side::Evaluation, "{entry:?}");
                }
                assert!((2..=4).contains(&page.entries.len()));
            }
        }
    }

    #[test]
    fn words_and_matching_follow_the_entries() {
        let entries = vec![((Colour::Red, Shape::Star), 4), ((Colour::Blue, Shape::Cross), 7)];
        let page = Page { style: Style::Table, title: (Town::Harbour, Firm::Shop), entries: entries.clone() };
        let text = page_caption(&page, Voice::Plain);
        assert_eq!(text, "harbour shop list: 4 red stars and 7 blue crosses");
        assert_eq!(page.total(), 11);
        assert!(page.lists(None, &entries) && page.lists(Some(Style::Table), &entries[1..]));
        assert!(!page.lists(Some(Style::Chart), &entries));
        assert!(!page.lists(None, &[((Colour::Red, Shape::Star), 5)]));
    }
}
