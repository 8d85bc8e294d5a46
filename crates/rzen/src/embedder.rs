//! A local model as an embedder of raw items.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rzen_core::{Embed, EmbedError, Item, check_unit_vector};
use rzen_data::Loader;
use rzen_model::{Collator, Encoded, PrefixCache, Processor, Qwen2Vl};

pub use crate::cut::Tokens;
use crate::cut::cut;

/// Loads, encodes and embeds items with a model on one device.
pub struct LocalEmbedder {
    model: Mutex<Qwen2Vl>,
    dim: usize,
    loader: Loader,
    processor: Processor,
    collator: Collator,
    settings: EmbedSettings,
    kept: Option<Arc<Kept>>,
    prefixes: Option<PrefixCache>,
}

/// How a [`LocalEmbedder`] spends memory and threads.
#[derive(Clone, Copy, Debug)]
pub struct EmbedSettings {
    /// Items in a batch, at most.
    pub batch_size: usize,
    /// Tokens in a batch, at most, where it holds more than one item.
    pub batch_tokens: usize,
    /// Which tokens count.
    pub tokens: Tokens,
    /// Batches computed side by side.
    pub threads: usize,
}

impl EmbedSettings {
    /// Tokens in a batch, unless asked otherwise: enough to keep all cores busy.
    pub const BATCH_TOKENS: usize = 8192;

    /// Items that are read before the first of them is computed: some batches, so that they can be sorted by
    /// length.
    pub(crate) fn part_size(&self) -> usize {
        self.batch_size.saturating_mul(BATCHES_AHEAD.max(self.threads)).max(1)
    }

    /// Tokens from which on no more are read before those are computed.
    pub(crate) fn part_tokens(&self) -> usize {
        self.batch_tokens.saturating_mul(TOKENS_AHEAD.max(self.threads)).max(1)
    }
}

/// Batches that are read ahead where items are short.
const BATCHES_AHEAD: usize = 8;
/// Batches that are read ahead where items are long: pictures take memory while they wait.
const TOKENS_AHEAD: usize = 2;

impl LocalEmbedder {
    /// An embedder that reads files with `loader`.
    pub fn new(
        model: Qwen2Vl,
        loader: Loader,
        processor: Processor,
        collator: Collator,
        settings: EmbedSettings,
    ) -> Self {
        let dim = model.config().text.hidden_size;
        let model = Mutex::new(model);
        LocalEmbedder { model, dim, loader, processor, collator, settings, kept: None, prefixes: None }
    }

    /// The same, which remembers the system prompt and instructions from one call to the next: a query on a CPU takes a fraction
    /// of the time. Vectors depend on earlier calls in their last bits.
    pub fn keeping_prefixes(self) -> Self {
        LocalEmbedder { prefixes: Some(PrefixCache::default()), ..self }
    }

    /// The same, which takes items from `kept`, and keeps there those that it had to read; for models of one processor.
    pub fn keeping(self, kept: Arc<Kept>) -> Self {
        LocalEmbedder { kept: Some(kept), ..self }
    }

    fn model(&self) -> Qwen2Vl {
        // A clone shares the weights.
        self.model.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads and encodes items from `offset` on, as many as are worked on together; the first that fails is the
    /// error. Each is encoded in the thread that decoded it: what is decoded is far larger than what is kept.
    fn read_part(&self, items: &[Item], offset: usize) -> Result<Vec<Encoded>, EmbedError> {
        let mut part = Vec::new();
        let mut tokens = 0;
        let size = self.settings.part_size().min(items.len() - offset);
        while part.len() < size && tokens < self.settings.part_tokens() {
            let start = offset + part.len();
            // As many more as fit if they are like those before, and at least one for each thread at first.
            let threads = rayon::current_num_threads();
            let more = match tokens {
                0 => threads,
                _ => ((self.settings.part_tokens() - tokens) / tokens.div_ceil(part.len()))
                    .clamp(1, 4 * threads),
            };
            let some = &items[start..offset + size.min(part.len() + more)];
            let encoded: Vec<_> = some.par_iter().map(|item| self.encode_item(item)).collect();
            for (i, item) in encoded.into_iter().enumerate() {
                let fail = |source| EmbedError::Item { index: start + i, count: items.len(), source };
                let item = item.map_err(fail)?;
                tokens += item.input_ids.len();
                part.push(item);
            }
        }
        Ok(part)
    }

    /// Reads and encodes an item.
    pub(crate) fn encode_item(&self, item: &Item) -> Result<Encoded, Box<dyn Error + Send + Sync>> {
        if let Some(encoded) = self.kept.as_ref().and_then(|kept| kept.get(item)) {
            return Ok(encoded);
        }
        let encoded = self.processor.process(&self.loader.load(item)?)?;
        if let Some(kept) = &self.kept {
            kept.put(item, &encoded);
        }
        Ok(encoded)
    }

    fn embed_batch(&self, model: &Qwen2Vl, items: &[&Encoded]) -> Vec<Vec<f32>> {
        let input = self.collator.collate(items);
        let vectors = match &self.prefixes {
            Some(prefixes) => model.embed_after(&input, prefixes),
            None => model.embed(&input),
        };
        let vectors = vectors.into_data().convert::<f32>();
        let values: Vec<f32> = vectors.try_to_vec().expect("the data was converted to f32");
        values.chunks(self.dim).map(<[f32]>::to_vec).collect()
    }
}

impl Embed for LocalEmbedder {
    fn dim(&self) -> usize {
        self.dim
    }

