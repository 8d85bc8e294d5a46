//! The decoder on rows without padding.

use rzen_kernels::{Attention, Heads, Scratch, Then, Window};

use super::layers::{Layer, RmsNorm, Stored};
use super::{Angles, add_mlp};
use crate::decoder::{self, DecoderLayer};
use crate::encoder::TokenInput;
use crate::prefixes::{Prefix, PrefixCache, TOKENS};

/// The parameters of the decoder.
pub(super) struct Decoder {
    table: Stored,
    layers: Vec<Block>,
    norm: RmsNorm,
    hidden: usize,
}

/// The parameters of a block.
pub(super) struct Block {
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    q_proj: Layer,
    k_proj: Layer,
    v_proj: Layer,
    o_proj: Layer,
    gate_proj: Layer,
    up_proj: Layer,
    down_proj: Layer,
    heads: usize,
    key_heads: usize,
}

impl Decoder {
    pub(super) fn of(decoder: &decoder::Decoder, widen: bool) -> Option<Self> {
        let weight = decoder.embed_tokens.weight.val();
        let [_, hidden] = weight.dims();
        Some(Decoder {
            table: Stored::of(weight)?,
            layers: decoder.layers.iter().map(|layer| Block::of(layer, widen)).collect::<Option<_>>()?,
            norm: RmsNorm::of(&decoder.norm)?,
            hidden,
        })
    }

    /// The normed state of each item's last token: `[batch, hidden_size]`, as
    /// [`decoder::Decoder::pooled`]. `pictures`: `[tokens, hidden_size]`. What all items begin with is taken from `cache`, and
    /// kept there.
    pub(super) fn pooled(
        &self,
        input: &TokenInput,
        pictures: &[f32],
        cache: Option<&PrefixCache>,
    ) -> Option<Scratch> {
        let angles = Angles::of(&input.rotary)?;
        let tables = [angles.cos.f32()?, angles.sin.f32()?];
        let integers = |x: &burn::tensor::Tensor<1, burn::tensor::Int>| {
            x.clone().into_data().convert::<i64>().try_to_vec::<i64>().ok()
        };
        let (ids, order) = (integers(&input.ids)?, integers(&input.order)?);
        let half = tables[0].len() / ids.len();
        let angle = |row: usize| tables.map(|table| &table[row * half..][..half]);
        let is_text = |row: usize| order[row] == row as i64;
        let same = |a: usize, b: usize| is_text(a) && is_text(b) && ids[a] == ids[b] && angle(a) == angle(b);
        let shortest = input.lengths.iter().copied().min().unwrap_or(0).max(1);
        let known = cache.and_then(|cache| {
            cache.find(|prefix, token| {
                let of_prefix = prefix.angles.each_ref().map(|table| &table[token * half..][..half]);
                let as_known =
                    |row: usize| is_text(row) && ids[row] == prefix.ids[token] && angle(row) == of_prefix;
                // Each item keeps a row of its own.
                token < shortest - 1 && (0..input.batch).all(|item| as_known(item * input.seq + token))
            })
        });
        let known_rows = known.as_ref().map_or(0, |(_, rows)| *rows);
        let packed = Packed::new(&input.lengths, input.seq, known_rows, same);
        // Of one item all words may come again, of several what they share.
        let to_keep = match packed.last.len() {
            _ if cache.is_none() => 0,
            1 => (0..shortest.min(TOKENS)).take_while(|row| is_text(*row)).count(),
            _ => packed.shared.min(TOKENS),
        };
        let mut kept: Vec<[Vec<f32>; 2]> = Vec::new();
        let mut keep = |[keys, values]: [&[f32]; 2], width: usize| {
            if to_keep > known_rows {
                kept.push([keys, values].map(|rows| rows[..to_keep * width].to_vec()));
            }
        };

        let hidden = self.hidden;
        let mut x = Scratch::new(packed.rows.len() * hidden);
        for (x, &row) in x.chunks_exact_mut(hidden).zip(&packed.rows) {
            match (order[row] as usize).checked_sub(ids.len()) {
                None => self.table.copy_row(ids[row] as usize, x),
                Some(token) => x.copy_from_slice(&pictures[token * hidden..][..hidden]),
            }
        }
        let gather = |rows: &[usize]| tables.map(|table| take_rows(table, half, rows));
        let [cos, sin] = gather(&packed.rows);
        let (last, layers) = self.layers.split_last()?;
        let known_of = |layer: usize| match &known {
            Some((prefix, rows)) => prefix.layers[layer]
                .each_ref()
                .map(|numbers| &numbers[..numbers.len() / prefix.ids.len() * rows]),
            None => [[].as_slice(); 2],
        };
        for (number, layer) in layers.iter().enumerate() {
            let [keys, values] = layer.forward(&mut x, [&cos, &sin], &packed.windows, known_of(number));
            keep([&keys, &values], layer.k_proj.outputs());
        }
        // Nothing reads the other tokens' states after the last block.
        let last_rows: Vec<usize> = packed.last.iter().map(|&row| packed.rows[row]).collect();
        let [last_cos, last_sin] = gather(&last_rows);
        let windows = packed.last_windows();
        let (pooled, [keys, values]) = last.pooled(
            &x,
            &packed.last,
            [&cos, &sin],
            [&last_cos, &last_sin],
            &windows,
            known_of(layers.len()),
        );
        keep([&keys, &values], last.k_proj.outputs());
        let mut normed = Scratch::new(pooled.len());
        self.norm.forward(&pooled, &mut normed);
        if let Some(cache) = cache.filter(|_| !kept.is_empty()) {
            cache.keep(Prefix {
                ids: ids[..to_keep].to_vec(),
                angles: tables.map(|table| table[..to_keep * half].to_vec()),
                layers: kept,
            });
        }
        Some(normed)
    }
}

