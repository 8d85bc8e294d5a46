//! Where the annotations of a set lie: snapshots of data sets of the hub, below `annotations`.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::PublishedError;

/// The folder of the snapshots.
pub(crate) const FOLDER: &str = "annotations";

/// A part of a data set of the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hub {
    pub repository: &'static str,
    pub config: Option<&'static str>,
    pub split: &'static str,
}

impl Hub {
    /// The split `test` of a data set without configs.
    pub const fn of(repository: &'static str) -> Self {
        Hub { repository, config: None, split: "test" }
    }

    pub const fn config(self, config: &'static str) -> Self {
        Hub { config: Some(config), ..self }
    }

    pub const fn split(self, split: &'static str) -> Self {
        Hub { split, ..self }
    }

    /// The snapshot's folder.
    pub fn folder(self, data: &Path) -> PathBuf {
        data.join(FOLDER).join(self.repository)
    }

    /// The tables of config and split: several where there are shards, in order.
    ///
    /// As the hub and its tools lay them out: `CONFIG/SPLIT-00000-of-00001.parquet`, `data/SPLIT-….parquet`,
    /// `CONFIG.jsonl`, `SPLIT.json`, …. Where nothing names the split, the tables that name no other.
    ///
    /// # Errors
    /// If there is none, or there are several that may be meant.
    pub fn files(self, data: &Path) -> Result<Vec<PathBuf>, PublishedError> {
        let folder = self.folder(data);
        let mut tables = Vec::new();
        collect(&folder, &folder, 0, &mut tables)
            .map_err(|source| PublishedError::Folder { path: folder.clone(), source })?;
        tables.retain(|table| table.is_of_config(self.config));
        let of_split = |table: &Table| table.words().any(|word| word == self.split);
        let of_another = |table: &Table| table.words().any(|word| SPLITS.contains(&word));
        if tables.iter().any(of_split) {
            tables.retain(of_split);
        } else {
            tables.retain(|table| !of_another(table));
        }
        // The same rows twice, as the hub's own conversions keep them.
        if let Some(first) = tables.iter().map(Table::rank).min() {
            tables.retain(|table| table.rank() == first);
        }
        let Some(first) = tables.first() else { return Err(self.missing(folder)) };
        if let Some(other) = tables.iter().find(|table| table.name() != first.name()) {
            return Err(PublishedError::Several {
                folder,
                what: self.what(),
                first: first.inner.clone(),
                second: other.inner.clone(),
            });
        }
        let mut files: Vec<PathBuf> = tables.into_iter().map(|table| folder.join(table.inner)).collect();
        files.sort();
        Ok(files)
    }

    fn missing(self, folder: PathBuf) -> PublishedError {
        let (split, repository) = (self.split, self.repository);
        let looked = match self.config {
            Some(config) => format!(
                "{config}/{split}-*.parquet, {config}/*.parquet, data/{config}/…, {config}.parquet, {config}_{split}.jsonl and the like"
            ),
            None => format!("data/{split}-*.parquet, {split}-*.parquet, {split}.jsonl and the like"),
        };
        PublishedError::NoTable { folder, what: self.what(), looked, repository }
    }

    fn what(self) -> String {
        match self.config {
            Some(config) => format!("config `{config}`, split `{}`", self.split),
            None => format!("split `{}`", self.split),
        }
    }
}

/// Names that say of which split a table is.
const SPLITS: [&str; 5] = ["train", "test", "val", "validation", "dev"];
const ENDINGS: [&str; 5] = ["parquet", "jsonl", "ndjson", "json", "tsv"];
/// No table of rows, whatever they end in.
const NO_TABLES: [&str; 4] = ["dataset_infos", "dataset_dict", "state", "dataset_info"];

/// A table below a snapshot's folder.
struct Table {
    inner: PathBuf,
    /// The folders that it lies in.
    folders: Vec<String>,
    /// Its name without its ending and its number among shards.
    stem: String,
    ending: String,
}

impl Table {
    fn new(inner: PathBuf) -> Option<Self> {
        let text = |part: &std::ffi::OsStr| part.to_str().map(str::to_owned);
        let ending = inner.extension().and_then(text)?;
        let stem = without_shard(&inner.file_stem().and_then(text)?).to_owned();
        let folders = inner.parent()?.iter().map(text).collect::<Option<_>>()?;
        let is_table = ENDINGS.contains(&ending.as_str()) && !NO_TABLES.contains(&stem.as_str());
        is_table.then_some(Table { inner, folders, stem, ending })
    }

    /// Whether it lies in the config's folder or is named after it. Without a config any table will do.
    fn is_of_config(&self, config: Option<&str>) -> bool {
        let Some(config) = config else { return true };
        let named = |split: &str| {
            ["-", "_", "."].iter().any(|sign| {
                self.stem == format!("{config}{sign}{split}") || self.stem == format!("{split}{sign}{config}")
            })
        };
        self.folders.iter().any(|folder| folder == config)
            || self.stem == config
            || SPLITS.iter().any(|split| named(split))
    }

