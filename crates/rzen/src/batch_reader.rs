//! Rows to batches: each rank reads its share, and all learn what became of every row.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rzen_core::Ranks;
use rzen_data::{BadRow, BadRows, PlannedRow};
use rzen_model::Encoded;
use serde::{Deserialize, Serialize};

use crate::deal::{cost, deal};
use crate::host_batch::{BatchItem, HostBatch, RowItems, assemble, sorted};
use crate::ranks::{first, other_rank};
use crate::reader::{EncodedSample, Reader, read_samples};
use crate::stage_data::StageData;

/// What became of rows that were read, by their places in the batch.
pub(crate) type ReadRows = Vec<(usize, Result<EncodedSample, BadRow>)>;

/// A batch needs another row, or there is nothing to tell the positive from.
const FEWEST_ROWS: usize = 2;

/// Makes whole batches of what each rank has read.
pub(crate) struct BatchReader<'a> {
    data: Arc<StageData>,
    reader: Reader,
    ranks: &'a dyn Ranks,
    /// The list is rank 0's.
    bad_rows: Option<BadRows>,
    list: PathBuf,
}

impl<'a> BatchReader<'a> {
    /// Opens the list of bad rows in `run`, with those struck off that can be read by now.
    pub(crate) fn open(
        data: Arc<StageData>,
        reader: Reader,
        ranks: &'a dyn Ranks,
        run: &Path,
        bad_row_limit: usize,
    ) -> Result<Self> {
        let open = || -> Result<BadRows> {
            let mut bad_rows = BadRows::open(run, bad_row_limit)?;
            data.forget_mended(&reader, &mut bad_rows)?;
            Ok(bad_rows)
        };
        let bad_rows = first(ranks, open)?;
        let list = run.join(BadRows::FILE);
        Ok(BatchReader { data, reader, ranks, bad_rows, list })
    }

    /// The whole batch of `step`, of what this rank has read of its share (or why it could not) and what the others
    /// have.
    ///
    /// Bad rows are left out; where fewer than two are left, rows of later steps stand in, so that the batch stays a
    /// function of the step and the files.
    pub(crate) fn whole(&mut self, step: usize, mine: Result<ReadRows>) -> Result<HostBatch> {
        let data = Arc::clone(&self.data);
        let planned = &data.plan[step];
        let rows = self.exchange(mine)?;
        let (mut read, any_bad) = self.good(&planned.rows, 0, rows, step)?;
        let fillers = if any_bad { Some(data.fillers(step)) } else { None };
        for (extra, row) in fillers.into_iter().flatten().enumerate() {
            if read.len() >= FEWEST_ROWS {
                break;
            }
            let place = planned.rows.len() + extra;
            let mine = match extra % self.ranks.size() == self.ranks.rank() {
                true => read_rows(&data, step, &self.reader, &[(place, row)]),
                false => Vec::new(),
            };
            let rows = self.exchange(Ok(mine))?;
            read.extend(self.good(&[row], place, rows, step)?.0);
        }
        ensure!(
            read.len() >= FEWEST_ROWS,
            "step {step}: of all rows of `{}`, {} can be read, a batch needs {FEWEST_ROWS}; mend the files listed \
             in {} or leave the dataset out of the stage, then give the same command again",
            planned.source,
            read.len(),
            self.list.display()
        );
        let rows = read.into_iter().map(|(row, items)| (data.sample(row, step), items)).collect();
        Ok(sorted(assemble(planned.source.clone(), rows, data.tasks(), data.share_hard_negatives)))
    }

    /// Tells the other ranks what this one has read, and hears from them; rows in the order of their places.
    fn exchange(&self, mine: Result<ReadRows>) -> Result<Vec<ToldRow>> {
        let told: Result<Vec<Told>, String> = match &mine {
            Ok(rows) => Ok(rows.iter().map(|(place, row)| Told::new(*place, row)).collect()),
            Err(error) => Err(format!("{error:#}")),
        };
        let all = self.ranks.all_gather_bytes(&serde_json::to_vec(&told)?);
        let mut rows = Vec::new();
        for (rank, bytes) in all.iter().enumerate() {
            let told: Result<Vec<Told>, String> =
                serde_json::from_slice(bytes).with_context(|| format!("what rank {rank} has read"))?;
            match told {
                Ok(told) => rows.extend(told.into_iter().map(|told| ToldRow { rank, told, encoded: None })),
                Err(message) if rank == self.ranks.rank() => bail!("{message}"),
                Err(message) => return Err(other_rank(rank, message)),
            }
        }
        rows.sort_by_key(|row| row.told.place);
        for (place, row) in mine? {
            let at = rows.binary_search_by_key(&place, |row| row.told.place);
            rows[at.expect("what was told is there")].encoded = row.ok();
        }
        Ok(rows)
    }

