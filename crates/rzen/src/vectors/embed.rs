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
    /// Items that can't be embedded before it is given no more.
    pub most_bad: usize,
    open: &'a dyn Fn() -> Result<Box<dyn Embed>>,
    opened: OnceCell<Box<dyn Embed>>,
}

impl<'a> Model<'a> {
    /// A model that `open` opens.
    pub fn new(key: Key, chunk: usize, open: &'a dyn Fn() -> Result<Box<dyn Embed>>) -> Self {
        Model { key, chunk, most_bad: usize::MAX, open, opened: OnceCell::new() }
    }

    fn embedder(&self) -> Result<&dyn Embed> {
        if let Some(opened) = self.opened.get() {
            return Ok(&**opened);
        }
        let opened = (self.open)()?;
        Ok(&**self.opened.get_or_init(|| opened))
    }
}

/// Embeds the `items` that `store` has no vector of, each once. Returns what is wrong with those that can't be embedded; if they are
/// more than `model` may meet, others have no vector either.
///
/// Items of like size come together, the largest first, so that memory runs out early or never. `keep` is asked for each item after it
/// was embedded; what it refuses is not kept.
///
/// # Errors
/// If the model can't be opened, embeds nothing at all, or gives vectors that can't be used.
pub fn embed_missing(
    store: &mut VectorStore,
    model: &Model,
    items: &[(Key, &Item)],
    label: &str,
    keep: &dyn Fn(&Item) -> Result<(), String>,
) -> Result<HashMap<Key, String>> {
    let mut seen = HashSet::new();
    let mut missing: Vec<(Key, &Item)> =
        items.iter().copied().filter(|(key, _)| !store.contains(key) && seen.insert(*key)).collect();
    let (mut bad, mut broken) = (HashMap::new(), 0);
    if missing.is_empty() {
        return Ok(bad);
    }
    missing.sort_by_key(|(_, item)| std::cmp::Reverse(item_size(item)));
    let embedder = model.embedder()?;
    let progress = Progress::tasks(label, missing.len().div_ceil(model.chunk));
    progress.message("items");
    for (chunk, part) in missing.chunks(model.chunk).enumerate() {
        let item = |(_, item): &(Key, &Item)| (*item).clone();
        embed_in_runs(embedder, part, item, |run, vectors, refused| {
            let mut kept = Vec::with_capacity(run.len());
            for ((key, item), vector) in run.iter().zip(vectors) {
                match keep(item) {
                    Ok(()) => kept.push((*key, vector)),
                    Err(message) => drop(bad.insert(*key, message)),
                }
            }
            store.add(&kept)?;
            if let Some(((key, _), refused)) = refused {
                broken += usize::from(refused.by_vector);
                anyhow::ensure!(
                    broken <= MOST_BROKEN,
                    "the model gives vectors that can't be used, of {broken} items so far: {}",
                    refused.message
                );
                bad.insert(*key, refused.message);
            }
            Ok(())
        })?;
        progress.part(chunk * model.chunk + part.len(), missing.len());
        progress.advance();
        if bad.len() > model.most_bad {
            break;
        }
    }
    progress.finish();
    Ok(bad)
}

/// Items whose vectors can't be used before the model is at fault.
const MOST_BROKEN: usize = 8;

/// What is wrong with an item that can't be embedded.
pub struct Refused {
    /// In words.
    pub message: String,
    /// Whether it could be read, and a vector came out that must not leave.
    pub by_vector: bool,
}

/// Embeds `items` from one that is refused to the next: `take` is given those before it, their vectors, and the refused one, if there is
/// one more.
///
/// # Errors
/// If the embedder fails at all of them or gives vectors that can't be used, and what `take` says.
pub fn embed_in_runs<'a, T>(
    embedder: &dyn Embed,
    items: &'a [T],
    item: impl Fn(&T) -> Item,
    mut take: impl FnMut(&'a [T], Vec<Vec<f32>>, Option<(&'a T, Refused)>) -> Result<()>,
) -> Result<()> {
    let mut rest = items;
    while !rest.is_empty() {
        let (vectors, refused) = embed_until_refused(embedder, rest.iter().map(&item).collect())?;
        let (run, more) = rest.split_at(vectors.len());
        let next = more.split_first().filter(|_| refused.is_some());
        rest = next.map_or(more, |(_, more)| more);
        take(run, vectors, next.map(|(first, _)| first).zip(refused))?;
    }
    Ok(())
}

/// The vectors of the items before the first that can't be embedded, and why that can't. An embedder names it without
/// giving the vectors before it, which are therefore asked for once more.
fn embed_until_refused(
    embedder: &dyn Embed,
    mut inputs: Vec<Item>,
) -> Result<(Vec<Vec<f32>>, Option<Refused>)> {
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
                refused = Some(Refused { message: source.to_string(), by_vector: false });
                inputs.truncate(index);
            }
            Err(EmbedError::Vector { index, problem }) if index < inputs.len() => {
                let message = format!("the vector of {:?} {problem}", inputs[index].content);
                refused = Some(Refused { message, by_vector: true });
                inputs.truncate(index);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rzen_core::Part;

    use super::*;

    /// Gives every text a vector, but for those that begin with `nan`.
    struct Stub;

    impl Embed for Stub {
        fn dim(&self) -> usize {
            2
        }

        fn embed(&self, items: &[Item]) -> Result<Vec<Vec<f32>>, EmbedError> {
            let is_broken =
                |item: &Item| matches!(&item.content[..], [Part::Text(text)] if text.starts_with("nan"));
            match items.iter().position(is_broken) {
                Some(index) => Err(EmbedError::Vector { index, problem: "holds NaN".into() }),
                None => Ok(vec![vec![1.0, 0.0]; items.len()]),
            }
        }
    }

    /// What becomes of texts that all have other keys.
    fn embedded(texts: &[&str], keep: &dyn Fn(&Item) -> Result<(), String>) -> Result<(usize, Vec<String>)> {
        let folder = tempfile::tempdir().unwrap();
        let mut store = VectorStore::open(folder.path(), &[1; 32]).unwrap();
        let open = || Ok(Box::new(Stub) as Box<dyn Embed>);
        let items: Vec<Item> = texts.iter().map(|text| Item::text(*text)).collect();
        let keyed: Vec<(Key, &Item)> =
            items.iter().enumerate().map(|(i, item)| ([i as u8; 32], item)).collect();
        let bad = embed_missing(&mut store, &Model::new([1; 32], 4, &open), &keyed, "test", keep)?;
        let mut bad: Vec<String> = bad.into_values().collect();
        bad.sort();
        Ok((store.len(), bad))
    }

    #[test]
    fn what_is_not_to_be_kept_is_not_and_a_broken_vector_is_that_of_its_item() {
        let refuse = |item: &Item| match &item.content[..] {
            [Part::Text(text)] if text == "changed" => Err("it changed".to_owned()),
            _ => Ok(()),
        };
        let (kept, bad) = embedded(&["a", "b", "nan", "changed", "c", "d"], &refuse).unwrap();
        assert_eq!((kept, bad.len()), (4, 2));
        assert!(bad[0] == "it changed" && bad[1].contains("nan") && bad[1].contains("holds NaN"), "{bad:?}");
    }

    #[test]
    fn a_model_that_gives_nothing_that_can_be_used_is_told() {
        let texts: Vec<String> = (0..20).map(|i| format!("nan {i}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let error = embedded(&texts, &|_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("of 9 items so far"), "{error}");
    }
}
