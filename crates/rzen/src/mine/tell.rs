//! What a mining came to, in words.

use rzen_core::{Item, Part, VideoSource};
use rzen_data::{BadRow, NegativesLost};

use super::{Mined, MinedRow, Unit};
use crate::text_table::aligned;

/// The numbers of a unit.
pub(super) struct UnitSummary {
    /// Negatives that were taken.
    pub taken: usize,
    /// Rows that got fewer than asked for.
    pub short: usize,
    /// Rows that have no hard negative now.
    pub without: usize,
    /// What the rules left out.
    pub lost: NegativesLost,
    /// Rows by the rank of their answer.
    pub ranks: Vec<(&'static str, usize)>,
}

/// The upper ends of the bins of ranks, and their names.
const BINS: [(usize, &str); 6] =
    [(1, "1"), (3, "2-3"), (10, "4-10"), (30, "11-30"), (100, "31-100"), (usize::MAX, "101 and more")];

/// An answer ranked after this one is worth a look at its row.
pub(super) const LATE: usize = 30;

impl UnitSummary {
    pub fn of(unit: &Unit, rows: &[MinedRow], mined: &Mined) -> Self {
        let mut lost = NegativesLost::default();
        let mut ranks = BINS.map(|(_, name)| (name, 0));
        for row in rows {
            lost += row.lost;
            let rank = row.positive_rank.unwrap_or(usize::MAX);
            let bin = BINS.iter().position(|(end, _)| rank <= *end).expect("the last bin has no end");
            ranks[bin].1 += 1;
        }
        let none = |(at, row): &(usize, &MinedRow)| {
            row.taken.is_empty() && (!mined.keep || unit.rows[*at].sample.hard_negatives.is_empty())
        };
        UnitSummary {
            taken: rows.iter().map(|row| row.taken.len()).sum(),
            short: rows.iter().filter(|row| row.taken.len() < mined.asked).count(),
            without: rows.iter().enumerate().filter(none).count(),
            lost,
            ranks: ranks.to_vec(),
        }
    }
}

/// The rank that half of the answers reach; `None` beyond those that are known.
pub(super) fn median_rank(rows: &[MinedRow]) -> Option<usize> {
    let mut ranks: Vec<usize> = rows.iter().map(|row| row.positive_rank.unwrap_or(usize::MAX)).collect();
    ranks.sort_unstable();
    ranks.get(ranks.len().saturating_sub(1) / 2).copied().filter(|rank| *rank < usize::MAX)
}

/// A line for each unit: what was taken, what each rule left out, and where the answers rank.
pub fn table(mined: &Mined) -> String {
    let mut rows = vec![columns()];
    rows.extend(mined.units.iter().map(|(unit, rows)| cells(unit, rows, mined)));
    aligned(&rows, 1)
}

/// The head of the table.
pub(super) fn columns() -> Vec<String> {
    let late = format!("after {LATE}th");
    let names = [
        "name",
        "rows",
        "candidates",
        "taken",
        "rows short",
        "without",
        "lost: rank",
        "margin",
        "percent",
        "max",
        "min",
        "answer 1st",
        &late,
    ];
    names.map(str::to_owned).to_vec()
}

/// The cells of [`columns`].
pub(super) fn cells(unit: &Unit, rows: &[MinedRow], mined: &Mined) -> Vec<String> {
    let UnitSummary { taken, short, without, lost, ranks } = UnitSummary::of(unit, rows, mined);
    let late = rows.iter().filter(|row| row.positive_rank.is_none_or(|rank| rank > LATE)).count();
    let numbers = [
        rows.len(),
        unit.candidates.len(),
        taken,
        short,
        without,
        lost.rank,
        lost.margin,
        lost.percent,
        lost.max_score,
        lost.min_score,
        ranks[0].1,
        late,
    ];
    std::iter::once(unit.name.to_owned()).chain(numbers.map(|number| number.to_string())).collect()
}

/// Rows that show what was taken, spread over the units: their places.
pub fn examples(mined: &Mined, count: usize) -> Vec<(usize, usize)> {
    let all: Vec<(usize, usize)> = mined
        .units
        .iter()
        .enumerate()
        .flat_map(|(unit, (_, rows))| {
            rows.iter().enumerate().filter(|(_, row)| !row.taken.is_empty()).map(move |(row, _)| (unit, row))
        })
        .collect();
    let count = count.min(all.len());
    (0..count).map(|i| all[(2 * i + 1) * all.len() / (2 * count)]).collect()
}

/// A row with its negatives, as a person judges it.
pub fn example(mined: &Mined, (unit, row): (usize, usize)) -> String {
    let (unit, rows) = &mined.units[unit];
    let (sample, row) = (unit.rows[row].sample, &rows[row]);
    let mut lines = vec![
        format!("{}: {}", sample.origin, rank_in_words(row)),
        format!("  query            {}", words(&sample.query)),
    ];
    for (item, score) in sample.positives().zip(&row.positive_scores) {
        lines.push(format!("  answer    {score:.3}  {}", words(item)));
    }
    for taken in &row.taken {
        let item = unit.candidates[taken.candidate].item;
        lines.push(format!("  negative  {:.3}  {} (rank {})", taken.score, words(item), taken.rank));
    }
    lines.join("\n")
}

/// Where the answer of a row ranks.
pub(super) fn rank_in_words(row: &MinedRow) -> String {
    row.positive_rank
        .map_or("answer beyond the ranks looked at".to_owned(), |rank| format!("answer at rank {rank}"))
}

/// Letters of an item that are told.
const MOST_LETTERS: usize = 100;

fn words(item: &Item) -> String {
    let parts = item.content.iter().map(|part| match part {
        Part::Text(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Part::Image(path) | Part::Video(VideoSource::File(path)) => path.display().to_string(),
        Part::Video(VideoSource::Frames(paths)) => {
            format!("{} … ({} frames)", paths[0].display(), paths.len())
        }
        Part::Document { path, page } => format!("{}, page {page}", path.display()),
    });
    let all = item
        .instruction
        .iter()
        .map(|text| text.trim().to_owned())
        .chain(parts)
        .collect::<Vec<_>>()
        .join(" | ");
    // Of a path the end tells more.
    match all.chars().count() {
        count if count <= MOST_LETTERS => all,
        count if item.content.iter().all(|part| !matches!(part, Part::Text(_))) => {
            format!("… {}", all.chars().skip(count - MOST_LETTERS).collect::<String>())
        }
        _ => format!("{} …", all.chars().take(MOST_LETTERS).collect::<String>()),
    }
}

/// The first of some bad rows in a sentence.
pub(super) fn bad_rows(bad: &[BadRow]) -> String {
    let told: Vec<String> =
        bad.iter().take(TOLD).map(|row| format!("{}: {}", row.origin, row.message)).collect();
    let more = if bad.len() > TOLD { format!("; and {} more", bad.len() - TOLD) } else { String::new() };
    told.join("; ") + &more
}

/// Bad rows that are named.
const TOLD: usize = 5;
