//! What training a model of some shape costs: operations and memory, from the configuration alone.

use std::ops::{Add, Mul};

use crate::adapter_config::AdapterConfig;
use crate::attention::SCORES;
use crate::config::ModelConfig;
use crate::plan::{ItemShape, Operations};

/// How a stage trains, as far as its costs go.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingShape {
    /// The adapter that trains; `None` trains every weight.
    pub adapter: Option<AdapterConfig>,
    /// Every item is embedded once without a graph before its gradient is known (gradient caching).
    pub embed_twice: bool,
    /// Blocks keep what they were given and are computed again, instead of one graph for the whole micro-batch.
    pub by_blocks: bool,
    /// Micro-batches that are computed side by side.
    pub side_by_side: usize,
}

/// The operations of a sample in training, by how they are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrainingOperations {
    /// Forward passes without a graph.
    pub plain: Operations,
    /// Forward passes in a graph, and backward passes.
    pub graph: Operations,
}

impl Add for TrainingOperations {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        TrainingOperations { plain: self.plain + other.plain, graph: self.graph + other.graph }
    }
}

impl Mul<f64> for TrainingOperations {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        TrainingOperations { plain: self.plain * times, graph: self.graph * times }
    }
}

impl TrainingOperations {
    /// All.
    pub fn total(&self) -> f64 {
        self.plain.total() + self.graph.total()
    }
}

/// Bytes that training needs at its peak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingMemory {
    /// The model's own weights, as they stand in memory.
    pub weights: f64,
    /// What trains besides them, gradients, and the optimizer's two moments, all in f32.
    pub trained: f64,
    /// What a micro-batch keeps, for all that are computed side by side.
    pub activations: f64,
}

impl TrainingMemory {
    /// All.
    pub fn total(&self) -> f64 {
        self.weights + self.trained + self.activations
    }
}

/// What the graph of one block holds for each of its rows, when it is computed again: so many times the width of its states,
/// and of its MLP. Measured, as the numbers below; `docs/performance.md` has the table and the commands.
const BLOCK: [usize; 2] = [9, 8];

/// The same of a block in the graph of a whole micro-batch.
const TOWER_GRAPH: [usize; 2] = [10, 2];
const DECODER_GRAPH: [usize; 2] = [7, 5];

/// Squares of rows for each head that such a graph holds, and that a backward pass adds for one block.
const SQUARES: f64 = 3.0;
const SQUARES_BACKWARD: f64 = 2.7;

/// What a last layer, which computes pooled rows alone, and the backward pass of the layer before it hold for each row.
const LAST: [usize; 2] = [4, 2];

/// Pieces of scores that [`attend_backward`](crate::attention) holds at once.
const PIECES: f64 = 3.0;

/// Numbers that a micro-batch keeps until its gradient is pulled back, and while it is.
struct Kept {
    until_pulled: f64,
    in_pulling: f64,
}

/// Linear layers of one name.
struct Layers {
    /// Before the number of the block, and behind it.
    name: [&'static str; 2],
    /// How many blocks have one.
    count: usize,
    size: [usize; 2],
    part: Part,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Patches,
    Merged,
    Tokens,
}

impl ModelConfig {
    fn linear_layers(&self) -> [Layers; 13] {
        let (text, vision) = (&self.text, &self.vision);
        let (size, wide) = (text.hidden_size, text.intermediate_size);
        let narrow = text.num_key_value_heads * text.head_dim();
        let (own, mlp, merged) = (vision.embed_dim, vision.mlp_dim(), vision.embed_dim * vision.merge_unit());
        let decoder = |name, size| Layers {
            name: ["model.layers.", name],
            count: text.num_hidden_layers,
            size,
            part: Part::Tokens,
        };
        let tower = |name, size| Layers {
            name: ["visual.blocks.", name],
            count: vision.depth,
            size,
            part: Part::Patches,
        };
        let merger =
            |name, size| Layers { name: ["visual.merger.mlp.", name], count: 1, size, part: Part::Merged };
        [
            decoder(".self_attn.q_proj", [size, size]),
            decoder(".self_attn.k_proj", [size, narrow]),
            decoder(".self_attn.v_proj", [size, narrow]),
            decoder(".self_attn.o_proj", [size, size]),
            decoder(".mlp.gate_proj", [size, wide]),
            decoder(".mlp.up_proj", [size, wide]),
            decoder(".mlp.down_proj", [wide, size]),
            tower(".attn.qkv", [own, 3 * own]),
            tower(".attn.proj", [own, own]),
            tower(".mlp.fc1", [own, mlp]),
            tower(".mlp.fc2", [mlp, own]),
            merger("0", [merged, merged]),
            merger("2", [merged, size]),
        ]
    }

