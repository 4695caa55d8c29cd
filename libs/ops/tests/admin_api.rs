//! A product's routes on the admin listener, over real sockets: who is let in, what is refused and
//! how, and what is counted.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use ops::Health;
use ops::admin::Admin;
use ops::admin::api::{Api, ApiError, ApiToken, Call, Method, Route, Routes};
use ops::config::Secret;
use ops::metrics::Registry;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "f9d1c4b2a7e05386f9d1c4b2a7e05386";

/// A product that says what it was asked.
struct Echo;

#[derive(Clone, Copy, Debug)]
enum Endpoint {
    Show,
    Change,
}

impl Routes for Echo {
    type Endpoint = Endpoint;

    const ROUTES: &'static [Route<Endpoint>] = &[
        Route {
            method: Method::Get,
            path: "/v1/things/{thing}",
            handler: "show",
            endpoint: Endpoint::Show,
        },
        Route {
            method: Method::Patch,
            path: "/v1/things/{thing}",
            handler: "change",
            endpoint: Endpoint::Change,
        },
    ];

    async fn answer(&self, call: Call<Endpoint>) -> Result<Value, ApiError> {
        call.allow_only(&["limit"], &["size", "text"])?;
        if call.capture() == "none" {
            let mut error = ApiError::new(422, "invalid", "two faults");
            error.faults = vec![("size".to_owned(), "too big".to_owned())];
            return Err(error);
        }
        let endpoint = format!("{:?}", call.endpoint);
        Ok(
            json!({ "endpoint": endpoint, "thing": call.capture(), "query": call.query, "body": call.body }),
        )
    }
}

struct Fixture {
    admin: Admin,
    registry: Registry,
    token: ApiToken,
}

async fn fixture(token: Option<&str>) -> Fixture {
    let registry = Registry::new();
    let health = Health::new(&registry).unwrap();
    let token = ApiToken::new(token.map(|token| Secret::new(token.as_bytes().to_vec())));
    let api = Api::new(token.clone(), Echo);
    let address = "127.0.0.1:0".parse().unwrap();
    let admin = Admin::bind_with_api(address, registry.clone(), health, api)
        .await
        .unwrap();
    Fixture {
        admin,
        registry,
        token,
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Fixture {
    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.admin.local_addr()).await.unwrap();
        // A request that is refused early may be cut off.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: serde_json::from_str(body).unwrap_or_default(),
        }
    }

    async fn with(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let length = body.len();
        let auth = format!("authorization: {token}\r\n");
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{auth}content-length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.with(&format!("Bearer {TOKEN}"), method, path, body)
            .await
    }

    fn counted(&self, handler: &str, code: u16) -> String {
        let name =
            format!("rallypoint_http_requests_total{{code=\"{code}\",handler=\"{handler}\"}} ");
        let text = self.registry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or("none").to_owned()
    }
}

fn code(answer: &Answer) -> (u16, &str) {
    (
        answer.status,
        answer.body["error"]["code"].as_str().unwrap_or(""),
    )
}

#[tokio::test]
async fn a_call_brings_its_captures_query_and_body_and_is_counted() {
    let fixture = fixture(Some(TOKEN)).await;
    assert_eq!(fixture.counted("show", 200), "0", "declared at start");
    let answer = fixture.ask("GET", "/v1/things/a%20b?limit=5", "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/json"));
    let expected =
        json!({ "endpoint": "Show", "thing": "a b", "query": { "limit": "5" }, "body": {} });
    assert_eq!(answer.body, expected);
    let answer = fixture.ask("PATCH", "/v1/things/c", r#"{"size": 7}"#).await;
    assert_eq!(answer.body["endpoint"], "Change");
    assert_eq!(answer.body["body"], json!({ "size": 7 }));
    assert_eq!(fixture.counted("show", 200), "1");
    assert_eq!(fixture.counted("change", 200), "1");
}

#[tokio::test]
async fn errors_have_one_shape() {
    let fixture = fixture(Some(TOKEN)).await;
    for (method, path, body, expected) in [
        ("GET", "/v1/nothing", "", (404, "not_found")),
        ("POST", "/v1/things/a", "", (405, "method_not_allowed")),
        ("GET", "/v1/things/a?limt=5", "", (400, "bad_request")),
        (
            "GET",
            "/v1/things/a?limit=1&limit=2",
            "",
            (400, "bad_request"),
        ),
        (
            "PATCH",
            "/v1/things/a",
            "{\"sise\": 7}",
            (400, "bad_request"),
        ),
        ("PATCH", "/v1/things/a", "[7]", (400, "bad_request")),
        ("PATCH", "/v1/things/a", "{", (400, "bad_request")),
        ("PATCH", "/v1/things/none", "", (422, "invalid")),
    ] {
        let answer = fixture.ask(method, path, body).await;
        assert_eq!(code(&answer), expected, "{method} {path} {body}");
        assert!(answer.body["error"]["message"].is_string(), "{path}");
    }
    let faults = fixture.ask("GET", "/v1/things/none", "").await;
    let expected = json!([{ "key": "size", "reason": "too big" }]);
    assert_eq!(faults.body["error"]["faults"], expected);
    let wrong_method = fixture.ask("POST", "/v1/things/a", "").await;
    assert!(wrong_method.head.contains("allow: get, patch"));
    assert_eq!(fixture.counted("api_other", 405), "2");
}

