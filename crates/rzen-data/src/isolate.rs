//! Running a decoder so that it can neither take the program down nor hold it up.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How an isolated call failed to come back.
#[derive(Debug, PartialEq)]
pub(crate) enum Lost {
    /// It panicked, with this message.
    Panic(String),
    /// It is still running; its thread is left to itself.
    Timeout,
}

/// Runs `work` in a thread of its own with a large stack, and waits `timeout` for it.
pub(crate) fn isolate<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    // Deeply nested files make the parsers recurse.
    const STACK_BYTES: usize = 32 << 20;
    let (sender, receiver) = channel();
    let started = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        // The receiver is gone after a timeout; nobody wants the result then.
        let _ = sender.send(guard(work));
    });
    if let Err(error) = started {
        return Err(Lost::Panic(format!("no thread could be started: {error}")));
    }
    match receiver.recv_timeout(timeout) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(Lost::Timeout),
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
}
