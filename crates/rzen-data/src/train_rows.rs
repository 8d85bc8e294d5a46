//! Training manifests.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rzen_core::{Item, Part, Sample, Task, TeacherScores};

use crate::parquet_names::KnownPictures;
use crate::rng::Rng;
use crate::row::{Row, each_row};
use crate::{ManifestError, parquet_rows};

const KEYS: &[&str] = &[
    "dataset",
    "task",
    "name",
    "instruction",
    "query",
    "positive",
    "positives",
    "negatives",
    "label",
    "group",
    "positive_scores",
    "negative_scores",
];

/// The columns that hold parts; in Parquet they may be JSON in text.
const CONTENT: &[&str] = &["query", "positive", "positives", "negatives"];

/// The manifests of a dataset's folder: `train.jsonl`, or `train.parquet`, or in the order of their names
/// `train-….parquet`. Where there are none, the first.
///
/// # Errors
/// If there are several kinds or sets, if the folder can't be read, or if of `train-00000-of-00003.parquet` and its like some are missing.
pub fn train_manifests(folder: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let single = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
    let kinds: [Vec<PathBuf>; 3] = [
        single("train.jsonl").into_iter().collect(),
        single("train.parquet").into_iter().collect(),
        shards(folder)?,
    ];
    let mut there = kinds.into_iter().filter(|paths| !paths.is_empty());
    match (there.next(), there.next()) {
        (Some(first), Some(second)) => Err(ManifestError::TwoManifests {
            folder: folder.to_owned(),
            first: name_of(&first[0]),
            second: name_of(&second[0]),
        }),
        (Some(paths), None) => Ok(paths),
        _ => Ok(vec![folder.join("train.jsonl")]),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The `train-….parquet` of a folder, by name; all that their names count.
fn shards(folder: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let unreadable = |source| ManifestError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                // What can't be looked into is told where a file of it is read.
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(source) => return Err(unreadable(source)),
    };
    let mut shards = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let name = name_of(&path);
        if name.starts_with("train-") && name.ends_with(".parquet") {
            shards.push(path);
        }
    }
    shards.sort();
    // `train-00000-of-00003.parquet`: the number of the file, and how many there are.
    let counted = |path: &PathBuf| {
        let name = name_of(path);
        let (number, count) = name.strip_prefix("train-")?.strip_suffix(".parquet")?.split_once("-of-")?;
        // A hash may follow.
        let count = count.split('-').next()?;
        Some((number.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
    };
    let counted: Vec<(usize, usize, &PathBuf)> =
        shards.iter().filter_map(|path| counted(path).map(|(number, count)| (number, count, path))).collect();
    let Some((_, count, first)) = counted.first() else { return Ok(shards) };
    let mut there = BTreeSet::new();
    for (number, other_count, path) in &counted {
        // An older set, whose files were left there.
        if other_count != count || !there.insert(*number) {
            return Err(ManifestError::TwoManifests {
                folder: folder.to_owned(),
                first: name_of(first),
                second: name_of(path),
            });
        }
    }
    let missing: Vec<String> =
        (0..*count).filter(|number| !there.contains(number)).map(|number| number.to_string()).collect();
    if !missing.is_empty() {
        return Err(ManifestError::MissingShards {
            folder: folder.to_owned(),
            count: *count,
            missing: missing.join(", "),
        });
    }
    Ok(shards)
}

/// Reads training rows, one JSON object on each line:
///
/// ```json
/// {"dataset": "cats", "task": "image_retrieval", "name": "cats_t2i", "instruction": "Find the picture.",
///  "query": [{"text": "a cat"}], "positive": [{"image": "cat.png"}], "negatives": [[{"image": "dog.png"}]]}
/// ```
///
/// `name`, `instruction` and `negatives` may be missing. `positives`, a list of such lists, may stand for `positive`.
/// `label` and `group` are explained at [`Sample`]; `positive_scores` and `negative_scores` are a teacher's, one
/// for each positive and negative. The instruction belongs to the query alone.
///
/// A file that ends in `.parquet` has these keys as columns. Parts are lists of structs or JSON in text. Pictures inside
/// the file get paths that [`Loader`](crate::Loader) reads, equal ones the same:
/// `train.parquet#query.list.element.image.bytes@000000007-9f86d081884c7d65`.
///
/// `root` is put before relative paths; give an empty one to leave them as they are.
///
/// # Errors
/// The first row that is wrong, with file, line and key. Files of media are not opened.
pub fn train_rows(manifest: &Path, root: &Path) -> Result<Vec<Sample>, ManifestError> {
    train_rows_of(&[manifest.to_owned()], root)
}

/// The rows of a dataset's [manifests](train_manifests), read as [`train_rows`] does. A picture that is inside several times, in
/// whichever of them, goes by one path.
///
/// # Errors
/// As of [`train_rows`].
pub fn train_rows_of(manifests: &[PathBuf], root: &Path) -> Result<Vec<Sample>, ManifestError> {
    let known = KnownPictures::default();
    let mut samples = Vec::new();
    for manifest in manifests {
        for sample in each_train_row(manifest, root, root, &known)? {
            samples.push(sample?);
        }
    }
    match manifests.first().filter(|_| samples.is_empty()) {
        Some(manifest) => Err(ManifestError::NoRows { path: manifest.clone() }),
        None => Ok(samples),
    }
}

/// Reads training rows as [`train_rows`] does, one by one; after a wrong one come those behind it. `corpus` is the folder that
/// paths count from, `root` is put before them, `known` holds the pictures inside the manifests of the dataset.
pub(crate) fn each_train_row<'a>(
    manifest: &Path,
    corpus: &Path,
    root: &'a Path,
    known: &KnownPictures,
) -> Result<impl Iterator<Item = Result<Sample, ManifestError>> + use<'a>, ManifestError> {
    Ok(each_manifest_row(manifest, corpus, known)?.map(move |row| row.and_then(|row| sample(row, root))))
}

