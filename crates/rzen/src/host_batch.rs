//! A batch on the host, made of the rows that could be read.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use rzen_core::{Item, Sample};
use rzen_model::Encoded;

/// A batch on the host: distinct candidates, each row of queries knowing its own.
#[derive(Debug)]
pub(crate) struct HostBatch {
    pub label: String,
    pub queries: Vec<BatchItem>,
    pub candidates: Vec<BatchItem>,
    pub positive: Vec<usize>,
    pub task: Vec<usize>,
    /// For each candidate the one query that may use it as a negative; `None` where all may use all.
    pub owner: Option<Vec<Option<usize>>>,
    /// Pairs of a query and a candidate that must not be its negative.
    pub exempt: Vec<(usize, usize)>,
}

/// An item of a batch: all of it on the rank that has read it, its size on the others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BatchItem {
    /// Which has read it.
    pub rank: usize,
    pub pictures: usize,
    pub tokens: usize,
    pub encoded: Option<Encoded>,
}

/// The query, the positive and the hard negatives of a row.
pub(crate) type RowItems = (BatchItem, BatchItem, Vec<BatchItem>);

/// A row that has been read, and what became of its items.
pub(crate) type ReadRow<'a> = (Cow<'a, Sample>, RowItems);

/// Makes one batch of the rows that could be read.
pub(crate) fn assemble(
    label: String,
    rows: Vec<ReadRow>,
    tasks: &[String],
    share_hard_negatives: bool,
) -> HostBatch {
    let (sources, encoded): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let mut table = CandidateTable::default();
    let (mut queries, mut positive, mut task) = (Vec::new(), Vec::new(), Vec::new());
    for (source, (query, own, hard)) in sources.iter().zip(encoded) {
        let row = queries.len();
        queries.push(query);
        positive.push(table.add(&source.positive, own, None));
        for (item, encoded) in source.hard_negatives.iter().zip(hard) {
            table.add(item, encoded, Some(row));
        }
        task.push(tasks.binary_search(&source.task.0).expect("the tasks of all rows were collected"));
    }
    let exempt = exempt(&sources, &table.places);
    let owner = (!share_hard_negatives).then_some(table.owner);
    HostBatch { label, queries, candidates: table.candidates, positive, task, owner, exempt }
}

/// The candidates that must not be negatives of a row: its other positives, its false negatives, and the positives
/// of the rows that share its label.
fn exempt(rows: &[Cow<Sample>], places: &HashMap<&Item, usize>) -> Vec<(usize, usize)> {
    let place = |item: &Item| places.get(item).copied();
    let mut of_label: HashMap<&str, BTreeSet<usize>> = HashMap::new();
    for row in rows {
        if let Some(label) = &row.label {
            of_label.entry(label).or_default().extend(row.positives().filter_map(place));
        }
    }
    let mut pairs = Vec::new();
    for (query, row) in rows.iter().enumerate() {
        let own = row.other_positives.iter().chain(&row.false_negatives).filter_map(place);
        let shared = row.label.as_ref().and_then(|label| of_label.get(label.as_str()));
        let all: BTreeSet<usize> = own.chain(shared.into_iter().flatten().copied()).collect();
        pairs.extend(all.into_iter().filter(|&at| Some(at) != place(&row.positive)).map(|at| (query, at)));
    }
    pairs
}

/// Equal candidates of a batch are one row: queries that share a positive are not each other's negatives.
#[derive(Default)]
struct CandidateTable<'a> {
    places: HashMap<&'a Item, usize>,
    candidates: Vec<BatchItem>,
    /// The query that a candidate is hard for, if it is so for one alone and nobody's positive.
    owner: Vec<Option<usize>>,
}

impl<'a> CandidateTable<'a> {
    /// Adds a candidate that only query `owner` brings along as hard, or that is a positive (`None`).
    fn add(&mut self, item: &'a Item, encoded: BatchItem, owner: Option<usize>) -> usize {
        match self.places.entry(item) {
            Entry::Occupied(place) => {
                let place = *place.get();
                if self.owner[place] != owner {
                    self.owner[place] = None;
                }
                place
            }
            Entry::Vacant(place) => {
                self.candidates.push(encoded);
                self.owner.push(owner);
                *place.insert(self.candidates.len() - 1)
            }
        }
    }
}

/// Puts items of about the same length into the same micro-batch, so that there is little padding.
pub(crate) fn sorted(batch: HostBatch) -> HostBatch {
    let order = |items: &[BatchItem]| -> Vec<usize> {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&i| (items[i].pictures, items[i].tokens, i));
        order
    };
    let (queries, candidates) = (order(&batch.queries), order(&batch.candidates));
    let (query_place, candidate_place) = (places(&queries), places(&candidates));
    HostBatch {
        positive: queries.iter().map(|&old| candidate_place[batch.positive[old]]).collect(),
        task: queries.iter().map(|&old| batch.task[old]).collect(),
        owner: batch
            .owner
            .map(|owner| candidates.iter().map(|&old| owner[old].map(|query| query_place[query])).collect()),
        exempt: batch.exempt.iter().map(|&(q, c)| (query_place[q], candidate_place[c])).collect(),
        queries: take(batch.queries, &queries),
        candidates: take(batch.candidates, &candidates),
        label: batch.label,
    }
}

/// For each old place the new one, of an order that lists the old ones.
fn places(order: &[usize]) -> Vec<usize> {
    let mut places = vec![0; order.len()];
    order.iter().enumerate().for_each(|(new, old)| places[*old] = new);
    places
}

