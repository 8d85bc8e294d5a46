//! The life of a server, and what its answers share.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::header;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;

use crate::asked::Asked;
use crate::body::{parse, receive};
use crate::connections::answer;
use crate::engine::{Embedded, Engine};
use crate::metrics::Metrics;
use crate::model::ServedModel;
use crate::openai::now;
use crate::probe::{is_as_before, probe};
use crate::refusal::Refusal;
use crate::routes::router;
use crate::search::Search;
use crate::settings::Settings;

/// A model that was opened, and what is said about it.
pub struct Opened<M> {
    /// The model.
    pub model: M,
    /// What it is called.
    pub name: String,
    /// The element type of its weights.
    pub dtype: String,
    /// Most tokens of an item.
    pub max_length: usize,
    /// The index beside it.
    pub search: Option<Box<dyn Search>>,
}

/// What is known of a server that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// What the model is called.
    pub name: String,
    /// Numbers in a vector.
    pub dim: usize,
    /// Items of the index, if there is one.
    pub items: Option<usize>,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All requests were answered.
    Finished,
    /// Some were not in the time that they had.
    CutOff,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The system has no threads or sockets for it.
    #[error("can't serve: {0}")]
    System(#[from] io::Error),
    /// The model or the index can't be opened.
    #[error(transparent)]
    Open(Box<dyn Error + Send + Sync>),
    /// The model can't be used.
    #[error("the model was tried, and {0}")]
    Probe(String),
}

/// Tells a server to stop, from any thread.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Stop(watch::Sender::new(false))
    }
}

impl Stop {
    /// Tells it.
    pub fn now(&self) {
        self.0.send_replace(true);
    }

    async fn told(&self) {
        // The sender is this very one, so that there is always one.
        let _ = self.0.subscribe().wait_for(|told| *told).await;
    }
}

/// What requests share.
pub(crate) struct Server<M: ServedModel> {
    pub settings: Settings,
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    /// Pictures of the index that are drawn at once.
    pub drawing: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    /// Bodies that are read as JSON at once: they take their size once more meanwhile.
    parsing: Arc<Semaphore>,
    opened: OnceLock<Serving<M>>,
    /// What came of the last time that the model was asked whether it embeds as at the start; `None` while it is asked.
    health: Mutex<watch::Receiver<Option<bool>>>,
}

/// A model that was tried, with all that belongs to it.
pub(crate) struct Serving<M: ServedModel> {
    pub engine: Arc<Engine<M>>,
    pub name: String,
    pub dtype: String,
    pub max_length: usize,
    pub search: Option<Arc<dyn Search>>,
    /// When, in seconds since 1970.
    pub opened: u64,
    probed: Vec<f32>,
}

/// How long the body of a request that is refused is read, so that its client can read why.
const DRAIN: Duration = Duration::from_secs(2);

/// No token has more bytes: texts are cut to as many as an item's tokens may have before tokens are made of them, which takes seconds
/// where a text is a thousand times too long.
const TOKEN_BYTES: usize = 128;

impl<M: ServedModel> Server<M> {
    /// The model, if the server is ready.
    pub fn ready(&self) -> Result<&Serving<M>, Refusal> {
        self.opened.get().ok_or_else(|| Refusal::not_ready("the model is being opened"))
    }

    /// Reads the body of a request, if the server is ready and there is room for one more; the permit is its place.
    pub async fn admit<T: Send + 'static>(
        &self,
        request: Request,
        read: impl FnOnce(&Value) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<(T, OwnedSemaphorePermit), Refusal> {
        let permit = match self.place(&request) {
            Ok(permit) => permit,
            Err(refusal) => return Err(self.refuse(request, refusal).await),
        };
        let body = receive(request.into_body(), &self.settings).await?;
        let lost = || Refusal::server("the request could not be read");
        let turn = self.parsing.clone().acquire_owned().await.map_err(|_| lost())?;
        // The turn goes along: where nobody waits any more, the body is still read to its end.
        let parse = move || {
            let value = parse(&body)?;
            drop(body);
            let read = read(&value);
            drop((value, turn));
            read
        };
        Ok((spawn_blocking(parse).await.map_err(|_| lost())??, permit))
    }

