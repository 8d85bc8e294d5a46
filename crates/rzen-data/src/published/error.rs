//! What can be wrong with the files of a benchmark.

use std::path::PathBuf;

use crate::{ImportError, ManifestError};

/// What is wrong with the files of a benchmark.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishedError {
    /// The benchmark's folder is not there.
    #[error("`{}` is no folder; download the benchmark there first", path.display())]
    NoData {
        /// The folder.
        path: PathBuf,
    },
    /// No data set is in BEIR's layout.
    #[error("`{}` has no folder in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/test.tsv, or their tables", path.display())]
    NoneInLayout {
        /// The folder.
        path: PathBuf,
    },
    /// No data set of that name is in the benchmark.
    #[error("{suite} has no data set `{name}`; it has {found}")]
    NoTask {
        /// The benchmark.
        suite: super::Suite,
        /// The name.
        name: String,
        /// The names that there are.
        found: String,
    },
    /// A folder can't be read.
    #[error("can't read folder `{}`: {source}; check the path", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// There is no table of that part of a data set.
    #[error(
        "no table of {what} in `{}`; looked for {looked}; get it: hf download --repo-type dataset {repository} \
         --include '*.parquet' '*.json*' --local-dir '{}'", folder.display(), folder.display()
    )]
    NoTable {
        /// The snapshot's folder.
        folder: PathBuf,
        /// Config and split.
        what: String,
        /// The names that would do.
        looked: String,
        /// The data set of the hub.
        repository: &'static str,
    },
    /// Several tables may be meant.
    #[error(
        "`{}` has several tables of {what}, such as {} and {}; keep one", folder.display(), first.display(),
        second.display()
    )]
    Several {
        /// The snapshot's folder.
        folder: PathBuf,
        /// Config and split.
        what: String,
        /// One of them.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// A table lacks columns.
    #[error("`{}` has no column {missing}; it has {found}; is it the data set's newest form?", path.display())]
    Columns {
        /// The table.
        path: PathBuf,
        /// The columns that are needed and missing.
        missing: String,
        /// The columns that there are.
        found: String,
    },
    /// A row is wrong.
    #[error("`{}`, row {row}: {problem}", path.display())]
    Row {
        /// The table.
        path: PathBuf,
        /// Its row, counted from 1.
        row: usize,
        /// What is found and expected.
        problem: String,
    },
    /// Judgements name passages or queries that are not there.
    #[error(
        "`{}` lacks {what} that {lost} of {all} judgements name; was it downloaded whole?", path.display()
    )]
    Incomplete {
        /// The table of passages or queries.
        path: PathBuf,
        /// Which of these.
        what: &'static str,
        /// Judgements of what is not there.
        lost: usize,
        /// Of how many.
        all: usize,
    },
    /// Files or folders of media are missing or no pictures.
    #[error("{0}")]
    Media(#[from] MissingMedia),
    /// A page can't be written out of its table.
    #[error(
        "can't write page `{}`: {source}; is there room, and may the folder be written? Pages can go to another \
         folder: name one for them", path.display()
    )]
    Page {
        /// The page's file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A table can't be read.
    #[error(transparent)]
    Table(#[from] ImportError),
    /// A table can't be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Files that rows name and that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct MissingMedia {
    /// The first of them, with what is wrong.
    pub first: Vec<String>,
    /// How many there are.
    pub count: usize,
    /// Of how many.
    pub all: usize,
    /// What to do.
    pub advice: &'static str,
}

impl MissingMedia {
    fn text(&self) -> String {
        let more = match self.count - self.first.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "{} of {} files and folders of media can't be used: {}{more}; {}",
            self.count,
            self.all,
            self.first.join(", "),
            self.advice
        )
    }
}
