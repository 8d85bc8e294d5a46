//! The processes of a run: how they are found, and how they end.

mod launcher;
#[cfg(feature = "mpi")]
mod mpi;

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use rzen_core::{Ranks, Solo, agree, on_first};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Which processes take part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Company {
    /// All that a launcher (mpirun, srun) has started together, else this one alone
    #[default]
    Auto,
    /// Those of MPI, even where no launcher is recognised
    Mpi,
    /// This one alone
    Solo,
}

/// Joins the processes that take part.
///
/// # Errors
/// If there are others, and this program was built without MPI.
pub fn join(company: Company) -> Result<Box<dyn Ranks>> {
    let launched = launcher::found(|name| std::env::var(name).ok());
    match (company, launched) {
        (Company::Solo, _) | (Company::Auto, None) => Ok(Box::new(Solo)),
        (Company::Mpi, _) | (Company::Auto, Some(_)) => by_mpi(launched),
    }
}

#[cfg(feature = "mpi")]
fn by_mpi(_launched: Option<launcher::Launched>) -> Result<Box<dyn Ranks>> {
    Ok(Box::new(mpi::Mpi::start()?))
}

#[cfg(not(feature = "mpi"))]
fn by_mpi(launched: Option<launcher::Launched>) -> Result<Box<dyn Ranks>> {
    let build = "build it with `cargo build --release -p rzen --features mpi`, see docs/scaling.md";
    match launched {
        Some(launched) => bail!(
            "{launched}, and this program was built without MPI: each process would train the same model into the same \
             folder; {build}, or give --ranks solo for one process that is none of theirs"
        ),
        None => bail!("--ranks mpi: this program was built without MPI; {build}"),
    }
}

/// Goes on when all ranks can; the error of one is one on all, with its rank.
///
/// # Errors
/// See above.
pub fn agreed<T>(ranks: &dyn Ranks, mine: Result<T>) -> Result<T> {
    agree(ranks, mine, other_rank)
}

/// Does `work` on rank 0 while the others wait; `None` on those.
///
/// # Errors
/// That of `work`, on all ranks.
pub fn first<T>(ranks: &dyn Ranks, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    on_first(ranks, work, other_rank)
}

/// What rank 0 finds, on all ranks.
///
/// # Errors
/// That of `find`, on all ranks.
pub fn as_first<T: Serialize + DeserializeOwned>(
    ranks: &dyn Ranks,
    find: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let found = first(ranks, find)?;
    let text = found.as_ref().map_or(Ok(Vec::new()), serde_json::to_vec)?;
    Ok(serde_json::from_slice(&ranks.broadcast(text))?)
}

/// Whether all ranks have the same in hand.
///
/// # Errors
/// Names the first rank that has something else than rank 0.
pub fn same_everywhere(ranks: &dyn Ranks, what: &str, mine: &str) -> Result<()> {
    let all = ranks.all_gather_bytes(mine.as_bytes());
    match all.iter().position(|other| *other != all[0]) {
        Some(rank) => bail!(
            "rank {rank} has another {what} than rank 0 has; all ranks need the same program, recipe and files (a \
             folder that all machines see)"
        ),
        None => Ok(()),
    }
}

/// How many ranks say so.
pub fn count(ranks: &dyn Ranks, mine: bool) -> usize {
    ranks.all_gather_bytes(&[u8::from(mine)]).iter().filter(|told| told[0] != 0).count()
}

/// As the error of another rank is told.
pub(crate) fn other_rank(rank: usize, message: String) -> anyhow::Error {
    anyhow!("rank {rank}: {message}")
}

/// How long an error waits for the other ranks to end as well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends the run on this rank. An error that all ranks have come to is told by rank 0 alone; where the others go on, or wait
/// for this one, all are ended.
///
/// # Errors
/// `outcome`, on rank 0.
pub fn end(ranks: Box<dyn Ranks>, outcome: Result<()>) -> Result<()> {
    let Err(error) = outcome else { return Ok(()) };
    if !ranks.all_end(PATIENCE) {
        eprintln!("error: rank {} of {}: {error:#}", ranks.rank(), ranks.size());
        ranks.abort();
    }
    // The launcher ends the others at the first that fails, and so it has to be the one that says why.
    if ranks.rank() == 0 { Err(error) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_alone_ends_with_its_own_error() {
        let solo = || Box::new(Solo) as Box<dyn Ranks>;
        assert!(end(solo(), Ok(())).is_ok());
        assert_eq!(end(solo(), Err(anyhow!("mine"))).unwrap_err().to_string(), "mine");
        assert_eq!(as_first(&Solo, || Ok("x".to_owned())).unwrap(), "x");
        assert_eq!([true, false].map(|mine| count(&Solo, mine)), [1, 0]);
        same_everywhere(&Solo, "recipe", "x").unwrap();
    }
}
