//! The vectors of items, computed where no earlier run did.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use rzen_core::{Embed, EmbedError, Item, check_unit_vector};
use rzen_eval::item_size;

use super::content::Key;
use super::store::VectorStore;
use crate::progress::Progress;

/// A model that is opened only where something is left to embed, and then once.
pub struct Model<'a> {
    /// A hash of everything besides an item that its vector depends on.
    pub key: Key,
    /// Items given to it at a time; the vectors are kept after each time.
    pub chunk: usize,
    open: &'a dyn Fn() -> Result<Box<dyn Embed>>,
    opened: OnceCell<Box<dyn Embed>>,
}

impl<'a> Model<'a> {
    /// A model that `open` opens.
    pub fn new(key: Key, chunk: usize, open: &'a dyn Fn() -> Result<Box<dyn Embed>>) -> Self {
        Model { key, chunk, open, opened: OnceCell::new() }
    }

    fn embedder(&self) -> Result<&dyn Embed> {
        if let Some(opened) = self.opened.get() {
            return Ok(&**opened);
        }
        let opened = (self.open)()?;
        Ok(&**self.opened.get_or_init(|| opened))
    }
}

/// Embeds the `items` that `store` has no vector of, each once. Returns what is wrong with those that can't be embedded.
///
/// Items of like size come together, the largest first, so that memory runs out early or never.
///
/// # Errors
/// If the model can't be opened, embeds nothing at all, or gives vectors that can't be used.
pub fn embed_missing(
    store: &mut VectorStore,
    model: &Model,
    items: &[(Key, &Item)],
    label: &str,
) -> Result<HashMap<Key, String>> {
    let mut seen = HashSet::new();
    let mut missing: Vec<(Key, &Item)> =
        items.iter().copied().filter(|(key, _)| !store.contains(key) && seen.insert(*key)).collect();
    let mut bad = HashMap::new();
    if missing.is_empty() {
        return Ok(bad);
    }
    missing.sort_by_key(|(_, item)| std::cmp::Reverse(item_size(item)));
    let embedder = model.embedder()?;
    let progress = Progress::tasks(label, missing.len().div_ceil(model.chunk));
    progress.message("items");
    for (chunk, part) in missing.chunks(model.chunk).enumerate() {
        let mut rest = part;
        while !rest.is_empty() {
            let items = rest.iter().map(|(_, item)| (*item).clone()).collect();
            let (vectors, refused) = embed_until_refused(embedder, items)?;
            let count = vectors.len();
            store.add(&rest.iter().map(|(key, _)| *key).zip(vectors).collect::<Vec<_>>())?;
            let mut next = count;
            if let Some(message) = refused {
                bad.insert(rest[count].0, message);
                next += 1;
            }
            rest = &rest[next..];
        }
        progress.part(chunk * model.chunk + part.len(), missing.len());
        progress.advance();
    }
    progress.finish();
    Ok(bad)
}

/// The vectors of the items before the first that can't be embedded, and why that can't. An embedder names it without
/// giving the vectors before it, which are therefore asked for once more.
///
/// # Errors
/// If the embedder fails at all of them, or gives vectors that can't be used.
pub fn embed_until_refused(
    embedder: &dyn Embed,
    mut inputs: Vec<Item>,
) -> Result<(Vec<Vec<f32>>, Option<String>)> {
    let mut refused = None;
    loop {
        if inputs.is_empty() {
            return Ok((Vec::new(), refused));
        }
        match embedder.embed(&inputs) {
            Ok(vectors) => {
                anyhow::ensure!(
                    vectors.len() == inputs.len(),
                    "{} vectors for {} items",
                    vectors.len(),
                    inputs.len()
                );
                for (vector, item) in vectors.iter().zip(&inputs) {
                    check_unit_vector(vector)
                        .map_err(anyhow::Error::msg)
                        .with_context(|| format!("the vector of {:?}", item.content))?;
                }
                return Ok((vectors, refused));
            }
            Err(EmbedError::Item { index, source, .. }) => {
                refused = Some(source.to_string());
                inputs.truncate(index);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
