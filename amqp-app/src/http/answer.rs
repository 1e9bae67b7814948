//! What a request gets: pure.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::app::health::{Health, HealthReport};
use crate::limits::HTTP_HEADERS_MAX;

const TEXT: &str = "text/plain; charset=utf-8";
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
    has_body: bool,
}

/// Whether the head of a request has its end, or cannot be valid.
pub(super) fn is_whole(head: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    !matches!(httparse::Request::new(&mut headers).parse(head), Ok(httparse::Status::Partial))
}

/// Returns the answer to the request with this head.
pub(super) fn answer(head: &[u8], health: &Health) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let target = match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => request.path.unwrap_or_default(),
        Err(httparse::Error::TooManyHeaders) => return Answer::of_status(431),
        Ok(httparse::Status::Partial) | Err(_) => return Answer::of_status(400),
    };
    let has_body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Answer::of_status(405),
    };
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let answer = match path {
        "/live" if health.is_live() => Answer::of(200, "live\n"),
        "/live" => Answer::of(503, "the application has ended\n"),
        "/ready" => ready(health),
        "/metrics" => match health.metrics() {
            Some(render) => match catch_unwind(AssertUnwindSafe(|| render())) {
                Ok(body) => Answer { content_type: METRICS, ..Answer::of(200, body) },
                Err(_) => Answer::of(500, "the function for metrics has panicked\n"),
            },
            None => Answer::of(404, "the application has set no metrics\n"),
        },
        _ => Answer::of(404, "the paths are /live, /ready and /metrics\n"),
    };
    Answer { has_body, ..answer }
}

fn ready(health: &Health) -> Answer {
    let Some(report) = health.report() else {
        let text = if health.is_live() { "not started\n" } else { "the application has ended\n" };
        return Answer::of(503, text);
    };
    let reasons = reasons(&report);
    if reasons.is_empty() { Answer::of(200, "ready\n") } else { Answer::of(503, reasons) }
}

/// Why an application is not ready, a line for each reason.
fn reasons(report: &HealthReport) -> String {
    let mut text = String::new();
    if !report.connected {
        text.push_str("not connected\n");
    }
    if let Some(reason) = &report.blocked {
        let _ = writeln!(text, "the broker blocks publishes: {reason}");
    }
    if report.stopping {
        text.push_str("stopping\n");
    }
    for source in report.sources.iter().filter(|source| !source.is_ready()) {
        let _ = write!(text, "queue {:?}:", source.queue);
        if !source.consuming {
            let why = source.last_error.as_deref().unwrap_or("the consumer is not started");
            let _ = write!(text, " not consumed: {why};");
        }
        if source.overdue > 0 {
            let _ = write!(text, " {} handlers overdue;", source.overdue);
        }
        if source.unstored > 0 {
            let _ = write!(text, " {} copies not stored in a row;", source.unstored);
        }
        text.push('\n');
    }
    text
}

impl Answer {
    fn of(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, body: body.into(), has_body: true }
    }

    pub(super) fn of_status(status: u16) -> Self {
        Self::of(status, format!("{}\n", reason(status)))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        let Self { status, content_type, body, has_body } = self;
        let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\n{allow}Connection: close\r\n\r\n",
            reason(status),
            body.len()
        );
        let mut bytes = head.into_bytes();
        if has_body {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Bad Request",
    }
}
