//! Work on several threads whose results arrive in order.

use std::panic::resume_unwind;
use std::sync::mpsc::sync_channel;
use std::thread;

/// Calls `work` on every item, on up to `threads` threads, and `take` on this thread with the results
/// in the order of the items, whatever finishes first.
///
/// Item `i` belongs to thread `i % threads`, and a thread runs at most one result ahead, so that no
/// more than `2 * threads` results are alive.
///
/// # Panics
/// If `work` or `take` does, with its message.
pub(crate) fn in_order<T: Send, R: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
    mut take: impl FnMut(R),
) {
    let count = items.len();
    let threads = threads.min(count);
    if threads <= 1 {
        items.into_iter().for_each(|item| take(work(item)));
        return;
    }
    let work = &work;
    thread::scope(|scope| {
        let mut workers: Vec<_> = shares(items, threads)
            .into_iter()
            .map(|share| {
                let (sender, receiver) = sync_channel(1);
                // Sending fails when this thread has given up: then nobody needs the rest.
                let run = move || share.into_iter().all(|item| sender.send(work(item)).is_ok());
                (receiver, Some(scope.spawn(run)))
            })
            .collect();
        for index in 0..count {
            let (receiver, worker) = &mut workers[index % threads];
            match receiver.recv() {
                Ok(result) => take(result),
                Err(_) => {
                    let worker = worker.take().expect("a worker is joined at most once");
                    resume_unwind(worker.join().expect_err("a worker ends early only by a panic"));
                }
            }
        }
    });
}

/// Deals the items to `threads` hands.
fn shares<T>(items: Vec<T>, threads: usize) -> Vec<Vec<T>> {
    let mut shares: Vec<Vec<T>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, item) in items.into_iter().enumerate() {
        shares[index % threads].push(item);
    }
    shares
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn squares(threads: usize, count: u64) -> Vec<u64> {
        let mut squares = Vec::new();
        let slow_first = |x: u64| {
            thread::sleep(Duration::from_millis(if x == 0 { 20 } else { 0 }));
            x * x
        };
        in_order(threads, (0..count).collect(), slow_first, |x| squares.push(x));
        squares
    }

    #[test]
    fn results_keep_the_order_of_the_items() {
        for threads in [1, 2, 3, 100] {
            assert_eq!(squares(threads, 7), [0, 1, 4, 9, 16, 25, 36], "{threads} threads");
        }
        assert!(squares(4, 0).is_empty());
    }

    #[test]
    #[should_panic(expected = "item 5 is bad")]
    fn a_panic_comes_through_and_nothing_hangs() {
        in_order(2, (0..50).collect(), |x: u32| assert!(x != 5, "item {x} is bad"), |()| ());
    }
}
