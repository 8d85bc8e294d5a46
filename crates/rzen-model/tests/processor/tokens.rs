//! Token ids and positions against the reference, and what texts may not do.

use rzen_core::{LoadedItem, Media, Picture};
use rzen_model::{
    FrameRule, PositionMode, Processor, ProcessorConfig, SPECIAL_TOKENS, SpecialIds, SpecialTokens,
    Truncation, position_ids, train_tokenizer,
};
use serde_json::Value;

use crate::reference::{Arrays, file, folder, json};
use crate::{cases, open, pair};

fn processor(tokenizer: &str, config: ProcessorConfig) -> Option<Processor> {
    file(&format!("{tokenizer}/tokenizer.json"))?;
    Some(Processor::load_with(&folder().join(tokenizer), config).unwrap())
}

/// The items of a case, or `None` where a picture is not in this set.
fn items(case: &Value) -> Option<Vec<LoadedItem>> {
    let texts = case["texts"].as_array().cloned().unwrap_or_default();
    let images = case["images"].as_array().cloned().unwrap_or_default();
    let picture = |path: &Value| -> Option<Picture> { Some(open(&file(path.as_str().unwrap())?)) };
    (0..texts.len().max(images.len()))
        .map(|i| {
            let mut parts = match images.get(i) {
                Some(Value::Array(frames)) => {
                    vec![Media::Frames(frames.iter().map(picture).collect::<Option<_>>()?)]
                }
                Some(path @ Value::String(_)) => vec![Media::Image(picture(path)?)],
                _ => Vec::new(),
            };
            if let Some(text) = texts.get(i).and_then(Value::as_str) {
                parts.push(Media::Text(text.to_owned()));
            }
            Some(LoadedItem { parts, instruction: None })
        })
        .collect()
}

#[test]
fn golden_token_ids() {
    for special_tokens in [SpecialTokens::Plain, SpecialTokens::Parse] {
        for case in cases() {
            let name = case["name"].as_str().unwrap();
            let config = ProcessorConfig {
                image_tokens: pair(&case["limits"]["image_tokens"]),
                frame_tokens: pair(&case["limits"]["frame_tokens"]),
                max_length: case["max_length"].as_u64().unwrap() as usize,
                truncation: Truncation::Published,
                frame_rule: FrameRule::Batch,
                special_tokens,
                ..ProcessorConfig::default()
            };
            let Some(processor) = processor("model", config) else { return };
            let arrays = folder().join("cases").join(format!("{name}.safetensors"));
            let (true, Some(items)) = (arrays.is_file(), items(&case)) else { continue };
            let arrays = Arrays::read(&arrays);
            let (ids, mask) = (arrays.get("input_ids"), arrays.get("attention_mask"));
            for (i, encoded) in processor.process_batch(&items).unwrap().iter().enumerate() {
                let length = mask.row(i).iter().sum::<f64>() as usize;
                let expected: Vec<u32> = ids.row(i)[..length].iter().map(|id| *id as u32).collect();
                assert_eq!(encoded.input_ids, expected, "{name} row {i} {special_tokens:?}");
                assert!(ids.row(i)[length..].iter().all(|id| *id as u32 == processor.special().endoftext));
            }
        }
    }
}

#[test]
fn golden_tokenizer_cases() {
    let Some(path) = file("tokenizer_cases.json") else { return };
    for (folder, key) in [("tokenizer", "full"), ("model", "small")] {
        let config = ProcessorConfig { special_tokens: SpecialTokens::Parse, ..ProcessorConfig::default() };
        let Some(processor) = processor(folder, config) else { continue };
        for case in json(&path).as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<Value> = processor
                .tokenizer()
                .encode(text, false)
                .unwrap()
                .get_ids()
                .iter()
                .map(|id| (*id).into())
                .collect();
            assert_eq!(ids, *case[key].as_array().unwrap(), "{text:?} by {folder}");
        }
    }
}

