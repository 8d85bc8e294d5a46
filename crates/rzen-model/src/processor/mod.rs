//! From decoded items to tokens and patches.
//!
//! ```text
//! pictures ─load_size─► resize ─smart_resize─► resize ─patchify─► [patches, 1176]      plain template: one resize
//! words ─template─► runs between control tokens ─tokenizer─► ids, a place for each picture token
//! ```

mod bicubic;
mod config;
mod error;
mod patchify;
mod positions;
mod prompt;
mod smart_resize;
mod tokenizer;
mod train_tokenizer;

use std::borrow::Cow;
use std::path::Path;

use rayon::prelude::*;
use rzen_core::{LoadedItem, Media, Picture};
use tokenizers::Tokenizer;

pub use bicubic::resize;
pub use config::{FrameRule, ProcessorConfig, SpecialTokens, Template, Truncation};
pub use error::ProcessError;
pub use patchify::Patches;
pub use positions::{PositionMode, position_ids};
pub use smart_resize::{load_size, smart_resize};
pub use tokenizer::SpecialIds;
pub use train_tokenizer::{SPECIAL_TOKENS, train_tokenizer};

use patchify::{Normalization, patchify};
use prompt::{Prompt, VisualTokens};
use tokenizer::TextEncoder;

/// An item as the encoder takes it, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// `[seq]`: the tokens, without padding; `<|image_pad|>` stands once for each token of a picture, and
    /// `<|video_pad|>` for each of a clip in the plain template. In an item without pictures they are words like any
    /// other.
    pub input_ids: Vec<u32>,
    /// The pictures and clips, in order of their tokens.
    pub pictures: Vec<Patches>,
}

/// Turns decoded items into tokens and patches.
///
/// The same item always gives the same result, on any number of threads.
#[derive(Clone, Debug)]
pub struct Processor {
    config: ProcessorConfig,
    text: TextEncoder,
    normalization: Normalization,
}

impl Processor {
    /// Loads `tokenizer.json` and the settings of a checkpoint ([`ProcessorConfig::load`]).
    ///
    /// # Errors
    /// Names the file, setting or token that is missing or can't be used.
    pub fn load(folder: &Path) -> Result<Self, ProcessError> {
        Processor::load_with(folder, ProcessorConfig::load(folder)?)
    }

