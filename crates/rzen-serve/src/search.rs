//! Search in an index, which the program plugs in.

use std::error::Error;
use std::path::PathBuf;

use serde::Serialize;

/// Something that can be searched. Calls may take as long as reading files does.
pub trait Search: Send + Sync + 'static {
    /// The best hits, best first.
    ///
    /// # Errors
    /// What is told to whoever runs the server.
    fn search(&self, query: &[f32], wanted: &Wanted) -> Result<Vec<Hit>, Box<dyn Error + Send + Sync>>;

    /// A small JPEG picture of the item with this id; `None` where there is no such item, or its file is not as it was.
    ///
    /// # Errors
    /// What is told to whoever runs the server.
    fn picture(&self, id: &str) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>>;

    /// Items that can be found.
    fn items(&self) -> usize;
}

/// Which hits are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How many, at most.
    pub top: usize,
    /// Of these kinds; of all, where there is none.
    pub kinds: Vec<Kind>,
    /// Below this folder.
    pub below: Option<PathBuf>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A picture.
    Image,
    /// A clip.
    Video,
    /// A page of a PDF file.
    Document,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// What [`Search::picture`] knows it by.
    pub id: String,
    /// The cosine of the angle to the query.
    pub score: f32,
    /// Where it is; several places hold the same bytes.
    pub places: Vec<Place>,
}

/// A file, or a page of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// The page of a document, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
}
