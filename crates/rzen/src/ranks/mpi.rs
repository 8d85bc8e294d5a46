//! Ranks that MPI has started.

use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::request::{Request, Scope, scope};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::*;
use rzen_core::Ranks;

/// The ranks of `MPI_COMM_WORLD`. One thread calls it, the one that has started it.
///
/// MPI ends all ranks where one is lost or a call fails (`MPI_ERRORS_ARE_FATAL`, its default).
pub(super) struct Mpi {
    world: SimpleCommunicator,
    /// What waits long goes through a channel of its own, so that it can't be taken for anything else.
    waiting: SimpleCommunicator,
    ending: SimpleCommunicator,
    local_rank: usize,
    /// Last, because it must outlive the communicators.
    universe: Universe,
}

/// Numbers in one reduction: MPI counts with 31 bits, and needs a copy of what it sends.
const REDUCED_AT_ONCE: usize = 1 << 24;

impl Mpi {
    /// Joins the others.
    pub(super) fn start() -> Result<Self> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Funneled)
            .context("MPI has been started in this process before")?;
        ensure!(
            threading >= Threading::Funneled,
            "this MPI can't be used by a program with threads (it offers {threading:?}); take another build of it"
        );
        let world = universe.world();
        let local_rank = count(world.split_shared(world.rank()).rank());
        Ok(Mpi { waiting: world.duplicate(), ending: world.duplicate(), world, local_rank, universe })
    }

    /// Where the numbers of each rank begin, and how many there are, of what this rank has `mine` of.
    fn counts(&self, mine: usize) -> (Vec<i32>, Vec<i32>) {
        let mut counts = vec![0_i32; self.size()];
        let mine = i32::try_from(mine).expect("a rank gives less than 2^31 numbers at once");
        self.world.all_gather_into(&mine, &mut counts[..]);
        let mut sum = 0_i32;
        let starts = counts.iter().map(|count| {
            let start = sum;
            sum = sum.checked_add(*count).expect("all ranks together give less than 2^31 numbers at once");
            start
        });
        (starts.collect(), counts)
    }

    fn gather<T: Equivalence + Clone + Default>(&self, mine: &[T]) -> (Vec<T>, Vec<i32>) {
        let (starts, counts) = self.counts(mine.len());
        let mut all = vec![T::default(); count(counts.iter().sum())];
        // An empty slice may point anywhere, also to where MPI reads a mark of its own (`MPI_IN_PLACE` of Open MPI is 1).
        if !all.is_empty() {
            let nothing = [T::default()];
            let mine = if mine.is_empty() { &nothing[..0] } else { mine };
            let mut parts = PartitionMut::new(&mut all[..], &counts[..], &starts[..]);
            self.world.all_gather_varcount_into(mine, &mut parts);
        }
        (all, counts)
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        count(self.world.rank())
    }

    fn size(&self) -> usize {
        count(self.world.size())
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    fn all_gather(&self, mine: &[f32]) -> Vec<f32> {
        self.gather(mine).0
    }

    fn all_gather_bytes(&self, mine: &[u8]) -> Vec<Vec<u8>> {
        let (all, counts) = self.gather(mine);
        let mut rest = &all[..];
        let own = |length: i32| {
            let (own, others) = rest.split_at(count(length));
            rest = others;
            own.to_vec()
        };
        counts.into_iter().map(own).collect()
    }

    fn all_reduce_sum(&self, values: &mut [f32]) {
        for part in values.chunks_mut(REDUCED_AT_ONCE) {
            let mine = part.to_vec();
            self.world.all_reduce_into(&mine[..], part, SystemOperation::sum());
        }
    }

    fn broadcast(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let root = self.waiting.process_at_rank(0);
        let mut length = bytes.len() as u64;
        scope(|scope| patiently(root.immediate_broadcast_into(scope, &mut length), None));
        bytes.resize(usize::try_from(length).expect("rank 0 holds them in memory"), 0);
        if length > 0 {
            root.broadcast_into(&mut bytes[..]);
        }
        bytes
    }

    fn all_end(&self, patience: Duration) -> bool {
        patiently(self.ending.immediate_barrier(), Some(Instant::now() + patience))
    }

    fn abort(&self) -> ! {
        self.world.abort(1)
    }
}

impl Drop for Mpi {
    /// The end of MPI waits for all ranks; those don't know that this one will not come.
    fn drop(&mut self) {
        if panicking() {
            eprintln!("rank {} of {} ends all ranks", self.rank(), self.size());
            self.universe.world().abort(101);
        }
    }
}

/// Waits without keeping a core busy, as MPI itself does; whether the others came before the `deadline`.
fn patiently<'a, B: ?Sized, S: Scope<'a>>(mut request: Request<'a, B, S>, deadline: Option<Instant>) -> bool {
    let mut pause = Duration::from_micros(50);
    loop {
        match request.test() {
            Ok(_) => return true,
            Err(open) => request = open,
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            // A request can't be taken back; the process ends with it.
            std::mem::forget(request);
            return false;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn count(number: i32) -> usize {
    usize::try_from(number).expect("MPI counts from 0")
}
