//! Programs, tests and benches resolve burn and everything below it to the same features.
//!
//! Otherwise cargo compiles burn once for `cargo xtask train` and again for `cargo xtask test`.

use std::collections::BTreeSet;

use anyhow::Result;

/// Packages below burn that have other features in the program than in the workspace's tests.
pub fn check() -> Result<Vec<String>> {
    let burn = tree(&["--package=burn", "--edges=normal,build"], "{p}")?;
    let program = tree(&["--package=rzen", "--edges=normal,build"], "{p} [{f}]")?;
    let tests = tree(&["--workspace", "--edges=normal,build,dev"], "{p} [{f}]")?;
    Ok(findings(&burn, &program, &tests))
}

fn findings(burn: &BTreeSet<String>, program: &BTreeSet<String>, tests: &BTreeSet<String>) -> Vec<String> {
    let package = |line: &str| line.split(" [").next().unwrap_or_default().to_owned();
    let mut findings = Vec::new();
    for line in program.difference(tests).filter(|line| burn.contains(&package(line))) {
        let in_tests = tests.iter().find(|other| package(other) == package(line));
        let in_tests = in_tests.map_or("not there", |line| line.as_str());
        findings.push(format!(
            "the program has {line}, the tests {in_tests}, so burn is compiled twice: give `rzen` a dependency \
             on it with these features, and list it in [package.metadata.tidy] unused"
        ));
    }
    findings
}

/// The distinct packages of a dependency tree, one line each in `format`.
fn tree(selection: &[&str], format: &str) -> Result<BTreeSet<String>> {
    let format = format!("--format={format}|");
    let mut args = vec!["tree", "--locked", "--prefix=none", &format];
    args.extend_from_slice(selection);
    let mut command = crate::cargo();
    // What a plain cargo does, whatever a developer's own settings unify.
    command.args(args).env("CARGO_RESOLVER_FEATURE_UNIFICATION", "selected");
    let output = super::output_of(command)?;
    Ok(output.lines().filter_map(|line| line.split_once('|')).map(|(line, _)| line.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_below_burn_count() {
        let set = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<BTreeSet<_>>();
        let burn = set(&["burn v0.22.1", "serde v1.0.0", "half v2.0.0"]);
        let program = set(&["serde v1.0.0 [std]", "half v2.0.0 [std]", "clap v4.0.0 [std]"]);
        let tests = set(&["serde v1.0.0 [derive,std]", "half v2.0.0 [std]", "clap v4.0.0 [help,std]"]);
        let findings = findings(&burn, &program, &tests);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(
            findings[0]
                .starts_with("the program has serde v1.0.0 [std], the tests serde v1.0.0 [derive,std],")
        );
    }
}
