//! What items are made of, as hashes: which vector is theirs, and which of them are the same.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;
use rzen_core::{Item, Part, VideoSource};
use rzen_data::media_sha256;
use sha2::{Digest, Sha256};

use crate::progress::Progress;

/// A SHA-256.
pub type Key = [u8; 32];

/// A file that can't be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The file.
    pub file: PathBuf,
    /// What the system says.
    pub message: String,
}

/// The hashes of the files of items, each read once.
#[derive(Default)]
pub struct Contents {
    files: HashMap<PathBuf, Read>,
}

/// What came of a file.
struct Read {
    hash: Result<Key, String>,
    /// As it was before it was read.
    stamp: Option<Stamp>,
}

/// Length and time. A picture inside another file has none, and need not: its path says what it holds.
type Stamp = (u64, SystemTime);

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = file.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// Files that are read between two lines of progress.
const PIECE: usize = 256;

impl Contents {
    /// Reads those files of `items` that were not read before, several at a time.
    pub fn read<'a>(&mut self, items: impl Iterator<Item = &'a Item>) {
        let files = items.flat_map(|item| &item.content).flat_map(|part| part.files(Path::new("")));
        let found: HashSet<PathBuf> = files.filter(|file| !self.files.contains_key(file)).collect();
        let mut found: Vec<PathBuf> = found.into_iter().collect();
        // Those inside one file after another.
        found.sort_unstable();
        if found.is_empty() {
            return;
        }
        let progress = Progress::tasks("read media", found.len().div_ceil(PIECE));
        progress.message("files");
        for (at, piece) in found.chunks(PIECE).enumerate() {
            self.files.par_extend(piece.par_iter().map(|file| {
                let stamp = stamp(file);
                let hash = media_sha256(file).map_err(|error| error.to_string());
                (file.clone(), Read { hash, stamp })
            }));
            progress.part(at * PIECE + piece.len(), found.len());
            progress.advance();
        }
        progress.finish();
    }

    /// Equal for items that every model gives the same vector: same instruction, texts and bytes of files.
    ///
    /// # Errors
    /// The first file that can't be read.
    pub fn vector_key(&self, item: &Item) -> Result<Key, Unreadable> {
        self.key(item, item.instruction.as_deref(), str::to_owned)
    }

    /// Equal for items that show the same: same bytes of files, and texts that differ in spaces and in capitals alone. The
    /// instruction counts only `with_instruction`.
    ///
    /// # Errors
    /// The first file that can't be read.
    pub fn sameness(&self, item: &Item, with_instruction: bool) -> Result<Key, Unreadable> {
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        self.key(item, item.instruction.as_deref().filter(|_| with_instruction), plain)
    }

    fn key(
        &self,
        item: &Item,
        instruction: Option<&str>,
        spelling: impl Fn(&str) -> String,
    ) -> Result<Key, Unreadable> {
        let mut hasher = Sha256::new();
        // Kind and length first, so that no two items give the same bytes.
        let mut put = |kind: u8, bytes: &[u8]| {
            hasher.update([kind]);
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        if let Some(instruction) = instruction {
            put(b'i', spelling(instruction).as_bytes());
        }
        for part in &item.content {
            match part {
                Part::Text(text) => put(b't', spelling(text).as_bytes()),
                Part::Image(path) => put(b'p', self.file(path)?),
                Part::Video(VideoSource::File(path)) => put(b'v', self.file(path)?),
                Part::Video(VideoSource::Frames(paths)) => {
                    let frames = paths.iter().map(|path| self.file(path)).collect::<Result<Vec<_>, _>>()?;
                    put(b'f', &frames.into_iter().flatten().copied().collect::<Vec<u8>>());
                }
                Part::Document { path, page } => {
                    put(b'd', &[self.file(path)?.as_slice(), &page.to_le_bytes()].concat());
                }
            }
        }
        Ok(hasher.finalize().into())
    }

    /// Whether the files of an item are still those that were hashed. The vector of other bytes would be taken for theirs wherever
    /// they turn up.
    ///
    /// # Errors
    /// Names one that is not.
    pub fn unchanged(&self, item: &Item) -> Result<(), String> {
        let files = item.content.iter().flat_map(|part| part.files(Path::new("")));
        for file in files {
            if self.files.get(&file).is_some_and(|read| read.stamp != stamp(&file)) {
                return Err(format!(
                    "`{}` changed while it was read; give the same command again",
                    file.display()
                ));
            }
        }
        Ok(())
    }

    fn file(&self, path: &Path) -> Result<&Key, Unreadable> {
        let read = self.files.get(path).expect("the files of all items were read");
        read.hash.as_ref().map_err(|message| Unreadable { file: path.to_owned(), message: message.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_the_same_is_the_same_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let (a, copy, b) = (write("a", "one"), write("copy", "one"), write("b", "two"));
        let asked = |text: &str| Item { instruction: Some("Find it.".into()), ..Item::text(text) };
        let page = |page| Item { content: vec![Part::Document { path: a.clone(), page }], instruction: None };
        let items = [
            Item::image(&a),
            Item::image(&copy),
            Item::image(&b),
            Item::text("A  cat\n"),
            Item::text("a cat"),
            asked("a cat"),
            page(1),
            page(2),
            Item { content: vec![Part::Video(VideoSource::Frames(vec![a.clone()]))], instruction: None },
            Item { content: vec![Part::Text("a".into()), Part::Text("cat".into())], instruction: None },
        ];
        let missing = Item::image(folder.path().join("missing"));
        let mut contents = Contents::default();
        contents.read(items.iter().chain([&missing]));
        let places = |keys: Vec<Key>| -> Vec<usize> {
            keys.iter().map(|key| keys.iter().position(|other| other == key).unwrap()).collect()
        };
        let exact = places(items.iter().map(|item| contents.vector_key(item).unwrap()).collect());
        assert_eq!(exact, [0, 0, 2, 3, 4, 5, 6, 7, 8, 9]);
        let same = |asked| places(items.iter().map(|item| contents.sameness(item, asked).unwrap()).collect());
        assert_eq!(same(false), [0, 0, 2, 3, 3, 3, 6, 7, 8, 9]);
        assert_eq!(same(true), [0, 0, 2, 3, 3, 5, 6, 7, 8, 9]);
        assert!(contents.vector_key(&missing).unwrap_err().file.ends_with("missing"));

        std::fs::write(&a, "longer").unwrap();
        assert!(contents.unchanged(&items[8]).unwrap_err().contains("changed while"));
        contents.unchanged(&items[1]).unwrap();
        contents.unchanged(&items[5]).unwrap();
    }
}