    /// Loads the `tokenizer.json` of a checkpoint, with other settings than the checkpoint's.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(folder: &Path, config: ProcessorConfig) -> Result<Self, ProcessError> {
        let text = TextEncoder::load(&folder.join("tokenizer.json"), config.special_tokens)?;
        Processor::with_text(config, text)
    }

    /// A processor with a tokenizer that is in memory, for example from [`train_tokenizer`].
    ///
    /// # Errors
    /// If a setting can't be used or the tokenizer lacks a control token.
    pub fn new(config: ProcessorConfig, tokenizer: &Tokenizer) -> Result<Self, ProcessError> {
        let text = TextEncoder::new(tokenizer.clone(), config.special_tokens)?;
        Processor::with_text(config, text)
    }

    fn with_text(config: ProcessorConfig, text: TextEncoder) -> Result<Self, ProcessError> {
        config.check()?;
        let normalization = Normalization::new(config.image_mean, config.image_std);
        Ok(Processor { config, text, normalization })
    }

    /// The settings.
    pub fn config(&self) -> &ProcessorConfig {
        &self.config
    }

    /// The ids of the control tokens.
    pub fn special(&self) -> &SpecialIds {
        self.text.special()
    }

    /// The tokenizer, in the mode that [`ProcessorConfig::special_tokens`] says.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.text.tokenizer()
    }

    /// The highest id of any token.
    pub(crate) fn highest_id(&self) -> u32 {
        self.tokenizer().get_vocab(true).into_values().max().unwrap_or(0)
    }

    /// Encodes one item, a batch of its own.
    ///
    /// # Errors
    /// [`ProcessError::TooLong`] if its pictures don't fit in `max_length`, and
    /// [`ProcessError::PictureToken`] if special tokens are parsed and a text beside pictures holds one of
    /// a picture.
    pub fn process(&self, item: &LoadedItem) -> Result<Encoded, ProcessError> {
        self.encode(item, is_list(item))
    }

    /// Encodes the items of a batch, in order.
    ///
    /// # Errors
    /// [`ProcessError::Item`] names the first item that can't be encoded.
    pub fn process_batch(&self, items: &[LoadedItem]) -> Result<Vec<Encoded>, ProcessError> {
        let any_list = self.config.frame_rule == FrameRule::Batch && items.iter().any(is_list);
        let results: Vec<_> =
            items.par_iter().map(|item| self.encode(item, any_list || is_list(item))).collect();
        let in_place = |(index, result): (usize, Result<Encoded, ProcessError>)| {
            result.map_err(|error| ProcessError::Item { index, count: items.len(), source: Box::new(error) })
        };
        results.into_iter().enumerate().map(in_place).collect()
    }

    /// The prompt of an item as text, each picture as one `<|image_pad|>`, each clip of the plain template as one
    /// `<|video_pad|>`; for people to read.
    pub fn prompt(&self, item: &LoadedItem) -> String {
        let one = |visual: &Visual| VisualTokens { count: 1, is_clip: visual.is_clip };
        let tokens: Vec<_> = visuals(item, self.config.template).iter().map(one).collect();
        Prompt::new(&self.config, item, &tokens).render()
    }

    fn encode(&self, item: &LoadedItem, is_list: bool) -> Result<Encoded, ProcessError> {
        let limits = if is_list { self.config.frame_tokens } else { self.config.image_tokens };
        let visuals = visuals(item, self.config.template);
        let plans: Vec<SizePlan> =
            visuals.iter().map(|visual| SizePlan::new(visual.frames[0], &self.config, limits)).collect();
        let tokens: Vec<VisualTokens> =
            visuals.iter().zip(&plans).map(|(visual, plan)| visual.tokens(plan, &self.config)).collect();
        // Tokens first: what does not fit fails before any picture is resized.
        let prompt = Prompt::new(&self.config, item, &tokens);
        let input_ids = prompt.encode(&self.text, self.config.truncation, self.config.max_length)?;
        let cut = |(visual, plan): (Visual, SizePlan)| {
            let frames: Vec<_> = visual.frames.into_par_iter().map(|frame| plan.resize(frame)).collect();
            let frames: Vec<&Picture> = frames.iter().map(AsRef::as_ref).collect();
            patchify(&frames, &self.normalization, self.config.patch_shape())
        };
        let pictures = visuals.into_par_iter().zip(plans).map(cut).collect();
        Ok(Encoded { input_ids, pictures })
    }
}

/// A picture, or the frames of a clip that is one video; there is at least one.
struct Visual<'a> {
    frames: Vec<&'a Picture>,
    is_clip: bool,
}

impl Visual<'_> {
    fn tokens(&self, plan: &SizePlan, config: &ProcessorConfig) -> VisualTokens {
        let steps = self.frames.len().div_ceil(config.temporal_patch_size);
        VisualTokens { count: plan.tokens(config) * steps, is_clip: self.is_clip }
    }
}

/// What of an item is seen, in order.
fn visuals(item: &LoadedItem, template: Template) -> Vec<Visual<'_>> {
    let picture = |picture| Visual { frames: vec![picture], is_clip: false };
    let of_part = |part| match (part, template) {
        (&Media::Text(_), _) => Vec::new(),
        (Media::Image(image), _) => vec![picture(image)],
        (Media::Frames(frames), Template::Chat) => frames.iter().map(picture).collect(),
        (Media::Frames(frames), Template::Plain) if frames.is_empty() => Vec::new(),
        (Media::Frames(frames), Template::Plain) => {
            vec![Visual { frames: frames.iter().collect(), is_clip: true }]
        }
    };
    item.parts.iter().flat_map(of_part).collect()
}

/// A picture after both resizes of the published pipeline: the one on reading, and the one to `tokens`
/// (least and most).
pub fn fit_picture(config: &ProcessorConfig, picture: &Picture, tokens: [usize; 2]) -> Picture {
    SizePlan::new(picture, config, tokens).resize(picture).into_owned()
}

