//! How instruction, words and media become an item, by protocol.
//!
//! - `vlm2vec`: the text of the reference runner without its first token, which stands for the media (the processor puts
//!   it there): pictures of image sets are followed by a line break, others by a space. No instruction.
//! - `rzen`: the same instruction without line breaks, and a space where words follow, as RzenEmbed's examples have it;
//!   queries carry it as their instruction, candidates as words. One family differs: RzenEmbed's example for searching
//!   videos says "caption" where the reference has a wording for each set, and is used for them all.

use rzen_core::{Item, Part};

use super::names::Protocol;

/// An item's instruction and words, neither with marks of media.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    pub instruction: &'a str,
    pub text: &'a str,
}

impl Words<'_> {
    /// Of RzenEmbed's query.
    pub fn rzen_query(self, media: Option<Part>) -> Item {
        let (instruction, text) = (self.instruction.trim(), self.text.trim());
        let space = if text.is_empty() { "" } else { " " };
        let instruction = (!instruction.is_empty()).then(|| format!("{instruction}{space}"));
        Item { content: content(media, text.to_owned()), instruction }
    }

    /// Of RzenEmbed's candidate.
    pub fn rzen_candidate(self, media: Option<Part>) -> Item {
        let joined = format!("{} {}", self.instruction.trim(), self.text.trim());
        Item { content: content(media, joined.trim().to_owned()), instruction: None }
    }

    /// The text of an image set: on lines of its own.
    fn lines(self, end: &str) -> String {
        let text = if self.text.is_empty() { String::new() } else { format!(" {}", self.text) };
        // The reference drops spaces before line breaks, those inside of the words too.
        format!("\n{}{text}", self.instruction.trim()).replace(" \n", "\n") + end
    }

    /// The text of the other sets: single spaces, the instruction as it stands.
    fn spaced(self, has_media: bool) -> String {
        let text = if self.text.is_empty() { String::new() } else { format!(" {}", self.text) };
        format!("{}{}{text}", if has_media { " " } else { "" }, self.instruction)
    }
}

/// The query of an image set, with a picture.
pub(crate) fn picture_query(protocol: Protocol, words: Words, picture: Part) -> Item {
    match protocol {
        Protocol::Vlm2vec => exact(Some(picture), words.lines("\n")),
        Protocol::Rzen => words.rzen_query(Some(picture)),
    }
}

/// The query of an image set, of words alone; `end` are further line breaks.
pub(crate) fn text_query(protocol: Protocol, words: Words, end: &str) -> Item {
    match protocol {
        Protocol::Vlm2vec => exact(None, format!("{} {}\n{end}", words.instruction.trim(), words.text)),
        Protocol::Rzen => words.rzen_query(None),
    }
}

/// The picture that is a candidate of an image set; `end` stands behind its words.
pub(crate) fn picture_candidate(protocol: Protocol, words: Words, picture: Part, end: &str) -> Item {
    match protocol {
        Protocol::Vlm2vec => exact(Some(picture), words.lines(end)),
        Protocol::Rzen => words.rzen_candidate(Some(picture)),
    }
}

/// A query of video or document sets.
pub(crate) fn query(protocol: Protocol, words: Words, media: Option<Part>) -> Item {
    match protocol {
        Protocol::Vlm2vec => exact(media.clone(), words.spaced(media.is_some())),
        Protocol::Rzen => words.rzen_query(media),
    }
}

/// A clip or page that is a candidate.
pub(crate) fn candidate(protocol: Protocol, instruction: &str, media: Part) -> Item {
    let words = Words { instruction, text: "" };
    match protocol {
        Protocol::Vlm2vec => exact(Some(media), words.spaced(true)),
        Protocol::Rzen => words.rzen_candidate(Some(media)),
    }
}

/// Media and the very text.
pub(crate) fn exact(media: Option<Part>, text: String) -> Item {
    Item { content: content(media, text), instruction: None }
}

fn content(media: Option<Part>, text: String) -> Vec<Part> {
    let words = (!text.is_empty()).then_some(Part::Text(text));
    media.into_iter().chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(item: &Item) -> (String, String) {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            _ => "<>".to_owned(),
        };
        (item.instruction.clone().unwrap_or_default(), item.content.iter().map(text).collect())
    }

    fn picture() -> Part {
        Part::Image("a.png".into())
    }

    #[test]
    fn texts_are_those_of_the_reference() {
        let words = |instruction, text| Words { instruction, text };
        let check =
            |item: Item, expected: &str| assert_eq!(shown(&item), (String::new(), expected.to_owned()));
        let of = Protocol::Vlm2vec;
        check(picture_query(of, words("\nIdentify it\n", ""), picture()), "<>\nIdentify it\n");
        check(picture_query(of, words("Ask:", "what \n is it"), picture()), "<>\nAsk: what\n is it\n");
        check(text_query(of, words("Find it:", "a cat"), ""), "Find it: a cat\n");
        check(text_query(of, words("Find it:", "Q:a\nA:b"), "\n"), "Find it: Q:a\nA:b\n\n");
        check(picture_candidate(of, words("Look.", ""), picture(), ""), "<>\nLook.");
        check(query(of, words("Cook. ", ""), Some(picture())), "<> Cook. ");
        check(query(of, words("Find it:", "a cat"), None), "Find it: a cat");
        check(candidate(of, "Look.", picture()), "<> Look.");
    }

    #[test]
    fn instruction_and_words_stand_apart_for_rzenembed() {
        let of = Protocol::Rzen;
        let item = picture_query(of, Words { instruction: "\nAsk:\n", text: "what" }, picture());
        assert_eq!(shown(&item), ("Ask: ".into(), "<>what".into()));
        let item = query(of, Words { instruction: "Cook. ", text: "" }, Some(picture()));
        assert_eq!(shown(&item), ("Cook.".into(), "<>".into()));
        let item = picture_candidate(of, Words { instruction: "Look:", text: "a cat" }, picture(), "\n");
        assert_eq!(shown(&item), (String::new(), "<>Look: a cat".into()));
    }
}
