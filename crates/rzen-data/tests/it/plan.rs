//! Epoch plans.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rzen_core::{Item, Origin, Sample, Task};
use rzen_data::{DatasetSpec, PlanError, PlannedBatch, PlannedRow, RowKeys, epoch_plan, row_keys};

fn spec(name: &str, len: usize) -> DatasetSpec {
    DatasetSpec { name: name.into(), len, cap: None, weight: 1.0, group: None }
}

fn grouped(name: &str, len: usize, group: &str) -> DatasetSpec {
    DatasetSpec { group: Some(group.into()), ..spec(name, len) }
}

fn keys(query: u64, positive: u64) -> RowKeys {
    RowKeys { query, positive, label: None, group: None }
}

fn visits(plan: &[PlannedBatch]) -> BTreeMap<PlannedRow, usize> {
    let mut visits = BTreeMap::new();
    plan.iter().flat_map(|batch| &batch.rows).for_each(|row| *visits.entry(*row).or_default() += 1);
    visits
}

#[test]
fn each_row_is_visited_once_except_those_that_fill_no_batch() {
    for batch_size in 2..9 {
        for len in 2..50 {
            let plan = epoch_plan(1, 0, &[spec("a", len), spec("b", 32)], batch_size, None).unwrap();
            assert!(visits(&plan).values().all(|count| *count == 1));
            let rows: Vec<_> =
                plan.iter().filter(|batch| batch.source == "a").flat_map(|batch| &batch.rows).collect();
            let expected = if len < batch_size { len } else { len - len % batch_size };
            assert_eq!(rows.len(), expected, "{len} rows in batches of {batch_size}");
            assert!(rows.iter().all(|row| row.row < len));
        }
    }
}

#[test]
fn a_plan_is_a_function_of_seed_and_epoch() {
    let datasets = [spec("a", 100), spec("b", 60), grouped("c", 30, "g"), grouped("d", 30, "g")];
    let plan = |seed, epoch| epoch_plan(seed, epoch, &datasets, 8, None).unwrap();
    assert_eq!(plan(3, 1), plan(3, 1));
    assert_ne!(plan(3, 1), plan(3, 2));
    assert_ne!(plan(3, 1), plan(4, 1));
    // Written down from the first version: a change here changes every published run.
    let first: Vec<_> = plan(3, 1)[0].rows.iter().map(|row| (row.dataset, row.row)).collect();
    assert_eq!((plan(3, 1)[0].source.as_str(), first), (PINNED.0, PINNED.1.to_vec()));
}

const PINNED: (&str, [(usize, usize); 8]) =
    ("b", [(1, 36), (1, 51), (1, 11), (1, 46), (1, 27), (1, 54), (1, 31), (1, 55)]);

#[test]
fn batches_hold_one_dataset_or_one_group() {
    let datasets = [spec("a", 40), grouped("c", 50, "g"), spec("b", 30), grouped("d", 50, "g")];
    let plan = epoch_plan(5, 0, &datasets, 10, None).unwrap();
    let mut mixed = false;
    for batch in &plan {
        let members: BTreeSet<_> = batch.rows.iter().map(|row| row.dataset).collect();
        match batch.source.as_str() {
            "g" => {
                assert!(members.is_subset(&BTreeSet::from([1, 3])));
                mixed |= members.len() == 2;
            }
            name => assert_eq!(
                members.iter().map(|member| datasets[*member].name.as_str()).collect::<Vec<_>>(),
                [name]
            ),
        }
    }
    assert!(mixed, "the group's datasets never met");
    assert_eq!(plan.len(), 4 + 3 + 10);
    let order: Vec<_> = plan.iter().map(|batch| batch.source.as_str()).collect();
    let changes = order.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes > 3, "the datasets are not shuffled together: {order:?}");
}

#[test]
fn caps_and_weights_set_the_number_of_passes() {
    let count = |cap, weight| {
        let dataset = DatasetSpec { cap, weight, ..spec("a", 100) };
        visits(&epoch_plan(1, 0, &[dataset], 10, None).unwrap())
    };
    assert_eq!(count(Some(40), 1.0).len(), 40);
    assert_eq!(count(Some(1000), 1.0).len(), 100);
    assert_eq!(count(None, 0.3).len(), 30);
    assert!(count(None, 2.0).values().all(|visits| *visits == 2));
    assert_eq!(count(None, 2.5).values().filter(|visits| **visits == 3).count(), 50);
    assert_eq!(count(Some(20), 3.0).values().sum::<usize>(), 60);
    // Another epoch takes other rows under the cap.
    let dataset = [DatasetSpec { cap: Some(40), ..spec("a", 100) }];
    let rows =
        |epoch| visits(&epoch_plan(1, epoch, &dataset, 10, None).unwrap()).into_keys().collect::<Vec<_>>();
    assert_ne!(rows(0), rows(1));
}

#[test]
fn copies_of_a_row_stay_apart() {
    let dataset = DatasetSpec { weight: 3.5, ..spec("a", 55) };
    for batch in epoch_plan(1, 0, &[dataset], 10, None).unwrap() {
        assert_eq!(batch.rows.iter().collect::<HashSet<_>>().len(), batch.rows.len());
    }
}