    /// Numbers that train: those of the adapter, or all.
    pub fn trained_parameters(&self, adapter: Option<&AdapterConfig>) -> usize {
        match adapter {
            None => self.num_parameters(),
            Some(adapter) => self.linear_layers().iter().map(|layers| layers.adapter_numbers(adapter)).sum(),
        }
    }

    /// The operations of an adapter for an item, forwards.
    fn adapter_operations(&self, item: &ItemShape, adapter: &AdapterConfig) -> Operations {
        let mut operations = Operations::default();
        let merged = item.pictures.iter().sum::<usize>();
        for layers in self.linear_layers() {
            let (rows, sum) = match layers.part {
                Part::Patches => (merged * self.vision.merge_unit(), &mut operations.tower_linear),
                Part::Merged => (merged, &mut operations.tower_linear),
                Part::Tokens => (item.tokens(), &mut operations.decoder_linear),
            };
            *sum += (2 * rows * layers.adapter_numbers(adapter)) as f64;
        }
        operations
    }

    /// The operations that an item takes in a step.
    ///
    /// A backward pass multiplies each weight with a gradient once for what stands below it, and once more where it
    /// trains itself; that of attention takes five products where the forward pass took two. A tower in which nothing
    /// trains has none.
    pub fn training_operations(&self, item: &ItemShape, shape: &TrainingShape) -> TrainingOperations {
        let frozen = self.operations(item);
        let (times, beside) = match &shape.adapter {
            None => (2.0, Operations::default()),
            Some(adapter) => (1.0, self.adapter_operations(item, adapter)),
        };
        let forward = frozen + beside;
        let mut backward = Operations {
            tower_linear: times * frozen.tower_linear,
            tower_attention: 2.5 * frozen.tower_attention,
            decoder_linear: times * frozen.decoder_linear,
            decoder_attention: 2.5 * frozen.decoder_attention,
        } + beside * 2.0;
        if shape.adapter.is_some() && beside.tower_linear == 0.0 {
            (backward.tower_linear, backward.tower_attention) = (0.0, 0.0);
        }
        let passes = usize::from(shape.embed_twice) + usize::from(shape.by_blocks);
        TrainingOperations { plain: forward * passes as f64, graph: forward + backward }
    }

    /// The memory that training takes at its peak.
    ///
    /// - `weight_size`: bytes of a frozen number as it stands in memory
    /// - `micro_batch`: an item and how many like it make a micro-batch, the largest that occurs
    /// - `of_batch`: micro-batches in a batch; all of them are kept where nothing is embedded twice
    pub fn training_memory(
        &self,
        shape: &TrainingShape,
        weight_size: usize,
        micro_batch: (&ItemShape, usize),
        of_batch: usize,
    ) -> TrainingMemory {
        let (item, count) = micro_batch;
        let trained = self.trained_parameters(shape.adapter.as_ref()) as f64;
        let Kept { until_pulled, in_pulling } = match shape.by_blocks {
            true => self.kept_by_blocks(item, count),
            false => self.kept_in_graph(item, count),
        };
        let at_once = shape.side_by_side.min(of_batch) as f64;
        let held = if shape.embed_twice { at_once } else { of_batch as f64 };
        TrainingMemory {
            weights: (self.num_parameters() * weight_size) as f64,
            // Two moments, the sum of gradients, and the adapter itself or the gradients of a micro-batch.
            trained: 4.0 * 4.0 * trained,
            activations: 4.0 * (until_pulled * held + in_pulling * at_once),
        }
    }

