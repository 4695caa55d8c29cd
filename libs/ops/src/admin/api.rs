//! The seam for a product's own routes under `/v1/`: what a route is, what a call brings, what an
//! answer is. `admin/door.rs` lets calls in; nothing here knows a product.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq as _;

use crate::config::Secret;

/// How a route is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Shows something.
    Get,
    /// Does something.
    Post,
    /// Changes a part of something.
    Patch,
    /// Takes something back.
    Delete,
}

impl Method {
    /// As it stands in a request line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// One route of a product.
#[derive(Debug, Clone, Copy)]
pub struct Route<E> {
    /// How it is called.
    pub method: Method,
    /// Where: `/v1/users/{user}/kick`. What stands in braces is any one segment.
    pub path: &'static str,
    /// What it is counted under, among `/metrics` and the like.
    pub handler: &'static str,
    /// What it is to the product.
    pub endpoint: E,
}

/// What a call brings.
#[derive(Debug, Clone)]
pub struct Call<E> {
    /// Which route it came by.
    pub endpoint: E,
    /// What stood in the place of each brace, decoded.
    pub captures: Vec<String>,
    /// What stood behind `?`, decoded.
    pub query: BTreeMap<String, String>,
    /// The JSON object of the body; empty where there was no body.
    pub body: Map<String, Value>,
}

impl<E> Call<E> {
    /// The segment of a route that has one in braces.
    #[must_use]
    pub fn capture(&self) -> &str {
        self.captures.first().map_or("", String::as_str)
    }

    /// Refuses keys of the query and of the body that nobody asks for: a misspelt one would be
    /// taken for its default.
    ///
    /// # Errors
    /// The first such key (400).
    pub fn allow_only(&self, query: &[&str], body: &[&str]) -> Result<(), ApiError> {
        let in_query = self.query.keys().find(|key| !query.contains(&key.as_str()));
        let in_body = self.body.keys().find(|key| !body.contains(&key.as_str()));
        match in_query.or(in_body) {
            Some(key) => Err(ApiError::bad_request(&format!("unknown key `{key}`"))),
            None => Ok(()),
        }
    }
}

/// Why a call has no answer: `{"error": {"code", "message"}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// One of few words, for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Each key at fault and what is wrong there, if there can be several.
    pub faults: Vec<(String, String)>,
}

impl ApiError {
    /// An error of one fault.
    #[must_use]
    pub fn new(status: u16, code: &'static str, message: &str) -> Self {
        Self {
            status,
            code,
            message: message.to_owned(),
            faults: Vec::new(),
        }
    }

    /// 400: the call itself is wrong.
    #[must_use]
    pub fn bad_request(message: &str) -> Self {
        Self::new(400, "bad_request", message)
    }

    pub(super) fn to_json(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if !self.faults.is_empty() {
            let faults = self.faults.iter();
            let faults = faults.map(|(key, reason)| json!({ "key": key, "reason": reason }));
            error["faults"] = faults.collect();
        }
        json!({ "error": error })
    }
}

/// A product's routes and what they do.
pub trait Routes: Send + Sync + 'static {
    /// What a route is to the product, such as an enum.
    type Endpoint: Copy + Send + Sync + 'static;

    /// Every route.
    const ROUTES: &'static [Route<Self::Endpoint>];

    /// Answers a call that was let in. It must end by itself: nobody waits for more than seconds.
    fn answer(
        &self,
        call: Call<Self::Endpoint>,
    ) -> impl Future<Output = Result<Value, ApiError>> + Send;
}

/// The token that lets an operator in. Clones share it; without one nobody gets in.
#[derive(Clone, Default)]
pub struct ApiToken(Arc<RwLock<Option<Secret>>>);

impl ApiToken {
    /// This one, or none.
    #[must_use]
    pub fn new(token: Option<Secret>) -> Self {
        Self(Arc::new(RwLock::new(token)))
    }

    /// Another one from now on.
    pub fn replace(&self, token: Option<Secret>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Whether `offered` is the token; `None`: there is none. Takes the same time for every wrong
    /// one of its length.
    pub(super) fn judge(&self, offered: &[u8]) -> Option<bool> {
        let token = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let token = token.as_ref()?;
        Some(token.expose().ct_eq(offered).into())
    }

    pub(super) fn is_set(&self) -> bool {
        let token = self.0.read().unwrap_or_else(PoisonError::into_inner);
        token.is_some()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(..)")
    }
}

/// A product's routes behind a token, as [`Admin::bind_with_api`](super::Admin::bind_with_api) takes
/// them.
#[derive(Clone)]
pub struct Api {
    pub(super) token: ApiToken,
    routes: Arc<dyn Answer>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// These routes for whoever has this token.
    pub fn new<R: Routes>(token: ApiToken, routes: R) -> Self {
        Self {
            token,
            routes: Arc::new(Product(routes)),
        }
    }

