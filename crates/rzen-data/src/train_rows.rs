//! Training manifests.

use std::path::Path;

use rzen_core::{Item, Part, Sample, Task};

use crate::ManifestError;
use crate::row::{Row, rows};

const KEYS: &[&str] = &["dataset", "task", "name", "instruction", "query", "positive", "negatives"];

/// Reads training rows, one JSON object on each line:
///
/// ```json
/// {"dataset": "cats", "task": "image_retrieval", "name": "cats_t2i", "instruction": "Find the picture.",
///  "query": [{"text": "a cat"}], "positive": [{"image": "cat.png"}], "negatives": [[{"image": "dog.png"}]]}
/// ```
///
/// `name`, `instruction` and `negatives` may be missing. The instruction belongs to the query alone.
/// `root` is put before relative paths; give an empty one to leave them as they are.
///
/// # Errors
/// The first row that is wrong, with file, line and key. Files of media are not opened.
pub fn train_rows(manifest: &Path, root: &Path) -> Result<Vec<Sample>, ManifestError> {
    rows(manifest, KEYS)?.into_iter().map(|row| sample(row, root)).collect()
}

fn sample(mut row: Row, root: &Path) -> Result<Sample, ManifestError> {
    let dataset: String = row.required("dataset")?;
    row.not_empty("dataset", "character", dataset.is_empty())?;
    let task: String = row.required("task")?;
    row.not_empty("task", "character", task.is_empty())?;
    let name: Option<String> = row.optional("name")?;
    let instruction = row.optional("instruction")?;
    let query = row.content("query", root, instruction)?;
    let positive = row.content("positive", root, None)?;
    let negatives: Vec<Vec<Part>> = row.optional("negatives")?.unwrap_or_default();
    row.not_empty("negatives", "part in each negative", negatives.iter().any(Vec::is_empty))?;
    let hard_negatives =
        negatives.into_iter().map(|content| Item { content, instruction: None }.under(root)).collect();
    let name = name.unwrap_or_else(|| dataset.clone());
    Ok(Sample { dataset, name, task: Task(task), query, positive, hard_negatives, origin: row.finish()? })
}
