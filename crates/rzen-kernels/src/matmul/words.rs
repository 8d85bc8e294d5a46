//! Products in registers: which weights and inputs each thread takes, and what is packed.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::avx512::{self, Output, Tile};
use super::{FEW_ROWS, Matrix, PANEL, PARTS, Product, Start, Then, amx};
use crate::cpu;
use crate::scratch::Scratch;

/// Words of the inner dimension that are taken at once, whole sixteens: most of those of a tile stay in the first
/// cache, those of a task's inputs in the second.
const BLOCK_WORDS: usize = 256;
/// Panels of inputs of a task, at most; of split ones half as many.
const TASK_PANELS: usize = 20;
/// Weight rows of a task, at most; the sums of a task stay in the second cache or near it.
const TASK_OUTPUTS: usize = 512;
/// Panels that make it worth to copy a tile of weights.
const COPY_PANELS: usize = 4;

/// Weights as 32-bit words.
pub(super) struct Words<'a> {
    data: Data<'a>,
    /// Words of a row.
    words: usize,
    kind: Kind,
}

enum Data<'a> {
    Words(&'a [u32]),
    /// Becomes f32 piece by piece, in the first cache.
    Narrow(&'a [bf16]),
}

/// What multiplies.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    F32,
    Bf16,
    Amx,
    /// bf16 weights and f32 inputs, which are split into three bf16 each: in matrix registers that takes less time
    /// than one product of f32, and is as exact.
    Split,
}

/// Outputs that tasks share; each writes some of its own.
#[derive(Clone, Copy)]
struct Shared(Output);
// SAFETY: tasks write disjoint outputs; the slices outlive them.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Taken by a method, so that closures capture the whole.
    fn get(&self) -> Output {
        self.0
    }
}

impl<'a> Words<'a> {
    /// The weights as words, if this processor multiplies them so.
    pub(super) fn of(weight: Matrix<'a>, inputs: usize, rows: usize) -> Option<Self> {
        let cpu = cpu::features();
        // Pairs must begin where words do.
        let pairs = |w: &[bf16]| inputs.is_multiple_of(2) && w.as_ptr().addr().is_multiple_of(4);
        match weight {
            Matrix::F32(w) if cpu.avx512 => {
                Some(Words { data: Data::Words(as_words(w)), words: inputs, kind: Kind::F32 })
            }
            Matrix::WidenedBf16(w) if cpu.amx && pairs(w) && rows > FEW_ROWS => {
                Some(Words { data: Data::Words(pairs_as_words(w)), words: inputs / 2, kind: Kind::Split })
            }
            Matrix::WidenedBf16(w) if cpu.avx512 => {
                Some(Words { data: Data::Narrow(w), words: inputs, kind: Kind::F32 })
            }
            Matrix::Bf16(w) if cpu.avx512_bf16 && pairs(w) => {
                let kind = if cpu.amx { Kind::Amx } else { Kind::Bf16 };
                Some(Words { data: Data::Words(pairs_as_words(w)), words: inputs / 2, kind })
            }
            Matrix::Bf16(w) if cpu.avx512 => {
                Some(Words { data: Data::Narrow(w), words: inputs, kind: Kind::F32 })
            }
            _ => None,
        }
    }

    pub(super) fn run(&self, product: Product<'_>) {
        match product.rows() <= FEW_ROWS {
            true => self.few_rows(product),
            false => self.packed(product),
        }
    }

    /// Weights and inputs as they are stored, four rows of the one against four of the other.
    fn few_rows(&self, product: Product<'_>) {
        let (rows, outputs, words) = (product.rows(), product.outputs, self.words);
        let narrow = (self.kind != Kind::F32).then(|| round_to_pairs(product.x));
        let x = match &narrow {
            Some(narrow) => narrow.as_words(),
            None => as_words(product.x),
        };
        let dot = match self.kind {
            Kind::F32 => avx512::dot_f32,
            Kind::Bf16 | Kind::Amx => avx512::dot_bf16,
            Kind::Split => unreachable!("few rows are not split"),
        };
        let output = Shared(product.output());
        // Enough weights in a task to be worth a thread.
        let least = (1 << 16) / (4 * words * rows) + 1;
        let tasks = (0..outputs.div_ceil(4)).into_par_iter().with_min_len(least);
        tasks.for_each_init(
            || self.room(4, words),
            |wide, group| {
                let first = 4 * group;
                let count = 4.min(outputs - first);
                let (w, _) = self.weights(first..first + count, &(0..words), wide);
                for row in (0..rows).step_by(4) {
                    let x = x[row * words..].as_ptr();
                    // SAFETY: rows and outputs are inside the slices, and the processor has the instructions.
                    unsafe { dot((x, 4.min(rows - row)), (w, count), words, output.get().at(row, first)) };
                }
            },
        );
    }

