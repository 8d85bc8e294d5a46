//! Findings about files.

use std::collections::BTreeMap;

use super::finding::{Finding, FindingKind};
use super::maker::Maker;
use super::scan::{Scanned, Trouble};
use super::uses::{Use, Uses};

/// Files that are missing or damaged.
pub(super) fn troubles(maker: &Maker, uses: &Uses, scanned: &[Scanned], root: &str) -> Vec<Finding> {
    // The pages of one PDF file tell of the same trouble.
    let mut by_message: Vec<(FindingKind, String, Vec<usize>)> = Vec::new();
    let mut places = BTreeMap::new();
    for (number, scanned) in scanned.iter().enumerate() {
        let (kind, message) = match &scanned.seen {
            Ok(_) => continue,
            Err(Trouble::Missing(message)) => (FindingKind::MissingFile, message),
            Err(Trouble::Corrupt(message)) => (FindingKind::CorruptFile, message),
            Err(Trouble::Unchecked(message)) => (FindingKind::UncheckedFile, message),
        };
        // Paths under the corpus are what its rows say.
        let message = message.replace(root, "");
        let place = *places.entry((kind, message.clone())).or_insert(by_message.len());
        if place == by_message.len() {
            by_message.push((kind, message, Vec::new()));
        }
        by_message[place].2.push(number);
    }
    let finding = |(kind, message, files): (FindingKind, String, Vec<usize>)| {
        let contents = files.iter().map(|file| {
            let part = maker.gathered.media.values[*file].clone();
            maker.content(vec![part], &uses.files[*file])
        });
        let contents = contents.collect();
        let all: Vec<Use> = files.iter().flat_map(|file| uses.files[*file].iter().copied()).collect();
        maker.finding(kind, message, contents, &all)
    };
    by_message.into_iter().map(finding).collect()
}

/// Contents that training rows name in several ways.
pub(super) fn duplicates(maker: &Maker, uses: &Uses) -> Vec<Finding> {
    let mut names: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, first) in uses.first_file.iter().enumerate() {
        if maker.trained(&uses.files[number]).next().is_some() {
            names.entry(*first).or_default().push(number);
        }
    }
    let mut findings = Vec::new();
    for files in names.values().filter(|files| files.len() > 1) {
        let trained = |file: &usize| maker.trained(&uses.files[*file]).collect::<Vec<Use>>();
        let contents = files.iter().map(|file| {
            let part = maker.gathered.media.values[*file].clone();
            maker.content(vec![part], &trained(file))
        });
        let contents = contents.collect();
        let rest: Vec<Use> = files[1..].iter().flat_map(trained).collect();
        let message = format!("{} files hold the same bytes", files.len());
        findings.push(maker.finding(FindingKind::DuplicateFile, message, contents, &rest));
    }
    findings
}