    /// What each block was given; and the largest block with its weights and all that its graph holds.
    fn kept_by_blocks(&self, item: &ItemShape, count: usize) -> Kept {
        let (text, vision) = (&self.text, &self.vision);
        let (patches, tokens) = self.rows(item, count);
        let inputs = patches * (vision.embed_dim * (vision.depth + 1)) as f64
            + tokens * (text.hidden_size * text.num_hidden_layers) as f64;
        let tower = self.tower_rows(patches, BLOCK) + self.block_weights(Part::Patches);
        let decoder = self.decoder_rows(tokens, BLOCK) + self.block_weights(Part::Tokens);
        let largest = if patches > 0.0 { tower.max(decoder) } else { decoder };
        Kept { until_pulled: inputs, in_pulling: largest + PIECES * SCORES as f64 }
    }

    /// All that the graph of a micro-batch holds; and what a backward pass adds for a block.
    fn kept_in_graph(&self, item: &ItemShape, count: usize) -> Kept {
        let (text, vision) = (&self.text, &self.vision);
        let (patches, tokens) = self.rows(item, count);
        let square = |tokens: &usize| ((tokens * vision.merge_unit()) as f64).powi(2);
        let seen = (count * vision.num_heads) as f64 * item.pictures.iter().map(square).sum::<f64>();
        let read = (count * text.num_attention_heads) as f64 * (item.tokens() as f64).powi(2);
        let tower = self.tower_rows(patches, TOWER_GRAPH) + SQUARES * seen;
        let decoder = self.decoder_rows(tokens, DECODER_GRAPH) + SQUARES * read;
        Kept {
            until_pulled: tower * vision.depth as f64 + decoder * (text.num_hidden_layers - 1) as f64,
            in_pulling: (SQUARES_BACKWARD * seen).max(self.decoder_rows(tokens, LAST)),
        }
    }

    fn tower_rows(&self, patches: f64, [own, wide]: [usize; 2]) -> f64 {
        patches * (own * self.vision.embed_dim + wide * self.vision.mlp_dim()) as f64
    }

    fn decoder_rows(&self, tokens: f64, [own, wide]: [usize; 2]) -> f64 {
        tokens * (own * self.text.hidden_size + wide * self.text.intermediate_size) as f64
    }

    /// Patches and tokens of a micro-batch.
    fn rows(&self, item: &ItemShape, count: usize) -> (f64, f64) {
        let merged = (count * item.pictures.iter().sum::<usize>()) as f64;
        (merged * self.vision.merge_unit() as f64, (count * item.tokens()) as f64)
    }

