//! `POST /v1/search` and the pictures of what was found.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::asked::Asked;
use crate::engine::Embedded;
use crate::field::Field;
use crate::log::log;
use crate::model::ServedModel;
use crate::openai::Usage;
use crate::refusal::{Refusal, answer};
use crate::search::{Hit, Kind, Search, Wanted};
use crate::server::Server;

/// Hits, where a request doesn't say how many.
const TOP: usize = 10;

/// Embeds a query and finds the nearest items of the index.
pub(crate) async fn search<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
    request: Request,
) -> Result<Response, Refusal> {
    let most = server.settings.max_top;
    let ((item, wanted), _permit) = server.admit(request, move |body| read(body, most)).await?;
    let index = index_of(&server)?;
    let embedded = server.embed(vec![item]).await?;
    let usage = Usage::of(&embedded);
    let find = move || {
        let Embedded { vector, .. } = &embedded[0];
        index.search(vector, &wanted).map_err(|error| failed("search", &error.to_string()))
    };
    let hits = spawn_blocking(find).await.map_err(|error| failed("search", &error.to_string()))??;
    let hits = hits.iter().enumerate().map(|(at, hit)| Ranked { rank: at + 1, hit }).collect();
    Ok(answer(&Found { hits, usage }))
}

#[derive(Serialize)]
struct Found<'a> {
    hits: Vec<Ranked<'a>>,
    usage: Usage,
}

#[derive(Serialize)]
struct Ranked<'a> {
    rank: usize,
    #[serde(flatten)]
    hit: &'a Hit,
}

fn read(body: &Value, most: usize) -> Result<(Asked, Wanted), Refusal> {
    let object = Field::body(body).object(&["query", "instruction", "top", "kind", "below"])?;
    let item = Asked::read(&object.required("query")?, object.text("instruction")?)?;
    let top = match object.get("top") {
        None => TOP.min(most),
        Some(top) => match top.number(1)? as usize {
            number if number <= most => number,
            _ => return Err(top.refuse(&format!("is more than {most}, the most that is given"))),
        },
    };
    let kinds = match object.get("kind") {
        None => Vec::new(),
        Some(kind) if kind.is_list() => {
            kind.list(3, "kinds")?.iter().map(kind_of).collect::<Result<_, _>>()?
        }
        Some(kind) => vec![kind_of(&kind)?],
    };
    // Compared with the paths of the index; nothing is opened by it.
    let below = object.text("below")?.map(PathBuf::from);
    Ok((item, Wanted { top, kinds, below }))
}

fn kind_of(field: &Field) -> Result<Kind, Refusal> {
    match field.text()? {
        "image" => Ok(Kind::Image),
        "video" => Ok(Kind::Video),
        "document" => Ok(Kind::Document),
        _ => Err(field.refuse("is not known; known are image, video and document")),
    }
}

/// A small picture of an item of the index, by the id of a hit.
pub(crate) async fn picture<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let index = index_of(&server)?;
    let permit = server.drawing.clone().acquire_owned().await;
    let draw = move || (index.picture(&id), permit);
    let (picture, _) = spawn_blocking(draw).await.map_err(|error| failed("a picture", &error.to_string()))?;
    let picture = picture.map_err(|error| failed("a picture", &error.to_string()))?;
    let bytes =
        picture.ok_or_else(|| Refusal::not_found("the index has no such item, or its file has changed"))?;
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
    // An id is a hash of what is shown.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=86400, immutable"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn index_of<M: ServedModel>(server: &Server<M>) -> Result<Arc<dyn Search>, Refusal> {
    let index = server.ready()?.search.clone();
    index.ok_or_else(|| Refusal::not_found("this server has no index; start it with --index INDEX"))
}

fn failed(what: &str, problem: &str) -> Refusal {
    log(&format!("{what}: {problem}"));
    Refusal::server("the index could not be searched; the server's own log says why")
}