impl Block {
    pub(super) fn of(layer: &DecoderLayer, widen: bool) -> Option<Self> {
        let (attention, mlp) = (&layer.self_attn, &layer.mlp);
        Some(Block {
            input_layernorm: RmsNorm::of(&layer.input_layernorm)?,
            post_attention_layernorm: RmsNorm::of(&layer.post_attention_layernorm)?,
            q_proj: Layer::of(&attention.q_proj, widen)?,
            k_proj: Layer::of(&attention.k_proj, widen)?,
            v_proj: Layer::of(&attention.v_proj, widen)?,
            o_proj: Layer::of(&attention.o_proj, widen)?,
            gate_proj: Layer::of(&mlp.gate_proj, widen)?,
            up_proj: Layer::of(&mlp.up_proj, widen)?,
            down_proj: Layer::of(&mlp.down_proj, widen)?,
            heads: attention.num_heads,
            key_heads: attention.num_key_value_heads,
        })
    }

    /// `x`: `[rows, hidden]`, in place; `angles` have a row for each. Keys and values begin with those that are `known`, and
    /// all of them are returned.
    pub(super) fn forward(
        &self,
        x: &mut [f32],
        angles: [&[f32]; 2],
        windows: &[Window],
        known: [&[f32]; 2],
    ) -> [Scratch; 2] {
        let mut normed = Scratch::new(x.len());
        self.input_layernorm.forward(x, &mut normed);
        let q = self.turned(&self.q_proj, &normed, angles, &[]);
        let k = self.turned(&self.k_proj, &normed, angles, known[0]);
        let v = self.project(&self.v_proj, &normed, known[1]);
        self.attend(&q, &k, &v, windows, &mut normed);
        self.o_proj.forward(&normed, x, true, Then::Nothing);
        self.mlp(x, &mut normed);
        [k, v]
    }

