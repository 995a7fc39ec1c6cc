//! HTTP requests to the hub. The access token is sent to the hub's own address only. Responses are checked before they
//! become part of a path, because a mirror may be broken or hostile.

use crate::suggest::shortened;
use serde::Deserialize;
use std::fmt;
use std::io::Read;
use std::time::Duration;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

/// A connection to one hub.
pub struct Client<'a> {
    agent: Agent,
    endpoint: &'a str,
    token: Option<&'a str>,
}

/// The reason why a request failed.
#[derive(Debug)]
pub struct Failure {
    /// The HTTP status, if there was a response.
    pub status: Option<u16>,
    what: String,
}

impl Failure {
    fn new(what: impl Into<String>) -> Self {
        Self { status: None, what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The hub's response about a repository at a revision.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

/// A file of a repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepoFile {
    /// Path in the repository: relative, without `..`.
    pub name: String,
    /// Size in bytes, if the hub reports it.
    pub size: Option<u64>,
}

/// The identity and size of a file, requested before its download.
pub struct FileInfo {
    /// Name of the blob in the cache: letters, digits, `-`, `_` and `.`.
    pub etag: String,
    /// Size in bytes.
    pub size: u64,
}

/// The most redirects that are followed.
const MOST_HOPS: usize = 8;

/// The largest list of files that is read, in bytes.
const LONGEST_LISTING: u64 = 64 << 20;

impl<'a> Client<'a> {
    /// A client of the hub at `endpoint`.
    pub fn new(endpoint: &'a str, token: Option<&'a str>) -> Self {
        let config = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // Ends a download whose server stops sending.
            .timeout_per_read(Some(Duration::from_secs(60)))
            .user_agent(concat!("halfbyte/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity");
        Self { agent: config.build().into(), endpoint, token }
    }

    /// The commit of a revision and its files; `repo` is `models/owner/name` or `datasets/owner/name`.
    pub fn list(&self, repo: &str, revision: &str) -> Result<(String, Vec<RepoFile>), Failure> {
        let url = format!("{}/api/{repo}/revision/{}?blobs=true", self.endpoint, escape(revision, false));
        let (_, answer) = self.get(&url, None)?;
        let text = answer.into_body().with_config().limit(LONGEST_LISTING).read_to_string();
        let text = text.map_err(|e| Failure::new(e.to_string()))?;
        parse_listing(&text)
    }

    /// The address of a file; `path` is the path of the repository's page.
    pub fn url(&self, path: &str, commit: &str, name: &str) -> String {
        format!("{}/{path}/resolve/{commit}/{}", self.endpoint, escape(name, true))
    }

    /// The identity and size of the file at `url`.
    pub fn info(&self, url: &str) -> Result<FileInfo, Failure> {
        let (seen, answer) = self.get(url, Some("bytes=0-0"))?;
        let etag = seen.etag.ok_or_else(|| Failure::new("the answer names no ETag"))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if etag.is_empty() || etag.len() > 128 || etag.starts_with('.') || !etag.chars().all(fits) {
            return Err(Failure::new(format!("the ETag {:?} cannot be the name of a file", shortened(&etag, 100))));
        }
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let total = header("content-range").and_then(|range| range.rsplit('/').next()).and_then(|n| n.parse().ok());
        // A server without ranges sends the whole file, as every server does for an empty one.
        let whole = || header("content-length").and_then(|n| n.parse().ok()).filter(|_| answer.status() == 200);
        let size = total.or_else(whole).ok_or_else(|| Failure::new("the answer does not say how long the file is"))?;
        Ok(FileInfo { etag, size })
    }

    /// The content of the file at `url` from byte `start` on, and whether the server respected `start`.
    pub fn content(&self, url: &str, start: u64) -> Result<(impl Read + use<>, bool), Failure> {
        let (_, answer) = self.get(url, (start > 0).then(|| format!("bytes={start}-")).as_deref())?;
        let partial = answer.status() == 206;
        Ok((answer.into_body().into_reader(), partial))
    }

    /// Sends a request and follows redirects. The token is sent to the hub only, never to a host that it redirects to.
    fn get(&self, url: &str, range: Option<&str>) -> Result<(Seen, Response<Body>), Failure> {
        let mut url = url.to_string();
        let mut seen = Seen::default();
        for _ in 0..MOST_HOPS {
            let mut request = self.agent.get(&url);
            if let Some(token) = self.token.filter(|_| origin(&url).is_some_and(|o| Some(o) == origin(self.endpoint))) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            let answer = request.call().map_err(|e| Failure::new(e.to_string().replace(&url, &public(&url))))?;
            seen.note(&answer);
            let status = answer.status();
            if status.is_success() {
                return Ok((seen, answer));
            }
            let location = answer.headers().get("location").and_then(|l| l.to_str().ok());
            match location.filter(|_| status.is_redirection()) {
                Some(location) => url = resolve(&url, location)?,
                None => {
                    let what = format!("http status: {}", status.as_u16());
                    return Err(Failure { status: Some(status.as_u16()), what });
                }
            }
        }
        Err(Failure::new(format!("more than {MOST_HOPS} redirects")))
    }
}

/// The ETag of a file, collected over all responses of a request.
#[derive(Default)]
struct Seen {
    etag: Option<String>,
}

impl Seen {
    /// Takes the ETag of a response. For a large file the hub sends it before it redirects to the storage.
    fn note(&mut self, answer: &Response<Body>) {
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let linked = header("x-linked-etag");
        if self.etag.is_none() && (linked.is_some() || answer.status().is_success()) {
            let etag = linked.or_else(|| header("etag"));
            self.etag = etag.map(|etag| etag.trim_start_matches("W/").replace('"', ""));
        }
    }
}

/// The commit and the files of the hub's answer about a repository. Files outside of the repository's folder are left
/// out.
pub fn parse_listing(text: &str) -> Result<(String, Vec<RepoFile>), Failure> {
    let Listing { sha, siblings } =
        serde_json::from_str(text).map_err(|e| Failure::new(format!("the answer is not a list of files: {e}")))?;
    if sha.len() != 40 || !sha.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Failure::new(format!("{:?} is not a commit", shortened(&sha, 100))));
    }
    let files = siblings.into_iter().map(|s| RepoFile { name: s.rfilename, size: s.size });
    Ok((sha, files.filter(|file| is_inside(&file.name)).collect()))
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> Option<(String, String, Option<u16>)> {
    let uri: Uri = url.parse().ok()?;
    let port = uri.port_u16().or(match uri.scheme_str()? {
        "https" => Some(443),
        _ => Some(80),
    });
    Some((uri.scheme_str()?.into(), uri.host()?.to_ascii_lowercase(), port))
}

/// The address to which `location` redirects from `url`.
pub fn resolve(url: &str, location: &str) -> Result<String, Failure> {
    let wrong = || Failure::new(format!("redirected to {:?}, which is not an address", public(location)));
    let uri: Uri = location.parse().map_err(|_| wrong())?;
    let from: Uri = url.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (from.scheme_str(), from.authority()) else { return Err(wrong()) };
    match uri.scheme_str() {
        Some("http") if scheme == "https" => {
            Err(Failure::new(format!("redirected from https to {}", public(location))))
        }
        Some("http" | "https") => Ok(location.into()),
        None if location.starts_with('/') => Ok(format!("{scheme}://{authority}{location}")),
        _ => Err(wrong()),
    }
}

/// A URL for messages: without user name, password and query, which may hold secrets, and not longer than a line.
pub fn public(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let start = plain.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = plain.split_at(start);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    shortened(&format!("{scheme}{host}{path}"), 200).into_owned()
}

/// Whether the path `name` stays within the folder of its repository.
fn is_inside(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.split('/').all(part) && !name.contains(['\\', ':', '\0'])
}

/// Percent-encodes `text` for a URL; keeps slashes if they separate folders.
fn escape(text: &str, slashes: bool) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || (slashes && b == b'/');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_repository_are_not_files_of_it() {
        for name in ["../x", "/x", "a/../x", "a//x", "", "./x", "C:/x", "a\\x", "a/"] {
            assert!(!is_inside(name), "{name}");
        }
        assert!(is_inside("data/train-00000 of 1.jsonl"));
    }

    #[test]
    fn a_redirect_is_resolved_against_the_address_before() {
        assert_eq!(resolve("https://a.b:1/c/d", "/e?f").expect("relative"), "https://a.b:1/e?f");
        assert_eq!(resolve("http://a/c", "https://z/e").expect("absolute"), "https://z/e");
        for wrong in ["http://a/e", "e", "ftp://a/e", ""] {
            assert!(resolve("https://a/c", wrong).is_err(), "{wrong}");
        }
        assert_ne!(origin("https://a.b"), origin("https://a.b.c"));
        assert_ne!(origin("https://a.b@c"), origin("https://a.b"));
        assert_eq!(origin("https://A.b/x"), origin("https://a.b:443"));
    }

    #[test]
    fn messages_repeat_no_secret_of_an_address() {
        assert_eq!(public("https://user:pw@hub.example:8/a/b?token=x#y"), "https://hub.example:8/a/b");
        assert_eq!(public("https://u:p@hub.example"), "https://hub.example");
        assert_eq!(public("u:p@hub.example/x@y"), "hub.example/x@y");
        assert_eq!(public("/a@b?signature=z"), "/a@b");
    }

    #[test]
    fn addresses_escape_what_they_must() {
        assert_eq!(escape("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(escape("a b/ü?.json", true), "a%20b/%C3%BC%3F.json");
    }
}