    /// Inputs in packed panels, weights as they are stored or copied tile by tile.
    fn packed(&self, product: Product<'_>) {
        let (rows, outputs) = (product.rows(), product.outputs);
        let x = self.pack(product.x, rows);
        let grid = self.grid(rows, outputs);
        let output = Shared(product.output());
        (0..grid.tasks()).into_par_iter().for_each(|task| {
            let (panels, tiles) = grid.task(task);
            self.task(x.as_words(), rows, panels, outputs, tiles, &output.get());
        });
    }

    fn grid(&self, rows: usize, outputs: usize) -> Grid {
        let panels = if self.kind == Kind::Split { TASK_PANELS / 2 } else { TASK_PANELS };
        Grid::new(rows.div_ceil(PANEL), outputs.div_ceil(self.height()), self.height(), panels)
    }

    /// Some panels of inputs against some tiles of weights.
    fn task(
        &self,
        x: &[u32],
        rows: usize,
        panels: Range<usize>,
        outputs: usize,
        tiles: Range<usize>,
        output: &Output,
    ) {
        let (words, height) = (self.words, self.height());
        let has_registers = matches!(self.kind, Kind::Amx | Kind::Split);
        // SAFETY: the kind says that the processor has them and that they were permitted.
        let _registers = has_registers.then(|| unsafe { amx::Registers::new() });
        let size = height * PANEL;
        let mut sums = Scratch::new(match words <= self.block_words() {
            true => size,
            false => tiles.len() * panels.len() * size,
        });
        let sums = sums.as_mut_ptr();
        let copies = has_registers && panels.len() >= COPY_PANELS;
        let longest = words.min(self.block_words());
        let mut room = match copies {
            true => Scratch::new(height * row_of_copy(longest)),
            false => self.room(height, longest),
        };
        for block in blocks(words, self.block_words()) {
            let last = block.end == words;
            for tile in tiles.clone() {
                let first = tile * height;
                let count = height.min(outputs - first);
                let (w, ldw) = match copies {
                    true => self.copied(first..first + count, &block, &mut room),
                    false => self.weights(first..first + count, &block, &mut room),
                };
                for panel in panels.clone() {
                    let lanes = PANEL.min(rows - panel * PANEL);
                    let place = match words <= self.block_words() {
                        true => 0,
                        false => (tile - tiles.start) * panels.len() + panel - panels.start,
                    };
                    let tile = Tile {
                        w,
                        ldw,
                        step: 1,
                        x: x[(panel * self.parts() * words + block.start) * PANEL..].as_ptr(),
                        words: block.len(),
                        parts: self.parts(),
                        part: words * PANEL,
                        // SAFETY: there is a place for each tile and panel.
                        sums: unsafe { sums.add(place * size) },
                        add: block.start > 0,
                        lanes,
                    };
                    // SAFETY: the tile's rows, words and lanes are inside weights, inputs and sums, its
                    // outputs inside the outputs, and the processor has the instructions of the kind.
                    unsafe {
                        match self.kind {
                            Kind::F32 => avx512::rows_f32(count, &tile),
                            Kind::Bf16 => avx512::rows_bf16(count, &tile),
                            Kind::Amx | Kind::Split => amx::rows(count, &tile),
                        }
                        if last {
                            avx512::put(tile.sums, count, lanes, &output.at(panel * PANEL, first));
                        }
                    }
                }
            }
        }
    }

    /// Room for what [`Words::weights`] widens.
    fn room(&self, rows: usize, words: usize) -> Scratch {
        Scratch::new(if matches!(self.data, Data::Narrow(_)) { rows * words } else { 0 })
    }

    /// Where a block of some rows begins, and the words from a row to the next.
    fn weights(&self, rows: Range<usize>, block: &Range<usize>, wide: &mut Scratch) -> (*const u32, usize) {
        match self.data {
            Data::Words(data) => (data[rows.start * self.words + block.start..].as_ptr(), self.words),
            Data::Narrow(data) => {
                assert!(rows.len() * block.len() <= wide.len(), "there is room for all rows");
                for (wide, row) in wide.as_mut_words().chunks_exact_mut(block.len()).zip(rows) {
                    // SAFETY: the kind says that the processor has the instructions.
                    unsafe { avx512::widen(&data[row * self.words..][block.clone()], wide) };
                }
                (wide.as_words().as_ptr(), block.len())
            }
        }
    }

    /// As [`Words::weights`], copied to where rows begin on cache lines, each on another of the first cache: as they lie
    /// in files they may all begin on the same, and then none stays in it.
    fn copied(&self, rows: Range<usize>, block: &Range<usize>, room: &mut Scratch) -> (*const u32, usize) {
        let Data::Words(data) = self.data else { unreachable!("matrix registers take pairs") };
        let length = row_of_copy(block.len());
        assert!(rows.len() * length <= room.len(), "there is room for all rows");
        for (copy, row) in room.as_mut_words().chunks_exact_mut(length).zip(rows) {
            copy[..block.len()].copy_from_slice(&data[row * self.words..][block.clone()]);
        }
        (room.as_words().as_ptr(), length)
    }

    /// Weight rows of a tile.
    fn height(&self) -> usize {
        match self.kind {
            Kind::F32 | Kind::Bf16 => avx512::TILE_ROWS,
            Kind::Amx | Kind::Split => amx::TILE_ROWS,
        }
    }