type Rows = Box<dyn Iterator<Item = Result<Row, ManifestError>>>;

fn each_manifest_row(manifest: &Path, corpus: &Path, known: &KnownPictures) -> Result<Rows, ManifestError> {
    if manifest.extension().is_none_or(|ending| ending != "parquet") {
        return Ok(Box::new(each_row(manifest, KEYS)?));
    }
    let unreadable = |source| ManifestError::Read { path: manifest.to_owned(), source };
    let name = match manifest.strip_prefix(corpus) {
        Ok(name) => name.to_owned(),
        Err(_) => std::path::absolute(manifest).map_err(unreadable)?,
    };
    Ok(Box::new(parquet_rows::each_row(manifest, &name, known.clone(), KEYS, CONTENT)?))
}

fn sample(mut row: Row, root: &Path) -> Result<Sample, ManifestError> {
    let dataset = row.text("dataset")?;
    let task = Task(row.text("task")?);
    let name: Option<String> = row.optional("name")?;
    let instruction = row.optional("instruction")?;
    let query = row.content("query", root, instruction)?;
    let mut positives = match row.optional::<Vec<Vec<Part>>>("positives")? {
        Some(positives) => {
            row.not_empty("positives", "positive", positives.is_empty())?;
            row.not_beside("positive", "positives")?;
            items(&row, "positives", positives, root)?
        }
        None => vec![row.content("positive", root, None)?],
    };
    let negatives: Vec<Vec<Part>> = row.optional("negatives")?.unwrap_or_default();
    let hard_negatives = items(&row, "negatives", negatives, root)?;
    let teacher = scores(&mut row, positives.len(), hard_negatives.len())?;
    let (label, group) = (row.optional_text("label")?, row.optional_text("group")?);
    let positive = positives.remove(0);
    let sample = Sample::new(dataset, task, query, positive, row.finish()?);
    Ok(Sample {
        name: name.unwrap_or(sample.name),
        other_positives: positives,
        hard_negatives,
        label,
        group,
        teacher,
        ..sample
    })
}

fn items(
    row: &Row,
    key: &'static str,
    contents: Vec<Vec<Part>>,
    root: &Path,
) -> Result<Vec<Item>, ManifestError> {
    row.not_empty(key, "part in each of its lists", contents.iter().any(Vec::is_empty))?;
    Ok(contents.into_iter().map(|content| Item { content, instruction: None }.under(root)).collect())
}

/// A teacher's scores, of all candidates or of none.
fn scores(row: &mut Row, positives: usize, negatives: usize) -> Result<Option<TeacherScores>, ManifestError> {
    let of_positives: Option<Vec<f64>> = row.optional("positive_scores")?;
    let of_negatives: Option<Vec<f64>> = row.optional("negative_scores")?;
    if of_positives.is_none() && of_negatives.is_none() {
        return Ok(None);
    }
    let scores = TeacherScores {
        positives: of_positives.unwrap_or_default(),
        negatives: of_negatives.unwrap_or_default(),
    };
    row.has_length("positive_scores", "positive", scores.positives.len(), positives)?;
    row.has_length("negative_scores", "negative", scores.negatives.len(), negatives)?;
    Ok(Some(scores))
}

/// The row with the positive that this epoch uses: a function of seed, epoch and the row's name and line.
pub fn draw_positive(sample: &Sample, seed: u64, epoch: u64) -> Cow<'_, Sample> {
    let count = 1 + sample.other_positives.len();
    if count == 1 {
        return Cow::Borrowed(sample);
    }
    let purpose = format!("positive {} {}", sample.name, sample.origin.line);
    let place = Rng::new(seed, epoch, &purpose).below(count);
    match place.checked_sub(1) {
        Some(other) => Cow::Owned(with_positive(sample, other)),
        None => Cow::Borrowed(sample),
    }
}

/// The row with the positive in use and another one exchanged.
fn with_positive(sample: &Sample, other: usize) -> Sample {
    let mut sample = sample.clone();
    std::mem::swap(&mut sample.positive, &mut sample.other_positives[other]);
    if let Some(teacher) = &mut sample.teacher {
        teacher.positives.swap(0, other + 1);
    }
    sample
}

/// The row once for each of its positives.
pub fn each_positive(sample: &Sample) -> impl Iterator<Item = Cow<'_, Sample>> {
    let others = (0..sample.other_positives.len()).map(|other| Cow::Owned(with_positive(sample, other)));
    std::iter::once(Cow::Borrowed(sample)).chain(others)
}
