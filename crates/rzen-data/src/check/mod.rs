//! A corpus read as a whole: everything that is wrong with it, at once.
//!
//! ```text
//! folder ─gather─► rows, contents by number ─scan─► what is in the files ─find_*─► Finding      write_clean ─► a corpus
//! ```
//!
//! Memory holds the rows, each text once, and for each file its hash and prints (some 900 bytes a picture, 300 a frame of a clip), no pixels.

mod clean;
mod find_datasets;
mod find_files;
mod find_rows;
mod find_texts;
mod find_visuals;
mod finding;
mod gather;
mod maker;
mod near;
mod options;
mod picture_facts;
mod scan;
mod texts;
mod uses;

use std::path::{Path, PathBuf, absolute};

pub use clean::{Cleaned, CleanedManifest, write_clean};
pub use find_datasets::DatasetCount;
pub use finding::{Finding, FindingKind, FoundContent, Place, RowPlace};
pub use options::CheckOptions;

use crate::{LoadOptions, Loader};
use maker::Maker;
use uses::Uses;

/// What a check came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The corpus, from the root of the disk.
    pub corpus: PathBuf,
    /// What is wrong, by kind from grave to slight, then in the order of rows.
    pub findings: Vec<Finding>,
    /// The datasets, in the order of their first rows.
    pub datasets: Vec<DatasetCount>,
    /// The files of rows that were read: training manifests, then tasks with their pools and queries.
    pub manifests: Vec<CheckedManifest>,
    /// Different files (of PDF files, pages) that were decoded.
    pub media: usize,
    /// Different texts.
    pub texts: usize,
}

/// A file of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedManifest {
    /// Its path under the corpus.
    pub file: String,
    /// Whether its rows are trained on.
    pub trains: bool,
    /// Its rows, whether they can be read or not.
    pub rows: usize,
}

/// Why there is no check.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// A folder or file can't be read.
    #[error("can't read `{}`: {source}; check the path", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A file can't be written.
    #[error("can't write `{}`: {source}; is there room on the disk?", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The folder is no corpus.
    #[error(
        "`{}` holds neither a folder with train.jsonl or train.parquet nor tasks.jsonl; name a corpus folder",
        corpus.display()
    )]
    Nothing {
        /// The folder.
        corpus: PathBuf,
    },
    /// A manifest is not what it was when it was checked.
    #[error("`{}` has changed while it was checked: {problem}; check it again", path.display())]
    Changed {
        /// The manifest.
        path: PathBuf,
        /// How.
        problem: String,
    },
}

/// Reads every row, text and file of a corpus folder and says all that is wrong. Nothing is changed.
///
/// `progress` hears how many files of how many are decoded. What is found doesn't depend on the number of threads.
///
/// # Errors
/// If the folder can't be read or holds no manifest; whatever is wrong with what it holds is a finding.
pub fn check(
    corpus: &Path,
    options: &CheckOptions,
    progress: &dyn Fn(usize, usize),
) -> Result<Checked, CheckError> {
    let corpus = absolute(corpus).map_err(|source| CheckError::Read { path: corpus.to_owned(), source })?;
    let mut gathered = gather::gather(&corpus)?;
    let loader = Loader::new(LoadOptions { root: corpus.clone(), ..options.load.clone() });
    let scanned = scan::scan(&loader, &gathered.media.values, progress);
    let mut findings = std::mem::take(&mut gathered.findings);
    let uses = Uses::of(&gathered, &scanned);
    let maker = Maker { gathered: &gathered };
    findings.extend(find_files::troubles(&maker, &uses, &scanned, &format!("{}/", corpus.display())));
    findings.extend(find_files::duplicates(&maker, &uses));
    findings.extend(find_rows::rows(&maker, &uses));
    findings.extend(find_visuals::looks(&maker, &uses, &scanned, options));
    findings.extend(find_visuals::same(&maker, &uses, &scanned, options));
    findings.extend(find_texts::same(&maker, &uses, options));
    let (of_datasets, datasets) = find_datasets::datasets(&maker, &uses, options);
    findings.extend(of_datasets);
    findings.sort_by_key(|finding| finding.kind);
    let manifest = |manifest: gather::Manifest| {
        let gather::Manifest { file, trains, rows } = manifest;
        CheckedManifest { file, trains, rows }
    };
    Ok(Checked {
        findings,
        datasets,
        media: gathered.media.values.len(),
        texts: gathered.texts.values.len(),
        manifests: gathered.manifests.into_iter().map(manifest).collect(),
        corpus,
    })
}