    /// Numbers of the linear layers of one block.
    fn block_weights(&self, part: Part) -> f64 {
        let layers = self.linear_layers();
        layers
            .iter()
            .filter(|layer| layer.part == part)
            .map(|layer| (layer.size[0] * layer.size[1]) as f64)
            .sum()
    }
}

impl Layers {
    /// Of those of these layers that `adapter` stands beside.
    fn adapter_numbers(&self, adapter: &AdapterConfig) -> usize {
        let [before, behind] = self.name;
        let name = |block: usize| match self.part {
            Part::Merged => format!("{before}{behind}"),
            _ => format!("{before}{block}{behind}"),
        };
        let count = (0..self.count).filter(|block| adapter.targets(&name(*block))).count();
        count * adapter.rank * (self.size[0] + self.size[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter_config::all_linear;

    fn config() -> ModelConfig {
        ModelConfig::preset("qwen2-vl-2b").unwrap()
    }

    fn adapter(rank: usize, targets: &[&str]) -> AdapterConfig {
        let targets =
            if targets.is_empty() { all_linear() } else { targets.iter().map(|x| x.to_string()).collect() };
        AdapterConfig { rank, alpha: 16.0, rank_stabilized: false, targets }
    }

    fn shape(adapter: Option<AdapterConfig>, embed_twice: bool, by_blocks: bool) -> TrainingShape {
        TrainingShape { adapter, embed_twice, by_blocks, side_by_side: 1 }
    }

    fn picture(tokens: usize) -> ItemShape {
        ItemShape { words: 2, pictures: vec![tokens] }
    }

    /// Published: 116.9 M and 204.6 M for rank 64 on every linear layer.
    #[test]
    fn adapters_have_their_size() {
        let all = adapter(64, &[]);
        assert_eq!(config().trained_parameters(Some(&all)), 116_883_456);
        let seven = ModelConfig::preset("qwen2-vl-7b").unwrap();
        assert_eq!((seven.trained_parameters(Some(&all)) as f64 / 1e5).round(), 2046.0);
        assert_eq!(config().trained_parameters(None), config().num_parameters());
        // 28 layers of 4 · (1536 + 1536); one of them.
        assert_eq!(config().trained_parameters(Some(&adapter(4, &["q_proj"]))), 28 * 4 * 3072);
        assert_eq!(config().trained_parameters(Some(&adapter(4, &["layers.3.self_attn.q_proj"]))), 4 * 3072);
    }

    #[test]
    fn a_frozen_model_takes_four_passes_and_a_trained_one_five() {
        let (config, item) = (config(), ItemShape { words: 200, pictures: Vec::new() });
        let forward = config.operations(&item);
        let narrow = shape(Some(adapter(1, &[])), true, true);
        let full = shape(None, true, true);
        let passes = |shape: &TrainingShape| {
            let operations = config.training_operations(&item, shape);
            (operations.plain.linear() / forward.linear(), operations.graph.linear() / forward.linear())
        };
        // An adapter of rank 1 adds next to nothing.
        let (plain, graph) = passes(&narrow);
        assert!((plain - 2.0).abs() < 0.01 && (graph - 2.0).abs() < 0.01, "{plain} {graph}");
        assert_eq!(passes(&full), (2.0, 3.0));
        assert_eq!(passes(&shape(None, false, false)), (0.0, 3.0));
        let attention = config.training_operations(&item, &full).graph.attention();
        assert_eq!(attention, 3.5 * forward.attention());
    }

    #[test]
    fn below_what_trains_there_is_no_backward_pass() {
        let (config, item) = (config(), picture(256));
        let forward = config.operations(&item);
        let of = |targets: &[&str]| {
            config.training_operations(&item, &shape(Some(adapter(4, targets)), false, false)).graph
        };
        assert_eq!(of(&["q_proj"]).tower(), forward.tower());
        assert!(of(&["attn.qkv"]).tower() > 1.9 * forward.tower());
    }

    /// Megabytes that passes took beyond the weights, see `docs/performance.md`.
    #[test]
    fn activations_are_as_measured() {
        let mut config = config();
        let text = |count: usize| (ItemShape { words: 256, pictures: Vec::new() }, count);
        let cases = [
            (2, true, text(4), 569.0),
            (2, true, (ItemShape { words: 1024, pictures: Vec::new() }, 1), 565.0),
            (2, true, (picture(256), 1), 358.0),
            (4, true, (picture(576), 2), 1139.0),
            (2, false, text(4), 358.0),
            (4, false, text(4), 883.0),
            (2, false, (picture(256), 1), 862.0),
            (4, false, (picture(256), 1), 1584.0),
        ];
        for (blocks, by_blocks, (item, count), measured) in cases {
            (config.text.num_hidden_layers, config.vision.depth) = (blocks, blocks);
            let shape = shape(Some(adapter(16, &[])), false, by_blocks);
            let predicted = config.training_memory(&shape, 4, (&item, count), 1).activations / 1e6;
            let ratio = predicted / measured;
            assert!(
                (0.85..1.15).contains(&ratio),
                "{blocks} {by_blocks} {item:?}: {predicted} of {measured}"
            );
        }
    }

    /// Gradient caching keeps the graphs of those that are computed at once, and without it all graphs wait for the loss.
    #[test]
    fn graphs_are_kept_until_they_are_pulled_back() {
        let (config, item) = (config(), ItemShape { words: 64, pictures: Vec::new() });
        let memory = |embed_twice, by_blocks, side_by_side, of_batch| {
            let shape = TrainingShape { side_by_side, ..shape(None, embed_twice, by_blocks) };
            config.training_memory(&shape, 4, (&item, 8), of_batch).activations
        };
        let one = memory(true, false, 1, 1);
        assert_eq!(memory(true, false, 1, 10), one);
        assert_eq!(memory(true, false, 2, 10), 2.0 * one);
        assert_eq!(memory(true, false, 4, 1), one);
        let ten = memory(false, false, 1, 10);
        assert!((8.0..10.0).contains(&(ten / one)), "{}", ten / one);
        // By blocks, what waits is little.
        assert!(memory(false, true, 1, 10) < 3.0 * memory(false, true, 1, 1));
    }
}
