//! What waits for the model, and the thread that takes it.
//!
//! There is no timer: while one batch is computed others come, and whatever waits when it is done is the next, up to a
//! budget of tokens and items. An item that comes to an idle model is computed at once.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rzen_core::check_unit_vector;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::log::log;
use crate::metrics::Metrics;
use crate::model::ServedModel;

/// The most that is computed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Items in a batch.
    pub items: usize,
    /// Tokens in a batch. An item alone may have more.
    pub tokens: usize,
}

/// An item that waits.
pub(crate) struct Waiting<R> {
    pub read: R,
    pub ticket: Ticket,
}

/// Who waits for an item, and what it costs.
pub(crate) struct Ticket {
    pub tokens: usize,
    pub since: Instant,
    pub reply: oneshot::Sender<Result<Vec<f32>, String>>,
    /// Its share of the room for tokens that wait; given back with the ticket.
    pub room: OwnedSemaphorePermit,
}

/// Items in the order that they came in.
pub(crate) struct Queue<R> {
    state: Mutex<State<R>>,
    changed: Condvar,
    /// When a vector left last.
    embedded: Mutex<Option<Instant>>,
}

struct State<R> {
    waiting: VecDeque<Waiting<R>>,
    closed: bool,
}

impl<R> Waiting<R> {
    /// Whether somebody still waits for it.
    fn is_wanted(&self) -> bool {
        !self.ticket.reply.is_closed()
    }
}

impl<R> Queue<R> {
    pub fn new() -> Self {
        let state = State { waiting: VecDeque::new(), closed: false };
        Queue { state: Mutex::new(state), changed: Condvar::new(), embedded: Mutex::new(None) }
    }

    /// Adds an item. After [`close`](Self::close) it is dropped, and with it its reply.
    pub fn push(&self, item: Waiting<R>) {
        let mut state = self.lock();
        if !state.closed {
            state.waiting.push_back(item);
            self.changed.notify_one();
        }
    }

    /// Items that somebody waits for.
    pub fn len(&self) -> usize {
        self.lock().waiting.iter().filter(|item| item.is_wanted()).count()
    }

    /// Whether a vector left within the last `time`.
    pub fn has_embedded(&self, time: Duration) -> bool {
        let embedded = *self.embedded.lock().unwrap_or_else(PoisonError::into_inner);
        embedded.is_some_and(|embedded| embedded.elapsed() < time)
    }

    /// Nothing is taken any more; what waits is still computed.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// What waits, up to the limits, or the first alone; waits itself where nothing does. `None` when the queue is closed
    /// and empty. Items that nobody waits for any more are dropped.
    fn next_batch(&self, limits: BatchLimits) -> Option<Vec<Waiting<R>>> {
        let mut state = self.lock();
        loop {
            state.waiting.retain(Waiting::is_wanted);
            if !state.waiting.is_empty() {
                break;
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while let Some(next) = state.waiting.front() {
            tokens += next.ticket.tokens;
            if !batch.is_empty() && (batch.len() >= limits.items || tokens > limits.tokens) {
                break;
            }
            batch.extend(state.waiting.pop_front());
        }
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets nobody wait for a thread that is no more, whatever ended it.
struct Lost<'a, R>(&'a Queue<R>);

impl<R> Drop for Lost<'_, R> {
    fn drop(&mut self) {
        self.0.close();
        self.0.lock().waiting.clear();
    }
}

/// Computes what waits until the queue is closed and empty.
pub(crate) fn work<M: ServedModel>(
    model: &M,
    queue: &Queue<M::Read>,
    limits: BatchLimits,
    metrics: &Arc<Metrics>,
) {
    let _lost = Lost(queue);
    while let Some(batch) = queue.next_batch(limits) {
        let now = Instant::now();
        batch.iter().for_each(|item| metrics.waited(now - item.ticket.since));
        let (reads, tickets) = batch.into_iter().map(|item| (item.read, item.ticket)).unzip();
        compute(model, queue, reads, tickets, metrics);
    }
}

/// Computes a batch. Where it fails as a whole, each item is computed by itself, so that only the one at fault is lost.
fn compute<M: ServedModel>(
    model: &M,
    queue: &Queue<M::Read>,
    reads: Vec<M::Read>,
    tickets: Vec<Ticket>,
    metrics: &Arc<Metrics>,
) {
    let began = Instant::now();
    // What the model holds is not changed by embedding, so that nothing broken can be seen after a panic.
    let result = catch_unwind(AssertUnwindSafe(|| model.embed(&reads)));
    let time = began.elapsed();
    let result = result.unwrap_or_else(|_| Err("it panicked".to_owned())).and_then(|vectors| {
        match vectors.len() == reads.len() {
            true => Ok(vectors),
            false => Err(format!("it gave {} vectors for {} items", vectors.len(), reads.len())),
        }
    });
    match result {
        Ok(vectors) => {
            metrics.batch(reads.len(), tickets.iter().map(|ticket| ticket.tokens).sum(), time);
            for (vector, ticket) in vectors.into_iter().zip(tickets) {
                let vector = checked(vector, model.dim());
                if vector.is_ok() {
                    *queue.embedded.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
                ticket.answer(vector);
            }
        }
        Err(problem) if reads.len() > 1 => {
            let count = reads.len();
            log(&format!("a batch of {count} failed ({problem}); its items are computed one by one"));
            for (read, ticket) in reads.into_iter().zip(tickets) {
                compute(model, queue, vec![read], vec![ticket], metrics);
            }
        }
        Err(problem) => {
            let failed = format!("the model failed: {problem}");
            tickets.into_iter().for_each(|ticket| ticket.answer(Err(failed.clone())));
        }
    }
}

impl Ticket {
    fn answer(self, result: Result<Vec<f32>, String>) {
        let Ticket { reply, room, .. } = self;
        // Nobody waits for it where the client has gone.
        let _ = reply.send(result);
        drop(room);
    }
}

/// A vector that may leave.
fn checked(vector: Vec<f32>, dim: usize) -> Result<Vec<f32>, String> {
    if vector.len() != dim {
        return Err(format!("the vector has {} numbers instead of {dim}", vector.len()));
    }
    check_unit_vector(&vector).map_err(|problem| format!("the vector {problem}"))?;
    Ok(vector)
}
