//! A server on localhost that imitates the hub, and sends wrong data if a test asks for it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The commit of all files.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The files of the server, and a log of its requests.
#[derive(Default)]
pub struct Shelf {
    /// Name and content of each file.
    pub files: Vec<(String, Vec<u8>)>,
    /// Requests without this token are refused.
    pub token: Option<&'static str>,
    /// Sends only half of this file.
    pub broken: Option<&'static str>,
    /// The size that the list of files gives for each; `None`: the true one.
    pub claimed_size: Option<u64>,
    /// The ETag of each file; `None`: one made of its name.
    pub etag: Option<&'static str>,
    /// Files are at this address: requests for them are redirected there, as the hub does with large ones.
    pub elsewhere: Option<String>,
    /// The paths of all requests.
    pub asked: Mutex<Vec<String>>,
    /// The tokens of all requests.
    pub tokens: Mutex<Vec<Option<String>>>,
}

impl Shelf {
    /// A shelf with these files.
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, content)| (name.to_string(), content.to_vec()));
        Self { files: files.collect(), ..Self::default() }
    }

    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Whether this file was requested.
    pub fn was_asked_for(&self, name: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|path| path.ends_with(name))
    }
}

/// Serves on a free port for the rest of the test. Returns the address.
pub fn serve(shelf: Shelf) -> (String, Arc<Shelf>) {
    let (listener, shelf) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(shelf));
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shared = shelf.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client may close the connection early.
            let _ = answer(stream, &shared);
        }
    });
    (address, shelf)
}

fn answer(mut stream: TcpStream, shelf: &Shelf) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_string();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_string());
    }
    shelf.asked.lock().unwrap().push(path.clone());
    shelf.tokens.lock().unwrap().push(headers.get("authorization").cloned());
    let mut reply = |status: &str, extra: &str, body: &[u8]| {
        let length = body.len();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{extra}\r\n")?;
        stream.write_all(body)
    };
    if shelf.token.is_some_and(|token| headers.get("authorization") != Some(&format!("Bearer {token}"))) {
        return reply("401 Unauthorized", "", b"");
    }
    let listed = ["main", COMMIT].iter().any(|revision| path.ends_with(&format!("/revision/{revision}?blobs=true")));
    if path.starts_with("/api/") && listed {
        let entry = |(name, content): &(String, Vec<u8>)| {
            let size = shelf.claimed_size.unwrap_or(content.len() as u64);
            format!("{{\"rfilename\": \"{name}\", \"size\": {size}}}")
        };
        let list = shelf.files.iter().map(entry).collect::<Vec<_>>().join(", ");
        let body = format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{list}]}}");
        return reply("200 OK", "Content-Type: application/json\r\n", body.as_bytes());
    }
    let name = path.split_once(&format!("/resolve/{COMMIT}/")).map(|(_, name)| name).unwrap_or_default();
    let Some((name, bytes)) = shelf.files.iter().find(|(n, _)| n == name) else {
        return reply("404 Not Found", "", b"");
    };
    let etag = shelf.etag.map_or_else(|| name.replace('/', "_"), String::from);
    if let Some(elsewhere) = &shelf.elsewhere {
        let headers = format!("Location: {elsewhere}{path}\r\nX-Linked-ETag: \"{etag}\"\r\n");
        return reply("302 Found", &headers, b"");
    }
    let total = bytes.len();
    let about =
        |first: usize, last: usize| format!("ETag: \"{etag}\"\r\nContent-Range: bytes {first}-{last}/{total}\r\n");
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    match range.map(|range| range.split_once('-').unwrap_or_default()) {
        Some(("0", "0")) => reply("206 Partial Content", &about(0, 0), &bytes[..1]),
        Some((start, _)) => {
            let start: usize = start.parse().unwrap();
            reply("206 Partial Content", &about(start, total - 1), &bytes[start..])
        }
        None => {
            let sent = if shelf.broken == Some(name) { &bytes[..total / 2] } else { bytes };
            reply("200 OK", &format!("ETag: \"{etag}\"\r\n"), sent)
        }
    }
}