#[test]
fn golden_positions_of_cases() {
    let ids = crate::reference::json(&folder().join("model/config.json"));
    let id = |key: &str| ids[key].as_u64().unwrap() as u32;
    let special = special(id("image_token_id"), id("video_token_id"));
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let path = folder().join("cases").join(format!("{name}.safetensors"));
        if !path.is_file() {
            continue;
        }
        let arrays = Arrays::read(&path);
        let (ids, mask) = (arrays.get("input_ids"), arrays.get("attention_mask"));
        let grids: Vec<[usize; 3]> = arrays.find("image_grid_thw").map_or(Vec::new(), |grids| {
            (0..grids.shape[0]).map(|i| [0, 1, 2].map(|axis| grids.row(i)[axis] as usize)).collect()
        });
        for (mode_name, mode) in [("sequential", PositionMode::Sequential), ("mrope", PositionMode::Mrope)] {
            let expected = arrays.get(&format!("{mode_name}.position_ids"));
            let deltas = arrays.get(&format!("{mode_name}.rope_deltas"));
            let (batch, seq) = (ids.shape[0], ids.shape[1]);
            let mut grids = grids.iter().copied();
            for b in 0..batch {
                let length = mask.row(b).iter().sum::<f64>() as usize;
                let tokens: Vec<u32> = ids.row(b)[..length].iter().map(|id| *id as u32).collect();
                let own = take_grids(&tokens, &mut grids, &special);
                let ours = position_ids(mode, &tokens, &own, &special, 2);
                for (axis, row) in ours.iter().enumerate() {
                    let expected = &expected.row(axis * batch + b)[..length];
                    assert!(
                        row.iter().zip(expected).all(|(a, b)| *a == *b as i64),
                        "{name} {mode_name} row {b}"
                    );
                }
                if mode == PositionMode::Mrope {
                    let most = ours.iter().flatten().max().unwrap();
                    assert_eq!(most + 1 - seq as i64, deltas.values[b] as i64, "{name} delta of row {b}");
                }
            }
        }
    }
}

fn special(image_pad: u32, video_pad: u32) -> SpecialIds {
    SpecialIds { endoftext: 0, im_start: 0, im_end: 0, vision_start: 0, vision_end: 0, image_pad, video_pad }
}

/// The grids of the pictures whose tokens a sequence holds.
fn take_grids(
    tokens: &[u32],
    grids: &mut impl Iterator<Item = [usize; 3]>,
    special: &SpecialIds,
) -> Vec<[usize; 3]> {
    let mut left = tokens.iter().filter(|id| special.is_picture(**id)).count();
    let mut own = Vec::new();
    while left > 0 {
        let grid = grids.next().unwrap();
        left -= grid.iter().product::<usize>() / 4;
        own.push(grid);
    }
    own
}

#[test]
fn golden_rope_table() {
    let Some(path) = file("rope_index.json") else { return };
    let table = json(&path);
    let rows = table.as_array().or_else(|| table["cases"].as_array()).unwrap();
    let config = json(&folder().join("model/config.json"));
    let id = |key: &str| config[key].as_u64().unwrap() as u32;
    let special = special(id("image_token_id"), id("video_token_id"));
    let mut count = 0;
    for row in rows {
        count += check_rope_row(row, &special);
    }
    assert!(count > 0);
}

fn grids(value: &Value) -> Vec<[usize; 3]> {
    let grid = |grid: &Value| [0, 1, 2].map(|axis| grid[axis].as_u64().unwrap() as usize);
    value.as_array().into_iter().flatten().map(grid).collect()
}

fn check_rope_row(row: &Value, special: &SpecialIds) -> usize {
    let ids = row["input_ids"].as_array().unwrap();
    let batch = ids.len();
    let (mut images, mut videos) =
        (grids(&row["image_grid_thw"]).into_iter(), grids(&row["video_grid_thw"]).into_iter());
    for b in 0..batch {
        let ints = |value: &Value| -> Vec<i64> {
            value.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect()
        };
        let (ids, mask) = (ints(&ids[b]), ints(&row["attention_mask"][b]));
        let kept: Vec<usize> = (0..ids.len()).filter(|t| mask[*t] == 1).collect();
        let tokens: Vec<u32> = kept.iter().map(|t| ids[*t] as u32).collect();
        let mut own = Vec::new();
        let mut t = 0;
        while t < tokens.len() {
            let grid = match tokens[t] {
                id if id == special.image_pad => images.next().unwrap(),
                id if id == special.video_pad => videos.next().unwrap(),
                _ => {
                    t += 1;
                    continue;
                }
            };
            t += grid.iter().product::<usize>() / 4;
            own.push(grid);
        }
        let ours = position_ids(PositionMode::Mrope, &tokens, &own, special, 2);
        for (axis, ours) in ours.iter().enumerate() {
            let expected = ints(&row["position_ids"][axis][b]);
            let expected: Vec<i64> = kept.iter().map(|t| expected[*t]).collect();
            assert_eq!(*ours, expected, "axis {axis} of row {b} of {row}");
        }
        let delta = &row["rope_deltas"][b];
        let delta = delta.as_i64().or_else(|| delta[0].as_i64()).unwrap();
        assert_eq!(
            ours.iter().flatten().max().unwrap() + 1 - ids.len() as i64,
            delta,
            "delta of row {b} of {row}"
        );
    }
    batch
}

fn own_processor(config: ProcessorConfig) -> Processor {
    let texts = ["a red star left of a blue ring", "the quick brown fox", "You are a helpful assistant."];
    let tokenizer =
        train_tokenizer(texts.iter().cycle().take(30).map(|text| (*text).to_owned()), 320).unwrap();
    Processor::new(config, &tokenizer).unwrap()
}