    /// The rows that can be used, and whether there are others; those are put on the list.
    fn good(
        &mut self,
        planned: &[PlannedRow],
        first_place: usize,
        rows: Vec<ToldRow>,
        step: usize,
    ) -> Result<(Vec<(PlannedRow, RowItems)>, bool)> {
        ensure!(rows.len() == planned.len(), "{} of {} rows were read", rows.len(), planned.len());
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for row in rows {
            let of = planned[row.told.place - first_place];
            match row.items() {
                Ok(items) => good.push((of, items)),
                Err(Fault { file, message }) => {
                    let origin = self.data.sample(of, step).origin.clone();
                    bad.push(BadRow { origin, file: file.map(PathBuf::from), message });
                }
            }
        }
        if !bad.is_empty() {
            let list = &mut self.bad_rows;
            first(self.ranks, || list.as_mut().map_or(Ok(()), |list| Ok(list.record(&bad)?)))?;
        }
        Ok((good, !bad.is_empty()))
    }
}

/// The rows of `step` that are this rank's to read.
pub(crate) fn read_share(
    data: &StageData,
    step: usize,
    reader: &Reader,
    rank: usize,
    size: usize,
) -> ReadRows {
    let planned = &data.plan[step].rows;
    let costs: Vec<usize> =
        planned.iter().map(|row| cost(&data.sample(*row, step), reader.processor.config())).collect();
    let owners = deal(&costs, size);
    let own: Vec<(usize, PlannedRow)> = planned
        .iter()
        .enumerate()
        .filter(|(place, _)| owners[*place] == rank)
        .map(|(place, row)| (place, *row))
        .collect();
    read_rows(data, step, reader, &own)
}

/// Reads rows, each with its place in the batch, in parallel.
fn read_rows(data: &StageData, step: usize, reader: &Reader, rows: &[(usize, PlannedRow)]) -> ReadRows {
    let samples: Vec<_> = rows.iter().map(|(_, row)| data.sample(*row, step)).collect();
    let plain: Vec<_> = samples.iter().map(AsRef::as_ref).collect();
    let (read, bad) = read_samples(reader, &plain, |sample| {
        let (place, row) = rows[sample.place];
        data.augment(sample, row.dataset, step, place);
    });
    let mut outcomes: Vec<Option<EncodedSample>> = vec![None; rows.len()];
    read.into_iter().for_each(|(at, encoded)| outcomes[at] = Some(encoded));
    // Both come in the order in which they were asked for.
    let mut bad = bad.into_iter();
    let outcome = |(encoded, (place, _)): (Option<EncodedSample>, &(usize, PlannedRow))| {
        (*place, encoded.ok_or_else(|| bad.next().expect("a row is read or bad")))
    };
    outcomes.into_iter().zip(rows).map(outcome).collect()
}

/// What a rank tells of a row.
#[derive(Serialize, Deserialize)]
struct Told {
    place: usize,
    row: Result<(Size, Size, Vec<Size>), Fault>,
}

/// Pictures and tokens of an item.
type Size = (usize, usize);

/// Why a row is bad.
#[derive(Serialize, Deserialize)]
struct Fault {
    file: Option<String>,
    message: String,
}

impl Told {
    fn new(place: usize, row: &Result<EncodedSample, BadRow>) -> Self {
        let size = |item: &Encoded| (item.pictures.len(), item.input_ids.len());
        let row = match row {
            Ok((query, positive, hard)) => Ok((size(query), size(positive), hard.iter().map(size).collect())),
            Err(bad) => Err(Fault {
                file: bad.file.as_ref().map(|file| file.display().to_string()),
                message: bad.message.clone(),
            }),
        };
        Told { place, row }
    }
}

/// What is known of a row: everything on the rank that has read it, sizes on the others.
struct ToldRow {
    rank: usize,
    told: Told,
    encoded: Option<EncodedSample>,
}

impl ToldRow {
    fn items(self) -> Result<RowItems, Fault> {
        let rank = self.rank;
        let item = |(pictures, tokens), encoded| BatchItem { rank, pictures, tokens, encoded };
        let (query, positive, hard) = self.told.row?;
        Ok(match self.encoded {
            Some((q, p, h)) => {
                let hard = hard.into_iter().zip(h).map(|(size, encoded)| item(size, Some(encoded)));
                (item(query, Some(q)), item(positive, Some(p)), hard.collect())
            }
            None => {
                let hard = hard.into_iter().map(|size| item(size, None));
                (item(query, None), item(positive, None), hard.collect())
            }
        })
    }
}
