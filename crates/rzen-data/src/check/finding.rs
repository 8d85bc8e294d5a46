//! What a check finds.

use rzen_core::Part;
use serde::Serialize;

/// A kind of finding, from grave to slight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A row of a manifest can't be read.
    UnreadableRow,
    /// A file is not there.
    MissingFile,
    /// A file can't be decoded.
    CorruptFile,
    /// A query or candidate holds nothing but white space.
    EmptyText,
    /// A training row stands twice.
    DuplicateRow,
    /// Training rows hold what is evaluated.
    Leak,
    /// Training rows hold nearly what is evaluated.
    NearLeak,
    /// Nothing here decodes a file, or not in time.
    UncheckedFile,
    /// Files of one content have several names.
    DuplicateFile,
    /// Pictures are nearly the same.
    NearPicture,
    /// Clips are nearly the same.
    NearClip,
    /// Texts are nearly the same.
    NearText,
    /// A picture is one colour.
    BlankPicture,
    /// A picture shows no detail.
    BlurryPicture,
    /// A picture is smaller than a model sees.
    TinyPicture,
    /// A picture is too long and narrow.
    ExtremeShape,
    /// A positive is its query.
    PositiveIsQuery,
    /// A hard negative is a positive.
    NegativeIsPositive,
    /// A label has far more rows than others.
    LabelImbalance,
    /// A dataset doesn't fill a batch.
    SmallDataset,
    /// Datasets have far from equally many rows.
    UnevenDatasets,
}

impl FindingKind {
    /// All kinds, from grave to slight.
    pub const ALL: [FindingKind; 21] = [
        FindingKind::UnreadableRow,
        FindingKind::MissingFile,
        FindingKind::CorruptFile,
        FindingKind::EmptyText,
        FindingKind::DuplicateRow,
        FindingKind::Leak,
        FindingKind::NearLeak,
        FindingKind::UncheckedFile,
        FindingKind::DuplicateFile,
        FindingKind::NearPicture,
        FindingKind::NearClip,
        FindingKind::NearText,
        FindingKind::BlankPicture,
        FindingKind::BlurryPicture,
        FindingKind::TinyPicture,
        FindingKind::ExtremeShape,
        FindingKind::PositiveIsQuery,
        FindingKind::NegativeIsPositive,
        FindingKind::LabelImbalance,
        FindingKind::SmallDataset,
        FindingKind::UnevenDatasets,
    ];

