//! Queries with what was found, right beside wrong.

use super::html::{escape, escape_cut, picture, words};
use super::{Example, Found, ReportPart};

/// The examples of each kind: right ones in one column, wrong ones in the other.
pub(super) fn section(examples: &[Example]) -> String {
    if examples.is_empty() {
        return String::new();
    }
    let mut kinds: Vec<&str> = Vec::new();
    for example in examples {
        if !kinds.contains(&example.kind.as_str()) {
            kinds.push(&example.kind);
        }
    }
    let blocks = kinds.into_iter().map(|kind| {
        let of_kind = || examples.iter().filter(|example| example.kind == kind);
        format!(
            "<h3>{}</h3>\n<div class=\"sides\">\n{}{}</div>\n",
            escape(&words(kind)),
            side("right", "Right", &of_kind().filter(|example| example.correct).collect::<Vec<_>>()),
            side("wrong", "Wrong", &of_kind().filter(|example| !example.correct).collect::<Vec<_>>())
        )
    });
    format!(
        "<section>\n<h2>Examples</h2>\n<p class=\"lead\">A query on top, below it the candidates that the model ranks \
         first, best first; a green frame marks a right answer. Where none is among them, a dashed frame shows the first that \
         came later.</p>\n{}</section>\n",
        blocks.collect::<String>()
    )
}

fn side(class: &str, title: &str, examples: &[&Example]) -> String {
    let cards: String = match examples {
        [] => "<p class=\"none\">None among the queries shown.</p>\n".to_string(),
        examples => examples.iter().map(|example| card(example)).collect(),
    };
    format!("<div class=\"side {class}\">\n<h4>{title}</h4>\n{cards}</div>\n")
}

pub(super) fn card(example: &Example) -> String {
    let rank = match example.rank {
        1 => "first".to_string(),
        rank => format!("rank {rank}"),
    };
    let found: String =
        example.found.iter().enumerate().map(|(place, found)| candidate(place + 1, found, "")).collect();
    let answer =
        example.answer.as_ref().map_or(String::new(), |found| candidate(example.rank, found, " answer"));
    format!(
        "<article>\n<header><span>{}</span><span class=\"rank\">right answer: {rank}</span></header>\n\
         {}<ol class=\"found\">\n{found}{answer}</ol>\n</article>\n",
        escape(&example.task),
        query(example.instruction.as_deref(), &example.query)
    )
}

/// What is asked, above all that is found.
pub(super) fn query(instruction: Option<&str>, content: &[ReportPart]) -> String {
    let instruction = instruction.map_or(String::new(), |text| {
        format!("<p class=\"instruction\" dir=\"auto\">{}</p>\n", escape_cut(text, MOST_LETTERS))
    });
    format!(
        "<div class=\"query\">\n{instruction}<div class=\"content\">\n{}</div>\n</div>\n",
        parts(content, "query")
    )
}

fn candidate(place: usize, found: &Found, class: &str) -> String {
    let (frame, verdict) = if found.relevant { ("relevant", "right") } else { ("other", "wrong") };
    format!(
        "<li class=\"{frame}{class}\">\n{}<span class=\"label\">{place} · {:.3}<span class=\"unseen\"> {verdict}</span></span>\n</li>\n",
        parts(&found.parts, &format!("candidate {place}")),
        found.score
    )
}

/// Letters of a text that are shown.
const MOST_LETTERS: usize = 280;

/// Frames of a clip that are shown.
const MOST_FRAMES: usize = 4;

/// Texts and pictures, one after the other.
pub(super) fn parts(parts: &[ReportPart], what: &str) -> String {
    parts.iter().map(|part| show(part, what)).collect()
}

fn show(part: &ReportPart, what: &str) -> String {
    match part {
        ReportPart::Text(text) => format!("<p dir=\"auto\">{}</p>\n", escape_cut(text, MOST_LETTERS)),
        ReportPart::Image { bytes, media_type } => picture(bytes, media_type, what) + "\n",
        ReportPart::Frames(frames) => {
            let shown = frames.len().min(MOST_FRAMES);
            // Spread from the first frame to the last.
            let places = (0..shown).map(|i| if shown > 1 { i * (frames.len() - 1) / (shown - 1) } else { 0 });
            let pictures: String =
                places.map(|i| show(&frames[i], &format!("{what}, frame {}", i + 1))).collect();
            format!("<div class=\"frames\" title=\"{shown} of {} frames\">\n{pictures}</div>\n", frames.len())
        }
    }
}
