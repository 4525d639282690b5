//! The `streams` subcommand: many streamed requests that are all open at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use serde_json::{json, Value};
use tokio::time::Instant;

use crate::cli::StreamsOptions;
use crate::client::{Client, Request};
use crate::http::HOLD_HEADER;
use crate::payload;
use crate::report::Tally;
use crate::run::all;
use crate::vendor::Vendor;
use crate::Error;

/// Every stream is read as it comes. To stop reading would keep an answer open only here and say
/// nothing of the proxy, which could have passed it on to its end; so it is the upstream that holds the
/// streams open, and how many were open at once is measured. Once all are, standard error has a line that says so.
pub async fn run(options: StreamsOptions) -> Result<Value, Error> {
    let hold = options.hold.as_millis();
    let headers = if hold > 0 { vec![(HOLD_HEADER, hold.to_string())] } else { Vec::new() };
    let request = Arc::new(Request {
        wire: payload::request(&options.request, &options.target, &headers),
        stream: true,
        vendor: Vendor::OpenAi,
        expect_status: 200,
        timeout: options.request.timeout,
    });
    let gauge = Arc::new(Gauge::default());

    let began = Instant::now();
    let each = std::iter::repeat_with(|| {
        let mut client = Client::new(options.target.clone());
        let (request, gauge) = (Arc::clone(&request), Arc::clone(&gauge));
        async move {
            let mut open = None;
            let enter = || {
                let inside = gauge.enter();
                if gauge.inside.load(Ordering::Relaxed) == options.count {
                    eprintln!("all streams are open");
                }
                open = Some(inside);
            };
            client.exchange(&request, began, enter).await
        }
    });
    let results = all(each.take(options.count)).await?;

    let mut tally = Tally::new();
    for result in results {
        tally.add(result);
    }
    let mut report = tally.report(began.elapsed());
    report.insert("opened".to_owned(), json!(gauge.entered.load(Ordering::Relaxed)));
    report.insert("max_simultaneous".to_owned(), json!(gauge.most.load(Ordering::Relaxed)));
    Ok(Value::Object(report))
}

/// Counts the streams that have begun to answer and not ended.
#[derive(Default)]
struct Gauge {
    entered: AtomicUsize,
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    fn enter(&self) -> Inside<'_> {
        self.entered.fetch_add(1, Ordering::Relaxed);
        let inside = self.inside.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(inside, Ordering::Relaxed);
        Inside(self)
    }
}

/// A stream that is open, for as long as this lives.
struct Inside<'a>(&'a Gauge);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauge_keeps_the_most_that_were_open() {
        let gauge = Gauge::default();
        let (first, second) = (gauge.enter(), gauge.enter());
        drop(first);
        let third = gauge.enter();
        drop((second, third));
        assert_eq!(gauge.entered.load(Ordering::Relaxed), 3);
        assert_eq!(gauge.most.load(Ordering::Relaxed), 2);
        assert_eq!(gauge.inside.load(Ordering::Relaxed), 0);
    }
}
