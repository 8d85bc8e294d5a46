//! From an item of a request to its vector.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinSet, spawn_blocking};

use crate::asked::Asked;
use crate::log::log;
use crate::metrics::Metrics;
use crate::model::{ReadError, ServedModel};
use crate::queue::{BatchLimits, Queue, Ticket, Waiting, work};
use crate::refusal::Refusal;

/// A vector, and the tokens that it was computed of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Embedded {
    pub vector: Vec<f32>,
    pub tokens: usize,
}

/// A model with its queue and the thread that computes.
pub(crate) struct Engine<M: ServedModel> {
    model: Arc<M>,
    queue: Arc<Queue<M::Read>>,
    /// Items that are read at once: decoding takes a core each, and memory.
    reading: Arc<Semaphore>,
    /// Of those, items of one request.
    reading_of_one: usize,
    /// Tokens that may wait for the model; who has read an item waits for room, so that memory is bounded.
    room: Arc<Semaphore>,
    most_room: u32,
    /// Where items have folders for their media.
    media: PathBuf,
}

/// Batches that may wait for the model.
const BATCHES_AHEAD: usize = 4;

impl<M: ServedModel> Engine<M> {
    /// An engine, and its thread, which ends some time after [`close`](Self::close).
    pub fn start(
        model: M,
        limits: BatchLimits,
        media: PathBuf,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (model, queue) = (Arc::new(model), Arc::new(Queue::new()));
        let (its_model, its_queue) = (model.clone(), queue.clone());
        let thread = std::thread::Builder::new()
            .name("embed".to_owned())
            .spawn(move || work(&*its_model, &its_queue, limits, &metrics))?;
        let most_room =
            limits.tokens.saturating_mul(BATCHES_AHEAD).clamp(1, Semaphore::MAX_PERMITS.min(1 << 30));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let reading = cores.max(2);
        let engine = Engine {
            model,
            queue,
            reading: Arc::new(Semaphore::new(reading)),
            reading_of_one: reading / 2,
            room: Arc::new(Semaphore::new(most_room)),
            most_room: most_room as u32,
            media,
        };
        Ok((engine, thread))
    }

    pub fn dim(&self) -> usize {
        self.model.dim()
    }

    /// Items that wait for the model.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether a vector left within the last `time`.
    pub fn has_embedded(&self, time: Duration) -> bool {
        self.queue.has_embedded(time)
    }

    /// Takes no more items; those that wait are still computed.
    pub fn close(&self) {
        self.queue.close();
    }

    /// The vectors of items, in order. Where this is dropped, items that were not begun are not computed.
    ///
    /// # Errors
    /// That of the first item that has one.
    pub async fn embed(self: &Arc<Self>, items: Vec<Asked>) -> Result<Vec<Embedded>, Refusal> {
        // However many items a request has, those of others are read beside them.
        let turns = Arc::new(Semaphore::new(self.reading_of_one));
        let mut tasks = JoinSet::new();
        let mut results: Vec<Option<Result<Embedded, Refusal>>> = items.iter().map(|_| None).collect();
        for (at, item) in items.into_iter().enumerate() {
            let (engine, turns) = (self.clone(), turns.clone());
            tasks.spawn(async move { (at, engine.embed_one(item, turns).await) });
        }
        while let Some(done) = tasks.join_next().await {
            let (at, result) = done.map_err(|error| lost("an item", &error.to_string()))?;
            results[at] = Some(result);
        }
        results.into_iter().map(|result| result.expect("each task gives its own")).collect()
    }

    async fn embed_one(&self, item: Asked, turns: Arc<Semaphore>) -> Result<Embedded, Refusal> {
        let field = item.field.clone();
        let turn = turns.acquire_owned().await.map_err(|_| stopping())?;
        let permit = self.reading.clone().acquire_owned().await.map_err(|_| stopping())?;
        let (model, media) = (self.model.clone(), self.media.clone());
        // The permit goes along: where nobody waits any more, the reading still goes on to its end.
        let reading = spawn_blocking(move || {
            let read = read(&*model, &item, &media);
            drop((item, permit));
            read
        });
        let read = reading.await.map_err(|error| lost(&field, &error.to_string()))??;
        self.compute(&field, read, turn).await
    }

