//! The paths of text-embeddings-inference: `/embed`, `/info`, `/health` and `/metrics`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::asked::Asked;
use crate::field::Field;
use crate::model::ServedModel;
use crate::openai::{check_dimensions, check_whole, read_input};
use crate::refusal::{Refusal, answer};
use crate::server::Server;

/// `POST /embed` and `POST /`: vectors alone.
pub(crate) async fn embed<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
    request: Request,
) -> Result<Response, Refusal> {
    let most = server.settings.max_client_batch_size;
    let (Wanted { items, whole, dimensions }, _permit) =
        server.admit(request, move |body| read(body, most)).await?;
    let ready = server.ready()?;
    check_dimensions("dimensions", dimensions, ready.engine.dim())?;
    let embedded = server.embed(items).await?;
    if whole {
        check_whole("inputs", &embedded, ready.max_length)?;
    }
    Ok(answer(&embedded.iter().map(|embedded| &embedded.vector).collect::<Vec<_>>()))
}

/// What is asked for.
struct Wanted {
    items: Vec<Asked>,
    /// Texts that are too long are refused.
    whole: bool,
    dimensions: Option<u32>,
}

fn read(body: &Value, most: usize) -> Result<Wanted, Refusal> {
    let keys = ["inputs", "normalize", "truncate", "truncation_direction", "dimensions", "instruction"];
    let object = Field::body(body).object(&keys)?;
    if let Some(normalize) = object.get("normalize").filter(|normalize| normalize.value != true) {
        return Err(normalize.refuse("must be true: vectors are of unit length"));
    }
    let whole = object.get("truncate").is_some_and(|truncate| truncate.value == false);
    if let Some(direction) = object.get("truncation_direction") {
        let is_right = direction.text()?.eq_ignore_ascii_case("right");
        (is_right.then_some(()))
            .ok_or_else(|| direction.refuse("must be Right: texts are cut at their end"))?;
    }
    let dimensions = object.get("dimensions").map(|field| field.number(1)).transpose()?;
    let items = read_input(&object.required("inputs")?, object.text("instruction")?, most)?;
    Ok(Wanted { items, whole, dimensions })
}

/// `GET /info`.
pub(crate) async fn info<M: ServedModel>(State(server): State<Arc<Server<M>>>) -> Result<Response, Refusal> {
    let ready = server.ready()?;
    let settings = &server.settings;
    Ok(answer(&json!({
        "model_id": ready.name,
        "model_dtype": ready.dtype,
        "model_type": { "embedding": { "pooling": "last_token" } },
        "dimensions": ready.engine.dim(),
        "max_input_length": ready.max_length,
        "max_batch_tokens": settings.batch.tokens,
        "max_batch_requests": settings.batch.items,
        "max_client_batch_size": settings.max_client_batch_size,
        "max_concurrent_requests": settings.max_concurrent_requests,
        "payload_limit": settings.payload_limit,
        "auto_truncate": true,
        "index_items": ready.search.as_ref().map(|search| search.items()),
        "version": env!("CARGO_PKG_VERSION"),
    })))
}

/// `GET /health`: 200 if the model embeds as it did at the start.
pub(crate) async fn health<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
) -> Result<Response, Refusal> {
    server.check_health().await?;
    Ok(answer(&json!({ "status": "ok" })))
}

/// `GET /metrics`.
pub(crate) async fn metrics<M: ServedModel>(State(server): State<Arc<Server<M>>>) -> Response {
    let waiting = server.ready().map_or(0, |ready| ready.engine.waiting());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], server.metrics.text(waiting)).into_response()
}
