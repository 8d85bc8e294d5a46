//! Running a decoder so that a panic, a deep recursion or an endless loop in it ends with its file.
//!
//! It can't stop a decoder: a thread that is not done in time goes on, and few of those are put up with.
//! Nor does it help against a decoder that asks for more memory than there is.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How an isolated call failed to come back.
#[derive(Debug, PartialEq)]
pub(crate) enum Lost {
    /// It panicked, with this message, or was not begun.
    Panic(String),
    /// It is still running; its thread is left to itself.
    Timeout,
}

/// Threads that were given up and still run.
static GIVEN_UP: GivenUp = GivenUp { count: AtomicUsize::new(0), most: 16 };

/// Runs `work` in a thread of its own with a large stack, and waits `timeout` for it.
pub(crate) fn isolate<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    isolate_counted(&GIVEN_UP, timeout, work)
}

struct GivenUp {
    count: AtomicUsize,
    most: usize,
}

fn isolate_counted<T: Send + 'static>(
    given_up: &'static GivenUp,
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    // Deeply nested files make the parsers recurse.
    const STACK_BYTES: usize = 32 << 20;
    if timeout.is_zero() {
        return Err(Lost::Timeout);
    }
    let running = given_up.count.load(Ordering::SeqCst);
    if running >= given_up.most {
        return Err(Lost::Panic(format!(
            "{running} files before it are still being decoded past their time"
        )));
    }
    // Set by whoever comes first: the thread at its end, or this one when it gives up.
    let settled = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = channel();
    let settled_there = settled.clone();
    let started = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        // The receiver is gone after a timeout; nobody wants the result then.
        let _ = sender.send(guard(work));
        if settled_there.swap(true, Ordering::SeqCst) {
            given_up.count.fetch_sub(1, Ordering::SeqCst);
        }
    });
    if let Err(error) = started {
        return Err(Lost::Panic(format!("no thread could be started: {error}")));
    }
    match receiver.recv_timeout(timeout) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => {
            given_up.count.fetch_add(1, Ordering::SeqCst);
            if settled.swap(true, Ordering::SeqCst) {
                given_up.count.fetch_sub(1, Ordering::SeqCst);
            }
            Err(Lost::Timeout)
        }
        Err(RecvTimeoutError::Disconnected) => Err(Lost::Panic("its thread died".into())),
    }
}

/// Runs `work` here and turns a panic into an error.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, Lost> {
    // What `work` touches is dropped with it, so no broken state can be seen afterwards.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Lost::Panic(message(payload.as_ref())))
}

fn message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_results_panics_and_timeouts() {
        let second = Duration::from_secs(30);
        assert_eq!(isolate(second, || 7), Ok(7));
        assert_eq!(isolate(second, || panic!("broken")), Err::<(), _>(Lost::Panic("broken".into())));
        let (_open, never) = channel::<()>();
        let stuck = isolate(Duration::from_millis(20), move || never.recv().is_ok());
        assert_eq!(stuck, Err(Lost::Timeout));
    }

    #[test]
    fn few_threads_are_given_up_at_once() {
        static TWO: GivenUp = GivenUp { count: AtomicUsize::new(0), most: 2 };
        let moment = Duration::from_millis(20);
        let stuck = || {
            let (open, wait) = channel::<()>();
            (open, isolate_counted(&TWO, moment, move || wait.recv().is_ok()))
        };
        let (first, second) = (stuck(), stuck());
        assert_eq!((&first.1, &second.1), (&Err(Lost::Timeout), &Err(Lost::Timeout)));
        let Err(Lost::Panic(message)) = isolate_counted(&TWO, moment, || 7) else { panic!("it was begun") };
        assert!(message.contains("2 files"), "{message}");
        // Once one of them ends there is room again.
        drop(first.0);
        while TWO.count.load(Ordering::SeqCst) == 2 {
            std::thread::yield_now();
        }
        assert_eq!(isolate_counted(&TWO, Duration::from_secs(30), || 7), Ok(7));
    }
}