    /// The vector of a short text, which is read without waiting for others to be read.
    pub async fn embed_at_once(&self, item: &Asked) -> Result<Embedded, Refusal> {
        self.compute(&item.field, read(&*self.model, item, &self.media)?, ()).await
    }

    /// The vector of an item that was read; `turn` is given back once there is room for it.
    async fn compute<T>(&self, field: &str, read: M::Read, turn: T) -> Result<Embedded, Refusal> {
        let tokens = self.model.tokens(&read);
        let share = u32::try_from(tokens).unwrap_or(u32::MAX).clamp(1, self.most_room);
        let room = self.room.clone().acquire_many_owned(share).await.map_err(|_| stopping())?;
        drop(turn);
        let (reply, vector) = oneshot::channel();
        let ticket = Ticket { tokens, since: Instant::now(), reply, room };
        self.queue.push(Waiting { read, ticket });
        let vector = vector.await.map_err(|_| stopping())?.map_err(|problem| lost(field, &problem))?;
        Ok(Embedded { vector, tokens })
    }
}

/// Reads an item; its media are files in a folder of their own below `media` meanwhile.
fn read<M: ServedModel>(model: &M, item: &Asked, media: &Path) -> Result<M::Read, Refusal> {
    let failed = |error: std::io::Error| lost("the folder of temporary files", &error.to_string());
    // A text needs no folder.
    let folder = item.has_media().then(|| tempfile::tempdir_in(media)).transpose();
    let folder = folder.map_err(failed)?;
    let path = folder.as_ref().map_or(Path::new(""), |folder| folder.path());
    let files = item.write_under(path).map_err(failed)?;
    model.read(&files).map_err(|error| match error {
        ReadError::Media(message) => Refusal::media(&item.field, without(&message, path)),
        ReadError::Item(message) => Refusal::item(&item.field, without(&message, path)),
        ReadError::Server(message) => lost(&item.field, &message),
    })
}

/// A message without the folder that media lay in and without addresses in memory, as ffmpeg writes them.
fn without(message: &str, folder: &Path) -> String {
    let folder = folder.display().to_string();
    let message = match folder.as_str() {
        "" => message.to_owned(),
        folder => message.replace(&format!("{folder}{}", std::path::MAIN_SEPARATOR), "").replace(folder, ""),
    };
    let mut pieces = message.split(" @ 0x");
    let mut clean = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        clean += piece.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    clean
}

/// Tells whoever runs the server what is wrong, and whoever asked that something is.
fn lost(what: &str, problem: &str) -> Refusal {
    log(&format!("{what}: {problem}"));
    Refusal::server("the server could not embed this; its own log says why")
}

