//! What an answer says about its provider.

use std::fmt::Display;
use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use s2_coordinator::Timestamp;

use crate::permit::CallOutcome;

/// Tells what an answer says about its provider. A function will do.
pub trait Classify<Response, Error> {
    /// What became of the call; `now` is the time of the fleet.
    fn classify(&self, answer: Result<&Response, &Error>, now: Timestamp) -> CallOutcome;
}

impl<F, Response, Error> Classify<Response, Error> for F
where
    F: Fn(Result<&Response, &Error>) -> CallOutcome,
{
    fn classify(&self, answer: Result<&Response, &Error>, _: Timestamp) -> CallOutcome {
        self(answer)
    }
}

/// What HTTP says: 429, and 503 with `Retry-After`, ask for patience; other 5xx and no answer at all are failures; everything
/// else is a success, wrong requests included, since the provider is there.
///
/// `Retry-After` is seconds or a date; a date counts from the provider's own `Date`, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpStatus;

impl<Body, Error: Display> Classify<Response<Body>, Error> for HttpStatus {
    fn classify(&self, answer: Result<&Response<Body>, &Error>, now: Timestamp) -> CallOutcome {
        let response = match answer {
            Ok(response) => response,
            Err(error) => return CallOutcome::Failure(error.to_string().into()),
        };
        let status = response.status();
        match retry_after(response.headers(), now) {
            after if status == StatusCode::TOO_MANY_REQUESTS => CallOutcome::Throttled(after),
            Some(after) if status == StatusCode::SERVICE_UNAVAILABLE => CallOutcome::Throttled(Some(after)),
            _ if status.is_server_error() => CallOutcome::Failure(format!("status {}", status.as_u16()).into()),
            _ => CallOutcome::Success,
        }
    }
}

fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = date(headers, DATE).unwrap_or(now);
    date(headers, RETRY_AFTER).map(|at| at.since(now))
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    httpdate::parse_http_date(text).ok().map(Timestamp::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(HeaderName, &'a str)];

    fn outcome(status: u16, headers: Headers<'_>) -> CallOutcome {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, *value);
        }
        let now = "2025-11-12T09:00:00Z".parse().unwrap();
        HttpStatus.classify(Ok::<_, &String>(&response.body(()).unwrap()), now)
    }

    #[test]
    fn what_each_answer_says() {
        let throttled = |seconds: u64| CallOutcome::Throttled(Some(Duration::from_secs(seconds)));
        let failure = |reason: &'static str| CallOutcome::Failure(reason.into());
        let later = "Wed, 12 Nov 2025 09:01:30 GMT";
        let cases: [(u16, Headers<'_>, CallOutcome); 14] = [
            (200, &[], CallOutcome::Success),
            (200, &[(RETRY_AFTER, "7")], CallOutcome::Success),
            (400, &[], CallOutcome::Success),
            (404, &[], CallOutcome::Success),
            (429, &[], CallOutcome::Throttled(None)),
            (429, &[(RETRY_AFTER, " 7 ")], throttled(7)),
            (429, &[(RETRY_AFTER, "0")], throttled(0)),
            (429, &[(RETRY_AFTER, "soon")], CallOutcome::Throttled(None)),
            (429, &[(RETRY_AFTER, later)], throttled(90)),
            (429, &[(RETRY_AFTER, later), (DATE, "Wed, 12 Nov 2025 09:01:00 GMT")], throttled(30)),
            (429, &[(RETRY_AFTER, "Wed, 12 Nov 2025 08:00:00 GMT")], throttled(0)),
            (503, &[(RETRY_AFTER, "18446744073709551615")], throttled(u64::MAX)),
            (503, &[], failure("status 503")),
            (529, &[(RETRY_AFTER, "7")], failure("status 529")),
        ];
        for (status, headers, said) in cases {
            assert_eq!(outcome(status, headers), said, "{status} {headers:?}");
        }
        let none = HttpStatus.classify(Err::<&Response<()>, _>(&"connection refused"), Timestamp::EPOCH);
        assert_eq!(none, failure("connection refused"));
    }
}