    /// What may name a split.
    fn words(&self) -> impl Iterator<Item = &str> {
        let ends = self.stem.rsplit(['-', '_', '.']).take(1).chain(self.stem.split(['-', '_', '.']).take(1));
        self.folders.iter().map(String::as_str).chain(ends)
    }

    /// What the shards of one table have in common.
    fn name(&self) -> (&[String], &str) {
        (&self.folders, &self.stem)
    }

    /// Parquet goes before other kinds, and they in the order of their list.
    fn rank(&self) -> Option<usize> {
        ENDINGS.iter().position(|ending| *ending == self.ending)
    }
}

/// `test-00000-of-00002` and `test-00000-of-00002-0123abc` without their number; of `0002` nothing is left.
fn without_shard(stem: &str) -> &str {
    if stem.bytes().all(|byte| byte.is_ascii_digit()) {
        return "";
    }
    let parts: Vec<&str> = stem.split('-').collect();
    let is_number = |part: &str| part.len() == 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    let place =
        parts.windows(3).rposition(|part| is_number(part[0]) && part[1] == "of" && is_number(part[2]));
    match place {
        Some(place) if place > 0 => &stem[..parts[..place].join("-").len()],
        _ => stem,
    }
}

fn collect(root: &Path, folder: &Path, depth: usize, tables: &mut Vec<Table>) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if depth == 0 && error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            if depth < 3 {
                collect(root, &path, depth + 1, tables)?;
            }
        } else if let Ok(inner) = path.strip_prefix(root) {
            tables.extend(Table::new(inner.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(hub: Hub, names: &[&str]) -> Result<Vec<String>, String> {
        let data = tempfile::tempdir().unwrap();
        let folder = hub.folder(data.path());
        for name in names {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let inner = |path: PathBuf| path.strip_prefix(&folder).unwrap().to_string_lossy().into_owned();
        let files = hub.files(data.path()).map_err(|error| error.to_string())?;
        Ok(files.into_iter().map(inner).collect())
    }

    #[test]
    fn tables_are_found_as_the_hub_lays_them_out() {
        let hub = Hub::of("a/b");
        let check = |hub, names: &[&str], expected: &[&str]| assert_eq!(found(hub, names).unwrap(), expected);
        check(
            hub,
            &["data/test-00000-of-00001.parquet", "README.md", "dataset_infos.json"],
            &["data/test-00000-of-00001.parquet"],
        );
        check(
            hub,
            &[
                "data/test-00001-of-00002-ab12.parquet",
                "data/test-00000-of-00002-cd34.parquet",
                "data/train-00000-of-00001.parquet",
            ],
            &["data/test-00000-of-00002-cd34.parquet", "data/test-00001-of-00002-ab12.parquet"],
        );
        // As the hub converts them.
        check(
            hub,
            &["default/test/0001.parquet", "default/test/0000.parquet", "default/train/0000.parquet"],
            &["default/test/0000.parquet", "default/test/0001.parquet"],
        );
        check(hub, &["test.jsonl", "train.jsonl"], &["test.jsonl"]);
        check(hub, &["test.jsonl", "test.parquet"], &["test.parquet"]);
        check(hub, &["annotations.json"], &["annotations.json"]);
        check(hub, &["msvd_test.json", "msvd_train.json"], &["msvd_test.json"]);
        check(hub, &[".cache/huggingface/download/test.json", "test.json"], &["test.json"]);
        let mscoco = hub.config("MSCOCO");
        check(
            mscoco,
            &[
                "MSCOCO/test-00000-of-00001.parquet",
                "MSCOCO_i2t/test-00000-of-00001.parquet",
                "MSCOCO_t2i/test-00000-of-00001.parquet",
            ],
            &["MSCOCO/test-00000-of-00001.parquet"],
        );
        check(mscoco, &["MSCOCO-test.jsonl", "MSCOCO_i2t-test.jsonl"], &["MSCOCO-test.jsonl"]);
        check(hub.config("MC").split("test"), &["MC/0000.parquet", "OE/0000.parquet"], &["MC/0000.parquet"]);
        check(
            hub.config("action_count").split("train"),
            &["json/action_count.json"],
            &["json/action_count.json"],
        );
    }

    #[test]
    fn no_table_and_several_are_errors() {
        let hub = Hub::of("a/b").config("MC");
        for names in [&[][..], &["OE/test.parquet"], &["MC/train.parquet"]] {
            let error = found(hub, names).unwrap_err();
            assert!(error.contains("a/b") && error.contains("MC/test-*.parquet"), "{error}");
        }
        let error = found(Hub::of("a/b"), &["x/test.parquet", "y/test.parquet"]).unwrap_err();
        assert!(error.contains("x/test.parquet") && error.contains("y/test.parquet"), "{error}");
    }
}