#[tokio::test]
async fn without_the_token_nobody_learns_anything() {
    let fixture = fixture(Some(TOKEN)).await;
    let wrong = format!("Bearer {}", TOKEN.replace('f', "e"));
    for (token, path) in [
        ("", "/v1/things/a"),
        ("Basic dXNlcjpwYXNz", "/v1/things/a"),
        (TOKEN, "/v1/things/a"),
        (&wrong, "/v1/things/a"),
        ("", "/v1/nothing"),
    ] {
        let answer = fixture.with(token, "GET", path, "").await;
        assert_eq!(code(&answer), (401, "unauthorized"), "{token} {path}");
        assert!(answer.head.contains("www-authenticate: bearer"));
        assert!(!answer.body.to_string().contains(TOKEN));
    }
    // Probes and scrapers need none.
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(fixture.raw(request).await.status, 200);
    assert_eq!(fixture.counted("show", 401), "4");
}

#[tokio::test]
async fn guessing_ends_after_ten_wrong_tokens() {
    let fixture = fixture(Some(TOKEN)).await;
    for _ in 0..10 {
        let answer = fixture
            .with("Bearer guess", "GET", "/v1/things/a", "")
            .await;
        assert_eq!(answer.status, 401);
    }
    // Not even the right one is looked at.
    let answer = fixture.ask("GET", "/v1/things/a", "").await;
    assert_eq!(code(&answer), (429, "too_many_guesses"));
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(fixture.raw(request).await.status, 200);
}

#[tokio::test]
async fn a_right_token_forgives_the_wrong_ones_before_it() {
    let fixture = fixture(Some(TOKEN)).await;
    for _ in 0..3 {
        for _ in 0..9 {
            let answer = fixture
                .with("Bearer guess", "GET", "/v1/things/a", "")
                .await;
            assert_eq!(answer.status, 401);
        }
        assert_eq!(fixture.ask("GET", "/v1/things/a", "").await.status, 200);
    }
}

#[tokio::test]
async fn the_api_is_off_without_a_token_and_follows_its_change() {
    let fixture = fixture(None).await;
    let answer = fixture.ask("GET", "/v1/things/a", "").await;
    assert_eq!(code(&answer), (403, "api_off"));
    let message = answer.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("[admin]"), "{message}");
    let set = |text: &str| {
        fixture
            .token
            .replace(Some(Secret::new(text.as_bytes().to_vec())));
    };
    set(TOKEN);
    assert_eq!(fixture.ask("GET", "/v1/things/a", "").await.status, 200);
    set("another token altogether");
    assert_eq!(fixture.ask("GET", "/v1/things/a", "").await.status, 401);
}

#[tokio::test]
async fn a_body_beyond_its_limit_is_refused_and_nobody_is_disturbed() {
    let fixture = fixture(Some(TOKEN)).await;
    let text = |length: usize| format!("{{\"text\": \"{}\"}}", "x".repeat(length));
    let fits = text(64 * 1024 - 12);
    assert_eq!(fits.len(), 64 * 1024);
    let answer = fixture.ask("PATCH", "/v1/things/a", &fits).await;
    assert_eq!(answer.status, 200);
    let answer = fixture.ask("PATCH", "/v1/things/a", &text(64 * 1024)).await;
    assert_eq!(code(&answer), (413, "too_large"));
    assert_eq!(fixture.ask("GET", "/v1/things/a", "").await.status, 200);
}

#[tokio::test]
async fn a_listener_without_a_product_has_no_such_routes() {
    let registry = Registry::new();
    let health = Health::new(&registry).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let admin = Admin::bind(address, registry.clone(), health)
        .await
        .unwrap();
    let fixture = Fixture {
        admin,
        registry,
        token: ApiToken::default(),
    };
    assert_eq!(fixture.ask("GET", "/v1/things/a", "").await.status, 404);
    assert_eq!(fixture.counted("other", 404), "1");
}
