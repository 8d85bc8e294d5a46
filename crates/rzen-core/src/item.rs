//! What goes in: parts of content, items, and training samples.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One piece of an item's content.
///
/// In JSON a part is an object with one of the keys `text`, `image`, `video` or `document`:
///
/// ```
/// use rzen_core::{Part, VideoSource};
/// let parts: Vec<Part> = serde_json::from_str(
///     r#"[{"text": "a cat"}, {"image": "cat.png"}, {"video": "cat.mp4"},
///         {"video": ["cat_0.png", "cat_1.png"]}, {"document": "cats.pdf", "page": 2}]"#,
/// ).unwrap();
/// assert_eq!(parts[3], Part::Video(VideoSource::Frames(vec!["cat_0.png".into(), "cat_1.png".into()])));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "PartRow", into = "PartRow")]
pub enum Part {
    /// Words.
    Text(String),
    /// A picture file.
    Image(PathBuf),
    /// A clip: a video file, or its frames in order.
    Video(VideoSource),
    /// One page of a PDF file, counted from 1.
    Document {
        /// The PDF file.
        path: PathBuf,
        /// The page, counted from 1.
        page: u32,
    },
}

/// Where a clip comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum VideoSource {
    /// A video or animation file.
    File(PathBuf),
    /// Picture files, one for each frame, in order.
    Frames(Vec<PathBuf>),
}

impl Part {
    /// The files that this part reads, with `root` put before relative ones.
    pub fn files(&self, root: &Path) -> Vec<PathBuf> {
        match self {
            Part::Text(_) => Vec::new(),
            Part::Image(path) | Part::Video(VideoSource::File(path)) | Part::Document { path, .. } => {
                vec![root.join(path)]
            }
            Part::Video(VideoSource::Frames(paths)) => paths.iter().map(|p| root.join(p)).collect(),
        }
    }

    /// The same part with `root` put before relative paths.
    pub fn under(self, root: &Path) -> Part {
        match self {
            Part::Text(text) => Part::Text(text),
            Part::Image(path) => Part::Image(root.join(path)),
            Part::Video(VideoSource::File(path)) => Part::Video(VideoSource::File(root.join(path))),
            Part::Video(VideoSource::Frames(paths)) => {
                Part::Video(VideoSource::Frames(paths.iter().map(|p| root.join(p)).collect()))
            }
            Part::Document { path, page } => Part::Document { path: root.join(path), page },
        }
    }
}

/// A part as it stands in JSON; exactly one of the four kinds is set.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartRow {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    video: Option<VideoSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page: Option<u32>,
}

impl TryFrom<PartRow> for Part {
    type Error = String;

    fn try_from(row: PartRow) -> Result<Self, String> {
        if row.page.is_some() && row.document.is_none() {
            return Err("`page` stands without `document`".into());
        }
        match (row.text, row.image, row.video, row.document) {
            (Some(text), None, None, None) => Ok(Part::Text(text)),
            (None, Some(path), None, None) => Ok(Part::Image(path)),
            (None, None, Some(VideoSource::Frames(paths)), None) if paths.is_empty() => {
                Err("`video` is an empty list of frames".into())
            }
            (None, None, Some(video), None) => Ok(Part::Video(video)),
            (None, None, None, Some(path)) => match row.page.unwrap_or(1) {
                0 => Err("`page` is 0, but pages are counted from 1".into()),
                page => Ok(Part::Document { path, page }),
            },
            (None, None, None, None) => {
                Err("a part is empty; give it one of `text`, `image`, `video` or `document`".into())
            }
            _ => Err("a part has several kinds of content; make each a part of its own".into()),
        }
    }
}

impl From<Part> for PartRow {
    fn from(part: Part) -> Self {
        let mut row = PartRow { text: None, image: None, video: None, document: None, page: None };
        match part {
            Part::Text(text) => row.text = Some(text),
            Part::Image(path) => row.image = Some(path),
            Part::Video(video) => row.video = Some(video),
            Part::Document { path, page } => (row.document, row.page) = (Some(path), Some(page)),
        }
        row
    }
}

/// Something to embed: parts of content and, for queries, an instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The content, in order.
    pub content: Vec<Part>,
    /// What is asked of the content; stands before the text, joined without a separator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
}

impl Item {
    /// An item of words alone.
    pub fn text(text: impl Into<String>) -> Self {
        Item { content: vec![Part::Text(text.into())], instruction: None }
    }

    /// An item of one picture.
    pub fn image(path: impl Into<PathBuf>) -> Self {
        Item { content: vec![Part::Image(path.into())], instruction: None }
    }

    /// The same item with relative paths put under `root`.
    pub fn under(self, root: &Path) -> Self {
        Item { content: self.content.into_iter().map(|part| part.under(root)).collect(), ..self }
    }
}

/// The kind of work a pair belongs to; each has a temperature of its own.
///
/// The paper's seven (§3.4.3) have constants here, and any other name may be used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Task(pub String);

impl Task {
    /// The paper's seven tasks, in its order.
    pub const PAPER: [&'static str; 7] = [
        "image_classification",
        "image_qa",
        "image_retrieval",
        "image_grounding",
        "document_retrieval",
        "video_retrieval",
        "video_qa",
    ];
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The manifest row that something was read from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The manifest.
    pub file: Arc<Path>,
    /// Its line, or its row in a Parquet file, counted from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A training row: a query, its positive, and hard negatives of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The dataset that the row belongs to.
    pub dataset: String,
    /// The evaluation that the row trains for; the dataset's name where the row has none.
    pub name: String,
    /// Decides the temperature.
    pub task: Task,
    /// The query, with its instruction.
    pub query: Item,
    /// The candidate that answers the query.
    pub positive: Item,
    /// Other candidates that answer it, not in use now; never negatives of this query.
    pub other_positives: Vec<Item>,
    /// Candidates that look right and are not.
    pub hard_negatives: Vec<Item>,
    /// Candidates that were given as hard negatives and are too near an answer; never negatives of this query.
    pub false_negatives: Vec<Item>,
    /// Rows of one label are no negatives of each other.
    pub label: Option<String>,
    /// Rows of one group, such as the clips of a film, come into one batch: they are hard negatives of each other.
    pub group: Option<String>,
    /// What a teacher says of the candidates.
    pub teacher: Option<TeacherScores>,
    /// Where the row stands.
    pub origin: Origin,
}

impl Sample {
    /// A row of one query and one positive, and nothing else.
    pub fn new(dataset: impl Into<String>, task: Task, query: Item, positive: Item, origin: Origin) -> Self {
        let dataset = dataset.into();
        Sample {
            name: dataset.clone(),
            dataset,
            task,
            query,
            positive,
            other_positives: Vec::new(),
            hard_negatives: Vec::new(),
            false_negatives: Vec::new(),
            label: None,
            group: None,
            teacher: None,
            origin,
        }
    }

    /// Every candidate that answers the query, the one in use first.
    pub fn positives(&self) -> impl Iterator<Item = &Item> {
        std::iter::once(&self.positive).chain(&self.other_positives)
    }
}

/// How well a teacher finds that candidates answer the query; higher is better.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherScores {
    /// One for each positive, the one in use first.
    pub positives: Vec<f64>,
    /// One for each hard negative.
    pub negatives: Vec<f64>,
}
