//! `POST /v1/embeddings`: OpenAI's texts, vLLM's messages, and items of rzen's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use crate::asked::Asked;
use crate::engine::Embedded;
use crate::field::Field;
use crate::model::ServedModel;
use crate::refusal::{Refusal, answer};
use crate::server::{Server, Serving};

/// What is asked for.
struct Wanted {
    items: Vec<Asked>,
    as_base64: bool,
    dimensions: Option<u32>,
}

/// Answers a request.
pub(crate) async fn embeddings<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
    request: Request,
) -> Result<Response, Refusal> {
    let most = server.settings.max_client_batch_size;
    let (wanted, _permit) = server.admit(request, move |body| read(body, most)).await?;
    let ready = server.ready()?;
    check_dimensions("dimensions", wanted.dimensions, ready.engine.dim())?;
    let embedded = server.embed(wanted.items).await?;
    Ok(answer(&List::of(&embedded, wanted.as_base64, &ready.name)))
}

fn read(body: &Value, most: usize) -> Result<Wanted, Refusal> {
    let own = ["model", "input", "messages", "instruction", "encoding_format", "dimensions", "user"];
    // Of vLLM, which change nothing by these values.
    let without_effect = [
        ("priority", json!(0)),
        ("truncate_prompt_tokens", json!(-1)),
        ("add_special_tokens", json!(true)),
        ("add_generation_prompt", json!(false)),
        ("continue_final_message", json!(false)),
    ];
    let keys: Vec<&str> = own.into_iter().chain(without_effect.iter().map(|(key, _)| *key)).collect();
    let object = Field::body(body).object(&keys)?;
    without_effect.iter().try_for_each(|(key, value)| object.only(key, value))?;
    let instruction = object.text("instruction")?;
    object.text("model")?;
    let items = match (object.get("input"), object.get("messages")) {
        (Some(input), None) => read_input(&input, instruction, most)?,
        (None, Some(messages)) => vec![Asked::of_messages(&messages, instruction)?],
        (None, None) => return Err(Refusal::field("input", "is missing, and so is `messages`")),
        _ => return Err(Refusal::field("input", "stands beside `messages`; give one of them")),
    };
    let dimensions = object.get("dimensions").map(|field| field.number(1)).transpose()?;
    let as_base64 = match object.get("encoding_format") {
        None => false,
        Some(format) => match format.text()? {
            "float" => false,
            "base64" => true,
            _ => return Err(format.refuse("is not known; known are float and base64")),
        },
    };
    Ok(Wanted { items, as_base64, dimensions })
}

/// Refuses a size that isn't the model's.
pub(crate) fn check_dimensions(field: &str, asked: Option<u32>, dim: usize) -> Result<(), Refusal> {
    match asked.filter(|asked| *asked as usize != dim) {
        None => Ok(()),
        Some(asked) => {
            let problem = format!("is {asked}, and this model's vectors have {dim} numbers");
            Err(Refusal::field(field, &problem))
        }
    }
}

/// Refuses texts that were cut, or are just as long as may be.
pub(crate) fn check_whole(field: &str, embedded: &[Embedded], max_length: usize) -> Result<(), Refusal> {
    match embedded.iter().position(|embedded| embedded.tokens >= max_length) {
        None => Ok(()),
        Some(at) => {
            let problem = format!("is cut: it has {max_length} tokens, the most that are computed, or more");
            Err(Refusal::field(&format!("{field}[{at}]"), &problem))
        }
    }
}

/// A text, an item, or a list of them.
pub(crate) fn read_input(
    input: &Field,
    instruction: Option<&str>,
    most: usize,
) -> Result<Vec<Asked>, Refusal> {
    if !input.is_list() {
        return Ok(vec![Asked::read(input, instruction)?]);
    }
    let item = |item: &Field| {
        match item.value.is_number() || item.is_list() {
        true => Err(item.refuse(
            "is a token or a list of tokens; send texts, which are tokenized here (LangChain: `check_embedding_ctx_length=False`)",
        )),
        false => Asked::read(item, instruction),
    }
    };
    input.list(most, "items")?.iter().map(item).collect()
}

/// `GET /v1/models`.
pub(crate) async fn models<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
) -> Result<Response, Refusal> {
    Ok(answer(&json!({ "object": "list", "data": [described(server.ready()?)] })))
}

/// `GET /v1/models/ID`.
pub(crate) async fn model<M: ServedModel>(
    State(server): State<Arc<Server<M>>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let ready = server.ready()?;
    match id == ready.name {
        true => Ok(answer(&described(ready))),
        false => Err(Refusal::not_found(format!("this server has no such model; it serves {}", ready.name))),
    }
}

fn described<M: ServedModel>(ready: &Serving<M>) -> Value {
    json!({ "id": ready.name, "object": "model", "created": ready.opened, "owned_by": "rzen" })
}

/// Another for each answer of this process.
pub(crate) fn next_id(kind: &str) -> String {
    static ANSWERS: AtomicU64 = AtomicU64::new(1);
    format!("{kind}-{}", ANSWERS.fetch_add(1, Ordering::Relaxed))
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[derive(Serialize)]
struct List<'a> {
    id: String,
    created: u64,
    object: &'static str,
    data: Vec<Entry<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Entry<'a> {
    object: &'static str,
    index: usize,
    embedding: Numbers<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers<'a> {
    Float(&'a [f32]),
    Base64(String),
}

/// Tokens that were computed, those of pictures and of the template too.
#[derive(Serialize)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl Usage {
    pub fn of(embedded: &[Embedded]) -> Self {
        let tokens = embedded.iter().map(|embedded| embedded.tokens).sum();
        Usage { prompt_tokens: tokens, total_tokens: tokens }
    }

    pub fn total(&self) -> usize {
        self.total_tokens
    }
}

/// A vector as little-endian f32 in base64.
pub(crate) fn in_base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

impl<'a> List<'a> {
    fn of(embedded: &'a [Embedded], as_base64: bool, model: &'a str) -> Self {
        let numbers = |vector: &'a [f32]| match as_base64 {
            false => Numbers::Float(vector),
            true => Numbers::Base64(in_base64(vector)),
        };
        let entry = |(index, embedded): (usize, &'a Embedded)| Entry {
            object: "embedding",
            index,
            embedding: numbers(&embedded.vector),
        };
        let data = embedded.iter().enumerate().map(entry).collect();
        List { id: next_id("embd"), created: now(), object: "list", data, model, usage: Usage::of(embedded) }
    }
}