/// The patches of a picture of `tokens` (least and most), for those who need no words.
pub fn picture_patches(config: &ProcessorConfig, picture: &Picture, tokens: [usize; 2]) -> Patches {
    let normalization = Normalization::new(config.image_mean, config.image_std);
    let resized = SizePlan::new(picture, config, tokens).resize(picture);
    patchify(&[&resized], &normalization, config.patch_shape())
}

/// True if the released code would take the item's pictures as a list.
fn is_list(item: &LoadedItem) -> bool {
    let images = item.parts.iter().filter(|part| matches!(part, Media::Image(_)));
    item.parts.iter().any(|part| matches!(part, Media::Frames(_))) || images.count() > 1
}

/// The `(height, width)` of a picture after each of its two resizes.
#[derive(Clone, Copy)]
struct SizePlan {
    first: (u32, u32),
    second: (u32, u32),
}

impl SizePlan {
    fn new(picture: &Picture, config: &ProcessorConfig, tokens: [usize; 2]) -> Self {
        let (factor, size) = (config.factor(), (picture.height(), picture.width()));
        let first = match config.template {
            Template::Chat => load_size(size.0, size.1, factor, config.load_tokens),
            Template::Plain if size.0.min(size.1) < factor => (2 * factor, 2 * factor),
            Template::Plain => size,
        };
        SizePlan { first, second: smart_resize(first.0, first.1, factor, tokens) }
    }

    fn tokens(&self, config: &ProcessorConfig) -> usize {
        let (height, width) = self.second;
        (height / config.factor()) as usize * (width / config.factor()) as usize
    }