#[test]
fn rows_that_share_a_key_stay_apart_where_they_can() {
    // 40 queries with 5 positives each, and 40 positives with 5 queries each.
    for side in 0..2 {
        let key = |row| if side == 0 { keys(row / 5, row) } else { keys(row, row / 5) };
        let keys = [(0..200).map(key).collect::<Vec<_>>()];
        let repeats = |plan: &[PlannedBatch]| {
            let distinct = |batch: &PlannedBatch| {
                let shared = |row: &PlannedRow| [keys[0][row.row].query, keys[0][row.row].positive][side];
                batch.rows.iter().map(shared).collect::<HashSet<_>>().len()
            };
            plan.iter().map(|batch| batch.rows.len() - distinct(batch)).sum::<usize>()
        };
        let plan = |keys| epoch_plan(1, 0, &[spec("a", 200)], 16, keys).unwrap();
        assert_eq!(visits(&plan(Some(&keys))).len(), 192);
        assert!(repeats(&plan(None)) > 15, "{}", repeats(&plan(None)));
        // Towards the end of an epoch there may be no other rows left.
        assert!(repeats(&plan(Some(&keys))) <= 3, "{}", repeats(&plan(Some(&keys))));
    }
    // Two answers for all rows: the batches are full all the same.
    let keys = [(0..64).map(|row| keys(row, row % 2)).collect::<Vec<_>>()];
    let plan = epoch_plan(1, 0, &[spec("a", 64)], 16, Some(&keys)).unwrap();
    assert_eq!(visits(&plan).len(), 64);
}

#[test]
fn keys_are_those_of_the_contents() {
    let sample = |query: &str, positive: &str| {
        let origin = Origin { file: std::path::Path::new("train.jsonl").into(), line: 1 };
        Sample::new("d", Task("t".into()), Item::text(query), Item::image(positive), origin)
    };
    let first = row_keys(&sample("q", "p.png"));
    assert_eq!(row_keys(&sample("q", "r.png")).query, first.query);
    assert_eq!(row_keys(&sample("r", "p.png")).positive, first.positive);
    assert_ne!(row_keys(&sample("r", "r.png")), first);
    assert_eq!((first.label, first.group), (None, None));
    let of = |label: &str, group: &str| {
        let keys = (Some(label.to_owned()), Some(group.to_owned()));
        row_keys(&Sample { label: keys.0, group: keys.1, ..sample("q", "p.png") })
    };
    assert_eq!(of("a", "b").label, of("a", "c").label);
    assert_ne!(of("a", "b").group, of("a", "c").group);
}

#[test]
fn rows_of_one_group_come_together() {
    // 60 films of 4 clips each; in company of a larger dataset, which must not come between them.
    let clips: Vec<_> = (0..240).map(|row| RowKeys { group: Some(row % 60), ..keys(row, row) }).collect();
    let others: Vec<_> = (1000..3000).map(|row| keys(row, row)).collect();
    let pieces = |datasets: &[DatasetSpec], all: &[Vec<RowKeys>]| {
        let plan = epoch_plan(1, 0, datasets, 16, Some(all)).unwrap();
        let films = |batch: &PlannedBatch| {
            let clips = batch.rows.iter().filter(|row| row.dataset == 0);
            clips.map(|row| row.row % 60).collect::<BTreeSet<_>>().len()
        };
        plan.iter().map(films).sum::<usize>()
    };
    // No film is cut in two: 16 is four times 4.
    assert_eq!(pieces(&[spec("a", 240)], std::slice::from_ref(&clips)), 60);
    let mixed = pieces(&[grouped("a", 240, "g"), grouped("b", 2000, "g")], &[clips.clone(), others]);
    // The end of a batch falls into a film at times.
    assert!((60..=75).contains(&mixed), "{mixed} pieces of 60 films");
    // A capped pass takes whole films.
    let capped = DatasetSpec { cap: Some(80), ..spec("a", 240) };
    assert_eq!(pieces(&[capped], &[clips]), 20);
}

#[test]
fn rows_of_one_label_stay_apart_where_they_can() {
    let keys = [(0..200).map(|row| RowKeys { label: Some(row % 40), ..keys(row, row) }).collect::<Vec<_>>()];
    let plan = epoch_plan(1, 0, &[spec("a", 200)], 16, Some(&keys)).unwrap();
    let labels =
        |batch: &PlannedBatch| batch.rows.iter().map(|row| row.row % 40).collect::<HashSet<_>>().len();
    let repeats: usize = plan.iter().map(|batch| 16 - labels(batch)).sum();
    assert!(repeats <= 3, "{repeats}");
}

#[test]
fn another_dataset_leaves_the_order_of_the_first_alone() {
    let alone = epoch_plan(1, 0, &[spec("a", 40)], 8, None).unwrap();
    let both = epoch_plan(1, 0, &[spec("a", 40), spec("b", 40)], 8, None).unwrap();
    let batches = |plan: &[PlannedBatch]| {
        let mut rows: Vec<_> =
            plan.iter().filter(|batch| batch.source == "a").map(|batch| batch.rows.clone()).collect();
        rows.sort();
        rows
    };
    assert_eq!(batches(&alone), batches(&both));
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    let plan = |dataset, batch_size| epoch_plan(1, 0, &[dataset], batch_size, None).unwrap_err();
    assert_eq!(plan(spec("a", 10), 1), PlanError::BatchSize { found: 1 });
    assert_eq!(plan(spec("a", 1), 8), PlanError::TooFewRows { name: "a".into(), found: 1 });
    assert_eq!(plan(spec("a", 0), 8), PlanError::TooFewRows { name: "a".into(), found: 0 });
    assert_eq!(plan(DatasetSpec { weight: 0.0, ..spec("a", 9) }, 8), PlanError::Nothing);
    let weight = |weight| plan(DatasetSpec { weight, ..spec("a", 9) }, 8).to_string();
    assert!(weight(-1.0).contains("`a` has weight -1"));
    assert!(weight(f64::NAN).contains("`a` has weight NaN"));
    assert!(weight(f64::INFINITY).contains("`a` has weight inf"));
}
