//! WebEngage and Identity as their documents describe them: an HTTP server that answers
//! by path and by what a call says, and writes each call down for the judge.
//!
//! Who is `busy-once` is answered 503 the first time; who is `unwelcome` is refused, as
//! long as such users are. Addresses that begin with `learner` belong to an account that
//! WebEngage knows, those with `plain` to one that it does not, others to nobody.

use crate::calls::server::{Request, read};
use serde_json::{Value as Json, json};
use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The path of Identity's search.
const SEARCH: &str = "/userclientaccount/search";

pub struct Partners {
    pub port: u16,
    desk: Arc<Mutex<Desk>>,
}

struct Desk {
    welcomes_all: bool,
    /// Paths and idempotency keys of calls that were told to come again.
    busy: HashSet<(String, String)>,
    book: File,
}

impl Partners {
    /// Starts the server; a JSON line for each call goes to `book`.
    pub async fn start(book: &Path, welcomes_all: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let desk = Arc::new(Mutex::new(Desk {
            welcomes_all,
            busy: HashSet::new(),
            book: File::create(book).unwrap(),
        }));
        let shared = Arc::clone(&desk);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { port, desk }
    }

    /// From now on nobody is refused.
    pub fn welcome_all(&self) {
        self.desk.lock().unwrap().welcomes_all = true;
    }

    /// The sections of a collector's configuration that name it. As many calls a second
    /// as there are, and time for each: this is not about rate and patience.
    pub fn config(&self) -> String {
        let url = format!("http://127.0.0.1:{}", self.port);
        let account = |prefix: &str, name: &str| {
            format!(
                "{prefix}api_key = \"{name}-key\"\n\
                 {prefix}url = \"{url}/{name}/events\"\n\
                 {prefix}user_url = \"{url}/{name}/users\"\n"
            )
        };
        format!(
            "[webengage]\n{}{}rate_max = 100000\ntimeout = \"60s\"\n\
             [identity]\nurl = \"{url}\"\ncustomer_app_client_id = \"customer\"\nrate_max = 100000\ntimeout = \"60s\"\n",
            account("", "user"),
            account("brand_", "brand"),
        )
    }
}

/// Answers on one connection until the client closes it.
async fn serve(stream: TcpStream, desk: Arc<Mutex<Desk>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream, 0).await {
        let (status, body) = desk.lock().unwrap().answer(&request);
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        // The collector may have been killed meanwhile.
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

impl Desk {
    /// Status and body for a call, which is in the book before it is answered.
    fn answer(&mut self, request: &Request) -> (u16, String) {
        let path = request.line.split(' ').nth(1).unwrap_or_default();
        let key = request.header("idempotency-key").unwrap_or_default();
        let place = (path.to_owned(), key.to_owned());
        let (status, body) = if path == SEARCH {
            (200, accounts(&request.body))
        } else if request.body.contains("busy-once") && self.busy.insert(place) {
            (503, json!({"message": "come again"}))
        } else if request.body.contains("unwelcome") && !self.welcomes_all {
            let refusal = json!({"status": "error", "message": "this user is marked"});
            (400, json!({ "response": refusal }))
        } else {
            (201, json!({"response": {"status": "queued"}}))
        };
        let headers: serde_json::Map<String, Json> = request
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().into()))
            .collect();
        let line = json!({
            "path": path, "key": key, "authorization": request.header("authorization"),
            "headers": headers, "body": request.body, "status": status,
        });
        writeln!(self.book, "{line}").unwrap();
        (status, body.to_string())
    }
}

/// The accounts of the address that is searched for.
fn accounts(body: &str) -> Json {
    let search: Json = serde_json::from_str(body).unwrap();
    let filters = search["filters"].as_array().unwrap();
    let is = |field: &str| filters.iter().find(|filter| filter["field"] == field);
    assert_eq!(is("clientId").unwrap()["value"], "customer", "{body}");
    let email = is("email").unwrap()["value"].as_str().unwrap();
    let list = match email.split('-').next() {
        Some("learner") => json!([{"id": 1, "webengageUserId": format!("we-{email}")}, {"id": 2}]),
        Some("plain") => json!([{"id": 1}]),
        _ => json!([]),
    };
    json!({"status": {"code": 200, "message": "", "type": "SUCCESS", "count": 2}, "list": list})
}