    fn resize(self, picture: &Picture) -> Cow<'_, Picture> {
        let mut picture = Cow::Borrowed(picture);
        for (height, width) in [self.first, self.second] {
            if (height, width) != (picture.height(), picture.width()) {
                picture = Cow::Owned(resize(&picture, width, height));
            }
        }
        picture
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 3] =
        ["a red star left of a blue ring", "the quick brown fox", "You are a helpful assistant."];

    fn tokenizer() -> Tokenizer {
        train_tokenizer(TEXTS.iter().cycle().take(30).map(|text| (*text).to_owned()), 340).unwrap()
    }

    fn processor(config: ProcessorConfig) -> Processor {
        Processor::new(config, &tokenizer()).unwrap()
    }

    fn small() -> ProcessorConfig {
        ProcessorConfig { image_tokens: [4, 16], frame_tokens: [1, 2], ..ProcessorConfig::default() }
    }

    fn picture() -> Picture {
        Picture::new(90, 90, vec![7; 90 * 90 * 3])
    }

    fn item(pictures: usize, text: &str) -> LoadedItem {
        let mut parts: Vec<Media> = (0..pictures).map(|_| Media::Image(picture())).collect();
        parts.insert(pictures / 2, Media::Text(text.to_owned()));
        LoadedItem { parts, instruction: Some("Find: ".to_owned()) }
    }

    fn picture_tokens(encoded: &Encoded) -> Vec<usize> {
        encoded.pictures.iter().map(|picture| picture.grid_thw.iter().product::<usize>() / 4).collect()
    }

    #[test]
    fn the_plain_template_is_pictures_and_words() {
        let config = ProcessorConfig { template: Template::Plain, ..small() };
        let plain = processor(config.clone());
        let text = |text: &str| Media::Text(text.to_owned());
        let of = |parts| LoadedItem { parts, instruction: None };
        let clip = || Media::Frames(vec![picture(); 5]);
        let items = [
            (of(vec![text(" A fox.\n")]), " A fox.\n", vec![]),
            (of(vec![text("\nA fox."), Media::Image(picture())]), "<|image_pad|>\nA fox.", vec![[1, 6, 6]]),
            // Five frames are three time steps; two tokens of each, as `frame_tokens` says.
            (of(vec![clip(), text(" fox")]), "<|video_pad|> fox", vec![[3, 2, 2]]),
        ];
        for (item, prompt, grids) in items {
            assert_eq!(plain.prompt(&item), prompt);
            let encoded = plain.process(&item).unwrap();
            let found: Vec<_> = encoded.pictures.iter().map(|picture| picture.grid_thw).collect();
            assert_eq!(found, grids);
            let pads: usize = picture_tokens(&encoded).into_iter().sum();
            let (special, ids) = (plain.special(), &encoded.input_ids);
            assert_eq!(ids.iter().filter(|id| special.is_picture(**id)).count(), pads);
            let words = prompt.trim_start_matches("<|image_pad|>").trim_start_matches("<|video_pad|>");
            assert_eq!(ids[pads..], *tokenizer().encode(words, false).unwrap().get_ids());
        }
        let small = Picture::new(20, 90, vec![7; 20 * 90 * 3]);
        let encoded = plain.process(&of(vec![Media::Image(small)])).unwrap();
        assert_eq!(encoded.pictures[0].grid_thw, [1, 4, 4]);
        assert!(matches!(plain.process(&LoadedItem::default()), Err(ProcessError::Nothing)));
    }

    /// Values of `Qwen2VLImageProcessor` of transformers 4.51.3, `videos=[frames]` and `images=[picture]`.
    #[test]
    fn a_clip_of_the_plain_template_is_a_video_of_transformers() {
        let tokens = [4, 1280];
        let config = ProcessorConfig {
            template: Template::Plain,
            image_tokens: tokens,
            frame_tokens: tokens,
            ..ProcessorConfig::default()
        };
        let drawn = |frame: u32, width: u32, height: u32| {
            let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
            let level = |(x, y)| [x * 3 + frame * 40, y * 2 + frame * 17, (x + y) * 2 + frame * 5];
            Picture::new(width, height, places.flat_map(level).map(|level| level as u8).collect())
        };
        let plain = processor(config);
        let patches = |media| {
            let item = LoadedItem { parts: vec![media], instruction: None };
            plain.process(&item).unwrap().pictures.remove(0)
        };
        let clip = patches(Media::Frames((0..3).map(|frame| drawn(frame, 90, 70)).collect()));
        assert_eq!(clip.grid_thw, [2, 4, 6]);
        let expected = [
            (40, 749, 0.228928),
            (24, 317, -0.201034),
            (14, 48, -1.514892),
            (3, 19, -0.901758),
            (8, 956, 0.780771),
            (31, 1073, 0.922971),
            (24, 713, -0.941678),
            (46, 857, 1.392234),
            (30, 639, -0.596499),
            (26, 1099, -0.342614),
        ];
        for (row, column, value) in expected {
            let found = clip.rows[row * 1176 + column];
            assert!((found - value).abs() < 1e-5, "row {row}, column {column}: {found}, expected {value}");
        }
        let sum = |patches: &Patches| patches.rows.iter().map(|value| f64::from(*value)).sum::<f64>();
        assert!((sum(&clip) - 2370.6455).abs() < 0.05, "{}", sum(&clip));
        // A side under a token: the runner makes it two tokens a side before the processor sees it.
        let narrow = patches(Media::Image(drawn(0, 20, 90)));
        assert_eq!(narrow.grid_thw, [1, 4, 4]);
        assert!((sum(&narrow) + 10890.098).abs() < 0.05, "{}", sum(&narrow));
    }

    #[test]
    fn the_template_puts_pictures_first_and_joins_words() {
        let config = ProcessorConfig { picture_prompt: "!".to_owned(), ..small() };
        assert_eq!(
            processor(config).prompt(&item(2, "a fox")),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n\
             <|vision_start|><|image_pad|><|vision_end|><|vision_start|><|image_pad|><|vision_end|>\
             Find: a fox!<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
        );
    }

    #[test]
    fn ids_are_those_of_the_whole_prompt_and_of_its_pictures() {
        let processor = processor(small());
        for item in [item(0, "a fox"), item(1, ""), item(2, "a\u{301} 7")] {
            let encoded = processor.process(&item).unwrap();
            let mut prompt = processor.prompt(&item);
            for tokens in picture_tokens(&encoded) {
                prompt = prompt.replacen("<|image_pad|>", &"<|pad|>".repeat(tokens), 1);
            }
            let whole = tokenizer().encode(prompt.replace("<|pad|>", "<|image_pad|>"), false).unwrap();
            assert_eq!(encoded.input_ids, whole.get_ids());
        }
    }

    #[test]
    fn names_of_special_tokens_are_the_words_of_a_tokenizer_without_them() {
        let mut without = tokenizer();
        without.with_added_vocabulary(tokenizers::AddedVocabulary::new());
        let text = SPECIAL_TOKENS.concat() + "a <|im_end|>\n<|im_start|>user\nfox";
        let ids = processor(small()).process(&item(0, &text)).unwrap().input_ids;
        let run = without.encode(format!("user\nFind: {text}"), false).unwrap();
        assert!(ids.windows(run.len()).any(|window| window == run.get_ids()));
        let special = processor(small()).special().clone();
        assert_eq!(ids.iter().filter(|id| **id == special.im_end).count(), 2);
    }

    #[test]
    fn an_added_token_that_is_not_marked_special_is_a_word_too() {
        let marked = tokenizer().to_string(false).unwrap();
        let unmarked =
            Tokenizer::from_bytes(marked.replace(r#""special":true"#, r#""special":false"#)).unwrap();
        let item = item(1, "<|image_pad|><|im_end|>");
        let encoded = Processor::new(small(), &unmarked).unwrap().process(&item).unwrap();
        assert_eq!(encoded, processor(small()).process(&item).unwrap());
    }

    #[test]
    fn lists_take_the_limits_of_frames() {
        let processor = |frame_rule| processor(ProcessorConfig { frame_rule, ..small() });
        let clip = LoadedItem { parts: vec![Media::Frames(vec![picture()])], instruction: None };
        let items = [item(1, "x"), item(2, "x"), clip];
        let tokens = |encoded: &[Encoded]| encoded.iter().map(picture_tokens).collect::<Vec<_>>();

        let alone: Vec<_> =
            items.iter().map(|item| processor(FrameRule::PerItem).process(item).unwrap()).collect();
        assert_eq!(tokens(&alone), [vec![9], vec![1, 1], vec![1]]);
        assert_eq!(processor(FrameRule::PerItem).process_batch(&items).unwrap(), alone);
        let batch = processor(FrameRule::Batch).process_batch(&items).unwrap();
        assert_eq!(tokens(&batch), [vec![1], vec![1, 1], vec![1]]);
        assert_eq!(processor(FrameRule::Batch).process_batch(&items[..1]).unwrap(), alone[..1]);
    }

    #[test]
    fn truncation_leaves_the_template_whole() {
        let config = ProcessorConfig { text_prompt: " ring".to_owned(), ..small() };
        let long = item(0, &"the quick brown fox ".repeat(50));
        let whole = processor(config.clone()).process(&item(0, "")).unwrap().input_ids;
        let cut = processor(ProcessorConfig { max_length: whole.len() + 3, ..config.clone() });
        let ids = cut.process(&long).unwrap().input_ids;
        assert_eq!(ids.len(), whole.len() + 3);
        // The template around the words is that of an item without any.
        let tail = cut.tokenizer().encode(" ring", false).unwrap().len() + 6;
        assert_eq!(ids[ids.len() - tail..], whole[whole.len() - tail..]);

        let least = processor(config.clone()).process(&LoadedItem::default()).unwrap().input_ids.len();
        let fits = processor(ProcessorConfig { max_length: least, ..config.clone() });
        assert_eq!(fits.process(&long).unwrap().input_ids.len(), least);
        let error =
            processor(ProcessorConfig { max_length: least - 1, ..config }).process(&long).unwrap_err();
        assert!(matches!(error, ProcessError::TooLong { found, .. } if found == least), "{error}");
    }

    #[test]
    fn a_batch_names_the_item_that_fails() {
        let processor = processor(ProcessorConfig { max_length: 60, ..small() });
        let error =
            processor.process_batch(&[item(0, "x"), item(20, "x"), item(30, "x")]).unwrap_err().to_string();
        assert!(error.contains("item 1 of 3") && error.contains("20 pictures of 20 tokens"), "{error}");
    }

    #[test]
    fn a_tokenizer_without_a_control_token_is_refused() {
        let renamed = tokenizer().to_string(false).unwrap().replace("<|vision_end|>", "<|other|>");
        let error =
            Processor::new(small(), &Tokenizer::from_bytes(renamed).unwrap()).unwrap_err().to_string();
        assert!(error.contains("`<|vision_end|>`"), "{error}");
    }
}
