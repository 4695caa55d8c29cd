//! Who is let in to the routes under `/v1/`, with what, and what is written down of it.
//!
//! In this order: is there a token at all (403), has the source guessed too often (429), is its
//! token right (401), is there such a route (404, 405), is its body one (400, 408, 413). So whoever
//! has no token learns nothing of the routes, and of no body before its token is judged.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use super::api::{self, Api, ApiError, Call, Found, Method};
use super::guesses::Guesses;
use crate::logging::OPERATOR;

/// The longest body of a call.
pub(super) const BODY_BYTES: usize = 64 * 1024;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);
/// So much of a body is written down.
const AUDIT_BYTES: usize = 512;
/// What calls are counted under that no route has.
pub(super) const OTHER: &str = "api_other";

/// The door to a product's routes.
pub(super) struct Door {
    api: Api,
    guesses: Mutex<Guesses>,
}

/// A refusal: the error, and the header that goes with it.
struct Refusal(ApiError, Option<(&'static str, String)>);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error, None)
    }
}

impl Door {
    pub(super) fn new(api: Api) -> Self {
        Self {
            api,
            guesses: Mutex::default(),
        }
    }

    pub(super) fn handlers(&self) -> impl Iterator<Item = &'static str> {
        self.api.handlers().chain([OTHER])
    }

    /// Answers a request for something under `/v1/`; the name is what it is counted under.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> (&'static str, Response<Full<Bytes>>) {
        let found = self
            .api
            .find(request.method().as_str(), request.uri().path());
        let handler = found.as_ref().map_or(OTHER, |found| found.handler);
        let admitted = self.admit(&request, from);
        let outcome = match (admitted, found) {
            (Err(refusal), _) => Err(refusal),
            (Ok(()), Ok(found)) => self.call(request, found, from).await.map_err(Refusal::from),
            (Ok(()), Err(not_found)) => Err(not_there(&not_found)),
        };
        let response = match outcome {
            Ok(value) => json(StatusCode::OK, &value),
            Err(Refusal(error, header)) => {
                let status = StatusCode::from_u16(error.status);
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut response = json(status, &error.to_json());
                if let Some((name, value)) = header
                    && let Ok(value) = HeaderValue::from_str(&value)
                {
                    response
                        .headers_mut()
                        .insert(HeaderName::from_static(name), value);
                }
                response
            }
        };
        (handler, response)
    }

    fn admit(&self, request: &Request<Incoming>, from: IpAddr) -> Result<(), Refusal> {
        if !self.api.token.is_set() {
            let message = "the admin API is off: the configuration names no token under [admin]";
            return Err(ApiError::new(403, "api_off", message).into());
        }
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(left) = guesses.locked_for(from, now) {
            let message = "too many wrong tokens from here; none is looked at for a while";
            let error = ApiError::new(429, "too_many_guesses", message);
            let seconds = left.as_secs().saturating_add(1).to_string();
            return Err(Refusal(error, Some(("retry-after", seconds))));
        }
        let offered = request.headers().get(AUTHORIZATION).and_then(bearer);
        let Some(offered) = offered else {
            return Err(unauthorized("a bearer token is needed"));
        };
        if self.api.token.judge(offered) == Some(true) {
            guesses.right(from);
            return Ok(());
        }
        guesses.wrong(from, now);
        Err(unauthorized("the token is wrong"))
    }

    async fn call(
        &self,
        request: Request<Incoming>,
        found: Found,
        from: IpAddr,
    ) -> Result<Value, ApiError> {
        let query = api::query(request.uri().query().unwrap_or_default());
        let query = query.ok_or_else(|| ApiError::bad_request("the query cannot be read"))?;
        let body = read(request.into_body()).await?;
        let call = Call {
            endpoint: (),
            captures: found.captures,
            query,
            body,
        };
        if found.method == Method::Get {
            return self.api.answer(found.at, call).await;
        }
        let (of, with) = (call.captures.join(" "), written(&call.body));
        let outcome = self.api.answer(found.at, call).await;
        let status = outcome.as_ref().map_or_else(|error| error.status, |_| 200);
        tracing::info!(
            name: OPERATOR,
            action = found.handler,
            ?of,
            with,
            status,
            %from,
            "admin API"
        );
        outcome
    }
}

/// RFC 6750 section 2.1.
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn unauthorized(message: &str) -> Refusal {
    let error = ApiError::new(401, "unauthorized", message);
    Refusal(error, Some(("www-authenticate", "Bearer".to_owned())))
}

fn not_there(found: &api::NotFound) -> Refusal {
    if found.allowed.is_empty() {
        return ApiError::new(404, "not_found", "no such route").into();
    }
    let methods = found.allowed.join(", ");
    let message = format!("only {methods}");
    Refusal(
        ApiError::new(405, "method_not_allowed", &message),
        Some(("allow", methods)),
    )
}

/// The JSON object of a body.
async fn read(body: Incoming) -> Result<Map<String, Value>, ApiError> {
    let body = timeout(BODY_TIME, Limited::new(body, BODY_BYTES).collect()).await;
    let body = body.map_err(|_| ApiError::new(408, "timeout", "the body took too long"))?;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("a body has at most {BODY_BYTES} bytes");
            return ApiError::new(413, "too_large", &message);
        }
        ApiError::bad_request("the body cannot be read")
    })?;
    let bytes = body.to_bytes();
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(&format!("no JSON object: {error}")))
}

/// A body as the log shows it: on one line, and cut.
fn written(body: &Map<String, Value>) -> String {
    let text = Value::Object(body.clone()).to_string();
    match text.char_indices().find(|(at, _)| *at >= AUDIT_BYTES) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens_are_found_and_other_schemes_are_not() {
        let header = |text: &str| {
            let header = HeaderValue::from_str(text).unwrap();
            bearer(&header).map(<[u8]>::to_vec)
        };
        assert_eq!(header("Bearer abc"), Some(b"abc".to_vec()));
        assert_eq!(header("bearer a b"), Some(b"a b".to_vec()));
        for other in ["", "Bearer", "Basic abcdef", "Bearerabcdef"] {
            assert_eq!(header(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_written_of_a_body_is_short_and_on_one_line() {
        let mut body = Map::new();
        body.insert("block".to_owned(), "a\nb\u{1b}[1m".into());
        let text = written(&body);
        assert!(!text.contains(['\n', '\u{1b}']), "{text}");
        body.insert("more".to_owned(), "\u{fc}".repeat(1000).into());
        assert!(written(&body).len() <= AUDIT_BYTES + 4);
    }
}