fn words(text: &str) -> LoadedItem {
    LoadedItem { parts: vec![Media::Text(text.to_owned())], instruction: None }
}

fn with_picture(text: &str) -> LoadedItem {
    let picture = Media::Image(Picture::new(56, 56, vec![9; 56 * 56 * 3]));
    LoadedItem { parts: vec![picture, Media::Text(text.to_owned())], instruction: None }
}

#[test]
fn control_tokens_in_a_text_are_plain_text() {
    let config = ProcessorConfig { image_tokens: [4, 16], ..ProcessorConfig::default() };
    let processor = own_processor(config);
    let count = |item: &LoadedItem, id: u32| {
        processor.process(item).unwrap().input_ids.iter().filter(|x| **x == id).count()
    };
    for make in [words, with_picture] {
        let harmless = make("a red star");
        for token in SPECIAL_TOKENS {
            let item = make(&format!("a red {token} star"));
            for token in SPECIAL_TOKENS {
                let id = processor.tokenizer().token_to_id(token).unwrap();
                assert_eq!(count(&item, id), count(&harmless, id), "{token}");
            }
        }
    }
    let item = LoadedItem { instruction: Some("<|im_end|>".into()), ..words("x") };
    assert_eq!(count(&item, processor.special().im_end), 2);
}

#[test]
fn published_parsing_reads_control_tokens_and_refuses_pictures_of_texts() {
    let config = ProcessorConfig {
        special_tokens: SpecialTokens::Parse,
        image_tokens: [4, 16],
        ..ProcessorConfig::default()
    };
    let processor = own_processor(config);
    let ids = processor.process(&words("x<|im_end|>")).unwrap().input_ids;
    assert_eq!(ids.iter().filter(|id| **id == processor.special().im_end).count(), 3);
    for token in ["<|image_pad|>", "<|video_pad|>"] {
        let error = processor.process(&with_picture(token)).unwrap_err().to_string();
        assert!(error.contains(token) && error.contains("picture tokens"), "{error}");
        let encoded = processor.process(&words(&format!("a red {token} star"))).unwrap();
        let id = processor.tokenizer().token_to_id(token).unwrap();
        assert_eq!(encoded.input_ids.iter().filter(|other| **other == id).count(), 1);
        assert!(encoded.pictures.is_empty());
    }
}

#[test]
fn a_picture_token_among_words_is_cut_like_a_word() {
    let config = ProcessorConfig {
        special_tokens: SpecialTokens::Parse,
        truncation: Truncation::Published,
        max_length: 40,
        ..ProcessorConfig::default()
    };
    let ids = own_processor(config).process(&words(&"<|image_pad|>".repeat(60))).unwrap().input_ids;
    assert_eq!(ids.len(), 40);
}

#[test]
fn long_texts_lose_their_end_and_keep_the_closing() {
    let make = |truncation, max_length| {
        own_processor(ProcessorConfig {
            truncation,
            max_length,
            image_tokens: [4, 16],
            ..ProcessorConfig::default()
        })
    };
    let text = "the quick brown fox ".repeat(60);
    for special_tokens in [SpecialTokens::Plain, SpecialTokens::Parse] {
        let config = ProcessorConfig { special_tokens, max_length: 60, ..ProcessorConfig::default() };
        let processor = own_processor(config);
        let ids = processor.process(&words(&text)).unwrap().input_ids;
        assert_eq!((ids.len(), *ids.last().unwrap()), (60, processor.special().endoftext));
    }
    let published = make(Truncation::Published, 60);
    let ids = published.process(&words(&text)).unwrap().input_ids;
    assert!(ids.len() == 60 && *ids.last().unwrap() != published.special().endoftext);
    let error = make(Truncation::TextOnly, 20).process(&with_picture("x")).unwrap_err().to_string();
    assert!(error.contains("1 pictures of 4 tokens") && error.contains("20"), "{error}");
}

#[test]
fn an_own_tokenizer_is_the_same_twice_and_survives_a_file() {
    let texts =
        || ["b a c", "a b", "été 12", "a b c d"].iter().cycle().take(40).map(|text| (*text).to_owned());
    let first = train_tokenizer(texts(), 300).unwrap().to_string(true).unwrap();
    let mut reversed: Vec<String> = texts().collect();
    reversed.reverse();
    assert_eq!(train_tokenizer(reversed.into_iter(), 300).unwrap().to_string(true).unwrap(), first);
    let tokenizer: tokenizers::Tokenizer = first.parse().unwrap();
    assert!(tokenizer.get_vocab_size(true) <= 300);
    for text in ["a b c", "été", "never seen 🙂 at all", ""] {
        let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
    assert!(train_tokenizer(texts(), 100).unwrap_err().to_string().contains("too small"));
}
