//! Sizes and text of the files that git tracks, or would.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The most that one file, and all of `fixtures/`, may hold: a clone stays quick.
const MAX_BYTES: u64 = 12_000_000;

/// Tracked files and new ones that git does not ignore, relative to `root`.
pub fn tracked(root: &Path) -> Result<Vec<String>> {
    let list = super::git_output(root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .context("tidy takes the list of files from git: run it in a clone")?;
    let mut files: Vec<String> = list.split_terminator('\0').map(str::to_owned).collect();
    // A file deleted but not yet committed is still listed.
    files.retain(|file| root.join(file).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

/// Files over the limit, and the sum of `fixtures/`.
pub fn check_sizes(root: &Path, files: &[String]) -> Result<Vec<String>> {
    let (mut findings, mut fixtures) = (Vec::new(), 0);
    for file in files {
        let path = root.join(file);
        let bytes = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
        if bytes > MAX_BYTES {
            findings
                .push(format!("{file}: {bytes} bytes, at most {MAX_BYTES}: keep it outside the repository"));
        }
        if file.starts_with("fixtures/") {
            fixtures += bytes;
        }
    }
    if fixtures > MAX_BYTES {
        findings.push(format!(
            "fixtures/: {fixtures} bytes in all, at most {MAX_BYTES}: remove the largest cases"
        ));
    }
    Ok(findings)
}

/// What a Rust file may not contain, and why. Split, so that this file does not.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("#[", "ignore"), "assert today's behaviour and say why it is wrong"),
    (concat!("todo", "!("), "write it, or leave the item out"),
    (concat!("unimplemented", "!("), "return an error that names what is not supported"),
];

/// Trailing white space in `.rs`, `.md` and `.toml`; forbidden words in `.rs`.
pub fn check_text(root: &Path, files: &[String]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in files {
        let extension = Path::new(file).extension().and_then(|extension| extension.to_str());
        if !matches!(extension, Some("rs" | "md" | "toml")) {
            continue;
        }
        let path = root.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        findings
            .extend(text_findings(&text, extension == Some("rs")).map(|finding| format!("{file}:{finding}")));
    }
    Ok(findings)
}

/// `LINE: what is wrong`, for each finding in `text`.
fn text_findings(text: &str, is_rust: bool) -> impl Iterator<Item = String> {
    // Not `lines()`: that would hide a carriage return.
    text.split('\n').enumerate().flat_map(move |(index, line)| {
        let number = index + 1;
        let trailing =
            line.ends_with(char::is_whitespace).then(|| format!("{number}: white space at the end"));
        let code = if is_rust { line.split("//").next().unwrap_or_default() } else { "" };
        let forbidden = FORBIDDEN
            .iter()
            .filter(|(word, _)| code.contains(word))
            .map(move |(word, remedy)| format!("{number}: `{word}`: {remedy}"));
        trailing.into_iter().chain(forbidden).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str, is_rust: bool) -> Vec<String> {
        text_findings(text, is_rust).collect()
    }

    #[test]
    fn white_space_at_the_end_is_found_with_its_line() {
        assert_eq!(
            findings("a\nb \nc\r\n", false),
            ["2: white space at the end", "3: white space at the end"]
        );
        assert_eq!(findings("a\n\n  b\n", true), Vec::<String>::new());
    }

    #[test]
    fn forbidden_words_are_found_in_code_only() {
        for (word, _) in FORBIDDEN {
            assert_eq!(findings(&format!("fn f() {{}}\n    {word}x"), true).len(), 1, "{word}");
            assert_eq!(findings(&format!("// {word}"), true), Vec::<String>::new());
            assert_eq!(findings(word, false), Vec::<String>::new());
        }
    }
}
