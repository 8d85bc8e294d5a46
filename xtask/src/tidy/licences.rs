//! Every package that a build on any platform with any backend compiles is under a licence we accept.

use anyhow::Result;

use super::spdx;

/// SPDX identifiers (with their exceptions) that we accept. All let others use the work under our terms;
/// MPL-2.0 asks for its own files only, CDLA-Permissive-2.0 is for data (root certificates).
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Packages whose licence is missing, unreadable or not accepted.
///
/// Asks `cargo tree` rather than `cargo metadata`: the latter also lists what no feature turns on.
pub fn check() -> Result<Vec<String>> {
    let tree = super::cargo_output(&[
        "tree",
        "--locked",
        "--workspace",
        "--all-features",
        "--target=all",
        "--edges=normal,build,dev",
        "--prefix=none",
        "--format={p}|{l}|",
    ])?;
    Ok(findings(&tree))
}

/// Reads lines of `NAME VERSION …|LICENCE|…`.
fn findings(tree: &str) -> Vec<String> {
    let mut lines: Vec<(&str, &str)> = tree
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(package, rest)| (package, rest.split('|').next().unwrap_or_default()))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    lines.into_iter().filter_map(|(package, licence)| finding(package, licence)).collect()
}

fn finding(package: &str, licence: &str) -> Option<String> {
    if licence.is_empty() {
        return Some(format!(
            "{package}: names no licence: do without it, or read its licence file and decide"
        ));
    }
    match spdx::is_satisfied(licence, |id| ACCEPTED.contains(&id)) {
        Ok(true) => None,
        Ok(false) => {
            Some(format!("{package}: `{licence}` is not accepted (list: xtask/src/tidy/licences.rs)"))
        }
        Err(error) => Some(format!("{package}: `{licence}` is not a licence expression: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offenders_are_named_once() {
        let tree = "a v1.0.0|MIT|\nb v2.0.0|GPL-3.0-only|\nc v0.1.0 (proc-macro)||\n\nb v2.0.0|GPL-3.0-only| (*)\nd v1.0.0|MIT OR|\n";
        let findings = findings(tree);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(findings[0].starts_with("b v2.0.0: `GPL-3.0-only` is not accepted"));
        assert!(findings[1].starts_with("c v0.1.0 (proc-macro): names no licence"));
        assert!(findings[2].starts_with("d v1.0.0: `MIT OR` is not a licence expression"));
    }
}
