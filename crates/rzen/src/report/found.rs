//! The page of a search: queries, and what was found.

use std::path::Path;

use anyhow::Result;

use super::examples::{parts, query};
use super::html::{escape, escape_cut};
use super::{ReportPart, facts, head, write_page};

/// What the page of a search shows.
#[derive(Clone, Debug)]
pub struct FoundPage {
    /// The headline.
    pub title: String,
    /// How the search came about, as name and value.
    pub summary: Vec<(String, String)>,
    /// The queries.
    pub queries: Vec<FoundQuery>,
}

/// A query with its results.
#[derive(Clone, Debug)]
pub struct FoundQuery {
    /// What it is called.
    pub id: Option<String>,
    /// What is asked of it.
    pub instruction: Option<String>,
    /// Its content.
    pub query: Vec<ReportPart>,
    /// The results, best first.
    pub results: Vec<FoundResult>,
}

/// A result.
#[derive(Clone, Debug)]
pub struct FoundResult {
    /// Its content.
    pub parts: Vec<ReportPart>,
    /// Its rank and score.
    pub label: String,
    /// Where it lies.
    pub places: Vec<String>,
}

/// Writes the page to `path`, whole or not at all.
///
/// # Errors
/// If the file can't be written.
pub fn write_found(page: &FoundPage, path: &Path) -> Result<()> {
    let cards: String = page.queries.iter().map(card).collect();
    let sections = [
        head(&page.title),
        format!("<section class=\"searches\">\n{cards}</section>\n"),
        facts(&page.summary),
        "</main>\n</body>\n</html>\n".to_owned(),
    ];
    write_page(&sections.concat(), path)
}

fn card(found: &FoundQuery) -> String {
    let name = found.id.as_deref().map_or(String::new(), |id| format!("<span>{}</span>", escape(id)));
    let results: String = found.results.iter().map(result).collect();
    format!(
        "<article>\n<header>{name}</header>\n{}<ol class=\"found\">\n{results}</ol>\n</article>\n",
        query(found.instruction.as_deref(), &found.query)
    )
}

fn result(result: &FoundResult) -> String {
    let places: Vec<String> = result.places.iter().map(|place| escape(place).to_string()).collect();
    let short = result.places.first().and_then(|place| place.rsplit('/').next()).unwrap_or_default();
    format!(
        "<li class=\"other\" title=\"{}\">\n{}<span class=\"label\">{}<br>{}</span>\n</li>\n",
        places.join("\n"),
        parts(&result.parts, &result.label),
        escape(&result.label),
        escape_cut(short, 60)
    )
}
