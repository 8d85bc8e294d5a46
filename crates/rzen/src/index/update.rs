//! Bringing an index to what folders hold now.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rayon::prelude::*;
use rzen_core::{Item, Part, VideoSource};
use rzen_data::Loader;

use super::catalog::{Catalog, Entry, Header};
use super::find::{Found, FoundFile, Kind};
use crate::vectors::{Contents, Key, Model, VectorStore, embed_missing};

/// What an update did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Files that are as they were.
    pub same: usize,
    /// Files that are new, other than they were, or could not be embedded before.
    pub looked_at: usize,
    /// Files that were in the index and are not in the folders.
    pub gone: usize,
    /// Pictures, clips and pages that can be found now.
    pub items: usize,
    /// Vectors computed by this update.
    pub embedded: usize,
    /// Vectors that are kept and belong to no file.
    pub unused: usize,
    /// Files that can't be embedded, or not all of them.
    pub wrong: Vec<Wrong>,
    /// Those of them that were not tried, since they could not be read before and have not changed.
    pub left_alone: usize,
}

/// What an update works with.
pub struct How<'a> {
    /// Tells how many pages a document has.
    pub loader: &'a Loader,
    /// What embeds.
    pub model: &'a Model<'a>,
    /// Whether files are tried again that could not be read before and have not changed.
    pub retry: bool,
}

/// A file that can't be embedded, or not all of it.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub message: String,
}

/// A file with its items, not yet embedded.
struct Looked<'a> {
    file: &'a FoundFile,
    items: Result<Vec<Item>, String>,
}

/// Embeds what the index has no vector of, and writes its catalog anew; `earlier` is the one before.
///
/// Vectors are kept as they come, the catalog follows at the end: an update that is stopped goes on where it was.
///
/// # Errors
/// If the model can't be opened or gives vectors that can't be used, or the index can't be written. A file that can't be read is
/// no error, but told in the outcome and in its entry; neither is one that changes meanwhile.
pub fn update(
    index: &Path,
    header: Header,
    earlier: Option<Catalog>,
    found: &Found,
    how: &How,
) -> Result<Outcome> {
    let files = &found.files;
    let earlier =
        earlier.map_or(Vec::new(), |earlier| match earlier.header.instruction == header.instruction {
            true => earlier.entries,
            false => Vec::new(),
        });
    let known: HashMap<&Path, &Entry> = earlier.iter().map(|entry| (entry.path.as_path(), entry)).collect();
    let mut store = VectorStore::open(index, &header.key)?;
    let is_kept = |entry: &Entry| entry.vectors.iter().flatten().all(|key| store.contains(key));
    let same = |file: &FoundFile| {
        let entry = known.get(file.path.as_path()).copied()?;
        let is_wanted = entry.wrong.is_none() || !how.retry;
        (entry.is_of(file) && is_kept(entry) && is_wanted).then_some(entry)
    };
    let (old, new): (Vec<&FoundFile>, Vec<&FoundFile>) = files.iter().partition(|file| same(file).is_some());
    let mut entries: Vec<Entry> = old.iter().filter_map(|file| same(file)).cloned().collect();
    let left_alone = entries.iter().filter(|entry| entry.wrong.is_some()).count();

    let looked: Vec<Looked> = new
        .par_iter()
        .map(|file| Looked { file, items: items(file, header.instruction.as_deref(), how.loader) })
        .collect();
    let all = || looked.iter().filter_map(|looked| looked.items.as_ref().ok()).flatten();
    let mut contents = Contents::default();
    contents.read(all());
    let keyed: Vec<(Key, &Item)> =
        all().filter_map(|item| Some((contents.vector_key(item).ok()?, item))).collect();
    let before = store.len();
    let stamps: HashMap<&Path, &FoundFile> = new.iter().map(|file| (file.path.as_path(), *file)).collect();
    // The vector of other bytes than were hashed would be taken for theirs wherever they turn up.
    let unchanged = |item: &Item| match item.content.iter().flat_map(|part| part.files(Path::new(""))).next()
    {
        Some(path) if stamps.get(path.as_path()).is_some_and(|file| !file.is_as_found()) => {
            Err(format!("`{}` {CHANGED}", path.display()))
        }
        _ => Ok(()),
    };
    let bad = embed_missing(&mut store, how.model, &keyed, "index", &unchanged)?;

    let mut outcome = Outcome { same: old.len(), looked_at: new.len(), left_alone, ..Outcome::default() };
    outcome.embedded = store.len() - before;
    entries.extend(looked.iter().map(|looked| entry(looked, &contents, &bad)));
    let there: HashSet<&Path> = files.iter().map(|file| file.path.as_path()).collect();
    let gone: Vec<&Entry> = earlier.iter().filter(|entry| !there.contains(entry.path.as_path())).collect();
    // What can't be looked at now is not gone.
    let is_hidden = |entry: &Entry| {
        let mut paths = found.troubles.iter().filter_map(|trouble| trouble.path.as_deref());
        paths.any(|path| entry.path.starts_with(path))
    };
    let (hidden, gone): (Vec<&Entry>, Vec<&Entry>) = gone.into_iter().partition(|entry| is_hidden(entry));
    outcome.gone = gone.len();
    outcome.same += hidden.len();
    entries.extend(hidden.into_iter().cloned());
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    let used: HashSet<&Key> = entries.iter().flat_map(|entry| entry.vectors.iter().flatten()).collect();
    // Vectors of entries that can't be looked at now may be gone.
    outcome.unused = store.len() - used.iter().filter(|key| store.contains(key)).count();
    outcome.items = entries.iter().map(|entry| entry.vectors.iter().flatten().count()).sum();
    let wrong = |entry: &Entry| Some(Wrong { path: entry.path.clone(), message: entry.wrong.clone()? });
    outcome.wrong = entries.iter().filter_map(wrong).collect();
    Catalog { header, entries }.write(index)?;
    Ok(outcome)
}