    /// One part is computed while the next is read.
    fn embed(&self, items: &[Item]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut vectors = Vec::with_capacity(items.len());
        std::thread::scope(|scope| {
            // Without room: no third part is read while a second waits.
            let (send, parts) = std::sync::mpsc::sync_channel(0);
            scope.spawn(move || {
                let mut offset = 0;
                while offset < items.len() {
                    let part = self.read_part(items, offset);
                    offset += part.as_ref().map_or(items.len(), Vec::len);
                    // Nobody waits for it after a vector that can't leave.
                    if send.send(part).is_err() {
                        return;
                    }
                }
            });
            for part in parts {
                let offset = vectors.len();
                vectors.extend(self.embed_encoded(&part?));
                for (i, vector) in vectors[offset..].iter().enumerate() {
                    check_unit_vector(vector)
                        .map_err(|problem| EmbedError::Vector { index: offset + i, problem })?;
                }
            }
            Ok(())
        })?;
        Ok(vectors)
    }
}

/// Encoded items, for several models that see them in the same way.
pub struct Kept {
    items: Mutex<(HashMap<Item, Encoded>, usize)>,
    most_bytes: usize,
}

impl Kept {
    /// Room for items that take up to `most_bytes`.
    pub fn new(most_bytes: usize) -> Self {
        Kept { items: Mutex::default(), most_bytes }
    }

    fn get(&self, item: &Item) -> Option<Encoded> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).0.get(item).cloned()
    }

    /// Keeps an item while there is room.
    fn put(&self, item: &Item, encoded: &Encoded) {
        let numbers: usize = encoded.pictures.iter().map(|picture| picture.rows.len()).sum();
        let bytes = 4 * (numbers + encoded.input_ids.len());
        let mut kept = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.1 + bytes <= self.most_bytes {
            kept.1 += bytes;
            kept.0.insert(item.clone(), encoded.clone());
        }
    }
}

/// Items sorted so that batches hold similar ones, and cut into batches.
fn batches(items: &[Encoded], settings: EmbedSettings) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| (items[i].pictures.len(), items[i].input_ids.len()));
    let sorted = order.iter().map(|&i| &items[i]);
    let batches = cut(sorted, settings.batch_size, settings.batch_tokens, settings.tokens);
    batches.into_iter().map(|batch| order[batch].to_vec()).collect()
}

impl LocalEmbedder {
    /// Embeds in batches of similar length and returns the vectors in the order of the items.
    pub(crate) fn embed_encoded(&self, items: &[Encoded]) -> Vec<Vec<f32>> {
        let batches = batches(items, self.settings);
        let mut vectors = vec![Vec::new(); items.len()];
        let threads = self.settings.threads.max(1).min(batches.len().max(1));
        let parts: Vec<Vec<(usize, Vec<f32>)>> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads)
                .map(|thread| {
                    let batches = &batches;
                    let model = self.model();
                    scope.spawn(move || {
                        let own = batches.iter().skip(thread).step_by(threads);
                        own.flat_map(|batch| {
                            let encoded: Vec<&Encoded> = batch.iter().map(|&i| &items[i]).collect();
                            batch.iter().copied().zip(self.embed_batch(&model, &encoded)).collect::<Vec<_>>()
                        })
                        .collect()
                    })
                })
                .collect();
            handles
                .into_iter()
                .map(|handle| handle.join().expect("embedding a batch doesn't panic"))
                .collect()
        });
        for (i, vector) in parts.into_iter().flatten() {
            vectors[i] = vector;
        }
        vectors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(batch_size: usize, batch_tokens: usize, threads: usize) -> EmbedSettings {
        EmbedSettings { batch_size, batch_tokens, tokens: Tokens::Padded, threads }
    }

    #[test]
    fn absurd_settings_are_survived() {
        let part = |size, threads| settings(size, 100, threads).part_size();
        assert_eq!([part(4, 1), part(4, 10), part(usize::MAX, 2), part(0, 0)], [32, 40, usize::MAX, 1]);
        let items = [3, 1, 2].map(|n| Encoded { input_ids: vec![1; n], pictures: vec![] });
        assert_eq!(batches(&items, settings(0, 0, 0)), [[1], [2], [0]]);
        assert_eq!([0, usize::MAX].map(|tokens| settings(1, tokens, 1).part_tokens()), [1, usize::MAX]);
    }

    #[test]
    fn batches_hold_similar_items_within_both_limits() {
        let items = [9, 2, 30, 3, 3, 8, 1].map(|n| Encoded { input_ids: vec![1; n], pictures: vec![] });
        let cut = |size, tokens| batches(&items, settings(size, tokens, 1));
        assert_eq!(cut(3, 1000), [vec![6, 1, 3], vec![4, 5, 0], vec![2]]);
        // As many times the longest as there are items.
        assert_eq!(cut(100, 12), [vec![6, 1, 3, 4], vec![5], vec![0], vec![2]]);
    }
}
