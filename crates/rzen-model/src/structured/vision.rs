//! The patch kernel and the blocks of the vision tower.

use std::f64::consts::PI;

use nalgebra::DMatrix;

use super::{Biases, Made, rows};
use crate::config::VisionConfig;

/// What the branches beside the residual stream are scaled by.
const BRANCH: f64 = 0.3;
/// What the merger's first layer is scaled by: GELU is nearly linear near 0.
const MERGER_GAIN: f64 = 0.3;
/// The standard deviation of the part of queries and keys that depends on the patch.
const ATTENTION_CONTENT: f64 = 0.02;
/// What attention is scaled by in the block that finds edges.
const QUIET_BRANCH: f64 = 0.02;

pub(super) fn make(made: &mut Made, config: &VisionConfig) {
    let edges = Edges::that_fit(config);
    let waves = waves(config);
    made.put("visual.patch_embed.proj.weight", rows(&kernel(&waves, config)));
    for i in 0..config.depth {
        let name = format!("visual.blocks.{i}");
        match &edges {
            Some(edges) if i == 0 => edge_block(made, &name, edges, &waves, config),
            _ => block(made, &name, config),
        }
    }
    let (name, wide) = ("visual.merger.mlp.0.weight", config.embed_dim * config.merge_unit());
    made.put(name, made.normals(name, wide * wide, MERGER_GAIN / (wide as f64).sqrt()));
}

/// What a coordinate of a patch's embedding begins as: how much of a cosine wave the patch holds.
struct Wave {
    color: Color,
    /// Half periods along y and x.
    frequency: [usize; 2],
    gain: f64,
}

/// What the waves that are kept for themselves are raised by.
const CORNER_GAIN: f64 = 0.4;
/// What the waves that edges are found in are raised by, over their frequency: pictures have little of high ones.
const FINE_GAIN: f64 = 0.15;

/// A wave for each coordinate, as far as there are any: first the four lowest of brightness and of two colour
/// differences, which say the mean colours of a patch's corners; then the higher ones of brightness, and of colour.
fn waves(config: &VisionConfig) -> Vec<Wave> {
    let patch = config.patch_size;
    let length = |[u, v]: [usize; 2]| (u as f64).hypot(v as f64);
    let mut all: Vec<[usize; 2]> = square(patch).map(|(u, v)| [u, v]).collect();
    all.sort_by(|a, b| length(*a).total_cmp(&length(*b)).then(a.cmp(b)));
    let is_corner = |frequency: &[usize; 2]| frequency[0].max(frequency[1]) < 2;
    let mut waves = Vec::new();
    for color in colors(config.in_channels) {
        // The eye's resolution for colour is lower, and so is what pictures hold of it.
        let by_color = if color.is_brightness { 1.0 } else { 2.0 };
        for frequency in all.iter().copied().filter(is_corner) {
            let by_frequency = if frequency == [0, 0] { 1.0 } else { 1.5 };
            let gain = CORNER_GAIN * by_color * by_frequency;
            waves.push(Wave { color: color.clone(), frequency, gain });
        }
    }
    for color in colors(config.in_channels) {
        for frequency in all.iter().copied().filter(|frequency| !is_corner(frequency)) {
            waves.push(Wave { color: color.clone(), frequency, gain: FINE_GAIN * length(frequency) });
        }
    }
    waves.truncate(config.embed_dim);
    waves
}

/// `[embed_dim, channels · frames · patch · patch]`. All frames count alike: a patch holds one.
fn kernel(waves: &[Wave], config: &VisionConfig) -> DMatrix<f64> {
    let (patch, frames) = (config.patch_size, config.temporal_patch_size);
    let area = patch * patch;
    let mut kernel = DMatrix::zeros(config.embed_dim, config.patch_dim());
    for (row, Wave { color, frequency: [u, v], gain }) in waves.iter().enumerate() {
        for (channel, share) in color.shares.iter().enumerate() {
            for (y, x) in square(patch) {
                let value = share * gain * wave(*u, y, patch) * wave(*v, x, patch);
                for frame in 0..frames {
                    let column = (channel * frames + frame) * area + y * patch + x;
                    kernel[(row, column)] = value / (patch * frames) as f64;
                }
            }
        }
    }
    kernel
}

