//! Which path is answered by what, and what goes before every answer.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::log::log;
use crate::model::ServedModel;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::{cohere, openai, page, search_route, tei};

/// All paths. Those that need the key are a router of their own, so that no path needs to be compared.
pub(crate) fn router<M: ServedModel>(server: Arc<Server<M>>) -> Router {
    let key = from_fn_with_state(server.clone(), check_key::<M>);
    let closed = Router::new()
        .route("/v1/embeddings", post(openai::embeddings::<M>))
        .route("/v1/models", get(openai::models::<M>))
        .route("/v1/models/{*id}", get(openai::model::<M>))
        .route("/v1/search", post(search_route::search::<M>))
        .route("/v1/search/pictures/{id}", get(search_route::picture::<M>))
        .route("/v2/embed", post(cohere::embed::<M>))
        .route("/embed", post(tei::embed::<M>))
        .route("/info", get(tei::info::<M>))
        .route("/metrics", get(tei::metrics::<M>))
        .fallback(async || Refusal::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || Refusal::method())
        .layer(key.clone());
    Router::new()
        .route("/", get(page::page::<M>).merge(post(tei::embed::<M>).layer(key.clone())))
        .route("/health", get(tei::health::<M>))
        .method_not_allowed_fallback(async || Refusal::method())
        .merge(closed)
        .layer(from_fn_with_state(server.clone(), check_host::<M>))
        .layer(from_fn_with_state(server.clone(), watch::<M>))
        .with_state(server)
}

/// Counts a request, and writes a line about it if that is wanted; of its content nothing.
async fn watch<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let mut watched = Watched { server, method, path, status: GONE, began: Instant::now() };
    let response = next.run(request).await;
    watched.status = response.status().as_u16();
    response
}

/// What a request is counted as whose client goes before its answer.
const GONE: u16 = 499;

/// A request, which is counted when it ends.
struct Watched<M: ServedModel> {
    server: Arc<Server<M>>,
    method: Method,
    path: String,
    status: u16,
    began: Instant,
}

impl<M: ServedModel> Drop for Watched<M> {
    fn drop(&mut self) {
        let Watched { server, method, path, status, began } = self;
        let time = began.elapsed();
        if server.settings.access_log {
            log(&format!("{method} {path} {status} {:.1} ms", time.as_secs_f64() * 1e3));
        }
        server.metrics.request(std::mem::take(path), *status, time);
    }
}

async fn check_key<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
    request: Request,
    next: Next,
) -> Response {
    match &server.settings.api_key {
        Some(key) if !brings(request.headers(), key) => {
            server.refuse(request, Refusal::key()).await.into_response()
        }
        _ => next.run(request).await,
    }
}

/// Whether a request brings the key; compared in a time that tells nothing about it.
fn brings(headers: &HeaderMap, key: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    let given = given.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
    let hash = |bytes: &[u8]| Sha256::digest(bytes);
    given.is_some_and(|(_, given)| hash(given).ct_eq(&hash(key.as_bytes())).into())
}

/// Refuses what pages of other sites ask through the browser that shows them, and names that are not this machine's where only this
/// machine is served: such pages may lead their own names here. A key, which they don't have, protects of that as well.
async fn check_host<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
    request: Request,
    next: Next,
) -> Response {
    if is_of_another_site(&request) {
        let refusal = Refusal::foreign_host("a page of another site may not ask this server");
        return server.refuse(request, refusal).await.into_response();
    }
    let is_local = server.address.ip().is_loopback() && server.settings.api_key.is_none();
    match is_local && !names_this_machine(request.headers()) {
        true => {
            let message = "this server is for its own machine: ask it as 127.0.0.1 or localhost, or start it with --api-key";
            server.refuse(request, Refusal::foreign_host(message)).await.into_response()
        }
        false => next.run(request).await,
    }
}

/// Whether a page of another site asks. A link to this server's own page may stand anywhere.
fn is_of_another_site(request: &Request) -> bool {
    if request.method() == Method::GET && request.uri().path() == "/" {
        return false;
    }
    let value = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let site = value(HeaderName::from_static("sec-fetch-site")).unwrap_or("none");
    let host = value(header::HOST).unwrap_or_default();
    let is_own = |origin: &str| {
        origin.split_once("://").is_some_and(|(_, origin_host)| origin_host.eq_ignore_ascii_case(host))
    };
    matches!(site, "cross-site" | "same-site") || value(header::ORIGIN).is_some_and(|origin| !is_own(origin))
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    // Without a name it is no browser that asks.
    let Some(host) = headers.get(header::HOST) else { return true };
    let host = host.to_str().unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_key_is_the_whole_key() {
        let brings = |value| brings(&headers(header::AUTHORIZATION, value), "secret");
        assert!(brings("Bearer secret") && brings("bearer secret"));
        for wrong in
            ["", "secret", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret", "Bearer  secret"]
        {
            assert!(!brings(wrong), "{wrong}");
        }
        assert!(!super::brings(&HeaderMap::new(), "secret"));
    }

    #[test]
    fn other_names_are_told_from_this_machine() {
        let local = |value| names_this_machine(&headers(header::HOST, value));
        for name in ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "127.1.2.3", "[::1]:8080", "[::1]"] {
            assert!(local(name), "{name}");
        }
        for name in ["example.com", "localhost.example.com:80", "10.0.0.1", "127.0.0.1.example.com", ""] {
            assert!(!local(name), "{name}");
        }
        assert!(names_this_machine(&HeaderMap::new()));
    }
}
