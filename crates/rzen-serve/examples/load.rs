//! How many short texts a server embeds in a second, asked by 1, 8 and 32 clients.
//!
//! ```console
//! cargo run --release -p rzen-serve --example load -- 127.0.0.1:8080 [SECONDS]
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn main() {
    let mut args = std::env::args().skip(1);
    let address = args.next().expect("the address of a server, such as 127.0.0.1:8080");
    let seconds = args.next().map_or(5.0, |seconds| seconds.parse().expect("seconds"));
    // Caches and threads are warm afterwards.
    measure(&address, 8, Duration::from_secs(1));
    println!("clients  requests/s  median ms  99 % ms");
    for clients in [1, 8, 32] {
        let mut times = measure(&address, clients, Duration::from_secs_f64(seconds));
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        let rate = times.len() as f64 / seconds;
        println!("{clients:>7}  {rate:>10.0}  {:>9.1}  {:>7.1}", at(0.5), at(0.99));
    }
}

/// How long each request took that was answered in the time.
fn measure(address: &str, clients: usize, time: Duration) -> Vec<Duration> {
    let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..clients).map(|_| scope.spawn(|| ask_until(address, &over, &count))).collect();
        std::thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        asking.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect()
    })
}

fn ask_until(address: &str, over: &AtomicBool, count: &AtomicUsize) -> Vec<Duration> {
    let mut stream = BufReader::new(TcpStream::connect(address).expect("a server at the address"));
    stream.get_ref().set_nodelay(true).expect("a socket that can be set");
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let body = format!(r#"{{"input": "photo {number} of a dog on a beach"}}"#);
        let began = Instant::now();
        let head = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length";
        write!(stream.get_mut(), "{head}: {}\r\n\r\n{body}", body.len()).expect("a server that reads");
        read_answer(&mut stream);
        times.push(began.elapsed());
    }
    times
}

fn read_answer(stream: &mut BufReader<TcpStream>) {
    let (mut length, mut line) = (0, String::new());
    stream.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("a header");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
}