fn take(items: Vec<BatchItem>, order: &[usize]) -> Vec<BatchItem> {
    let mut items: Vec<Option<BatchItem>> = items.into_iter().map(Some).collect();
    order.iter().map(|&i| items[i].take().expect("an order names each place once")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rzen_core::{Origin, Part, Task};

    use super::*;

    fn encoded(ids: &[u32]) -> BatchItem {
        let encoded = Encoded { input_ids: ids.to_vec(), pictures: Vec::new() };
        BatchItem { rank: 0, pictures: 0, tokens: ids.len(), encoded: Some(encoded) }
    }

    fn row(line: usize, query: &str, positive: &str, hard: &[&str]) -> Sample {
        let origin = Origin { file: Path::new("train.jsonl").into(), line };
        let sample = Sample::new("d", Task("b".into()), Item::text(query), Item::text(positive), origin);
        Sample { hard_negatives: hard.iter().copied().map(Item::text).collect(), ..sample }
    }

    /// Encodes a text as its bytes, so that longer texts are longer rows.
    fn batch(rows: &[Sample], share_hard_negatives: bool) -> HostBatch {
        let bytes = |item: &Item| match &item.content[0] {
            Part::Text(text) => encoded(&text.bytes().map(u32::from).collect::<Vec<_>>()),
            other => panic!("{other:?} is no text"),
        };
        let read = rows.iter().map(|row| {
            let encoded =
                (bytes(&row.query), bytes(&row.positive), row.hard_negatives.iter().map(bytes).collect());
            (Cow::Borrowed(row), encoded)
        });
        assemble("d".into(), read.collect(), &["a".into(), "b".into()], share_hard_negatives)
    }

    fn texts_of(items: &[BatchItem]) -> Vec<String> {
        let text = |item: &Encoded| item.input_ids.iter().map(|id| *id as u8 as char).collect();
        items.iter().map(|item| text(item.encoded.as_ref().unwrap())).collect()
    }

    #[test]
    fn equal_candidates_are_one() {
        let rows =
            [row(1, "q", "cat", &["dog", "owl"]), row(2, "p", "cat", &["dog"]), row(3, "o", "owl", &[])];
        let batch = batch(&rows, true);
        assert_eq!(texts_of(&batch.candidates), ["cat", "dog", "owl"]);
        assert_eq!(batch.positive, [0, 0, 2]);
        assert_eq!(batch.task, [1, 1, 1]);
        assert_eq!(batch.owner, None);
        assert_eq!(batch.exempt, []);
    }

    #[test]
    fn other_answers_and_answers_of_one_label_are_exempt() {
        let mut rows = [
            row(1, "q", "cat", &["dog"]),
            row(2, "p", "hen", &[]),
            row(3, "o", "cock", &["fox"]),
            row(4, "n", "owl", &[]),
        ];
        rows[0].other_positives = ["kitten", "owl"].map(Item::text).to_vec();
        rows[1].label = Some("fowl".into());
        rows[2].label = Some("fowl".into());
        rows[3].label = Some("bird".into());
        rows[3].false_negatives = vec![Item::text("fox"), Item::text("owl")];
        let batch = batch(&rows, true);
        let texts = texts_of(&batch.candidates);
        let named = |batch: &HostBatch| -> BTreeSet<(String, String)> {
            let (queries, candidates) = (texts_of(&batch.queries), texts_of(&batch.candidates));
            batch.exempt.iter().map(|&(q, c)| (queries[q].clone(), candidates[c].clone())).collect()
        };
        assert_eq!(texts, ["cat", "dog", "hen", "cock", "fox", "owl"]);
        let expected = [("n", "fox"), ("o", "hen"), ("p", "cock"), ("q", "owl")];
        assert_eq!(named(&batch), expected.map(|(q, c)| (q.to_owned(), c.to_owned())).into());
        let expected = named(&batch);
        assert_eq!(named(&sorted(batch)), expected);
    }

    #[test]
    fn a_negative_that_is_hard_for_one_row_alone_belongs_to_it() {
        let rows = [
            row(1, "q", "cat", &["dog", "owl", "fox"]),
            row(2, "p", "hen", &["dog", "ape", "ape"]),
            row(3, "o", "owl", &[]),
        ];
        let batch = batch(&rows, false);
        assert_eq!(texts_of(&batch.candidates), ["cat", "dog", "owl", "fox", "hen", "ape"]);
        // Two rows bring the dog, and the owl is a positive.
        assert_eq!(batch.owner, Some(vec![None, None, None, Some(0), None, Some(1)]));
    }

    #[test]
    fn sorting_keeps_what_belongs_to_what() {
        let rows =
            [row(1, "long query", "cats and dogs", &["fox"]), row(2, "q", "hen", &["a long negative"])];
        let (before, after) = (batch(&rows, false), sorted(batch(&rows, false)));
        assert_eq!(texts_of(&after.queries), ["q", "long query"]);
        assert_eq!(texts_of(&after.candidates), ["fox", "hen", "cats and dogs", "a long negative"]);
        let pairs = |batch: &HostBatch| {
            let (queries, candidates) = (texts_of(&batch.queries), texts_of(&batch.candidates));
            let mut positives: Vec<_> = queries
                .iter()
                .zip(&batch.positive)
                .map(|(q, c)| (q.clone(), candidates[*c].clone()))
                .collect();
            let owners = batch.owner.as_ref().unwrap().iter().zip(&candidates);
            let mut owned: Vec<_> =
                owners.filter_map(|(q, c)| q.map(|q| (queries[q].clone(), c.clone()))).collect();
            positives.sort();
            owned.sort();
            (positives, owned)
        };
        assert_eq!(pairs(&after), pairs(&before));
        assert_eq!(
            pairs(&after).1,
            [("long query", "fox"), ("q", "a long negative")].map(|(q, c)| (q.into(), c.into()))
        );
    }
}
