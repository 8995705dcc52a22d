//! A hostile input and what must come of it, played over a plain connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Nothing takes longer: each refusal has its bound.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Where the collector is, and a token that it knows.
pub struct Site {
    pub grpc: u16,
    pub http: u16,
    pub token: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    Grpc,
    Http,
}

/// What is right.
#[derive(Clone, Debug)]
pub enum Want {
    /// One of these HTTP statuses.
    Status(&'static [u16]),
    /// One of these gRPC codes.
    Code(&'static [u32]),
    /// The connection ends without a success.
    Ends,
}

pub struct Case {
    pub name: String,
    pub port: Port,
    /// Sent one after the other.
    pub parts: Vec<Vec<u8>>,
    /// Between two of them.
    pub pause: Duration,
    pub want: Want,
}

impl Case {
    pub fn new(name: impl Into<String>, port: Port, bytes: impl Into<Vec<u8>>, want: Want) -> Self {
        Self {
            name: name.into(),
            port,
            parts: vec![bytes.into()],
            pause: Duration::ZERO,
            want,
        }
    }

    /// What is wrong with the answer.
    pub fn play(&self, site: &Site) -> Option<String> {
        let port = match self.port {
            Port::Grpc => site.grpc,
            Port::Http => site.http,
        };
        let answer = match self.exchange(port) {
            Ok(answer) => answer,
            Err(error) => return Some(format!("{}: {error}", self.name)),
        };
        let text = String::from_utf8_lossy(&answer);
        let (status, code) = (status(&text), code(&text));
        let is_right = match &self.want {
            Want::Status(wanted) => status.is_some_and(|status| wanted.contains(&status)),
            Want::Code(wanted) => code.is_some_and(|code| wanted.contains(&code)),
            Want::Ends => status.is_none_or(|status| status >= 300) && code != Some(0),
        };
        let shown: String = text.chars().take(300).collect();
        (!is_right).then(|| format!("{}: not {:?}: {shown:?}", self.name, self.want))
    }

    fn exchange(&self, port: u16) -> Result<Vec<u8>, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
        let limit = Some(ANSWER_MAX);
        stream.set_read_timeout(limit).map_err(|e| e.to_string())?;
        stream.set_write_timeout(limit).map_err(|e| e.to_string())?;
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                std::thread::sleep(self.pause);
            }
            // Who refuses early may close before all is read.
            if (&stream).write_all(part).is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
            Ok(_) => Ok(answer),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(answer),
            Err(error) => Err(format!(
                "it did not end: {error}; {:?}",
                String::from_utf8_lossy(&answer)
            )),
        }
    }
}

/// The status of an HTTP/1 answer.
fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

/// The gRPC status of an answer, in its head or in the trailers that grpc-web has in the body.
fn code(answer: &str) -> Option<u32> {
    let lower = answer.to_ascii_lowercase();
    let (_, rest) = lower.split_once("grpc-status:")?;
    let digits: String = rest
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

/// An HTTP/1.1 request that ends its connection.
pub fn request(method: &str, path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n{lines}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
