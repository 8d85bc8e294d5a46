//! Findings about rows.

use std::collections::HashMap;

use super::finding::{Finding, FindingKind};
use super::gather::{Gathered, Piece, Role, Row};
use super::maker::Maker;
use super::uses::{Use, Uses};

/// Rows that teach nothing, or the wrong thing.
pub(super) fn rows(maker: &Maker, uses: &Uses) -> Vec<Finding> {
    let gathered = maker.gathered;
    let mut findings = Vec::new();
    for (number, row) in gathered.rows.iter().enumerate() {
        let mut find = |kind, message: &str, role: Role, item: usize| {
            let place: Use = (number, role);
            let content = maker.content(gathered.parts(item), &[place]);
            findings.push(maker.finding(kind, message.to_owned(), vec![content], &[place]));
        };
        for (role, item) in row.contents.iter().filter(|(_, item)| is_empty(gathered, *item)) {
            find(FindingKind::EmptyText, "holds nothing but white space", *role, *item);
        }
        let same = |item: usize| uses.first_item[item];
        let query = row.contents.iter().find(|(role, _)| *role == Role::Query).map(|(_, item)| same(*item));
        let positives = || row.contents.iter().filter(|(role, _)| matches!(role, Role::Positive(_)));
        for (role, item) in positives().filter(|(_, item)| Some(same(*item)) == query) {
            find(FindingKind::PositiveIsQuery, "equals its query", *role, *item);
        }
        for (role, item) in row.contents.iter().filter(|(role, _)| matches!(role, Role::Negative(_))) {
            if positives().any(|(_, positive)| same(*positive) == same(*item)) {
                find(FindingKind::NegativeIsPositive, "equals a positive of its row", *role, *item);
            }
        }
    }
    findings.extend(duplicates(maker, uses));
    findings
}

/// Training rows of one dataset with one instruction, query and set of positives.
fn duplicates(maker: &Maker, uses: &Uses) -> Vec<Finding> {
    let gathered = maker.gathered;
    let mut places = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (number, row) in gathered.rows.iter().enumerate().filter(|(number, _)| gathered.trains(*number)) {
        let place = *places.entry(key(row, uses)).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(number);
    }
    let mut findings = Vec::new();
    for group in groups.into_iter().filter(|group| group.len() > 1) {
        let of = |is: fn(&Role) -> bool| {
            let first = &gathered.rows[group[0]].contents;
            let items = first.iter().filter(move |(role, _)| is(role));
            items.flat_map(|(_, item)| gathered.parts(*item)).collect::<Vec<_>>()
        };
        let contents = vec![
            maker.row(of(|role| *role == Role::Query), &group),
            maker.row(of(|role| matches!(role, Role::Positive(_))), &[]),
        ];
        let rest: Vec<Use> = group[1..].iter().map(|row| (*row, Role::Query)).collect();
        let message = format!("stands {} times", group.len());
        findings.push(maker.finding(FindingKind::DuplicateRow, message, contents, &rest));
    }
    findings
}

/// What rows must share to be the same.
fn key(row: &Row, uses: &Uses) -> (usize, Option<usize>, Vec<usize>, Vec<usize>) {
    let items = |is: fn(&Role) -> bool| {
        let items = row.contents.iter().filter(move |(role, _)| is(role));
        let mut items: Vec<usize> = items.map(|(_, item)| uses.first_item[*item]).collect();
        items.sort_unstable();
        items
    };
    let query = items(|role| *role == Role::Query);
    (row.name, row.instruction, query, items(|role| matches!(role, Role::Positive(_))))
}

fn is_empty(gathered: &Gathered, item: usize) -> bool {
    let is_blank = |piece: &Piece| match piece {
        Piece::Text(text) => gathered.texts.values[*text].trim().is_empty(),
        _ => false,
    };
    gathered.items.values[item].iter().all(is_blank)
}