    /// The name on the command line and in `findings.jsonl`.
    pub fn name(self) -> &'static str {
        match self {
            FindingKind::UnreadableRow => "unreadable-row",
            FindingKind::MissingFile => "missing-file",
            FindingKind::CorruptFile => "corrupt-file",
            FindingKind::EmptyText => "empty-text",
            FindingKind::DuplicateRow => "duplicate-row",
            FindingKind::Leak => "leak",
            FindingKind::NearLeak => "near-leak",
            FindingKind::UncheckedFile => "unchecked-file",
            FindingKind::DuplicateFile => "duplicate-file",
            FindingKind::NearPicture => "near-picture",
            FindingKind::NearClip => "near-clip",
            FindingKind::NearText => "near-text",
            FindingKind::BlankPicture => "blank-picture",
            FindingKind::BlurryPicture => "blurry-picture",
            FindingKind::TinyPicture => "tiny-picture",
            FindingKind::ExtremeShape => "extreme-shape",
            FindingKind::PositiveIsQuery => "positive-is-query",
            FindingKind::NegativeIsPositive => "negative-is-positive",
            FindingKind::LabelImbalance => "label-imbalance",
            FindingKind::SmallDataset => "small-dataset",
            FindingKind::UnevenDatasets => "uneven-datasets",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        FindingKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What is wrong, in a line.
    pub fn title(self) -> &'static str {
        match self {
            FindingKind::UnreadableRow => "Rows that can't be read",
            FindingKind::MissingFile => "Files that are missing",
            FindingKind::CorruptFile => "Files that can't be decoded",
            FindingKind::EmptyText => "Queries and candidates without content",
            FindingKind::DuplicateRow => "Rows that stand twice",
            FindingKind::Leak => "Training rows that hold what is evaluated",
            FindingKind::NearLeak => "Training rows that hold nearly what is evaluated",
            FindingKind::UncheckedFile => "Files that could not be checked here",
            FindingKind::DuplicateFile => "One content under several names",
            FindingKind::NearPicture => "Pictures that are nearly the same",
            FindingKind::NearClip => "Clips that are nearly the same",
            FindingKind::NearText => "Texts that are nearly the same",
            FindingKind::BlankPicture => "Pictures of one colour",
            FindingKind::BlurryPicture => "Blurry pictures",
            FindingKind::TinyPicture => "Tiny pictures",
            FindingKind::ExtremeShape => "Pictures too long and narrow",
            FindingKind::PositiveIsQuery => "Positives that are their query",
            FindingKind::NegativeIsPositive => "Hard negatives that are a positive",
            FindingKind::LabelImbalance => "Labels with far more rows than others",
            FindingKind::SmallDataset => "Datasets smaller than a batch",
            FindingKind::UnevenDatasets => "Datasets of very different sizes",
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            FindingKind::UnreadableRow => "mend the row as the message says, or take it out",
            FindingKind::MissingFile => "fetch the file, or correct its path",
            FindingKind::CorruptFile => {
                "fetch or write the file again, or raise the limit that the message names"
            }
            FindingKind::EmptyText => "write the text, or take the row out",
            FindingKind::DuplicateRow => {
                "keep one of the rows: two in a batch are false negatives of each other"
            }
            FindingKind::Leak => "take the training rows out: scores of these queries measure memory",
            FindingKind::NearLeak => {
                "look at both; where they are the same thing, take the training rows out"
            }
            FindingKind::UncheckedFile => "install what the message names, and check again",
            FindingKind::DuplicateFile => {
                "use one name: rows of one content under two names count as wrong answers to each other"
            }
            FindingKind::NearPicture | FindingKind::NearClip => {
                "keep one, or give their rows one `label`: they count as wrong answers to each other"
            }
            FindingKind::NearText => "write them alike: they count as wrong answers to each other",
            FindingKind::BlankPicture => {
                "replace the picture; where it should show something, look at transparency (`--background`)"
            }
            FindingKind::BlurryPicture => "replace the picture with a sharper one, if it should show detail",
            FindingKind::TinyPicture => {
                "replace the picture with a larger one; a model sees it as one patch or few"
            }
            FindingKind::ExtremeShape => "cut the picture into pieces; the processor would squeeze it",
            FindingKind::PositiveIsQuery => "give the row another positive: nothing is learned from this one",
            FindingKind::NegativeIsPositive => "take the negative out of the row",
            FindingKind::LabelImbalance => {
                "take fewer rows of the large labels, or give rows their `label` so that they are kept apart"
            }
            FindingKind::SmallDataset => {
                "put it in a `group` with others in the recipe, or use a smaller batch"
            }
            FindingKind::UnevenDatasets => "set `weight`, `share` or `cap` of the datasets in the recipe",
        }
    }

    /// Whether rows are left out for it unless one says otherwise.
    pub fn is_error(self) -> bool {
        self <= FindingKind::Leak
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The kind.
    pub kind: FindingKind,
    /// What was found.
    pub message: String,
    /// What to do.
    pub advice: &'static str,
    /// What it is about, and where that stands.
    pub contents: Vec<FoundContent>,
    /// The training rows that are left out where rows of this kind are.
    pub rows: Vec<RowPlace>,
}

/// A content and the rows that hold it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FoundContent {
    /// The content, with paths under the corpus; empty where the finding is about rows.
    pub content: Vec<Part>,
    /// Where it stands.
    pub places: Vec<Place>,
}

/// A place in a manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place {
    /// The manifest, under the corpus.
    pub file: String,
    /// Its line, or its row in a Parquet file, counted from 1.
    pub row: usize,
    /// The key that holds it, such as `positives[1]`; empty where it is the whole row.
    pub key: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.row)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, " {}", self.key) }
    }
}

/// A row of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RowPlace {
    /// The manifest, under the corpus.
    pub file: String,
    /// Its line, or its row in a Parquet file, counted from 1.
    pub row: usize,
}