    pub(super) fn handlers(&self) -> impl Iterator<Item = &'static str> {
        (0..).map_while(|at| Some(self.routes.route(at)?.handler))
    }

    /// The route of a request, or what is wrong with it.
    pub(super) fn find(&self, method: &str, path: &str) -> Result<Found, NotFound> {
        let mut allowed = Vec::new();
        for at in 0.. {
            let Some(route) = self.routes.route(at) else {
                break;
            };
            let Some(captures) = captures(route.path, path) else {
                continue;
            };
            if route.method.as_str() == method {
                return Ok(Found {
                    at,
                    method: route.method,
                    handler: route.handler,
                    captures,
                });
            }
            allowed.push(route.method.as_str());
        }
        Err(NotFound { allowed })
    }

    pub(super) async fn answer(&self, at: usize, call: Call<()>) -> Result<Value, ApiError> {
        self.routes.answer(at, call).await
    }
}

/// A route that fits.
pub(super) struct Found {
    pub(super) at: usize,
    pub(super) method: Method,
    pub(super) handler: &'static str,
    pub(super) captures: Vec<String>,
}

/// No route fits; with these methods one would.
#[derive(Debug)]
pub(super) struct NotFound {
    pub(super) allowed: Vec<&'static str>,
}

/// What a path has in the places of a pattern's braces.
fn captures(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut segments = path.split('/');
    let mut captures = Vec::new();
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        if expected.starts_with('{') {
            captures.push(decode(segment).filter(|text| !text.is_empty())?);
        } else if segment != expected {
            return None;
        }
    }
    segments.next().is_none().then_some(captures)
}

/// The pairs behind `?`; `None`: it is none, or a key stands there twice.
pub(super) fn query(text: &str) -> Option<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if pairs.insert(decode(key)?, decode(value)?).is_some() {
            return None;
        }
    }
    Some(pairs)
}

/// A text without its `%` escapes (RFC 3986 section 2.1).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// What a route is without its endpoint.
struct Bare {
    method: Method,
    path: &'static str,
    handler: &'static str,
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<Value, ApiError>> + Send + 'a>>;

/// [`Routes`] whose endpoints are their places.
trait Answer: Send + Sync {
    fn route(&self, at: usize) -> Option<Bare>;

    fn answer(&self, at: usize, call: Call<()>) -> Answering<'_>;
}

struct Product<R>(R);

impl<R: Routes> Answer for Product<R> {
    fn route(&self, at: usize) -> Option<Bare> {
        let route = R::ROUTES.get(at)?;
        Some(Bare {
            method: route.method,
            path: route.path,
            handler: route.handler,
        })
    }

    fn answer(&self, at: usize, call: Call<()>) -> Answering<'_> {
        Box::pin(async move {
            let Some(route) = R::ROUTES.get(at) else {
                return Err(ApiError::new(404, "not_found", "no such route"));
            };
            let call = Call {
                endpoint: route.endpoint,
                captures: call.captures,
                query: call.query,
                body: call.body,
            };
            self.0.answer(call).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_paths_and_decode_what_they_capture() {
        let fits = |path| captures("/v1/users/{user}/kick", path);
        assert_eq!(fits("/v1/users/anna/kick"), Some(vec!["anna".to_owned()]));
        assert_eq!(
            fits("/v1/users/a%2Fb%20%C3%BC/kick"),
            Some(vec!["a/b \u{fc}".to_owned()])
        );
        for path in [
            "/v1/users//kick",
            "/v1/users/anna",
            "/v1/users/anna/kick/",
            "/v1/users/a/b/kick",
            "/v1/users/%zz/kick",
            "/v1/users/%f/kick",
            "/v1/users/%ff/kick",
            "/v2/users/anna/kick",
        ] {
            assert_eq!(fits(path), None, "{path}");
        }
    }

    #[test]
    fn queries_are_decoded_and_say_nothing_twice() {
        let pairs = query("user=a%26b&limit=5&&flag").unwrap();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(pairs, [("flag", ""), ("limit", "5"), ("user", "a&b")]);
        assert_eq!(query("a=1&a=2"), None);
        assert_eq!(query("a=%"), None);
    }

    #[test]
    fn only_the_token_itself_is_right_and_none_is_when_there_is_none() {
        let token = ApiToken::new(Some(Secret::new(b"0123456789abcdef!".to_vec())));
        assert_eq!(token.judge(b"0123456789abcdef!"), Some(true));
        for wrong in [
            &b""[..],
            b"0123456789abcdef",
            b"0123456789abcdef?",
            b"0123456789abcdef!!",
        ] {
            assert_eq!(token.judge(wrong), Some(false));
        }
        token.replace(None);
        assert_eq!((token.judge(b""), token.is_set()), (None, false));
        assert!(!format!("{token:?}").contains("0123"));
    }
}
