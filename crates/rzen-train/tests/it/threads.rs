//! Ranks that are threads of one process.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rzen_core::Ranks;

struct Threads {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

/// What `work` gives on each of `size` ranks. Where one panics, the others do, since they wait for it.
pub fn on_ranks<T: Send>(size: usize, work: impl Fn(&dyn Ranks) -> T + Sync) -> Vec<T> {
    let mut ranks: Vec<Threads> =
        (0..size).map(|rank| Threads { rank, to: Vec::new(), from: Vec::new() }).collect();
    for (from, to) in (0..size).flat_map(|from| (0..size).map(move |to| (from, to))) {
        let (sender, receiver) = channel();
        ranks[from].to.push(sender);
        ranks[to].from.push(receiver);
    }
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(move || work(&rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

impl Ranks for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn local_rank(&self) -> usize {
        self.rank
    }

    fn all_gather(&self, mine: &[f32]) -> Vec<f32> {
        let bytes: Vec<u8> = mine.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.all_gather_bytes(&bytes).iter().flat_map(|bytes| crate::toy::floats(bytes)).collect()
    }

    fn all_gather_bytes(&self, mine: &[u8]) -> Vec<Vec<u8>> {
        self.to.iter().for_each(|to| to.send(mine.to_vec()).expect("a rank has gone"));
        self.from.iter().map(|from| from.recv().expect("a rank has gone")).collect()
    }

    fn all_reduce_sum(&self, values: &mut [f32]) {
        let all = self.all_gather(values);
        for (at, value) in values.iter_mut().enumerate() {
            *value = all.iter().skip(at).step_by(all.len() / self.size()).sum();
        }
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Vec<u8> {
        self.all_gather_bytes(&bytes).swap_remove(0)
    }

    fn all_end(&self, _patience: Duration) -> bool {
        true
    }

    fn abort(&self) -> ! {
        panic!("rank {} ends all", self.rank)
    }
}
