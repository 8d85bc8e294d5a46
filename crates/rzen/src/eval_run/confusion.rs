//! Which kind of wrong candidate comes first.

use std::collections::BTreeMap;

use rzen_core::{Item, Part};
use rzen_eval::{RankTask, TaskScore};

/// Queries by the kind of their best answer and the kind of the wrong candidate that came before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    /// `(kind of the answer, kind of the winner)`, and how many queries.
    pub wrong: BTreeMap<(String, String), usize>,
    /// Candidates of the pool by kind.
    pub pool: BTreeMap<String, usize>,
}

impl Confusion {
    /// Counts the queries of a task whose first candidate is not relevant.
    pub fn of(task: &RankTask, score: &TaskScore) -> Self {
        let mut confusion = Confusion::default();
        for (_, item) in &task.pool {
            *confusion.pool.entry(kind(item)).or_default() += 1;
        }
        for query in &score.per_query {
            let Some((winner, _)) = query.top.ranked.first() else { continue };
            if query.top.first_relevant_rank > 1 {
                let pair = (kind(&task.pool[query.top.first_relevant.0].1), kind(&task.pool[*winner].1));
                *confusion.wrong.entry(pair).or_default() += 1;
            }
        }
        confusion
    }

    /// Adds the counts of another task.
    pub fn add(&mut self, other: &Confusion) {
        for (pair, count) in &other.wrong {
            *self.wrong.entry(pair.clone()).or_default() += count;
        }
        for (kind, count) in &other.pool {
            *self.pool.entry(kind.clone()).or_default() += count;
        }
    }
}

/// `text`, `image`, `video`, `page`, or several of them: `image + text`.
pub fn kind(item: &Item) -> String {
    let name = |part: &Part| match part {
        Part::Image(_) => "image",
        Part::Video(_) => "video",
        Part::Document { .. } => "page",
        Part::Text(_) => "text",
    };
    let mut names: Vec<&str> = item.content.iter().map(name).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "nothing".to_owned() } else { names.join(" + ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_name_what_an_item_holds() {
        let item = |content| Item { content, instruction: None };
        let (text, image) = (Part::Text("a".into()), Part::Image("a.png".into()));
        assert_eq!(kind(&item(vec![text.clone(), image.clone(), text.clone()])), "image + text");
        assert_eq!(kind(&item(vec![image])), "image");
        assert_eq!(kind(&item(vec![])), "nothing");
    }
}