    /// The states of some rows after this block: `[rows, hidden]`; and keys and values as of [`forward`](Block::forward).
    fn pooled(
        &self,
        x: &[f32],
        rows: &[usize],
        angles: [&[f32]; 2],
        row_angles: [&[f32]; 2],
        windows: &[Window],
        known: [&[f32]; 2],
    ) -> (Scratch, [Scratch; 2]) {
        let hidden = self.o_proj.outputs();
        let mut normed = Scratch::new(x.len());
        self.input_layernorm.forward(x, &mut normed);
        let k = self.turned(&self.k_proj, &normed, angles, known[0]);
        let v = self.project(&self.v_proj, &normed, known[1]);
        let mut few = take_rows(&normed, hidden, rows);
        let q = self.turned(&self.q_proj, &few, row_angles, &[]);
        self.attend(&q, &k, &v, windows, &mut few);
        let mut pooled = take_rows(x, hidden, rows);
        self.o_proj.forward(&few, &mut pooled, true, Then::Nothing);
        self.mlp(&mut pooled, &mut few);
        (pooled, [k, v])
    }

    /// Projected, behind rows that are `known`.
    fn project(&self, layer: &Layer, x: &[f32], known: &[f32]) -> Scratch {
        let mut y = Scratch::new(known.len() + x.len() / self.o_proj.outputs() * layer.outputs());
        let (first, rest) = y.split_at_mut(known.len());
        first.copy_from_slice(known);
        layer.forward(x, rest, false, Then::Nothing);
        y
    }

    /// Projected, and turned by the rotary positions, behind rows that are `known`.
    fn turned(&self, layer: &Layer, x: &[f32], [cos, sin]: [&[f32]; 2], known: &[f32]) -> Scratch {
        let mut y = self.project(layer, x, known);
        let width = layer.outputs();
        rzen_kernels::rotate(&mut y[known.len()..], width, width, cos, sin, self.width() / 2);
        y
    }

    /// Numbers of a head.
    fn width(&self) -> usize {
        self.q_proj.outputs() / self.heads
    }

    fn attend(&self, q: &[f32], k: &[f32], v: &[f32], windows: &[Window], y: &mut [f32]) {
        let width = self.width();
        let scale = (width as f32).sqrt().recip();
        let narrow = self.q_proj.is_narrow();
        let attention =
            Attention { heads: self.heads, key_heads: self.key_heads, width, scale, causal: true, narrow };
        let heads = |data, count| Heads { data, stride: count * width };
        attention.forward(
            heads(q, self.heads),
            heads(k, self.key_heads),
            heads(v, self.key_heads),
            windows,
            y,
        );
    }

    /// `normed` is room for as many numbers as `x` has.
    fn mlp(&self, x: &mut [f32], normed: &mut [f32]) {
        let hidden = self.o_proj.outputs();
        add_mlp(x, hidden, |x| {
            let normed = &mut normed[..x.len()];
            self.post_attention_layernorm.forward(x, normed);
            let wide = x.len() / hidden * self.gate_proj.outputs();
            let (mut gate, mut up) = (Scratch::new(wide), Scratch::new(wide));
            self.gate_proj.forward(normed, &mut gate, false, Then::Nothing);
            self.up_proj.forward(normed, &mut up, false, Then::Gate(&gate));
            self.down_proj.forward(&up, x, true, Then::Nothing);
        });
    }
}

fn take_rows(x: &[f32], width: usize, rows: &[usize]) -> Scratch {
    let mut taken = Scratch::new(rows.len() * width);
    for (taken, row) in taken.chunks_exact_mut(width).zip(rows) {
        taken.copy_from_slice(&x[row * width..][..width]);
    }
    taken
}

/// Real tokens one after another, and what they see.
#[derive(Debug, PartialEq)]
struct Packed {
    /// Where each row stands among the padded ones.
    rows: Vec<usize>,
    /// Queries are counted among the rows, keys among those that are known and the rows behind them.
    windows: Vec<Window>,
    /// The row of each item's last token.
    last: Vec<usize>,
    /// Tokens that all items begin with, the known ones included.
    shared: usize,
}

