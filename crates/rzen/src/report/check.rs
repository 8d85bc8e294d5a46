//! The page of a check: what is wrong with a corpus, with pictures.

use std::path::Path;

use anyhow::Result;
use rzen_core::{Item, Part, VideoSource};
use rzen_data::{Checked, Cleaned, Finding, FindingKind, FoundContent, Loader};

use super::examples::parts as show;
use super::html::{counted, escape};
use super::{facts, head, write_page};
use crate::summary::shown;

/// What the page of a check shows.
pub struct CheckPage<'a> {
    /// What was found.
    pub checked: &'a Checked,
    /// What became of the training rows.
    pub cleaned: &'a Cleaned,
    /// Kinds of which rows are left out.
    pub left_out: &'a [FindingKind],
    /// Reads what is shown.
    pub loader: &'a Loader,
    /// Facts about the check: its command and settings.
    pub facts: &'a [(String, String)],
}

/// Findings of a kind that are shown; all of them stand in `findings.jsonl`.
const MOST_FINDINGS: usize = 24;

/// Contents of a finding, and places of a content, that are shown.
const MOST_CONTENTS: usize = 4;
const MOST_PLACES: usize = 3;

/// Writes the page to `path`, whole or not at all.
///
/// # Errors
/// If the file can't be written.
pub fn write_check(page: &CheckPage, path: &Path) -> Result<()> {
    let kinds: Vec<(FindingKind, Vec<&Finding>)> = FindingKind::ALL
        .into_iter()
        .map(|kind| (kind, page.checked.findings.iter().filter(|finding| finding.kind == kind).collect()))
        .filter(|(_, findings): &(_, Vec<&Finding>)| !findings.is_empty())
        .collect();
    let title = page.checked.corpus.file_name().unwrap_or_default().to_string_lossy();
    let sections: String = kinds.iter().map(|(kind, findings)| section(page, *kind, findings)).collect();
    let text = [
        head(&format!("Check of {title}")),
        story(page, &kinds),
        sections,
        datasets(page),
        facts(page.facts),
        "</main>\n</body>\n</html>\n".to_owned(),
    ];
    write_page(&text.concat(), path)
}

/// What came of it, in a sentence and a table.
fn story(page: &CheckPage, kinds: &[(FindingKind, Vec<&Finding>)]) -> String {
    let CheckPage { checked, cleaned, left_out, .. } = page;
    let rows: usize = checked.manifests.iter().filter(|manifest| manifest.trains).map(|m| m.rows).sum();
    let out: usize = cleaned.manifests.iter().map(|manifest| manifest.left_out).sum();
    let verdict = match checked.findings.len() {
        0 => "<b>Nothing is wrong.</b>".to_owned(),
        count => format!("<b>{}.</b>", counted(count, "finding", "findings")),
    };
    let kept = match out {
        0 => "no row is left out".to_owned(),
        out => format!("{} left out of the corpus beside this page", counted(out, "row is", "rows are")),
    };
    let read = format!(
        "{} in {} were read, {} and {} looked at; {kept}.",
        counted(rows, "training row", "training rows"),
        counted(checked.datasets.len(), "dataset", "datasets"),
        counted(checked.media, "file", "files"),
        counted(checked.texts, "text", "texts"),
    );
    let line = |(kind, findings): &(FindingKind, Vec<&Finding>)| {
        let (name, title) = (kind.name(), kind.title());
        let class = if left_out.contains(kind) { "error" } else { "" };
        let out = cleaned.left_out.get(name).map_or("–".to_owned(), usize::to_string);
        format!(
            "<tr class=\"{class}\"><td><a href=\"#{name}\">{title}</a></td><td>{}</td><td>{out}</td><td>{}</td></tr>\n",
            findings.len(),
            escape(kind.advice())
        )
    };
    let table = match kinds {
        [] => String::new(),
        kinds => format!(
            "<div class=\"scroll\">\n<table class=\"kinds\">\n<thead><tr><th>What</th><th>Findings</th><th>Rows left out\
             </th><th>What to do</th></tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</div>\n",
            kinds.iter().map(line).collect::<String>()
        ),
    };
    format!("<section class=\"story\">\n<p class=\"verdict\">{verdict} {read}</p>\n{table}</section>\n")
}

