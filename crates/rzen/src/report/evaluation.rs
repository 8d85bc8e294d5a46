//! The page of an evaluation: scores with intervals, against published ones, and the queries that went most wrong.

use std::path::Path;

use anyhow::Result;

use super::examples::card;
use super::html::{counted, escape, score};
use super::{Example, facts, head, notes, write_page};

/// What the page of an evaluation shows.
pub struct EvaluationPage {
    /// The headline.
    pub title: String,
    /// Over all tasks.
    pub overall: Bar,
    /// The groups of tasks.
    pub groups: Vec<Bar>,
    /// The tasks.
    pub tasks: Vec<Bar>,
    /// Names of columns and rows of published scores beside those of this evaluation; empty where nothing comparable is
    /// published.
    pub published: Vec<Vec<String>>,
    /// Scores with smaller vectors: rows under a head; empty where none were asked for.
    pub compressed: Vec<Vec<String>>,
    /// Wrong answers by kind: rows under a head; empty where all pools hold one kind only.
    pub confusion: Vec<Vec<String>>,
    /// The queries whose answers came last.
    pub worst: Vec<Example>,
    /// How it was made, as name and value.
    pub facts: Vec<(String, String)>,
    /// Sentences that a reader should bear in mind.
    pub notes: Vec<String>,
}

/// A score with its interval.
pub struct Bar {
    /// What it is of.
    pub name: String,
    /// The metric, or how many tasks.
    pub detail: String,
    /// The score.
    pub mean: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end of the 95 % interval.
    pub high: f64,
    /// What a random order scores.
    pub chance: Option<f64>,
}

/// Writes the page to `path`, whole or not at all.
///
/// # Errors
/// If the file can't be written.
pub fn write_evaluation_page(page: &EvaluationPage, path: &Path) -> Result<()> {
    let text = [
        head(&page.title),
        story(page),
        table(
            "Beside what is published",
            "Means as the papers report them; published rows from the paper of RzenEmbed (arXiv 2510.27350).",
            &page.published,
        ),
        bars("Groups", &page.groups),
        bars("Tasks", &page.tasks),
        table(
            "Smaller vectors",
            "Vectors cut to their first numbers and scaled anew, stored in 8 bits or in one, and scored as such.",
            &page.compressed,
        ),
        table(
            "Which kind of wrong answer wins",
            "Queries whose first candidate is wrong, by the kind of their best answer (rows) and of that candidate (columns). \
             A kind that wins more often than its share of the candidates draws queries to itself.",
            &page.confusion,
        ),
        worst(&page.worst),
        facts(&page.facts),
        notes(&page.notes),
        "</main>\n</body>\n</html>\n".to_owned(),
    ];
    write_page(&text.concat(), path)
}

fn story(page: &EvaluationPage) -> String {
    let Bar { mean, low, high, chance, .. } = &page.overall;
    let chance = chance.map_or(String::new(), |chance| format!(", chance {}", score(chance)));
    format!(
        "<section class=\"story\">\n<p class=\"verdict\"><b>{}</b> over {}, 95 % interval {} to {}{chance}.</p>\n</section>\n",
        score(*mean),
        counted(page.tasks.len(), "task", "tasks"),
        score(*low),
        score(*high)
    )
}

/// Bars from 0 to 1 with the interval as a whisker and chance as a mark.
fn bars(title: &str, bars: &[Bar]) -> String {
    if bars.is_empty() {
        return String::new();
    }
    let percent = |value: f64| (value * 100.0).clamp(0.0, 100.0);
    let row = |bar: &Bar| {
        let chance = bar.chance.map_or(String::new(), |chance| {
            format!("<span class=\"mark\" style=\"left:{:.2}%\"></span>", percent(chance))
        });
        format!(
            "<div class=\"bar\" title=\"{} to {}\"><span class=\"name\">{} <small>{}</small></span><span class=\"track\"><span \
             class=\"fill\" style=\"width:{:.2}%\"></span><span class=\"whisker\" style=\"left:{:.2}%;width:{:.2}%\"></span>\
             {chance}</span><span class=\"value\">{}</span></div>\n",
            score(bar.low),
            score(bar.high),
            escape(&bar.name),
            escape(&bar.detail),
            percent(bar.mean),
            percent(bar.low),
            percent(bar.high) - percent(bar.low),
            score(bar.mean)
        )
    };
    format!(
        "<section>\n<h2>{title}</h2>\n<figure class=\"bars wide\">\n{}<figcaption>Bars from 0 to 1; the thin line is the 95 % \
         interval over other queries, the mark is chance.</figcaption>\n</figure>\n</section>\n",
        bars.iter().map(row).collect::<String>()
    )
}

/// A table whose first row is its head.
fn table(title: &str, lead: &str, rows: &[Vec<String>]) -> String {
    let Some((head, rows)) = rows.split_first() else { return String::new() };
    let cells = |row: &[String], tag: &str| -> String {
        row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
    };
    let line = |row: &[String]| {
        let (name, values) = row.split_first().map_or(("", row), |(name, values)| (name.as_str(), values));
        format!("<tr><th scope=\"row\">{}</th>{}</tr>\n", escape(name), cells(values, "td"))
    };
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!(
        "<section>\n<h2>{title}</h2>\n<p class=\"lead\">{lead}</p>\n<div class=\"scroll\">\n<table>\n<thead>\n<tr>{}</tr>\n\
         </thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n</section>\n",
        cells(head, "th")
    )
}

fn worst(examples: &[Example]) -> String {
    if examples.is_empty() {
        return String::new();
    }
    let cards: String = examples.iter().map(card).collect();
    format!(
        "<section>\n<h2>Worst queries</h2>\n<p class=\"lead\">Those of each task whose right answer came last. A query on top, below \
         it the candidates that the model ranks first; the dashed frame shows the right one.</p>\n<div class=\"sides\">\n{cards}\
         </div>\n</section>\n"
    )
}
