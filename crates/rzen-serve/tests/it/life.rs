//! How a server begins and ends, and whom it lets in.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread::spawn;
use std::time::Duration;

use rzen_core::Item;
use rzen_serve::{Ended, Opened, ReadError, ServeError, ServedModel, Settings, Stop, serve};
use serde_json::json;

use crate::client::{Answer, get, post, receive, send, until};
use crate::running::{Running, listener, opened, settings};
use crate::stub::Stub;

/// A request for the vector of a text, whose answer is left to be read.
fn ask(server: &Running, text: &str) -> TcpStream {
    let body = json!({ "input": text }).to_string();
    send(server.address, "POST", "/v1/embeddings", "", body.as_bytes())
}

/// The answer to a request as it stands.
fn raw(server: &Running, request: &str) -> Answer {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    receive(stream)
}

/// Items that wait, as the server itself counts them.
fn waiting(server: &Running) -> u32 {
    let metrics = get(server.address, "/metrics").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("rzen_queue_items ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn too_many_requests_are_refused_at_once() {
    let (stub, hold) = Stub::held();
    let limits = Settings { max_concurrent_requests: 2, payload_limit: 10_000_000, ..settings() };
    let server = Running::start(stub, limits);
    let first = ask(&server, "a");
    hold.began.recv().unwrap();
    let second = ask(&server, "b");
    until("no item waits", || waiting(&server) == 1);
    let third = receive(ask(&server, "c"));
    assert_eq!((third.status, third.header("retry-after")), (429, Some("1")));
    assert_eq!(third.json()["error"]["type"], "rate_limit_error");
    // Also where it has more to send than the system takes by itself.
    assert_eq!(receive(ask(&server, &"c".repeat(9_000_000))).status, 429);
    // Others than those are answered meanwhile, and the same later.
    assert_eq!(get(server.address, "/info").status, 200);
    drop(hold);
    assert_eq!([receive(first).status, receive(second).status], [200; 2]);
    assert_eq!(receive(ask(&server, "c")).status, 200);
    server.end();
}

#[test]
fn a_client_that_goes_away_is_forgotten() {
    let (stub, hold) = Stub::held();
    let batches = stub.batches();
    let server = Running::start(stub, settings());
    let first = ask(&server, "a");
    hold.began.recv().unwrap();
    let second = ask(&server, "b");
    until("no item waits", || waiting(&server) == 1);
    drop(second);
    until("an item waits", || waiting(&server) == 0);
    let gone = "rzen_requests_total{path=\"/v1/embeddings\",status=\"499\"} 1";
    until("it is not counted", || get(server.address, "/metrics").text().contains(gone));
    drop(hold);
    assert_eq!(receive(first).status, 200);
    assert_eq!(receive(ask(&server, "c")).status, 200);
    server.end();
    assert_eq!(*batches.lock().unwrap(), [["a"], ["c"]]);
}

#[test]
fn a_model_that_hangs_is_asked_once_and_not_healthy() {
    let (stub, hold) = Stub::held();
    let limits = Settings { api_key: Some("secret".into()), proof: Duration::from_millis(100), ..settings() };
    let server = Running::start(stub, limits);
    assert_eq!(get(server.address, "/health").status, 200);
    let key = "authorization: Bearer secret\r\n";
    let body = json!({ "input": "a" }).to_string();
    let asked = send(server.address, "POST", "/v1/embeddings", key, body.as_bytes());
    hold.began.recv().unwrap();
    until("it is healthy though nothing is embedded", || get(server.address, "/health").status != 200);
    let many: Vec<_> = (0..8).map(|_| send(server.address, "GET", "/health", "", b"")).collect();
    assert!(many.into_iter().all(|one| receive(one).status == 503));
    let metrics = receive(send(server.address, "GET", "/metrics", key, b"")).text();
    assert!(metrics.contains("\nrzen_queue_items 1\n"), "{metrics}");
    drop(hold);
    assert_eq!(receive(asked).status, 200);
    assert_eq!(get(server.address, "/health").status, 200);
    server.end();
}

#[test]
fn requests_are_finished_after_the_stop_and_no_more_are_taken() {
    let (stub, hold) = Stub::held();
    let server = Running::start(stub, settings());
    let (address, stop) = (server.address, server.stop.clone());
    let asked = ask(&server, "a");
    hold.began.recv().unwrap();
    stop.now();
    // The listener is closed soon after.
    until("it still listens", || TcpStream::connect(address).is_err());
    drop(hold);
    assert_eq!(receive(asked).status, 200);
    assert_eq!(server.end(), Ended::Finished);
}

#[test]
fn a_head_that_does_not_come_holds_nothing_up() {
    let limits =
        Settings { head_timeout: Duration::from_millis(20), grace: Duration::from_secs(10), ..settings() };
    let server = Running::start(Stub::free(), limits);
    let mut half = TcpStream::connect(server.address).unwrap();
    half.write_all(b"POST /embed HTT").unwrap();
    // Connections are taken in their order.
    assert_eq!(get(server.address, "/health").status, 200);
    assert_eq!(server.end(), Ended::Finished);
}

#[test]
fn requests_that_take_too_long_are_cut_off_after_the_stop() {
    let (stub, hold) = Stub::held();
    let server = Running::start(stub, Settings { grace: Duration::from_millis(50), ..settings() });
    let _asked = ask(&server, "a");
    hold.began.recv().unwrap();
    assert_eq!(server.end(), Ended::CutOff);
}

#[test]
fn nothing_is_answered_before_the_model_is_open() {
    let (listener, stop) = (listener(), Stop::default());
    let address = listener.local_addr().unwrap();
    let (open, opening) = channel::<()>();
    let (tell, told) = channel();
    let its_stop = stop.clone();
    let thread = spawn(move || {
        let open = move || {
            opening.recv().unwrap();
            Ok(opened(Stub::free(), None))
        };
        serve(listener, settings(), &its_stop, open, |_| tell.send(()).unwrap())
    });
    for path in ["/health", "/info", "/"] {
        let answer = get(address, path);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{path}");
    }
    assert_eq!(post(address, "/v1/embeddings", &json!({ "input": "a" })).status, 503);
    assert_eq!(get(address, "/metrics").status, 200);
    open.send(()).unwrap();
    told.recv().unwrap();
    assert_eq!(get(address, "/health").status, 200);
    stop.now();
    assert_eq!(thread.join().unwrap().unwrap(), Ended::Finished);
}

#[test]
fn a_server_that_is_stopped_while_it_opens_ends() {
    let stop = Stop::default();
    stop.now();
    let (_open, opening) = channel::<()>();
    let open = move || {
        let _ = opening.recv();
        Ok(opened(Stub::free(), None))
    };
    let ended = serve(listener(), settings(), &stop, open, |_| panic!("it is not ready")).unwrap();
    assert_eq!(ended, Ended::Finished);
}

/// Gives everything one vector.
struct Same;

impl ServedModel for Same {
    type Read = ();

    fn dim(&self) -> usize {
        1
    }

    fn read(&self, _: &Item) -> Result<(), ReadError> {
        Ok(())
    }

    fn tokens(&self, (): &()) -> usize {
        1
    }

    fn embed(&self, items: &[()]) -> Result<Vec<Vec<f32>>, String> {
        Ok(vec![vec![1.0]; items.len()])
    }
}

#[test]
fn a_model_that_tells_nothing_apart_is_not_served() {
    let open = || {
        let Opened { name, dtype, max_length, search, .. } = opened(Stub::free(), None);
        Ok(Opened { model: Same, name, dtype, max_length, search })
    };
    let error = serve(listener(), settings(), &Stop::default(), open, |_| ()).unwrap_err();
    assert!(matches!(&error, ServeError::Probe(_)), "{error}");
    assert!(error.to_string().contains("two pictures the same vector"), "{error}");
    let open = || Err::<Opened<Stub>, _>("there is no model".into());
    let error = serve(listener(), settings(), &Stop::default(), open, |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "there is no model");
}

#[test]
fn a_key_opens_all_but_health() {
    let server = Running::start(Stub::free(), Settings { api_key: Some("secret".into()), ..settings() });
    let paths = [
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/search"),
        ("GET", "/v1/search/pictures/1"),
        ("GET", "/v1/models"),
        ("POST", "/v2/embed"),
        ("POST", "/embed"),
        ("POST", "/"),
        ("GET", "/v1/models/stub"),
        ("GET", "/info"),
        ("GET", "/metrics"),
        ("GET", "/else"),
        ("GET", "//info"),
        ("GET", "/health/../info"),
        ("DELETE", "/info"),
    ];
    for (method, path) in paths {
        for header in [
            "",
            "authorization: Bearer secre\r\n",
            "authorization: Basic secret\r\n",
            "x-api-key: secret\r\n",
        ] {
            let answer = receive(send(server.address, method, path, header, b"{}"));
            assert_eq!(
                (answer.status, answer.header("www-authenticate")),
                (401, Some("Bearer")),
                "{method} {path} {header}"
            );
        }
    }
    assert_eq!(get(server.address, "/health").status, 200);
    let info = receive(send(server.address, "GET", "/info", "authorization: Bearer secret\r\n", b""));
    assert_eq!(info.status, 200);
    server.end();
}

#[test]
fn a_refused_body_is_not_asked_for() {
    let server = Running::start(Stub::free(), Settings { api_key: Some("secret".into()), ..settings() });
    let head = "POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
    assert_eq!(raw(&server, head).status, 401);
    server.end();
}

#[test]
fn a_page_of_another_site_gets_nothing() {
    let server = Running::start(Stub::free(), settings());
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /info HTTP/1.1\r\nhost: rebound.example\r\n\r\n").unwrap();
    assert_eq!(receive(stream).error().0, 403);
    let body = json!({ "input": "a" }).to_string();
    let own = format!("origin: http://{}\r\n", server.address);
    for (headers, status) in [
        ("origin: https://evil.example\r\nsec-fetch-site: cross-site\r\ncontent-type: text/plain\r\n", 403),
        ("origin: https://evil.example\r\n", 403),
        ("origin: http://127.0.0.1:1\r\n", 403),
        ("origin: null\r\n", 403),
        ("sec-fetch-site: cross-site\r\n", 403),
        ("sec-fetch-site: same-site\r\n", 403),
        ("sec-fetch-site: same-origin\r\n", 200),
        ("sec-fetch-site: none\r\n", 200),
        (own.as_str(), 200),
    ] {
        let answer = receive(send(server.address, "POST", "/v1/embeddings", headers, body.as_bytes()));
        assert_eq!(answer.status, status, "{headers}");
    }
    for (path, status) in [("/health", 403), ("/metrics", 403), ("/", 404)] {
        let answer = receive(send(server.address, "GET", path, "sec-fetch-site: cross-site\r\n", b""));
        assert_eq!(answer.status, status, "{path}");
    }
    server.end();
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_long() {
    let short = Duration::from_millis(20);
    for limits in
        [Settings { body_timeout: short, ..settings() }, Settings { body_pause: short, ..settings() }]
    {
        let server = Running::start(Stub::free(), limits);
        let head = "POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
        assert_eq!(raw(&server, head).error().0, 408);
        server.end();
    }
}

#[test]
fn a_body_that_breaks_off_is_not_too_large() {
    let server = Running::start(Stub::free(), settings());
    let head = "POST /embed HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let (status, message) = raw(&server, &format!("{head}5\r\nhello\r\nzz\r\n")).error();
    assert!(status == 400 && message.contains("broke off"), "{status} {message}");
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 10_001, " ".repeat(10_001));
    assert_eq!(raw(&server, &format!("{head}{chunk}")).error().0, 413);
    server.end();
}
