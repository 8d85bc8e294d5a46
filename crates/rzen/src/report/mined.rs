//! The page of a mining: what was taken and left out, and rows to judge it by.

use std::path::Path;

use anyhow::Result;

use super::examples::{parts, query};
use super::html::escape;
use super::{ReportPart, facts, head, notes, write_page};

/// What the page of a mining shows.
#[derive(Clone, Debug, Default)]
pub struct MinedPage {
    /// The headline.
    pub title: String,
    /// How the mining came about, as name and value.
    pub summary: Vec<(String, String)>,
    /// The head of the table.
    pub columns: Vec<String>,
    /// Its rows, a name first.
    pub table: Vec<Vec<String>>,
    /// Rows with their negatives.
    pub examples: Vec<MinedExample>,
    /// Sentences that a reader should bear in mind.
    pub notes: Vec<String>,
}

/// A row with its negatives.
#[derive(Clone, Debug)]
pub struct MinedExample {
    /// Where it stands.
    pub row: String,
    /// Where its answer ranks, in words.
    pub rank: String,
    /// What is asked of the query.
    pub instruction: Option<String>,
    /// The content of the query.
    pub query: Vec<ReportPart>,
    /// Answers and negatives.
    pub candidates: Vec<MinedCandidate>,
}

/// An answer or a negative.
#[derive(Clone, Debug)]
pub struct MinedCandidate {
    /// Its content.
    pub parts: Vec<ReportPart>,
    /// What it is, with its score.
    pub label: String,
    /// True if it answers the query.
    pub answers: bool,
}

/// Writes the page to `path`, whole or not at all.
///
/// # Errors
/// If the file can't be written.
pub fn write_mined(page: &MinedPage, path: &Path) -> Result<()> {
    let sections = [
        head(&page.title),
        table(page),
        examples(&page.examples),
        facts(&page.summary),
        notes(&page.notes),
        "</main>\n</body>\n</html>\n".to_owned(),
    ];
    write_page(&sections.concat(), path)
}

fn table(page: &MinedPage) -> String {
    let cells = |cells: &[String], tag: &str| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
    };
    let rows = page.table.iter().filter_map(|row| {
        let (name, numbers) = row.split_first()?;
        Some(format!("<tr><th>{}</th>{}</tr>\n", escape(name), cells(numbers, "td")))
    });
    format!(
        "<section>\n<h2>Negatives</h2>\n<div class=\"scroll\">\n<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table>\n\
         </div>\n</section>\n",
        cells(&page.columns, "th"),
        rows.collect::<String>()
    )
}

fn examples(examples: &[MinedExample]) -> String {
    if examples.is_empty() {
        return String::new();
    }
    let cards: String = examples.iter().map(card).collect();
    format!(
        "<section>\n<h2>Examples</h2>\n<p class=\"lead\">A query on top, below it its answers, in a green frame, and the negatives that \
         were taken. A negative that answers the query is a false one: move the filters until there are few.</p>\n\
         <div class=\"sides\">\n{cards}</div>\n</section>\n"
    )
}

fn card(example: &MinedExample) -> String {
    let candidates: String = example.candidates.iter().map(candidate).collect();
    format!(
        "<div class=\"side\">\n<article>\n<header><span>{}</span><span class=\"rank\">{}</span></header>\n\
         {}<ol class=\"found\">\n{candidates}</ol>\n</article>\n</div>\n",
        escape(&example.row),
        escape(&example.rank),
        query(example.instruction.as_deref(), &example.query)
    )
}

fn candidate(candidate: &MinedCandidate) -> String {
    let frame = if candidate.answers { "relevant" } else { "other" };
    format!(
        "<li class=\"{frame}\">\n{}<span class=\"label\">{}</span>\n</li>\n",
        parts(&candidate.parts, &candidate.label),
        escape(&candidate.label)
    )
}