fn section(page: &CheckPage, kind: FindingKind, findings: &[&Finding]) -> String {
    let more = match findings.len().saturating_sub(MOST_FINDINGS) {
        0 => String::new(),
        more => {
            format!(" The first {MOST_FINDINGS} are shown; {more} more stand in <code>findings.jsonl</code>.")
        }
    };
    let cards: String =
        findings.iter().take(MOST_FINDINGS).map(|finding| card(page.loader, finding)).collect();
    format!(
        "<section id=\"{}\">\n<h2>{}</h2>\n<p class=\"lead\">{}: {}.{more}</p>\n<div class=\"cards\">\n{cards}</div>\n\
         </section>\n",
        kind.name(),
        kind.title(),
        counted(findings.len(), "finding", "findings"),
        escape(kind.advice())
    )
}

fn card(loader: &Loader, finding: &Finding) -> String {
    let contents =
        finding.contents.iter().take(MOST_CONTENTS).map(|content| held(loader, finding.kind, content));
    let contents: String = contents.collect();
    let more = match finding.contents.len().saturating_sub(MOST_CONTENTS) {
        0 => String::new(),
        more => format!("<p class=\"none\">and {more} more</p>\n"),
    };
    format!("<article>\n<p class=\"message\">{}</p>\n{contents}{more}</article>\n", escape(&finding.message))
}

/// A content with its places.
fn held(loader: &Loader, kind: FindingKind, found: &FoundContent) -> String {
    let broken =
        [FindingKind::MissingFile, FindingKind::CorruptFile, FindingKind::UncheckedFile].contains(&kind);
    let content = if broken { &[][..] } else { &found.content };
    let item = Item { content: content.to_vec(), instruction: None };
    let seen = show(&shown(loader, &item), "what was found");
    let mut lines: Vec<String> = found.content.iter().filter_map(path).map(|path| escape(&path)).collect();
    lines.extend(found.places.iter().take(MOST_PLACES).map(|place| escape(&place.to_string())));
    match found.places.len().saturating_sub(MOST_PLACES) {
        0 => {}
        more => lines.push(format!("and {} more", counted(more, "place", "places"))),
    }
    let lines: String = lines.iter().map(|line| format!("<li>{line}</li>\n")).collect();
    format!("<div class=\"held\">\n{seen}<ul class=\"places\">\n{lines}</ul>\n</div>\n")
}

/// The file of a part, in words.
fn path(part: &Part) -> Option<String> {
    Some(match part {
        Part::Text(_) => return None,
        Part::Image(path) | Part::Video(VideoSource::File(path)) => path.display().to_string(),
        Part::Video(VideoSource::Frames(frames)) => {
            let first = frames.first().map(|frame| frame.display().to_string()).unwrap_or_default();
            format!("{first} and {} more frames", frames.len().saturating_sub(1))
        }
        Part::Document { path, page } => format!("{}, page {page}", path.display()),
    })
}

/// The datasets, and what is left of them.
fn datasets(page: &CheckPage) -> String {
    let line = |count: &rzen_data::DatasetCount| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            escape(&count.name),
            count.rows,
            count.labels,
            count.largest,
            count.median
        )
    };
    let kept = |manifest: &rzen_data::CleanedManifest| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>\n",
            escape(&manifest.file),
            manifest.kept,
            manifest.left_out
        )
    };
    format!(
        "<section>\n<h2>Datasets</h2>\n<p class=\"lead\">Rows of one name are a dataset to the sampler. Labels are those \
         of the rows, or their different positives.</p>\n<div class=\"scroll\">\n<table>\n<thead><tr><th>Name</th>\
         <th>Rows</th><th>Labels</th><th>Rows of the largest</th><th>Of the middle one</th></tr></thead>\n<tbody>\n\
         {}</tbody>\n</table>\n</div>\n<h3>What was written</h3>\n<div class=\"scroll\">\n<table>\n<thead><tr><th>Manifest\
         </th><th>Rows kept</th><th>Left out</th></tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</div>\n</section>\n",
        page.checked.datasets.iter().map(line).collect::<String>(),
        page.cleaned.manifests.iter().map(kept).collect::<String>()
    )
}
