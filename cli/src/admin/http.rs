//! One call of the admin API: HTTP/1.1 without TLS, bounded in time and length.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ops::config::{FromRaw, Secret, Section};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::AdminError;

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer: a page of 500 allocations has some hundred KiB.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Where calls go, and the token they carry.
pub(super) struct Relay {
    url: String,
    host: String,
    port: u16,
    token: HeaderValue,
}

/// A file like those that the daemons take secrets from.
struct TokenFile(Secret);

impl FromRaw for TokenFile {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        section.secret("token-file").map(Self)
    }
}

impl Relay {
    pub(super) fn new(url: &str, token_file: Option<&Path>) -> Result<Self, AdminError> {
        let bad_url = || AdminError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad_url())?;
        let is_whole = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
        let host = uri.host().filter(|_| is_whole).ok_or_else(bad_url)?;
        let port = uri.port_u16().unwrap_or(80);
        let token = read_token(token_file.ok_or(AdminError::NoTokenFile)?)?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            token,
        })
    }

    /// The answer, or what the relay says against it.
    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<Value, AdminError> {
        let answered = timeout(PATIENCE, self.exchange(method, path, body)).await;
        let (status, bytes) = match answered {
            Ok(answer) => answer.map_err(|reason| AdminError::Unreachable {
                url: self.url.clone(),
                reason,
            })?,
            Err(_) => {
                let reason = format!("no answer for {} s", PATIENCE.as_secs());
                let url = self.url.clone();
                return Err(AdminError::Unreachable { url, reason });
            }
        };
        let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
        match answer {
            Some(answer) if status == StatusCode::OK => Ok(answer),
            Some(answer) if answer.get("error").is_some() => Err(AdminError::refused(&answer)),
            // Somebody else answers there, such as a daemon without this API.
            _ => Err(AdminError::NoApi {
                url: self.url.clone(),
                status: status.as_u16(),
            }),
        }
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<(StatusCode, Bytes), String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let host = format!("{}:{}", self.host, self.port);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(CONNECTION, "close")
            .header(AUTHORIZATION, self.token.clone())
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect();
        let bytes = body.await.map_err(|error| error.to_string())?.to_bytes();
        connection.abort();
        Ok((status, bytes))
    }
}

fn read_token(file: &Path) -> Result<HeaderValue, AdminError> {
    // A text of JSON is one of TOML.
    let path = Value::from(file.to_string_lossy()).to_string();
    let TokenFile(token) =
        ops::config::parse(&format!("token-file = {path}")).map_err(|problems| {
            let reasons: Vec<&str> = problems.iter().map(|one| one.reason.as_str()).collect();
            AdminError::TokenFile(reasons.join("; "))
        })?;
    let wrong = |_| AdminError::TokenFile("the token is no text that HTTP can carry".to_owned());
    let value = [b"Bearer ", token.expose()].concat();
    let mut value = HeaderValue::from_bytes(&value).map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A text as one segment of a path, or as a value of a query (RFC 3986 section 2.3).
pub(super) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_plain_stays_plain() {
        assert_eq!(encode("Anna-1_x.~"), "Anna-1_x.~");
        assert_eq!(encode("a/b ü?&%"), "a%2Fb%20%C3%BC%3F%26%25");
    }

    #[test]
    fn urls_are_http_and_whole() {
        let token = Some(Path::new("/nowhere/token"));
        for url in ["https://a", "a:1", "http://", "http://a/v1", "ftp://a"] {
            let outcome = Relay::new(url, token);
            assert!(matches!(outcome, Err(AdminError::Url(_))), "{url}");
        }
        for url in ["http://a", "http://[::1]:9479/"] {
            let outcome = Relay::new(url, token);
            assert!(matches!(outcome, Err(AdminError::TokenFile(_))), "{url}");
        }
    }
}
