//! Text and pictures made safe for a page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Text for an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are no HTML text, not even as references.
            c if c.is_control() && !c.is_ascii_whitespace() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Escaped text of at most `most` characters.
pub(super) fn escape_cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => escape(text[..end].trim_end()) + " …",
        None => escape(text),
    }
}

/// An `img` that carries its bytes.
pub(super) fn picture(bytes: &[u8], media_type: &str, alt: &str) -> String {
    let (media_type, alt) = (escape(media_type), escape(alt));
    format!(r#"<img src="data:{media_type};base64,{}" alt="{alt}">"#, STANDARD.encode(bytes))
}

/// A score from 0 to 1 with three decimals, or a dash where there is none.
pub(super) fn score(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}") } else { "–".to_string() }
}

/// `1 query`, `2 queries`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A task kind as words: `image_qa` becomes `image QA`; not escaped.
pub(super) fn words(name: &str) -> String {
    let words = name.split('_').map(|word| if word == "qa" { "QA" } else { word });
    words.collect::<Vec<_>>().join(" ")
}