    /// Words of the inner dimension that are taken at once, at most; whole sixteens.
    fn block_words(&self) -> usize {
        BLOCK_WORDS / self.parts() / 16 * 16
    }

    /// Panels that one of inputs becomes.
    fn parts(&self) -> usize {
        if self.kind == Kind::Split { PARTS } else { 1 }
    }

    /// The inputs in panels: for each word of a row, the rows of the panel; part after part where they are split.
    fn pack(&self, x: &[f32], rows: usize) -> Scratch {
        let (words, parts) = (self.words, self.parts());
        let mut packed = Scratch::new(rows.div_ceil(PANEL) * parts * PANEL * words);
        let panel = PANEL * x.len() / rows;
        let panels = packed.as_mut_words().par_chunks_exact_mut(parts * PANEL * words);
        panels.zip(x.par_chunks(panel)).for_each(|(packed, x)| {
            let pack = |x: &[u32], packed: &mut [u32]| {
                // SAFETY: both slices have as many words as are read and written.
                unsafe {
                    avx512::pack_panel(x.as_ptr(), words, x.len() / words, words, packed.as_mut_ptr());
                }
            };
            match self.kind {
                Kind::F32 => pack(as_words(x), packed),
                Kind::Bf16 | Kind::Amx => pack(round_to_pairs(x).as_words(), packed),
                Kind::Split => {
                    let mut rest = Scratch::new(x.len());
                    rest.copy_from_slice(x);
                    for (part, packed) in packed.chunks_exact_mut(PANEL * words).enumerate() {
                        let pairs = round_to_pairs(&rest);
                        pack(pairs.as_words(), packed);
                        if part + 1 < PARTS {
                            // SAFETY: the kind says that the processor has the instructions.
                            unsafe { avx512::take_pairs(&mut rest, pairs.as_words()) };
                        }
                    }
                }
            }
        });
        packed
    }
}

/// Words from a copied row to the next: an odd number of lines of sixteen.
fn row_of_copy(words: usize) -> usize {
    words.next_multiple_of(32) + 16
}

impl Product<'_> {
    fn output(self) -> Output {
        let (add, bias) = match self.start {
            Start::Zero => (false, None),
            Start::Bias(bias) => (false, Some(bias.as_ptr())),
            Start::Add => (true, None),
            Start::AddBias(bias) => (true, Some(bias.as_ptr())),
        };
        let then = match self.then {
            Then::Nothing => avx512::Then::Nothing,
            Then::QuickGelu => avx512::Then::QuickGelu,
            Then::Gate(gate) => avx512::Then::Gate(gate.as_ptr()),
        };
        Output { y: self.y.as_mut_ptr(), ldy: self.outputs, add, bias, then }
    }
}

/// The blocks of the inner dimension, all about equally long, whole sixteens of words but the last.
fn blocks(words: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = words.div_ceil(most);
    let length = words.div_ceil(count).next_multiple_of(16);
    (0..words).step_by(length).map(move |start| start..words.min(start + length))
}

/// How panels of inputs and tiles of weights are shared out to tasks.
struct Grid {
    panels: usize,
    tiles: usize,
    panels_of_task: usize,
    tiles_of_task: usize,
}

impl Grid {
    /// Tasks of equal size, several for each thread where there is work for them, none of more than `most` panels.
    fn new(panels: usize, tiles: usize, height: usize, most: usize) -> Self {
        let panels_of_task = panels.div_ceil(panels.div_ceil(most));
        let chunks = panels.div_ceil(panels_of_task);
        let wanted = (8 * rayon::current_num_threads()).div_ceil(chunks);
        let groups = tiles.div_ceil(TASK_OUTPUTS / height).max(wanted.min(tiles));
        Grid { panels, tiles, panels_of_task, tiles_of_task: tiles.div_ceil(groups) }
    }

    fn groups(&self) -> usize {
        self.tiles.div_ceil(self.tiles_of_task)
    }

    fn tasks(&self) -> usize {
        self.panels.div_ceil(self.panels_of_task) * self.groups()
    }

    /// The panels and the tiles of a task.
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let part = |i: usize, size: usize, all: usize| i * size..all.min((i + 1) * size);
        (
            part(task / self.groups(), self.panels_of_task, self.panels),
            part(task % self.groups(), self.tiles_of_task, self.tiles),
        )
    }
}

fn as_words(x: &[f32]) -> &[u32] {
    // SAFETY: both are any 32 bits.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) }
}

fn pairs_as_words(x: &[bf16]) -> &[u32] {
    // SAFETY: two bf16 are any 32 bits, and the caller has checked the alignment.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len() / 2) }
}

/// Rounds to bf16, two in a word; the count is even.
fn round_to_pairs(x: &[f32]) -> Scratch {
    let mut pairs = Scratch::new(x.len() / 2);
    // SAFETY: whoever asks multiplies pairs, so the processor has the instructions.
    unsafe { avx512::round_to_pairs(x, pairs.as_mut_words()) }
    pairs
}
