//! The report of a run: one HTML file that needs nothing else.
//!
//! Pictures travel inside the file, curves are SVG drawn here, there is no script, and a content
//! security policy forbids the browser to fetch anything. Every text is escaped.

mod bars;
mod chart;
mod check;
mod compare;
mod curves;
mod evaluation;
mod examples;
mod found;
mod html;
mod input;
mod measured;
mod metrics;
mod mined;
mod seeds;
mod story;
mod table;
mod ticks;

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

pub use check::{CheckPage, write_check};
pub use compare::{ComparedRun, write_comparison};
pub use evaluation::{Bar, EvaluationPage, write_evaluation_page};
pub use found::{FoundPage, FoundQuery, FoundResult, write_found};
pub use input::{Example, Found, ReportInput, ReportPart, RunCurves, StepRecord, TaskRow};
pub use measured::{Measurements, ModelScores, ScoredTask, difference};
pub use metrics::read_curves;
pub use mined::{MinedCandidate, MinedExample, MinedPage, write_mined};
pub use seeds::{SeedGroup, seed_lines};

use html::escape;

/// Writes the report to `path`, whole or not at all.
///
/// # Errors
/// A row of the table with another number of values than there are columns, or a file that can't be written.
pub fn write_report(input: &ReportInput, path: &Path) -> Result<()> {
    write_page(&render(input)?, path)
}

fn write_page(page: &str, path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    fs::write(&temporary, page).and_then(|()| fs::rename(&temporary, path)).map_err(|error| {
        // The write has failed already; a leftover is no second failure.
        let _ = fs::remove_file(&temporary);
        anyhow::Error::new(error).context(format!("can't write the report {}", path.display()))
    })
}

/// The whole page.
fn render(input: &ReportInput) -> Result<String> {
    for row in &input.table {
        let (found, expected) = (row.values.len(), input.columns.len());
        ensure!(
            found == expected,
            "task `{}` has {found} values for the {expected} columns of the report",
            row.task
        );
    }
    Ok([
        head(&input.title),
        story::section(input),
        table::section(input),
        curves::section(&input.runs),
        examples::section(&input.examples),
        facts(&input.summary),
        notes(&input.notes),
        "</main>\n</body>\n</html>\n".to_string(),
    ]
    .concat())
}

fn head(title: &str) -> String {
    let title = escape(title);
    let style = include_str!("style.css");
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
"#
    )
}

/// How the run came about.
fn facts(summary: &[(String, String)]) -> String {
    if summary.is_empty() {
        return String::new();
    }
    let rows = summary.iter().map(|(key, value)| {
        let value = escape(value);
        let value = if key.eq_ignore_ascii_case("command") { format!("<code>{value}</code>") } else { value };
        format!("<div><dt>{}</dt><dd>{value}</dd></div>\n", escape(key))
    });
    format!(
        "<section>\n<h2>How it was made</h2>\n<dl class=\"facts\">\n{}</dl>\n</section>\n",
        rows.collect::<String>()
    )
}

fn notes(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let items: String = notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
    format!("<section>\n<h2>To bear in mind</h2>\n<ul class=\"notes\">\n{items}</ul>\n</section>\n")
}

#[cfg(test)]
mod tests;
