//! The page that searches an index.

use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::model::ServedModel;
use crate::refusal::Refusal;
use crate::server::Server;

/// The page; it holds nothing of the index, and asks for all of it as any other client does.
const PAGE: &str = include_str!("page.html");

/// Nothing but the page's own script and style runs, and nothing but this server is asked.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let inside =
            PAGE.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        let (inside, _) = inside.expect("the page has one script and one style");
        STANDARD.encode(Sha256::digest(inside))
    };
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src blob:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    );
    HeaderValue::try_from(policy).expect("letters that a header may have")
});

/// Answers with the page, where there is an index.
pub(crate) async fn page<M: ServedModel>(State(server): State<Arc<Server<M>>>) -> Result<Response, Refusal> {
    if server.ready()?.search.is_none() {
        return Err(Refusal::not_found(
            "this server has no index and so no page; start it with --index INDEX",
        ));
    }
    let mut response = PAGE.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}
