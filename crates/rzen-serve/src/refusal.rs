//! Errors as they are answered, in the shape of OpenAI's.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::log::log;

/// Why a request gets no answer of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// The field of the request that is at fault.
    pub field: Option<String>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Refusal { status, code, message: message.into(), field: None }
    }

    /// A field that doesn't hold what it should; `problem` completes "`field` …".
    pub fn field(field: &str, problem: &str) -> Self {
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, "invalid_value", format!("`{field}` {problem}"));
        Refusal { field: Some(field.to_owned()), ..refusal }
    }

    /// An item that is wrong as a whole.
    pub fn item(field: &str, message: String) -> Self {
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, "invalid_item", message);
        Refusal { field: Some(field.to_owned()), ..refusal }
    }

    /// Media that can't be decoded.
    pub fn media(field: &str, message: String) -> Self {
        let refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "undecodable_media", message);
        Refusal { field: Some(field.to_owned()), ..refusal }
    }

    pub fn no_json(problem: &str) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is no JSON: {problem}"))
    }

    /// A body that does not come to its end.
    pub fn broken(problem: &str) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, "broken_body", format!("the body broke off: {problem}"))
    }

    pub fn key() -> Self {
        let message = "give the API key of this server as `Authorization: Bearer KEY`";
        Refusal::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    pub fn foreign_host(message: &str) -> Self {
        Refusal::new(StatusCode::FORBIDDEN, "foreign_host", message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub fn method() -> Self {
        let message = "this path takes another method, see docs/serving.md";
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub fn too_large(most: usize) -> Self {
        let message = format!("the body has more than {most} bytes, the most that is taken");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    }

    pub fn too_slow(message: String) -> Self {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
    }

    pub fn overloaded(most: usize) -> Self {
        let message = format!("{most} requests are being answered, as many as may be at once; try again");
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message)
    }

    pub fn not_ready(message: &str) -> Self {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message)
    }

    /// Something that whoever asked can do nothing about; the reason is told on standard error.
    pub fn server(message: &str) -> Self {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let Refusal { status, code, message, field } = self;
        let error = json!({ "message": message, "type": kind, "param": field, "code": code });
        let mut response = answer(&json!({ "error": error }));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

/// A value as the body of a response.
pub(crate) fn answer(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            log(&format!("an answer could not be written as JSON: {error}"));
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