/// How edges are summed up: in `cells` by `cells` parts of a patch, for each of [`DIRECTIONS`], from `places` by
/// `places` spots.
struct Edges {
    cells: usize,
    places: usize,
}

/// Directions that edges are told apart by.
const DIRECTIONS: usize = 8;
/// How far from its middle, across and along, an edge is looked for, in a patch of side 1.
const EDGE_WIDTH: [f64; 2] = [0.12, 0.24];

impl Edges {
    /// The finest sums that a tower of this shape has coordinates and units for.
    fn that_fit(config: &VisionConfig) -> Option<Self> {
        // Smaller patches have no inside, and one place for all spots.
        if config.patch_size < 3 {
            return None;
        }
        let sizes = [(2, 4), (2, 2), (1, 2), (1, 1)].map(|(cells, places)| Edges { cells, places });
        sizes.into_iter().find(|edges| {
            edges.first_sum(config) + edges.cells.pow(2) * DIRECTIONS <= config.embed_dim
                && edges.places.pow(2) * DIRECTIONS * 2 <= config.mlp_dim()
        })
    }

    /// The first coordinate that a sum is written to.
    fn first_sum(&self, config: &VisionConfig) -> usize {
        4 * colors(config.in_channels).len()
    }
}

/// A block whose MLP finds edges, each unit those of one place, direction and sign, and adds them up, as the
/// histograms of oriented gradients do (<https://doi.org/10.1109/CVPR.2005.177>). The sums outweigh the fine
/// waves that stand in their coordinates. Attention is quiet at first.
fn edge_block(made: &mut Made, name: &str, edges: &Edges, waves: &[Wave], config: &VisionConfig) {
    let (size, wide) = (config.embed_dim, config.mlp_dim());
    attention(made, name, size, &[], QUIET_BRANCH);
    let (patch, &Edges { cells, places }) = (config.patch_size, edges);
    let fc1 = format!("{name}.mlp.fc1.weight");
    let mut find = made.normals(&fc1, wide * size, (size as f64).sqrt().recip());
    let mut sum = vec![0.0; size * wide];
    let mut unit = 0;
    for (y, x) in square(places) {
        // Spots keep a pixel's distance from the patch's border.
        let middle = |place: usize| 1.0 + (place as f64 + 0.5) * (patch as f64 - 2.0) / places as f64 - 0.5;
        let cell = y * cells / places * cells + x * cells / places;
        for direction in 0..DIRECTIONS {
            let filter = edge([middle(y), middle(x)], PI * direction as f64 / DIRECTIONS as f64, patch);
            for sign in [1.0, -1.0] {
                for (coordinate, wave) in waves.iter().enumerate() {
                    let of_wave =
                        if wave.color.is_brightness { wave.part_of(&filter) / wave.gain } else { 0.0 };
                    find[unit * size + coordinate] = (sign * of_wave) as f32;
                }
                let to = edges.first_sum(config) + direction * cells * cells + cell;
                sum[to * wide + unit] = (places as f32).recip();
                unit += 1;
            }
        }
    }
    made.put(fc1, find);
    made.put(format!("{name}.mlp.fc2.weight"), sum);
}

/// A filter `[patch, patch]` for edges at `middle` (y, x) across the direction `angle`: the slope of a bell of
/// length 1 without a mean.
fn edge(middle: [f64; 2], angle: f64, patch: usize) -> DMatrix<f64> {
    let [across, along] = EDGE_WIDTH.map(|width| width * patch as f64);
    let filter = DMatrix::from_fn(patch, patch, |y, x| {
        let (y, x) = (y as f64 - middle[0], x as f64 - middle[1]);
        let (u, v) = (x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin());
        -u * (-(u / across).powi(2) / 2.0 - (v / along).powi(2) / 2.0).exp()
    });
    let filter = filter.add_scalar(-filter.mean());
    &filter / filter.norm().max(f64::MIN_POSITIVE)
}

impl Wave {
    /// The inner product of the plain wave with a filter.
    fn part_of(&self, filter: &DMatrix<f64>) -> f64 {
        let [u, v] = self.frequency;
        let patch = filter.nrows();
        let at = |y: usize, x: usize| wave(u, y, patch) * wave(v, x, patch) * filter[(y, x)];
        square(patch).map(|(y, x)| at(y, x)).sum()
    }
}