impl Packed {
    /// Packs items of these lengths out of rows of `seq`; `same` says whether two padded rows hold the same
    /// token at the same place. The longest beginning that all items share comes first, once, but for its first `known`
    /// tokens.
    fn new(lengths: &[usize], seq: usize, known: usize, same: impl Fn(usize, usize) -> bool) -> Self {
        // Each item keeps a row of its own; one without tokens has a row of padding.
        let lengths = lengths.iter().map(|&length| length.max(1));
        let shared = match lengths.len() {
            1 => known,
            _ => {
                let shortest = lengths.clone().min().unwrap_or(1);
                let alike = |t: &usize| (1..lengths.len()).all(|b| same(*t, b * seq + t));
                known + (known..shortest - 1).take_while(alike).count()
            }
        };
        let mut rows: Vec<usize> = (known..shared).collect();
        let window = |rows: std::ops::Range<usize>, prefix| Window {
            prefix: 0..prefix,
            keys: known + rows.start..known + rows.end,
            queries: rows,
        };
        let mut windows = vec![];
        if shared > known {
            windows.push(window(0..shared - known, known));
        }
        let mut last = Vec::new();
        for (b, length) in lengths.enumerate() {
            let start = rows.len();
            rows.extend(b * seq + shared..b * seq + length);
            windows.push(window(start..rows.len(), shared));
            last.push(rows.len() - 1);
        }
        Packed { rows, windows, last, shared }
    }

    /// One query for each item, its last token, and all that this sees.
    fn last_windows(&self) -> Vec<Window> {
        let items = &self.windows[self.windows.len() - self.last.len()..];
        let window = |(i, window): (usize, &Window)| Window { queries: i..i + 1, ..window.clone() };
        items.iter().enumerate().map(window).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_packed_and_a_common_beginning_comes_once() {
        let tokens = [[1, 2, 3, 4, 5], [1, 2, 3, 9, 0], [1, 2, 8, 0, 0]];
        let same = |a: usize, b: usize| tokens[a / 5][a % 5] == tokens[b / 5][b % 5];
        let packed = Packed::new(&[5, 4, 3], 5, 0, same);
        let beside = |rows| Window { prefix: 0..2, ..Window::of(rows) };
        assert_eq!(packed.rows, [0, 1, 2, 3, 4, 7, 8, 12]);
        assert_eq!(packed.windows, [Window::of(0..2), beside(2..5), beside(5..7), beside(7..8)]);
        assert_eq!(packed.last, [4, 6, 7]);
        let queries: Vec<_> = packed.last_windows().into_iter().map(|w| (w.queries, w.keys)).collect();
        assert_eq!(queries, [(0..1, 2..5), (1..2, 5..7), (2..3, 7..8)]);

        // Of what is known there are keys, and no rows.
        let packed = Packed::new(&[5, 4, 3], 5, 1, same);
        let window = |queries: std::ops::Range<usize>, prefix| Window {
            prefix: 0..prefix,
            keys: queries.start + 1..queries.end + 1,
            queries,
        };
        assert_eq!(packed.rows, [1, 2, 3, 4, 7, 8, 12]);
        assert_eq!(packed.windows, [window(0..1, 1), window(1..4, 2), window(4..6, 2), window(6..7, 2)]);
        assert_eq!((packed.last, packed.shared), (vec![3, 5, 6], 2));

        // Equal items keep a row each; one alone shares with nobody.
        assert_eq!(Packed::new(&[3, 3], 5, 0, |_, _| true).rows, [0, 1, 2, 7]);
        let alone = Packed::new(&[3], 5, 0, |_, _| true);
        assert_eq!((alone.rows, alone.windows), (vec![0, 1, 2], vec![Window::of(0..3)]));
        let alone = Packed::new(&[3], 5, 2, |_, _| true);
        let keys = Window { keys: 2..3, ..window(0..1, 2) };
        assert_eq!((alone.rows, alone.windows), (vec![2], vec![keys]));
        assert_eq!(Packed::new(&[0, 2], 2, 0, |_, _| true).rows, [0, 2, 3]);
    }
}
