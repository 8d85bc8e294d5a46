//! Connections, from the first byte to the last.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::log::log;

/// Takes connections until `stop` comes, and then waits for the requests that have begun. A connection on which no head comes to its end
/// within `head_timeout` is closed.
pub(crate) async fn answer(
    listener: TcpListener,
    router: Router,
    head_timeout: Duration,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_timeout);
    let open = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((connection, _)) => {
                // Answers are small; without this they may wait for more to send.
                let _ = connection.set_nodelay(true);
                let service = TowerToHyperService::new(router.clone());
                let connection = http.serve_connection(TokioIo::new(connection), service);
                // How a client leaves is nothing to tell.
                tokio::spawn(open.watch(connection));
            }
            Err(error) => {
                // As where there are no more files; some may be closed soon.
                log(&format!("no connection: {error}"));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    drop(listener);
    open.shutdown().await;
}
