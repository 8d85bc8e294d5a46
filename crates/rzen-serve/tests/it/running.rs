//! A server of a stub in threads of this process.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::channel;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use rzen_serve::{
    BatchLimits, Ended, Hit, Kind, Opened, Place, Ready, Search, ServeError, Settings, Stop, Wanted, serve,
};

use crate::stub::Stub;

pub struct Running {
    pub address: SocketAddr,
    pub ready: Ready,
    pub stop: Stop,
    thread: JoinHandle<Result<Ended, ServeError>>,
}

pub fn settings() -> Settings {
    Settings {
        batch: BatchLimits { items: 8, tokens: 1000 },
        max_concurrent_requests: 16,
        max_client_batch_size: 4,
        payload_limit: 10_000,
        max_top: 5,
        api_key: None,
        head_timeout: Duration::from_secs(60),
        body_timeout: Duration::from_secs(60),
        body_pause: Duration::from_secs(60),
        proof: Duration::from_secs(10),
        grace: Duration::from_secs(60),
        media: std::env::temp_dir(),
        access_log: false,
    }
}

pub fn opened(model: Stub, search: Option<Box<dyn Search>>) -> Opened<Stub> {
    Opened { model, name: "stub".into(), dtype: "f32".into(), max_length: 77, search }
}

/// A port of this machine.
pub fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

impl Running {
    pub fn start(model: Stub, settings: Settings) -> Self {
        Self::start_with(model, None, settings)
    }

    pub fn start_with(model: Stub, search: Option<Box<dyn Search>>, settings: Settings) -> Self {
        let (listener, stop) = (listener(), Stop::default());
        let address = listener.local_addr().unwrap();
        let (tell, told) = channel();
        let its_stop = stop.clone();
        let thread = spawn(move || {
            let open = move || Ok(opened(model, search));
            serve(listener, settings, &its_stop, open, |ready| tell.send(ready.clone()).unwrap())
        });
        let ready = told.recv().unwrap();
        Running { address, ready, stop, thread }
    }

    /// Stops the server and waits for its end.
    pub fn end(self) -> Ended {
        self.stop.now();
        self.thread.join().unwrap().unwrap()
    }
}

/// An index of one item.
pub struct OneItem;

impl Search for OneItem {
    fn search(&self, query: &[f32], wanted: &Wanted) -> Result<Vec<Hit>, Box<dyn Error + Send + Sync>> {
        if wanted.below.as_ref().is_some_and(|below| below.ends_with("broken")) {
            return Err("/dev/sda is on fire".into());
        }
        let place = Place { path: "/home/<a>.png".into(), kind: Kind::Image, page: None };
        let hit = Hit { id: "1".into(), score: query[0], places: vec![place] };
        let is_wanted = wanted.kinds.is_empty() || wanted.kinds.contains(&Kind::Image);
        Ok(is_wanted.then_some(hit).into_iter().collect())
    }

    fn picture(&self, id: &str) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        Ok((id == "1").then(|| b"JPEG".to_vec()))
    }

    fn items(&self) -> usize {
        1
    }
}
