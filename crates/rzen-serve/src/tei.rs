//! The paths of text-embeddings-inference: `/embed`, `/info`, `/health` and `/metrics`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::asked::Asked;
use crate::field::Field;
use crate::model::ServedModel;
use crate::openai::{check_dimensions, read_input};
use crate::refusal::{Refusal, answer};
use crate::server::Server;

/// `POST /embed`: vectors alone.
pub(crate) async fn embed<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
    request: Request,
) -> Result<Response, Refusal> {
    let most = server.settings.max_client_batch_size;
    let ((items, dimensions), _permit) = server.admit(request, move |body| read(body, most)).await?;
    check_dimensions("dimensions", dimensions, server.ready()?.engine.dim())?;
    let embedded = server.embed(items).await?;
    Ok(answer(&embedded.iter().map(|embedded| &embedded.vector).collect::<Vec<_>>()))
}

fn read(body: &Value, most: usize) -> Result<(Vec<Asked>, Option<u32>), Refusal> {
    let keys = ["inputs", "normalize", "truncate", "truncation_direction", "dimensions", "instruction"];
    let object = Field::body(body).object(&keys)?;
    if let Some(normalize) = object.get("normalize").filter(|normalize| normalize.value != true) {
        return Err(normalize.refuse("must be true: vectors are of unit length"));
    }
    if let Some(truncate) = object.get("truncate").filter(|truncate| truncate.value != true) {
        return Err(truncate.refuse("must be true: texts that are too long are cut"));
    }
    if let Some(direction) = object.get("truncation_direction") {
        let is_right = direction.text()?.eq_ignore_ascii_case("right");
        (is_right.then_some(()))
            .ok_or_else(|| direction.refuse("must be Right: texts are cut at their end"))?;
    }
    let dimensions = object.get("dimensions").map(|field| field.number(1)).transpose()?;
    Ok((read_input(&object.required("inputs")?, object.text("instruction")?, most)?, dimensions))
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

/// `GET /v1/models`.
pub(crate) async fn models<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
) -> Result<Response, Refusal> {
    let model = json!({ "id": server.ready()?.name, "object": "model", "owned_by": "rzen" });
    Ok(answer(&json!({ "object": "list", "data": [model] })))
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