    /// A place among the requests that are answered.
    fn place(&self, request: &Request) -> Result<OwnedSemaphorePermit, Refusal> {
        self.ready()?;
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let length = length.and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.settings.payload_limit as u64) {
            return Err(Refusal::too_large(self.settings.payload_limit));
        }
        let permit = self.requests.clone().try_acquire_owned();
        permit.map_err(|_| Refusal::overloaded(self.settings.max_concurrent_requests))
    }

    /// Gives a refusal back once the body of its request is read and forgotten: clients that can't send all of it don't read why.
    pub async fn refuse(&self, request: Request, refusal: Refusal) -> Refusal {
        // A body that is asked for first would be asked for by reading it.
        if request.headers().contains_key(header::EXPECT) {
            return refusal;
        }
        let (mut body, most) = (request.into_body(), self.settings.payload_limit);
        let forget = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                bytes += frame.data_ref().map_or(0, |data| data.len());
                // Of what is longer than any request may be not all is waited for.
                if bytes > most {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(DRAIN, forget).await;
        refusal
    }

    /// The vectors of items, in order.
    pub async fn embed(&self, mut items: Vec<Asked>) -> Result<Vec<Embedded>, Refusal> {
        let ready = self.ready()?;
        let most = ready.max_length.saturating_mul(TOKEN_BYTES);
        items.iter_mut().for_each(|item| item.cut(most));
        ready.engine.embed(items).await
    }

    /// Asks the model for a vector, unless one left just now; once for all who want to know meanwhile.
    pub async fn check_health(&self) -> Result<(), Refusal> {
        let ready = self.ready()?;
        let Some(mut asked) = self.ask_for_health(ready) else { return Ok(()) };
        let healthy =
            match tokio::time::timeout(self.settings.proof / 2, asked.wait_for(Option::is_some)).await {
                Ok(answer) => answer.is_ok_and(|answer| *answer == Some(true)),
                // It was asked behind others, which were answered.
                Err(_) => ready.engine.has_embedded(self.settings.proof),
            };
        (healthy.then_some(()))
            .ok_or_else(|| Refusal::not_ready("the model does not embed as it did at the start, or not now"))
    }

    /// Where to learn what the model answers; `None` where it need not be asked.
    fn ask_for_health(&self, ready: &Serving<M>) -> Option<watch::Receiver<Option<bool>>> {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let last = *health.borrow();
        if last != Some(false) && ready.engine.has_embedded(self.settings.proof) {
            return None;
        }
        if last.is_some() {
            let (tell, told) = watch::channel(None);
            let (engine, probed) = (ready.engine.clone(), ready.probed.clone());
            tokio::spawn(async move { tell.send(Some(is_as_before(&engine, &probed).await)) });
            *health = told;
        }
        Some(health.clone())
    }
}

/// Answers requests until it is told to stop; `open` opens the model meanwhile, and `ready` is called once it was tried.
///
/// Once told to stop it takes no more requests and finishes those that it has, for as long as the settings say.
///
/// # Errors
/// If the model can't be opened or embeds nothing that can be used, or the system can't serve.
pub fn serve<M: ServedModel>(
    listener: TcpListener,
    settings: Settings,
    stop: &Stop,
    open: impl FnOnce() -> Result<Opened<M>, Box<dyn Error + Send + Sync>> + Send + 'static,
    ready: impl FnOnce(&Ready),
) -> Result<Ended, ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(run(listener, settings, stop, open, ready));
    // A decoder that does not end is no reason to wait.
    runtime.shutdown_background();
    result
}

async fn run<M: ServedModel>(
    listener: TcpListener,
    settings: Settings,
    stop: &Stop,
    open: impl FnOnce() -> Result<Opened<M>, Box<dyn Error + Send + Sync>> + Send + 'static,
    ready: impl FnOnce(&Ready),
) -> Result<Ended, ServeError> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let grace = settings.grace;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let server = Arc::new(Server {
        requests: Arc::new(Semaphore::new(settings.max_concurrent_requests.min(Semaphore::MAX_PERMITS))),
        settings,
        address,
        metrics: Arc::new(Metrics::new()),
        drawing: Arc::new(Semaphore::new(cores)),
        parsing: Arc::new(Semaphore::new(cores)),
        opened: OnceLock::new(),
        health: Mutex::new(watch::channel(Some(true)).1),
    });
    let at_stop = stop.clone();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (router, head_timeout) = (router(server.clone()), server.settings.head_timeout);
    let serving = tokio::spawn(async move { answer(listener, router, head_timeout, at_stop.told()).await });
    let opened = tokio::select! {
        opened = server.open(open) => opened?,
        () = stop.told() => return Ok(Ended::Finished),
    };
    ready(&opened);
    stop.told().await;
    let served = tokio::time::timeout(grace, serving).await;
    if let Ok(serving) = server.ready() {
        serving.engine.close();
    }
    match served {
        Ok(served) => served.map(|()| Ended::Finished).map_err(|error| io::Error::other(error).into()),
        Err(_) => Ok(Ended::CutOff),
    }
}

impl<M: ServedModel> Server<M> {
    /// Opens the model and tries it.
    async fn open(
        &self,
        open: impl FnOnce() -> Result<Opened<M>, Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Result<Ready, ServeError> {
        let opened = spawn_blocking(open).await.map_err(io::Error::other)?.map_err(ServeError::Open)?;
        let Opened { model, name, dtype, max_length, search } = opened;
        // The thread ends with the program, or when nothing holds the queue any more.
        let (engine, _thread) =
            Engine::start(model, self.settings.batch, self.settings.media.clone(), self.metrics.clone())?;
        let (engine, search) = (Arc::new(engine), search.map(Arc::from));
        let probed = probe(&engine).await.map_err(ServeError::Probe)?;
        let items = search.as_ref().map(|search: &Arc<dyn Search>| search.items());
        let ready = Ready { address: self.address, name: name.clone(), dim: engine.dim(), items };
        let serving = Serving { engine, name, dtype, max_length, search, opened: now(), probed };
        let _ = self.opened.set(serving);
        Ok(ready)
    }
}
