//! The chat template around an item.
//!
//! `<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{pictures}{words}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>`:
//! pictures come first, then instruction, texts and representation prompt without a separator. The plain template is
//! `{pictures}{words}`, each picture or clip the run of its tokens.

use rzen_core::{LoadedItem, Media};

use super::config::{ProcessorConfig, Template, Truncation};
use super::error::ProcessError;
use super::tokenizer::{self, SpecialIds, TextEncoder};

/// The words of one item and the template's, before they become tokens.
pub(super) struct Prompt<'a> {
    template: Template,
    system: &'a str,
    words: String,
    /// The representation prompt.
    closing: &'a str,
    pictures: &'a [VisualTokens],
}

/// The tokens of a picture or clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VisualTokens {
    pub count: usize,
    pub is_clip: bool,
}

impl VisualTokens {
    fn name(self) -> &'static str {
        if self.is_clip { tokenizer::VIDEO_PAD } else { tokenizer::IMAGE_PAD }
    }

    fn id(self, special: &SpecialIds) -> u32 {
        if self.is_clip { special.video_pad } else { special.image_pad }
    }
}

/// A part of the template.
enum Piece<'a> {
    /// A control token: its name and where its id stands.
    Control(&'static str, fn(&SpecialIds) -> u32),
    Text(&'a str),
    /// The tokens of a picture or clip.
    Picture(VisualTokens),
}

use Piece::{Control, Text};

const IM_START: Piece = Control(tokenizer::IM_START, |special| special.im_start);
const IM_END: Piece = Control(tokenizer::IM_END, |special| special.im_end);
const VISION_START: Piece = Control(tokenizer::VISION_START, |special| special.vision_start);
const VISION_END: Piece = Control(tokenizer::VISION_END, |special| special.vision_end);
const ENDOFTEXT: Piece = Control(tokenizer::ENDOFTEXT, |special| special.endoftext);

const USER: &str = "user\n";
/// Everything behind the run that holds the item's words, in the chat template.
const TAIL: [Piece; 5] = [IM_END, Text("\n"), IM_START, Text("assistant\n"), ENDOFTEXT];

impl<'a> Prompt<'a> {
    /// - `pictures`: the tokens of each picture and clip of the item
    pub(super) fn new(config: &'a ProcessorConfig, item: &LoadedItem, pictures: &'a [VisualTokens]) -> Self {
        let mut words = item.instruction.clone().unwrap_or_default();
        for part in &item.parts {
            if let Media::Text(text) = part {
                words.push_str(text);
            }
        }
        let closing = if pictures.is_empty() { &config.text_prompt } else { &config.picture_prompt };
        Prompt { template: config.template, system: &config.system_prompt, words, closing, pictures }
    }

    /// The whole prompt as text, each picture as one `<|image_pad|>`, each clip of the plain template as one
    /// `<|video_pad|>`.
    pub(super) fn render(&self) -> String {
        let system = self.system_turn();
        let text = |piece: &Piece| match piece {
            Control(name, _) => (*name).to_owned(),
            Text(words) => (*words).to_owned(),
            Piece::Picture(tokens) => tokens.name().to_owned(),
        };
        let head: String = self.head(&system).iter().map(text).collect();
        let tail: String = self.tail().iter().map(text).collect();
        [head, self.run(), tail].concat()
    }

    /// The tokens, at most `max_length`.
    pub(super) fn encode(
        &self,
        encoder: &TextEncoder,
        truncation: Truncation,
        max_length: usize,
    ) -> Result<Vec<u32>, ProcessError> {
        let text = |text: &str| match self.pictures.is_empty() {
            // As in the published code, a picture token of an item without pictures is a word.
            true => encoder.encode(text),
            false => encoder.encode_beside_pictures(text),
        };
        let pieces = |pieces: &[Piece]| encode_pieces(pieces, encoder.special(), text);
        let (head, tail) = (pieces(&self.head(&self.system_turn()))?, pieces(self.tail())?);
        // A run between control tokens is tokenized as one: its words may share a token.
        let run = text(&self.run())?;
        if head.len() + run.len() + tail.len() == 0 {
            return Err(ProcessError::Nothing);
        }
        if head.len() + run.len() + tail.len() <= max_length {
            return Ok([head, run, tail].concat());
        }
        match truncation {
            Truncation::TextOnly => {
                let kept = text(self.lead())?.len();
                let closing = text(self.closing)?;
                let fixed = head.len() + closing.len() + tail.len();
                if fixed + kept > max_length {
                    return Err(self.too_long(fixed + kept, max_length));
                }
                let mut words = text(&[self.lead(), &self.words].concat())?;
                words.truncate(max_length - fixed);
                Ok([head, words, closing, tail].concat())
            }
            Truncation::Published => {
                let mut ids = [head, run, tail].concat();
                let last_picture = ids.iter().rposition(|id| encoder.special().is_picture(*id));
                match last_picture.filter(|_| !self.pictures.is_empty()) {
                    Some(last) if last >= max_length => Err(self.too_long(last + 1, max_length)),
                    _ => {
                        ids.truncate(max_length);
                        Ok(ids)
                    }
                }
            }
        }
    }

    fn too_long(&self, found: usize, max_length: usize) -> ProcessError {
        let tokens = self.pictures.iter().map(|picture| picture.count).sum();
        ProcessError::TooLong { pictures: self.pictures.len(), tokens, found, max_length }
    }

    fn system_turn(&self) -> String {
        format!("system\n{}", self.system)
    }

    /// Everything before the run that holds the item's words.
    fn head<'b>(&self, system_turn: &'b str) -> Vec<Piece<'b>> {
        if self.template == Template::Plain {
            return self.pictures.iter().map(|tokens| Piece::Picture(*tokens)).collect();
        }
        let mut pieces = vec![IM_START, Text(system_turn), IM_END, Text("\n"), IM_START];
        if !self.pictures.is_empty() {
            pieces.push(Text(USER));
        }
        for tokens in self.pictures {
            pieces.extend([VISION_START, Piece::Picture(*tokens), VISION_END]);
        }
        pieces
    }

    /// Everything behind it.
    fn tail(&self) -> &'static [Piece<'static>] {
        match self.template {
            Template::Chat => &TAIL,
            Template::Plain => &[],
        }
    }

    /// What of the template stands in one run with the item's words.
    fn lead(&self) -> &'static str {
        if self.pictures.is_empty() && self.template == Template::Chat { USER } else { "" }
    }

    fn run(&self) -> String {
        [self.lead(), &self.words, self.closing].concat()
    }
}

fn encode_pieces(
    pieces: &[Piece],
    special: &SpecialIds,
    encode: impl Fn(&str) -> Result<Vec<u32>, ProcessError>,
) -> Result<Vec<u32>, ProcessError> {
    let mut ids = Vec::new();
    for piece in pieces {
        match piece {
            Control(_, id) => ids.push(id(special)),
            Text(text) => ids.extend(encode(text)?),
            Piece::Picture(tokens) => ids.extend(std::iter::repeat_n(tokens.id(special), tokens.count)),
        }
    }
    Ok(ids)
}
