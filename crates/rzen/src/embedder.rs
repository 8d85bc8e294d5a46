//! A local model as an embedder of raw items.

use std::error::Error;
use std::sync::Mutex;

use rayon::prelude::*;
use rzen_core::{Embed, EmbedError, Item, check_unit_vector};
use rzen_data::Loader;
use rzen_model::{Collator, Encoded, Processor, Qwen2Vl};

/// Loads, encodes and embeds items with a model on one device.
pub struct LocalEmbedder {
    model: Mutex<Qwen2Vl>,
    dim: usize,
    loader: Loader,
    processor: Processor,
    collator: Collator,
    settings: EmbedSettings,
}

/// How a [`LocalEmbedder`] spends memory and threads.
#[derive(Clone, Copy, Debug)]
pub struct EmbedSettings {
    /// Items in a batch.
    pub batch_size: usize,
    /// Batches computed side by side; more than one helps on a CPU alone.
    pub threads: usize,
}

/// Items decoded at once, in batches: enough to sort by length, small enough for memory.
const BATCHES_AHEAD: usize = 8;

/// Items that are read before the first of them is computed: at least one, whatever the settings.
pub(crate) fn items_ahead(settings: EmbedSettings) -> usize {
    settings.batch_size.saturating_mul(BATCHES_AHEAD.max(settings.threads)).max(1)
}

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
        LocalEmbedder { model: Mutex::new(model), dim, loader, processor, collator, settings }
    }

    fn model(&self) -> Qwen2Vl {
        // A clone shares the weights.
        self.model.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Reads and encodes items; the first that fails is the error. Each is encoded in the thread that
    /// decoded it: what is decoded is far larger than what is kept.
    fn encode_items(&self, items: &[Item], offset: usize, count: usize) -> Result<Vec<Encoded>, EmbedError> {
        let encoded: Vec<_> = items.par_iter().map(|item| self.encode_item(item)).collect();
        let fail = |i: usize, source| EmbedError::Item { index: offset + i, count, source };
        encoded.into_iter().enumerate().map(|(i, item)| item.map_err(|error| fail(i, error))).collect()
    }

    fn encode_item(&self, item: &Item) -> Result<Encoded, Box<dyn Error + Send + Sync>> {
        Ok(self.processor.process(&self.loader.load(item)?)?)
    }

    fn embed_batch(&self, model: &Qwen2Vl, items: &[&Encoded]) -> Vec<Vec<f32>> {
        let vectors = model.embed(&self.collator.collate(items)).into_data().convert::<f32>();
        let values: Vec<f32> = vectors.try_to_vec().expect("the data was converted to f32");
        values.chunks(self.dim).map(<[f32]>::to_vec).collect()
    }
}

impl Embed for LocalEmbedder {
    fn dim(&self) -> usize {
        self.dim
    }

    fn embed(&self, items: &[Item]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut vectors = Vec::with_capacity(items.len());
        let ahead = items_ahead(self.settings);
        for (chunk, part) in items.chunks(ahead).enumerate() {
            // `ahead` may be huge, but then there is one chunk alone.
            let offset = chunk * ahead;
            let encoded = self.encode_items(part, offset, items.len())?;
            vectors.extend(self.embed_encoded(&encoded));
            for (i, vector) in vectors[offset..].iter().enumerate() {
                check_unit_vector(vector)
                    .map_err(|problem| EmbedError::Vector { index: offset + i, problem })?;
            }
        }
        Ok(vectors)
    }
}

impl LocalEmbedder {
    /// Embeds in batches of similar length and returns the vectors in the order of the items.
    fn embed_encoded(&self, items: &[Encoded]) -> Vec<Vec<f32>> {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&i| (items[i].pictures.len(), items[i].input_ids.len()));
        let batches: Vec<&[usize]> = order.chunks(self.settings.batch_size.max(1)).collect();
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

    #[test]
    fn absurd_settings_are_survived() {
        let ahead = |batch_size, threads| items_ahead(EmbedSettings { batch_size, threads });
        assert_eq!(ahead(4, 1), 32);
        assert_eq!(ahead(4, 10), 40);
        assert_eq!(ahead(usize::MAX, 2), usize::MAX);
        assert_eq!(ahead(0, 0), 1);
    }
}
