//! An index that is searched by a server, and kept as `rzen index` leaves it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rzen_core::{Media, Part, VideoSource};
use rzen_data::Loader;
use rzen_serve::{Search, Wanted};

use super::catalog::{CATALOG, Catalog, Entry};
use super::find::{Kind, modified};
use super::search::{LoadedIndex, Place};
use crate::files::hex;
use crate::summary::small_jpeg;
use crate::vectors::{Key, VectorStore};

/// Longest side of a picture of a hit.
const SIDE: u32 = 320;

/// An index in memory, which is read again when its catalog has changed.
pub struct ServedIndex {
    folder: PathBuf,
    /// Of the model; vectors of another are not taken.
    model: Key,
    loader: Loader,
    loaded: RwLock<Arc<LoadedIndex>>,
    /// The catalog that was read last; held while another is read.
    seen: Mutex<Seen>,
}

/// A catalog's length and time.
type Stamp = Option<(u64, Option<u64>)>;

struct Seen {
    stamp: Stamp,
    /// A later one that could not be read, and when.
    failed: Option<(Stamp, Instant)>,
}

/// An index that can't be read is tried again no earlier.
const RETRY: Duration = Duration::from_secs(2);

impl ServedIndex {
    /// Reads an index whose vectors are those of `model`; pictures of hits are drawn with `loader`.
    ///
    /// # Errors
    /// If the index can't be read, or is of another model.
    pub fn open(folder: &Path, model: Key, loader: Loader) -> Result<Self> {
        // Before it is read: what changes meanwhile is read again.
        let stamp = stamp(folder);
        let loaded = RwLock::new(Arc::new(load(folder, &model)?));
        Ok(ServedIndex {
            folder: folder.to_owned(),
            model,
            loader,
            loaded,
            seen: Mutex::new(Seen { stamp, failed: None }),
        })
    }

    /// The index as it is now. Where it can't be read it stays as it was, and that is told once.
    fn now(&self) -> Arc<LoadedIndex> {
        // Who comes while another reads it takes the one before.
        if let Ok(mut seen) = self.seen.try_lock() {
            let stamp = stamp(&self.folder);
            let failed = seen.failed.filter(|(failed, _)| *failed == stamp);
            let is_due = failed.is_none_or(|(_, when)| when.elapsed() >= RETRY);
            if stamp.is_some() && stamp != seen.stamp && is_due {
                match load(&self.folder, &self.model) {
                    Ok(loaded) => {
                        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                        *seen = Seen { stamp, failed: None };
                    }
                    Err(error) => {
                        if failed.is_none() {
                            rzen_serve::log(&format!("the index stays as it was: {error:#}"));
                        }
                        seen.failed = Some((stamp, Instant::now()));
                    }
                }
            }
        }
        self.loaded()
    }

    /// The index as it was read last.
    fn loaded(&self) -> Arc<LoadedIndex> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn draw(&self, place: &Place) -> Result<Vec<u8>> {
        let path = place.entry.path.clone();
        let part = match (place.entry.kind, place.page) {
            (Kind::Video, _) => Part::Video(VideoSource::File(path)),
            (_, Some(page)) => Part::Document { path, page },
            _ => Part::Image(path),
        };
        match self.loader.load_part(&part)? {
            Media::Image(picture) => Ok(small_jpeg(&picture, SIDE)),
            Media::Frames(frames) => {
                let middle = frames.get(frames.len() / 2).context("a clip without frames")?;
                Ok(small_jpeg(middle, SIDE))
            }
            Media::Text(_) => anyhow::bail!("a text has no picture"),
        }
    }
}

impl Search for ServedIndex {
    fn search(
        &self,
        query: &[f32],
        wanted: &Wanted,
    ) -> Result<Vec<rzen_serve::Hit>, Box<dyn Error + Send + Sync>> {
        let is_wanted = |entry: &Entry| {
            (wanted.kinds.is_empty() || wanted.kinds.contains(&served_kind(entry.kind)))
                && wanted.below.as_ref().is_none_or(|below| entry.path.starts_with(below))
        };
        let index = self.now();
        let place = |place: &Place| rzen_serve::Place {
            path: place.entry.path.display().to_string(),
            kind: served_kind(place.entry.kind),
            page: place.page,
        };
        let hits = index.search(query, wanted.top, is_wanted);
        Ok(hits
            .iter()
            .map(|hit| rzen_serve::Hit {
                id: hex(&hit.key),
                score: hit.score,
                places: hit.places.iter().map(place).collect(),
            })
            .collect())
    }

    fn picture(&self, id: &str) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        let index = self.loaded();
        let places = index.places(id);
        match places.iter().find(|place| place.entry.is_as_indexed()) {
            None => Ok(None),
            Some(place) => Ok(Some(self.draw(place)?)),
        }
    }

    fn items(&self) -> usize {
        self.loaded().len()
    }
}

fn served_kind(kind: Kind) -> rzen_serve::Kind {
    match kind {
        Kind::Image => rzen_serve::Kind::Image,
        Kind::Video => rzen_serve::Kind::Video,
        Kind::Document => rzen_serve::Kind::Document,
    }
}

fn stamp(folder: &Path) -> Stamp {
    let metadata = fs::metadata(folder.join(CATALOG)).ok()?;
    Some((metadata.len(), modified(&metadata)))
}

fn load(folder: &Path, model: &Key) -> Result<LoadedIndex> {
    let catalog = Catalog::read(folder)?.with_context(|| format!("{} is no index", folder.display()))?;
    ensure!(
        catalog.header.key == *model,
        "{} holds vectors of another model now; start the server again",
        folder.display()
    );
    LoadedIndex::open(catalog, &mut VectorStore::open_to_read(folder, model)?)
}
