//! `POST /v2/embed`, as of Cohere.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use crate::asked::Asked;
use crate::engine::Embedded;
use crate::field::Field;
use crate::model::ServedModel;
use crate::openai::{Usage, check_dimensions, check_whole, in_base64, next_id};
use crate::refusal::{Refusal, answer};
use crate::server::Server;

/// What is asked for.
struct Wanted {
    items: Vec<Asked>,
    /// Where they stood.
    field: String,
    /// Texts that are too long are refused.
    whole: bool,
    /// The texts are given back.
    texts: Vec<String>,
    float: bool,
    base64: bool,
    dimensions: Option<u32>,
}

/// Answers a request.
pub(crate) async fn embed<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
    request: Request,
) -> Result<Response, Refusal> {
    let most = server.settings.max_client_batch_size;
    let (wanted, _permit) = server.admit(request, move |body| read(body, most)).await?;
    let ready = server.ready()?;
    check_dimensions("output_dimension", wanted.dimensions, ready.engine.dim())?;
    let embedded = server.embed(wanted.items).await?;
    if wanted.whole {
        check_whole(&wanted.field, &embedded, ready.max_length)?;
    }
    let vectors = || embedded.iter().map(|Embedded { vector, .. }| vector.as_slice());
    Ok(answer(&Reply {
        id: next_id("embed"),
        response_type: "embeddings_by_type",
        embeddings: Embeddings {
            float: wanted.float.then(|| vectors().collect()),
            base64: wanted.base64.then(|| vectors().map(in_base64).collect()),
        },
        texts: wanted.texts,
        meta: json!({
            "api_version": { "version": "2" },
            "billed_units": { "input_tokens": Usage::of(&embedded).total() },
        }),
    }))
}

fn read(body: &Value, most: usize) -> Result<Wanted, Refusal> {
    let keys = [
        "model",
        "input_type",
        "texts",
        "images",
        "inputs",
        "output_dimension",
        "embedding_types",
        "truncate",
        "instruction",
    ];
    let object = Field::body(body).object(&keys)?;
    let instruction = object.text("instruction")?;
    object.text("model")?;
    object.text("input_type")?;
    let whole = match object.text("truncate")? {
        None | Some("END") => false,
        Some("NONE") => true,
        Some(_) => {
            return Err(Refusal::field("truncate", "is not known; known are END and NONE"));
        }
    };
    let given: Vec<Field> = ["texts", "images", "inputs"].iter().filter_map(|key| object.get(key)).collect();
    let [given] = &given[..] else {
        return Err(Refusal::field("texts", "or `images` or `inputs` must be given, and one of them alone"));
    };
    let items = given.list(most, "items")?;
    let mut texts = Vec::new();
    let read = |item: &Field| match given.name.as_str() {
        "texts" => {
            texts.push(item.text()?.to_owned());
            Asked::read(item, instruction)
        }
        "images" => Asked::image(item, instruction),
        _ => Asked::read(item, instruction),
    };
    let items = items.iter().map(read).collect::<Result<_, _>>()?;
    let (mut float, mut base64) = (false, false);
    match object.get("embedding_types") {
        None => float = true,
        Some(types) => {
            for kind in types.list(2, "types")? {
                match kind.text()? {
                    "float" => float = true,
                    "base64" => base64 = true,
                    _ => return Err(kind.refuse("is not known; known are float and base64")),
                }
            }
        }
    }
    let dimensions = object.get("output_dimension").map(|field| field.number(1)).transpose()?;
    Ok(Wanted { items, field: given.name.clone(), whole, texts, float, base64, dimensions })
}

#[derive(Serialize)]
struct Reply<'a> {
    id: String,
    response_type: &'static str,
    embeddings: Embeddings<'a>,
    texts: Vec<String>,
    meta: Value,
}

#[derive(Serialize)]
struct Embeddings<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    float: Option<Vec<&'a [f32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<Vec<String>>,
}
