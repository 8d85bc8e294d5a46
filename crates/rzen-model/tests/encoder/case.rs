//! A golden batch: its tokens and pictures as the encoder takes them, its states to compare with.

use std::collections::BTreeSet;
use std::path::Path;

use rzen_core::Picture;
use rzen_model::{
    Collator, Encoded, EncoderInput, Patches, PositionMode, ProcessorConfig, Qwen2Vl, SpecialIds,
    picture_patches,
};
use serde_json::Value;

use crate::reference::{Array, Arrays, distance, folder, json};

/// An array of the reference, and of each of its rows: what to call it, which row of ours it is, itself.
type Expected = (String, Vec<(String, usize, Vec<f64>)>);

pub struct Case {
    pub name: String,
    pub arrays: Arrays,
    items: Vec<Encoded>,
    lengths: Vec<usize>,
}

/// Every case of this set whose pictures can be had.
pub fn cases() -> Vec<Case> {
    let mut names: Vec<String> = std::fs::read_dir(folder().join("cases"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    let cases: Vec<Case> = names.iter().filter_map(|name| Case::open(name)).collect();
    assert!(!cases.is_empty());
    cases
}

impl Case {
    pub fn open(name: &str) -> Option<Case> {
        let path = folder().join("cases").join(format!("{name}.safetensors"));
        if !path.is_file() {
            eprintln!("skipped: cases/{name}.safetensors is not there");
            return None;
        }
        let (meta, arrays) = (json(&path.with_extension("json")), Arrays::read(&path));
        let pictures = pictures(&meta, &arrays)?;
        let (ids, mask) = (arrays.get("input_ids"), arrays.get("attention_mask"));
        let lengths: Vec<usize> =
            (0..mask.shape[0]).map(|i| mask.row(i).iter().sum::<f64>() as usize).collect();
        let pad = image_pad();
        let mut pictures = pictures.into_iter().peekable();
        let items = lengths.iter().enumerate().map(|(i, length)| {
            let input_ids: Vec<u32> = ids.row(i)[..*length].iter().map(|id| *id as u32).collect();
            let mut tokens = input_ids.iter().filter(|id| **id == pad).count();
            let mut own = Vec::new();
            while tokens > 0 {
                let picture: Patches = pictures.next().expect("a picture for each picture token");
                tokens -= picture.grid_thw.iter().product::<usize>() / 4;
                own.push(picture);
            }
            Encoded { input_ids, pictures: own }
        });
        let items = items.collect();
        Some(Case { name: name.to_owned(), arrays, items, lengths })
    }

    pub fn items(&self) -> &[Encoded] {
        &self.items
    }

    pub fn input(&self, model: &Qwen2Vl, mode: PositionMode) -> EncoderInput {
        let items: Vec<&Encoded> = self.items.iter().collect();
        collator(model, mode).collate(&items)
    }

    /// Compares the stored pixels of sampled patches with ours; returns how many patches there are.
    pub fn compare_pixels(&self) -> usize {
        let Some(expected) = self.arrays.find("pixel_rows") else { return 0 };
        let pictures = self.items.iter().flat_map(|item| &item.pictures);
        let width = *expected.shape.last().unwrap();
        let ours: Vec<&[f32]> = pictures.flat_map(|picture| picture.rows.chunks_exact(width)).collect();
        let index = self.arrays.get("pixel_rows_index").ints();
        assert_eq!(index.len(), expected.shape[0], "{}", self.name);
        let std = ProcessorConfig::default().image_std;
        for (i, row) in index.iter().enumerate() {
            let pairs = ours[*row as usize].iter().zip(expected.row(i)).enumerate();
            for (at, (ours, expected)) in pairs {
                let levels = (f64::from(*ours) - expected).abs() * 255.0 * std[at / (width / 3)];
                assert!(levels <= 1e-4, "{} patch {row} number {at}: {levels} levels off", self.name);
            }
        }
        index.len()
    }

    /// The stored states of a mode: every one of them has a traced state to be compared with.
    pub fn stored_states(&self, mode: &str) -> BTreeSet<String> {
        let is_state = |name: &String| {
            let name = name.strip_prefix(&format!("{mode}.")).unwrap_or(name);
            let name = name.strip_prefix("rows.").or(name.strip_prefix("pixel_rows.")).unwrap_or(name);
            let known = ["vision_", "layer_", "final_norm", "inputs_embeds"];
            known.iter().any(|start| name.starts_with(start)) && !name.ends_with("_index")
        };
        self.arrays.names().into_iter().filter(is_state).collect()
    }

    /// Compares a traced state with the reference; returns the array that it was compared with, if any.
    ///
    /// `slack`: how many times as far from it as on the CPU a state may be.
    pub fn compare_state(&self, mode: &str, state: &str, rows: &[Vec<f32>], slack: f64) -> Option<String> {
        let (name, expected) = match state.starts_with("vision_") {
            true => self.expected_vision_rows(state)?,
            false => self.expected_token_rows(mode, state)?,
        };
        let tolerance = slack * if state == "vision_output" { 5e-5 } else { 2e-4 };
        assert!(!expected.is_empty(), "{} {name} has no rows", self.name);
        for (place, row, expected) in expected {
            let off = distance(&rows[row], &expected);
            assert!(off <= tolerance, "{} {mode} {state} row {place}: off by {off:e}", self.name);
        }
        Some(name)
    }

    fn expected_vision_rows(&self, state: &str) -> Option<Expected> {
        let (patches, sampled, index) = match state {
            "vision_output" => (4, "vision_output_rows".to_owned(), "vision_output_rows_index"),
            _ => (1, format!("pixel_rows.{state}"), "pixel_rows_index"),
        };
        let places = self.tower_rows(patches);
        let (name, array, rows) = match self.arrays.find(state) {
            Some(array) => (state.to_owned(), array, (0..places.len()).collect()),
            None => {
                let (array, index) = (self.arrays.find(&sampled)?, self.arrays.get(index));
                (sampled, array, index.ints().iter().map(|i| *i as usize).collect::<Vec<_>>())
            }
        };
        assert_eq!(array.shape[0], rows.len(), "{} {name}", self.name);
        let row = |(i, row): (usize, &usize)| (row.to_string(), places[*row], array.row(i).to_vec());
        let expected = rows.iter().enumerate().map(row).collect();
        Some((name, expected))
    }

    /// Where each row of the reference's tower stands in ours: the collator sorts pictures by size and
    /// takes those that occur several times once.
    ///
    /// - `patches`: patches in a row
    fn tower_rows(&self, patches: usize) -> Vec<usize> {
        let pictures: Vec<&Patches> = self.items.iter().flat_map(|item| &item.pictures).collect();
        let rows = |picture: &Patches| picture.grid_thw.iter().product::<usize>() / patches;
        let mut order: Vec<usize> = (0..pictures.len()).collect();
        order.sort_by_key(|&i| {
            let grid = pictures[i].grid_thw;
            (grid[1] * grid[2], grid, i)
        });
        let (mut start, mut next) = (vec![0; pictures.len()], 0);
        for (place, &i) in order.iter().enumerate() {
            match order[..place].iter().find(|&&twin| pictures[twin] == pictures[i]) {
                Some(&twin) => start[i] = start[twin],
                None => {
                    start[i] = next;
                    next += rows(pictures[i]);
                }
            }
        }
        pictures.iter().zip(start).flat_map(|(picture, start)| start..start + rows(picture)).collect()
    }

    fn expected_token_rows(&self, mode: &str, state: &str) -> Option<Expected> {
        let (whole, sampled) = match state {
            "inputs_embeds" => ("inputs_embeds".to_owned(), "rows.inputs_embeds".to_owned()),
            _ => (format!("{mode}.{state}"), format!("{mode}.rows.{state}")),
        };
        let seq = self.lengths.iter().max().unwrap();
        let (name, array, tokens): (String, Array, Vec<usize>) = match self.arrays.find(&whole) {
            Some(array) => (whole, array, (0..*seq).collect()),
            None => {
                let (array, index) = (self.arrays.find(&sampled)?, self.arrays.get("token_rows_index"));
                (sampled, array, index.ints().iter().map(|t| *t as usize).collect())
            }
        };
        assert_eq!(array.shape[..2], [self.lengths.len(), tokens.len()], "{} {name}", self.name);
        let mut rows = Vec::new();
        for (b, length) in self.lengths.iter().enumerate() {
            for (i, t) in tokens.iter().enumerate().filter(|(_, t)| **t < *length) {
                rows.push((format!("{b},{t}"), b * seq + t, array.row(b * tokens.len() + i).to_vec()));
            }
        }
        Some((name, rows))
    }
}

pub fn collator(model: &Qwen2Vl, mode: PositionMode) -> Collator {
    let device = model.model.norm.weight.val().device().without_autodiff();
    Collator::new(model.config(), &special_ids(), mode, &device)
}

fn config_id(key: &str) -> u32 {
    json(&folder().join("model/config.json"))[key].as_u64().unwrap() as u32
}

fn image_pad() -> u32 {
    config_id("image_token_id")
}

/// As the reference's configuration has them: the small tokenizer is not in every set.
pub fn special_ids() -> SpecialIds {
    SpecialIds {
        endoftext: config_id("bos_token_id"),
        im_start: config_id("bos_token_id") + 1,
        im_end: config_id("eos_token_id"),
        vision_start: config_id("vision_start_token_id"),
        vision_end: config_id("vision_end_token_id"),
        image_pad: image_pad(),
        video_pad: config_id("video_token_id"),
    }
}

fn files(meta: &Value) -> Vec<String> {
    let pictures = meta["pictures"].as_array().cloned().unwrap_or_default();
    pictures.iter().map(|picture| picture["file"].as_str().unwrap().to_owned()).collect()
}

/// The patches of every picture: stored, or made from the file by our own pipeline.
fn pictures(meta: &Value, arrays: &Arrays) -> Option<Vec<Patches>> {
    let Some(grids) = arrays.find("image_grid_thw") else { return Some(Vec::new()) };
    let grids: Vec<[usize; 3]> =
        (0..grids.shape[0]).map(|i| [0, 1, 2].map(|axis| grids.row(i)[axis] as usize)).collect();
    let Some(pixels) = arrays.find("pixel_values") else {
        let limits = &meta["limits"];
        let is_list = meta["images"].as_array().is_some_and(|images| images.iter().any(Value::is_array));
        let limits = &limits[if is_list { "frame_tokens" } else { "image_tokens" }];
        let tokens = [0, 1].map(|i| limits[i].as_u64().unwrap() as usize);
        return files(meta).iter().map(|file| from_file(&folder().join(file), tokens)).collect();
    };
    let mut start = 0;
    let cut = grids.iter().map(|grid| {
        let width = pixels.shape[1];
        let count = grid.iter().product::<usize>();
        let rows = pixels.values[start * width..(start + count) * width].iter().map(|x| *x as f32).collect();
        start += count;
        Patches { grid_thw: *grid, rows }
    });
    Some(cut.collect())
}

fn from_file(path: &Path, tokens: [usize; 2]) -> Option<Patches> {
    if !path.is_file() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    let bytes = std::fs::read(path).unwrap();
    let picture = if image::guess_format(&bytes).unwrap() == image::ImageFormat::Jpeg {
        // The numbers of Pillow, which `image` doesn't give.
        let rgb = libjpeg_turbo_rs::decompress_to(&bytes, libjpeg_turbo_rs::PixelFormat::Rgb).unwrap();
        Picture::new(rgb.width as u32, rgb.height as u32, rgb.data)
    } else {
        let rgb = image::load_from_memory(&bytes).unwrap().to_rgb8();
        Picture::new(rgb.width(), rgb.height(), rgb.into_raw())
    };
    Some(picture_patches(&ProcessorConfig::default(), &picture, tokens))
}
