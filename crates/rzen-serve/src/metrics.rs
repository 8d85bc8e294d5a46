//! What is counted, in the text format of Prometheus.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Which requests are counted together.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    path: String,
    status: u16,
}

/// All that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    request_seconds: Histogram,
    items: Counter,
    tokens: Counter,
    batches: Counter,
    batch_items: Histogram,
    batch_seconds: Histogram,
    queue_seconds: Histogram,
    waiting: Gauge,
}

impl Metrics {
    pub fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let mut metrics = Metrics {
            registry: Registry::with_prefix("rzen"),
            requests: Family::default(),
            request_seconds: seconds(),
            items: Counter::default(),
            tokens: Counter::default(),
            batches: Counter::default(),
            batch_items: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            batch_seconds: seconds(),
            queue_seconds: seconds(),
            waiting: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Requests that were answered", metrics.requests.clone());
        let mut time = |name: &str, help: &str, histogram: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        time("request", "From the head of a request to its answer", &metrics.request_seconds);
        time("queue", "From an item that was read to its batch", &metrics.queue_seconds);
        time("batch", "Computing a batch", &metrics.batch_seconds);
        registry.register("batch_items", "Items in a batch", metrics.batch_items.clone());
        registry.register("batches", "Batches that were computed", metrics.batches.clone());
        registry.register("items", "Items that were computed", metrics.items.clone());
        registry.register("tokens", "Tokens that were computed", metrics.tokens.clone());
        registry.register("queue_items", "Items that wait", metrics.waiting.clone());
        metrics
    }

    pub fn request(&self, path: String, status: u16, time: Duration) {
        self.requests.get_or_create(&Labels { path, status }).inc();
        self.request_seconds.observe(time.as_secs_f64());
    }

    pub fn waited(&self, time: Duration) {
        self.queue_seconds.observe(time.as_secs_f64());
    }

    pub fn batch(&self, items: usize, tokens: usize, time: Duration) {
        self.batches.inc();
        self.items.inc_by(items as u64);
        self.tokens.inc_by(tokens as u64);
        self.batch_items.observe(items as f64);
        self.batch_seconds.observe(time.as_secs_f64());
    }

    pub fn text(&self, waiting: usize) -> String {
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a text takes all that is written to it");
        text
    }
}
