//! From encoded items on the host to a micro-batch on the device.

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use crate::config::ModelConfig;
use crate::encoder::{EncoderInput, PatchInput, TokenInput};
use crate::processor::{Encoded, Patches, PositionMode, SpecialIds, position_ids};
use crate::rotary::Rotary;

/// Pads, stacks and uploads; what can fail has happened before, in the processor.
#[derive(Clone, Debug)]
pub struct Collator {
    config: ModelConfig,
    special: SpecialIds,
    positions: PositionMode,
    device: Device,
}

impl Collator {
    /// A collator for models of this shape.
    pub fn new(config: &ModelConfig, special: &SpecialIds, positions: PositionMode, device: &Device) -> Self {
        Collator { config: config.clone(), special: special.clone(), positions, device: device.clone() }
    }

    /// Makes a micro-batch of at least one item, a row for each, in order.
    ///
    /// Pictures of one size stand together in the vision tower whatever item they belong to; a
    /// picture that occurs several times is encoded once.
    ///
    /// # Panics
    /// If `items` is empty or the pictures of an item are not those of its tokens.
    pub fn collate(&self, items: &[&Encoded]) -> EncoderInput {
        assert!(!items.is_empty(), "a micro-batch has at least one item");
        let pictures = PictureTable::new(items);
        let seq = items.iter().map(|item| item.input_ids.len()).max().unwrap_or(0).max(1);
        let merge = self.config.vision.merge_unit();
        let first_row = pictures.first_rows(merge);
        let mut rows = TokenRows::default();
        let mut occurrence = 0;
        for (b, item) in items.iter().enumerate() {
            let mut picture_rows = Vec::new();
            for picture in &item.pictures {
                let start = items.len() * seq + first_row[pictures.slot[occurrence]];
                picture_rows.extend(start..start + patches(picture) / merge);
                occurrence += 1;
            }
            self.add_item(&mut rows, b, item, picture_rows, seq);
        }
        let tokens = self.upload_tokens(rows, items.len(), seq);
        EncoderInput {
            tokens,
            patches: (!pictures.distinct.is_empty()).then(|| self.upload_patches(&pictures)),
        }
    }

    fn add_item(&self, rows: &mut TokenRows, b: usize, item: &Encoded, picture_rows: Vec<usize>, seq: usize) {
        let grids: Vec<[usize; 3]> = item.pictures.iter().map(|picture| picture.grid_thw).collect();
        let merge = self.config.vision.spatial_merge_size;
        let [time, height, width] =
            position_ids(self.positions, &item.input_ids, &grids, &self.special, merge);
        let length = item.input_ids.len();
        // An item without pictures may hold their tokens as words.
        let any_pictures = !item.pictures.is_empty();
        let mut picture_rows = picture_rows.into_iter();
        for t in 0..seq {
            let id = item.input_ids.get(t).copied().unwrap_or(self.special.endoftext);
            let is_picture = t < length && any_pictures && self.special.is_picture(id);
            rows.order.push(match is_picture {
                true => picture_rows.next().expect("each picture token has a row of its picture"),
                false => b * seq + t,
            } as i64);
            rows.ids.push(i64::from(id));
            rows.positions.push(if t < length { [time[t], height[t], width[t]] } else { [1; 3] });
            rows.padding.push(t >= length);
        }
        assert!(picture_rows.next().is_none(), "each row of a picture has a token");
        rows.last.push((b * seq + length.max(1) - 1) as i64);
    }

    fn upload_tokens(&self, rows: TokenRows, batch: usize, seq: usize) -> TokenInput {
        let text = &self.config.text;
        let rotary = |positions: &[[i64; 3]]| {
            Rotary::decoder(positions, text.head_dim(), text.rope_theta, text.mrope_section, &self.device)
        };
        let last: Vec<[i64; 3]> = rows.last.iter().map(|&row| rows.positions[row as usize]).collect();
        let int = |values: Vec<i64>| -> Tensor<1, Int> {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), &self.device)
        };
        let padding: Tensor<4, Bool> =
            Tensor::from_data(TensorData::new(rows.padding, [batch, 1, 1, seq]), &self.device);
        TokenInput {
            batch,
            seq,
            rotary: rotary(&rows.positions),
            last_rotary: rotary(&last),
            ids: int(rows.ids),
            order: int(rows.order),
            last: int(rows.last),
            padding,
        }
    }

    fn upload_patches(&self, pictures: &PictureTable) -> PatchInput {
        let vision = &self.config.vision;
        let still = pictures.distinct.iter().all(|picture| picture.is_still());
        let area = vision.patch_size * vision.patch_size;
        let width = if still { vision.in_channels * area } else { vision.patch_dim() };
        let mut pixels = Vec::new();
        let mut windows: Vec<(usize, usize)> = Vec::new();
        for picture in &pictures.distinct {
            match still {
                true => pixels.extend(
                    picture.rows.chunks_exact(area).step_by(vision.temporal_patch_size).flatten().copied(),
                ),
                false => pixels.extend_from_slice(&picture.rows),
            }
            let [time, height, width] = picture.grid_thw;
            match windows.last_mut() {
                Some((count, length)) if *length == height * width => *count += time,
                _ => windows.push((time, height * width)),
            }
        }
        let grids: Vec<[usize; 3]> = pictures.distinct.iter().map(|picture| picture.grid_thw).collect();
        let data = TensorData::new(pixels, [grids.iter().map(|g| g.iter().product::<usize>()).sum(), width]);
        PatchInput {
            pixels: Tensor::from_data(data, (&self.device, DType::F32)),
            still,
            windows,
            rotary: Rotary::vision(&grids, vision.spatial_merge_size, vision.head_dim(), &self.device),
        }
    }
}

fn patches(picture: &Patches) -> usize {
    picture.grid_thw.iter().product()
}

#[derive(Default)]
struct TokenRows {
    ids: Vec<i64>,
    order: Vec<i64>,
    last: Vec<i64>,
    padding: Vec<bool>,
    positions: Vec<[i64; 3]>,
}

/// The distinct pictures of a batch, sorted by size, and which of them each occurrence is.
struct PictureTable<'a> {
    distinct: Vec<&'a Patches>,
    slot: Vec<usize>,
}

impl<'a> PictureTable<'a> {
    fn new(items: &[&'a Encoded]) -> Self {
        let all: Vec<&Patches> = items.iter().flat_map(|item| &item.pictures).collect();
        let mut by_size: Vec<usize> = (0..all.len()).collect();
        by_size.sort_by_key(|&i| (all[i].grid_thw[1] * all[i].grid_thw[2], all[i].grid_thw, i));
        let (mut distinct, mut slot) = (Vec::<&Patches>::new(), vec![0; all.len()]);
        for i in by_size {
            let same_size = distinct.iter().rev().take_while(|other| other.grid_thw == all[i].grid_thw);
            let twin = same_size.clone().position(|other| other.rows == all[i].rows);
            slot[i] = match twin {
                Some(back) => distinct.len() - 1 - back,
                None => distinct.len(),
            };
            if twin.is_none() {
                distinct.push(all[i]);
            }
        }
        PictureTable { distinct, slot }
    }

    /// Where each distinct picture's rows begin in the merger's output.
    fn first_rows(&self, merge: usize) -> Vec<usize> {
        let mut next = 0;
        let starts = self.distinct.iter().map(|picture| {
            let start = next;
            next += patches(picture) / merge;
            start
        });
        starts.collect()
    }
}
