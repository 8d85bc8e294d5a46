//! From encoded items on the host to a micro-batch on the device.

use std::collections::HashMap;

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
        let lengths = items.iter().map(|item| item.input_ids.len()).collect();
        let tokens = self.upload_tokens(rows, lengths, seq);
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

    fn upload_tokens(&self, rows: TokenRows, lengths: Vec<usize>, seq: usize) -> TokenInput {
        let batch = lengths.len();
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
            lengths,
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

/// A hash of pixels in eight lanes, which go side by side through vector registers.
fn rows_hash(rows: &[f32]) -> u64 {
    let mut lanes = [0x811c_9dc5_u32; 8];
    let (chunks, rest) = rows.as_chunks::<8>();
    let mut mix = |lane: usize, x: f32| {
        lanes[lane] = (lanes[lane] ^ x.to_bits()).wrapping_mul(0x9e37_79b1).rotate_left(15)
    };
    for chunk in chunks {
        for (lane, x) in chunk.iter().enumerate() {
            mix(lane, *x);
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        mix(lane, *x);
    }
    lanes
        .iter()
        .fold(0, |hash: u64, lane| (hash ^ u64::from(*lane)).wrapping_mul(0x0100_0000_01b3).rotate_left(23))
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
        let mut alike: HashMap<([usize; 3], u64), Vec<usize>> = HashMap::new();
        for i in by_size {
            let alike = alike.entry((all[i].grid_thw, rows_hash(&all[i].rows))).or_default();
            let twin = alike.iter().copied().find(|other| distinct[*other].rows == all[i].rows);
            slot[i] = twin.unwrap_or(distinct.len());
            if twin.is_none() {
                alike.push(distinct.len());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture whose patches are all `value` but for the number at `at`.
    fn picture(grid_thw: [usize; 3], value: f32, at: usize) -> Patches {
        let mut rows = vec![value; grid_thw.iter().product::<usize>() * 1176];
        rows[at] += 0.5;
        Patches { grid_thw, rows }
    }

    fn item(pictures: Vec<Patches>) -> Encoded {
        Encoded { input_ids: Vec::new(), pictures }
    }

    #[test]
    fn equal_pictures_are_taken_once_and_sizes_stand_together() {
        let (wide, tall, large) = ([1, 2, 4], [1, 4, 2], [1, 4, 4]);
        let items = [
            item(vec![picture(large, 0.1, 0), picture(wide, 0.1, 0), picture(tall, 0.1, 0)]),
            item(vec![picture(wide, 0.1, 9), picture(wide, 0.1, 0), picture(large, 0.1, 0)]),
            item(vec![picture(wide, 0.1, 9), picture(wide, 0.2, 9)]),
        ];
        let items: Vec<&Encoded> = items.iter().collect();
        let table = PictureTable::new(&items);
        let grids: Vec<[usize; 3]> = table.distinct.iter().map(|picture| picture.grid_thw).collect();
        assert_eq!(grids, [wide, wide, wide, tall, large]);
        assert_eq!(table.slot, [4, 0, 3, 1, 0, 4, 1, 2]);
        let all = items.iter().flat_map(|item| &item.pictures);
        assert!(all.zip(&table.slot).all(|(picture, slot)| table.distinct[*slot] == picture));
        assert_eq!(table.first_rows(4), [0, 2, 4, 6, 8]);
    }

    #[test]
    fn every_number_and_its_place_count_in_the_hash() {
        let rows = |at: usize| picture([1, 1, 1], 0.1, at).rows[..21].to_vec();
        let hashes: std::collections::BTreeSet<u64> = (0..21).map(|at| rows_hash(&rows(at))).collect();
        assert_eq!(hashes.len(), 21);
        assert_eq!(rows_hash(&rows(3)), rows_hash(&rows(3)));
    }
}