/// What a wave is a wave of.
#[derive(Clone)]
struct Color {
    is_brightness: bool,
    /// Of each channel.
    shares: Vec<f64>,
}

/// Brightness and, for three channels, red against blue and green against both.
fn colors(channels: usize) -> Vec<Color> {
    let unit = |shares: &[f64]| -> Vec<f64> {
        let length = shares.iter().map(|x| x * x).sum::<f64>().sqrt();
        shares.iter().map(|x| x / length).collect()
    };
    let mut colors = vec![Color { is_brightness: true, shares: unit(&vec![1.0; channels]) }];
    if channels == 3 {
        for shares in [[1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]] {
            colors.push(Color { is_brightness: false, shares: unit(&shares) });
        }
    }
    colors
}

/// The places of a square, row by row.
fn square(side: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..side).flat_map(move |y| (0..side).map(move |x| (y, x)))
}

/// A sample of the orthonormal cosine of this frequency.
fn wave(frequency: usize, place: usize, size: usize) -> f64 {
    let norm = if frequency == 0 { 1.0 } else { 2.0 };
    (norm / size as f64).sqrt() * (PI * (place as f64 + 0.5) * frequency as f64 / size as f64).cos()
}

fn block(made: &mut Made, name: &str, config: &VisionConfig) {
    let (size, head) = (config.embed_dim, config.head_dim());
    attention(made, name, size, &neighbour([0.0; 2], head).key, BRANCH);
    let (mut queries, mut keys) = (vec![0.0; size], vec![0.0; size]);
    for h in 0..config.num_heads {
        let biases = neighbour(NEIGHBOURS[h % NEIGHBOURS.len()], head);
        queries[h * head..][..head].copy_from_slice(&biases.query);
        keys[h * head..][..head].copy_from_slice(&biases.key);
    }
    made.put(format!("{name}.attn.qkv.bias"), [queries, keys, vec![0.0; size]].concat());
    let narrow = BRANCH / (config.mlp_dim() as f64).sqrt();
    let fc2 = format!("{name}.mlp.fc2.weight");
    let values = made.normals(&fc2, size * config.mlp_dim(), narrow);
    made.put(fc2, values);
}

/// Weights of attention that hardly depends on the patches, and not at all where `key`, the bias of a head's keys,
/// stands; its values are turned, and turned again and scaled by `branch` on the way out.
fn attention(made: &mut Made, name: &str, size: usize, key: &[f32], branch: f64) {
    let (qkv, proj) = (format!("{name}.attn.qkv"), format!("{name}.attn.proj.weight"));
    let mut weight = made.normals(&format!("{qkv}.weight"), 2 * size * size, ATTENTION_CONTENT);
    for (row, bias) in weight.chunks_exact_mut(size).zip(key.iter().cycle()) {
        if *bias != 0.0 {
            row.fill(0.0);
        }
    }
    weight.extend(rows(&made.orthogonal(&format!("{qkv}.values"), size)));
    made.put(format!("{qkv}.weight"), weight);
    let out = made.orthogonal(&proj, size) * branch;
    made.put(proj, rows(&out));
}

/// Longer biases would drown what the patch itself says; small heads have no frequency between.
const MOST_LOGIT: f64 = 150.0;

/// Rows and columns from a patch to its neighbours.
const NEIGHBOURS: [[f64; 2]; 8] =
    [[-1., -1.], [-1., 0.], [-1., 1.], [0., -1.], [0., 1.], [1., -1.], [1., 0.], [1., 1.]];

/// The biases whose product is greatest for the patch at `offset`: the highest frequency tells near patches apart,
/// the second far ones.
pub(super) fn neighbour(offset: [f64; 2], head_dim: usize) -> Biases {
    let count = head_dim / 4;
    let mut biases = Biases::zero(head_dim);
    for (axis, offset) in offset.into_iter().enumerate() {
        for i in 0..count.min(2) {
            let frequency = 10_000_f64.powf(-(i as f64) / count as f64);
            let logit = if i == 0 { 4.0 } else { (2.5 / (frequency * frequency)).min(MOST_LOGIT) };
            biases.prefer(axis * count + i, logit, frequency * offset);
        }
    }
    biases
}
