//! What the ranks of a stage tell each other besides numbers.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use rzen_core::{Ranks, agree, on_first};

use crate::TrainError;

/// What all ranks do before a step.
pub(crate) struct Turn {
    /// Any of them was told to.
    pub stop: bool,
    /// Rank 0's clock says so.
    pub save: bool,
}

impl Turn {
    pub(crate) fn agree(
        ranks: &dyn Ranks,
        logged: Result<(), TrainError>,
        stop: &AtomicBool,
        due: bool,
    ) -> Result<Self, TrainError> {
        agreed(ranks, logged)?;
        let mine = [u8::from(stop.load(Ordering::SeqCst)), u8::from(due)];
        let all = ranks.all_gather_bytes(&mine);
        Ok(Turn { stop: all.iter().any(|told| told[0] != 0), save: all[0][1] != 0 })
    }
}

/// An error on one rank is one on all.
pub(crate) fn agreed<T>(ranks: &dyn Ranks, mine: Result<T, TrainError>) -> Result<T, TrainError> {
    agree(ranks, mine.map_err(Told), other_rank).map_err(|told| told.0)
}

/// Does `work` on rank 0; its error is one on all.
pub(crate) fn first<T>(
    ranks: &dyn Ranks,
    work: impl FnOnce() -> Result<T, TrainError>,
) -> Result<Option<T>, TrainError> {
    on_first(ranks, || work().map_err(Told), other_rank).map_err(|told| told.0)
}

fn other_rank(rank: usize, message: String) -> Told {
    Told(TrainError::OtherRank { rank, message })
}

/// An error with its causes, as other ranks are told.
struct Told(TrainError);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(&self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