/// What is wrong with a file, and with those of the same bytes, for this time alone.
const CHANGED: &str = "changed while it was read; index it again";

/// What a file shows: itself, or its pages.
fn items(file: &FoundFile, instruction: Option<&str>, loader: &Loader) -> Result<Vec<Item>, String> {
    let path = || file.path.clone();
    let parts = match file.kind {
        Kind::Image => vec![Part::Image(path())],
        Kind::Video => vec![Part::Video(VideoSource::File(path()))],
        Kind::Document => {
            let pages = loader.count_pages(&file.path).map_err(|error| error.to_string())?;
            (1..=pages as u32).map(|page| Part::Document { path: path(), page }).collect()
        }
    };
    let item = |part| Item { content: vec![part], instruction: instruction.map(str::to_owned) };
    Ok(parts.into_iter().map(item).collect())
}

fn entry(looked: &Looked, contents: &Contents, bad: &HashMap<Key, String>) -> Entry {
    let FoundFile { path, bytes, modified, kind } = looked.file.clone();
    let mut entry = Entry { path, kind, bytes, modified, vectors: Vec::new(), wrong: None };
    let mut wrong = Vec::new();
    let key = |item: &Item| match contents.vector_key(item) {
        Err(unreadable) => Err(format!("{}: {}", unreadable.file.display(), unreadable.message)),
        Ok(key) => bad.get(&key).map_or(Ok(key), |message| Err(message.clone())),
    };
    match &looked.items {
        Err(message) => wrong.push(message.clone()),
        Ok(items) if items.is_empty() => wrong.push(format!("`{}` has no pages", entry.path.display())),
        Ok(items) => {
            entry.vectors =
                items.iter().map(|item| key(item).map_err(|message| wrong.push(message)).ok()).collect();
        }
    }
    if wrong.iter().any(|message| message.ends_with(CHANGED)) {
        entry.modified = None;
    }
    entry.wrong = match &wrong[..] {
        [] => None,
        [one] => Some(one.clone()),
        [first, rest @ ..] => Some(format!("{first} (and {} more pages)", rest.len())),
    };
    entry
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rzen_core::{Embed, EmbedError};
    use rzen_data::LoadOptions;

    use super::*;
    use crate::index::{Trouble, find};

    const KEY: Key = [3; 32];

    /// Gives everything one vector, and writes to a file first, if it is told to.
    struct Stub(Option<PathBuf>);

    impl Embed for Stub {
        fn dim(&self) -> usize {
            2
        }

        fn embed(&self, items: &[Item]) -> Result<Vec<Vec<f32>>, EmbedError> {
            if let Some(path) = &self.0 {
                fs::write(path, "other bytes, and more of them").unwrap();
            }
            Ok(vec![vec![1.0, 0.0]; items.len()])
        }
    }

    fn options(folder: &Path) -> crate::verbs::model_options::ModelOptions {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            model: crate::verbs::model_options::ModelOptions,
        }
        Line::parse_from(["rzen", "--model", folder.to_str().unwrap()]).model
    }

    fn run(index: &Path, found: &Found, writes: Option<PathBuf>) -> (Outcome, Vec<Entry>) {
        let open = || Ok(Box::new(Stub(writes.clone())) as Box<dyn Embed>);
        let model = Model::new(KEY, 8, &open);
        let loader = Loader::new(LoadOptions::default());
        let how = How { loader: &loader, model: &model, retry: false };
        let header = Header::new(KEY, options(index), Vec::new());
        let outcome = update(index, header, Catalog::read(index).unwrap(), found, &how).unwrap();
        (outcome, Catalog::read(index).unwrap().unwrap().entries)
    }

    /// A folder with `a/one.png` and `b/two.png`, and an index beside it.
    fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let (home, index) = (place.path().join("home"), place.path().join("index"));
        for (file, bytes) in [("a/one.png", "one"), ("b/two.png", "two")] {
            fs::create_dir_all(home.join(file).parent().unwrap()).unwrap();
            fs::write(home.join(file), bytes).unwrap();
        }
        fs::create_dir(&index).unwrap();
        (place, home, index)
    }

    #[test]
    fn what_can_not_be_looked_at_is_not_gone() {
        let (_place, home, index) = place();
        let all = find(std::slice::from_ref(&home), &index).unwrap();
        assert_eq!(run(&index, &all, None).0.embedded, 2);
        let hidden = home.join("b");
        let mut without = all.clone();
        without.files.retain(|file| !file.path.starts_with(&hidden));
        let blocked = Found {
            troubles: vec![Trouble { path: Some(hidden.clone()), message: "denied".into() }],
            ..without.clone()
        };
        let (outcome, entries) = run(&index, &blocked, None);
        assert_eq!((outcome.same, outcome.gone, outcome.items, entries.len()), (2, 0, 2, 2));
        // Also where its vector is lost.
        for entry in fs::read_dir(&index).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "vectors") {
                fs::remove_file(path).unwrap();
            }
        }
        let (outcome, entries) = run(&index, &blocked, None);
        assert_eq!((outcome.embedded, outcome.unused, entries.len()), (1, 0, 2));
        let (outcome, entries) = run(&index, &without, None);
        assert_eq!((outcome.gone, entries.len()), (1, 1));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_read_again() {
        let (_place, home, index) = place();
        fs::copy(home.join("a/one.png"), home.join("a/copy.png")).unwrap();
        let all = find(std::slice::from_ref(&home), &index).unwrap();
        let (outcome, entries) = run(&index, &all, Some(home.join("a/copy.png")));
        assert_eq!((outcome.items, outcome.wrong.len()), (1, 2), "{entries:?}");
        assert!(outcome.wrong[0].message.contains("changed while it was read"), "{:?}", outcome.wrong);
        let again = find(&[home], &index).unwrap();
        let (outcome, _) = run(&index, &again, None);
        assert_eq!((outcome.looked_at, outcome.embedded, outcome.items, outcome.wrong.len()), (2, 2, 3, 0));
    }
}