fn stopping() -> Refusal {
    Refusal::not_ready("the server is stopping")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::{JoinHandle as Task, yield_now};

    use super::*;
    use crate::stub::{Hold, Stub, vector};

    /// An engine of a model that is held, and the batches that it computes.
    struct Bench {
        engine: Arc<Engine<Stub>>,
        hold: Hold,
        batches: Arc<Mutex<Vec<Vec<String>>>>,
        thread: JoinHandle<()>,
    }

    type Asking = Task<Result<Vec<Embedded>, Refusal>>;

    impl Bench {
        fn new(items: usize, tokens: usize) -> Self {
            let (stub, hold) = Stub::held();
            let batches = stub.batches();
            let limits = BatchLimits { items, tokens };
            let (engine, thread) =
                Engine::start(stub, limits, PathBuf::new(), Arc::new(Metrics::new())).unwrap();
            Bench { engine: Arc::new(engine), hold, batches, thread }
        }

        fn ask(&self, texts: &[&str]) -> Asking {
            let engine = self.engine.clone();
            let items = texts.iter().map(|text| Asked::text("input", text)).collect();
            tokio::spawn(async move { engine.embed(items).await })
        }

        /// Asks for texts one after the other, so that they wait in this order; the first is being computed then.
        async fn ask_in_order(&self, texts: &[&str]) -> Vec<Asking> {
            let first = self.ask(&texts[..1]);
            // Other tasks go on meanwhile: the runtime has several threads.
            assert_eq!(self.hold.began.recv().unwrap(), texts[..1]);
            let mut asking = vec![first];
            for (at, text) in texts.iter().enumerate().skip(1) {
                asking.push(self.ask(&[text]));
                self.until_waiting(at).await;
            }
            asking
        }

        async fn until_waiting(&self, count: usize) {
            until("other items wait", || self.engine.waiting() == count).await;
        }

        fn release(&mut self) {
            self.hold.go = std::sync::mpsc::channel().0;
        }

        fn batches(&self) -> Vec<Vec<String>> {
            self.batches.lock().unwrap().clone()
        }
    }

    /// Waits until something is so, and fails where it does not come to be.
    async fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            yield_now().await;
        }
    }

    /// What the one text of each request came to.
    async fn results(asking: Vec<Asking>) -> Vec<Result<Vec<f32>, u16>> {
        let mut results = Vec::new();
        for one in asking {
            let result = one.await.unwrap();
            results
                .push(result.map(|mut all| all.remove(0).vector).map_err(|refusal| refusal.status.as_u16()));
        }
        results
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_comes_meanwhile_is_the_next_batch() {
        let mut bench = Bench::new(3, 1000);
        let texts = ["a", "b", "c", "d", "e"];
        let asking = bench.ask_in_order(&texts).await;
        bench.release();
        assert_eq!(results(asking).await, texts.map(|text| Ok(vector(text))));
        assert_eq!(bench.batches(), [&["a"][..], &["b", "c", "d"], &["e"]]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn batches_hold_no_more_tokens_than_they_may() {
        let mut bench = Bench::new(100, 10);
        let texts = ["first", "123456", "1234", "1", "longer than a batch", "12"];
        let asking = bench.ask_in_order(&texts).await;
        bench.release();
        let results = results(asking).await;
        assert!(results.iter().enumerate().all(|(at, result)| result.is_ok() == (at != 4)), "{results:?}");
        assert_eq!(
            bench.batches(),
            [&["first"][..], &["123456", "1234"], &["1"], &["longer than a batch"], &["12"]]
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_item_that_fails_costs_its_company_nothing() {
        let mut bench = Bench::new(100, 1000);
        let texts = ["a", "b", "nan", "fail", "c", "panic", "short", "d"];
        let asking = bench.ask_in_order(&texts).await;
        bench.release();
        let good = ["a", "b", "c", "d"];
        let expected = texts.map(|text| match good.contains(&text) {
            true => Ok(vector(text)),
            false => Err(500),
        });
        assert_eq!(results(asking).await, expected);
        // And the next is as it was before.
        assert_eq!(results(vec![bench.ask(&["a"])]).await, [Ok(vector("a"))]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_vectors_of_a_request_are_in_its_order_and_its_first_error_is_told() {
        let bench = Bench::new(2, 1000);
        drop(bench.hold);
        let texts: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        let items = |texts: &[String]| texts.iter().map(|text| Asked::text("input", text)).collect();
        let embedded = bench.engine.embed(items(&texts)).await.unwrap();
        let expected = texts.iter().map(|text| Embedded { vector: vector(text), tokens: text.len() });
        assert_eq!(embedded, expected.collect::<Vec<_>>());
        let bad: Vec<String> = ["a", "bad 1", "disk", "bad 2"].map(str::to_owned).into();
        let refusal = bench.engine.embed(items(&bad)).await.unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.message.as_str()), (400, "`bad 1` can't be read"));
        let refusal = bench.engine.embed(items(&bad[2..])).await.unwrap_err();
        assert!(refusal.status == 500 && !refusal.message.contains("fire"), "{}", refusal.message);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_nobody_waits_for_is_not_computed() {
        let mut bench = Bench::new(1, 1000);
        let mut asking = bench.ask_in_order(&["a", "b", "c"]).await;
        let gone = asking.remove(1);
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        bench.until_waiting(1).await;
        bench.release();
        assert_eq!(results(asking).await, [Ok(vector("a")), Ok(vector("c"))]);
        assert_eq!(bench.batches(), [["a"], ["c"]]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_takes_no_more_room_than_there_is() {
        let mut bench = Bench::new(1, 1);
        let texts: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let asking = bench.ask(&texts);
        for _ in 0..texts.len() {
            bench.hold.began.recv().unwrap();
            assert!(bench.engine.waiting() < BATCHES_AHEAD, "{} wait", bench.engine.waiting());
            bench.hold.go.send(()).unwrap();
        }
        assert_eq!(asking.await.unwrap().unwrap().len(), 10);
        bench.release();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_closed_engine_finishes_what_it_has() {
        let mut bench = Bench::new(1, 1000);
        let asking = bench.ask_in_order(&["a", "b"]).await;
        bench.engine.close();
        assert_eq!(results(vec![bench.ask(&["c"])]).await, [Err(503)]);
        bench.release();
        assert_eq!(results(asking).await, [Ok(vector("a")), Ok(vector("b"))]);
        bench.thread.join().unwrap();
    }

    /// Reads all but `quick` only once it is told to.
    struct Reader(Mutex<std::sync::mpsc::Receiver<()>>);

    impl ServedModel for Reader {
        type Read = ();

        fn dim(&self) -> usize {
            1
        }

        fn read(&self, item: &rzen_core::Item) -> Result<(), ReadError> {
            if item.content != [rzen_core::Part::Text("quick".to_owned())] {
                let _ = self.0.lock().unwrap().recv();
            }
            Ok(())
        }

        fn tokens(&self, (): &()) -> usize {
            1
        }

        fn embed(&self, items: &[()]) -> Result<Vec<Vec<f32>>, String> {
            Ok(vec![vec![1.0]; items.len()])
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_of_many_items_leaves_others_their_turn() {
        let (go, wait) = std::sync::mpsc::channel();
        let limits = BatchLimits { items: 8, tokens: 1000 };
        let (engine, _thread) =
            Engine::start(Reader(Mutex::new(wait)), limits, PathBuf::new(), Arc::new(Metrics::new()))
                .unwrap();
        let engine = Arc::new(engine);
        let ask = |text: &str, count| {
            let (engine, items) = (engine.clone(), vec![Asked::text("input", text); count]);
            tokio::spawn(async move { engine.embed(items).await.unwrap().len() })
        };
        let free = engine.reading.available_permits();
        let many = ask("slow", 100);
        until("nothing is read", || engine.reading.available_permits() + engine.reading_of_one == free).await;
        let quick = tokio::time::timeout(Duration::from_secs(60), ask("quick", 3)).await;
        assert_eq!(quick.expect("an answer before the many").unwrap(), 3);
        drop(go);
        assert_eq!(many.await.unwrap(), 100);
    }

    /// Panics where a vector is looked at.
    struct Broken;

    impl ServedModel for Broken {
        type Read = ();

        fn dim(&self) -> usize {
            panic!("a model that is broken")
        }

        fn read(&self, _: &rzen_core::Item) -> Result<(), ReadError> {
            Ok(())
        }

        fn tokens(&self, (): &()) -> usize {
            1
        }

        fn embed(&self, items: &[()]) -> Result<Vec<Vec<f32>>, String> {
            Ok(vec![vec![1.0]; items.len()])
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_the_thread_is_lost_nobody_waits_for_it() {
        let limits = BatchLimits { items: 1, tokens: 1000 };
        let (engine, thread) =
            Engine::start(Broken, limits, PathBuf::new(), Arc::new(Metrics::new())).unwrap();
        let engine = Arc::new(engine);
        let items = ["a", "b", "c"].map(|text| Asked::text("input", text));
        for items in [items.to_vec(), items[..1].to_vec()] {
            let embedding = tokio::time::timeout(Duration::from_secs(60), engine.embed(items));
            assert_eq!(embedding.await.expect("an answer").unwrap_err().status.as_u16(), 503);
        }
        assert!(thread.join().is_err());
    }

    #[test]
    fn messages_tell_nothing_of_the_server() {
        let message = "`/tmp/rzen-serve-x/input[0].image` is broken: [mov,mp4 @ 0x55d0c0ffee] moov; in /tmp/rzen-serve-x";
        let clean = without(message, Path::new("/tmp/rzen-serve-x"));
        assert_eq!(clean, "`input[0].image` is broken: [mov,mp4] moov; in ");
        assert_eq!(without("a / b", Path::new("")), "a / b");
    }
}
