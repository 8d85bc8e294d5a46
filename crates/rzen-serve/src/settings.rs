//! What a server may be told.

use std::path::PathBuf;
use std::time::Duration;

use crate::queue::BatchLimits;

/// Limits and habits of a server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most that is computed at once.
    pub batch: BatchLimits,
    /// Requests that are answered at once; one more is refused (429).
    pub max_concurrent_requests: usize,
    /// Items of a request.
    pub max_client_batch_size: usize,
    /// Bytes of a request's body.
    pub payload_limit: usize,
    /// Hits of a search.
    pub max_top: usize,
    /// What requests must bring as `Authorization: Bearer …`.
    pub api_key: Option<String>,
    /// Longest time for the head of a request to arrive, also where none has begun on an open connection.
    pub head_timeout: Duration,
    /// Longest time for the body of a request to arrive.
    pub body_timeout: Duration,
    /// Longest time between two pieces of a body.
    pub body_pause: Duration,
    /// How long a vector that left proves that the model works; who asks for the health waits for half of it.
    pub proof: Duration,
    /// Longest time for requests to be finished once the server was told to stop.
    pub grace: Duration,
    /// A folder where media lie while they are read, each item's in one of its own.
    pub media: PathBuf,
    /// Whether each request is a line on standard error: method, path, status and time.
    pub access_log: bool,
}
