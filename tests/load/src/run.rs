//! The `run` subcommand: closed-loop load on one target, or on two in turns.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{json, Map, Value};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, Instant};

use crate::cli::{RunOptions, Target};
use crate::client::{Client, Request};
use crate::payload;
use crate::procfs::Process;
use crate::report::{rounded, Tally};
use crate::vendor::Vendor;
use crate::Error;

/// Two targets take turns in short blocks, because a machine's speed drifts over the minutes of a
/// benchmark by more than a filter costs. Each block sees nearly the same machine as its neighbour.
pub async fn run(options: RunOptions) -> Result<Value, Error> {
    let mut sides = vec![Side::new(&options, &options.target, Vendor::OpenAi, options.pid_a)?];
    if let Some(target) = &options.target2 {
        sides.push(Side::new(&options, target, options.vendor2, options.pid_b)?);
    }
    for side in &mut sides {
        side.warm_up(options.warmup).await?;
    }

    let block = options.interleave.unwrap_or(options.requests);
    let mut left = options.requests;
    while left > 0 {
        let requests = block.min(left);
        for side in &mut sides {
            side.block(requests, options.rate).await?;
        }
        left -= requests;
    }

    let mut reports = Vec::new();
    for side in &sides {
        reports.push(side.report()?);
    }
    Ok(match <[Value; 2]>::try_from(reports) {
        Ok([a, b]) => json!({"a": a, "b": b}),
        Err(mut one) => one.pop().unwrap_or_default(),
    })
}

/// One target with its connections and its numbers.
struct Side {
    clients: Vec<Client>,
    request: Arc<Request>,
    tally: Arc<Mutex<Tally>>,
    /// The time of its blocks together.
    time: Duration,
    process: Option<Process>,
    /// The CPU time that the process spent in its blocks.
    cpu: Duration,
}

impl Side {
    fn new(options: &RunOptions, target: &Target, vendor: Vendor, pid: Option<u32>) -> Result<Self, Error> {
        let client = || Client::new(target.clone());
        Ok(Self {
            clients: std::iter::repeat_with(client).take(options.connections).collect(),
            request: Arc::new(Request {
                wire: payload::request(&options.request, target, &[]),
                stream: options.request.stream,
                vendor,
                expect_status: options.expect_status,
                timeout: options.request.timeout,
            }),
            tally: Arc::new(Mutex::new(Tally::new())),
            time: Duration::ZERO,
            process: pid.map(Process::new).transpose()?,
            cpu: Duration::ZERO,
        })
    }

    /// Sends `requests` on every connection and counts none of them.
    async fn warm_up(&mut self, requests: usize) -> Result<(), Error> {
        let request = &self.request;
        let each = self.clients.drain(..).map(|mut client| {
            let request = Arc::clone(request);
            async move {
                for _ in 0..requests {
                    // A target that fails shows it in what is counted.
                    let _ = client.exchange(&request, Instant::now(), || {}).await;
                }
                client
            }
        });
        self.clients = all(each).await?;
        Ok(())
    }

    /// Sends `requests` over all connections and counts them.
    async fn block(&mut self, requests: usize, rate: Option<f64>) -> Result<(), Error> {
        let cpu = self.process.as_ref().map(Process::cpu_time).transpose()?;
        let began = Instant::now();
        let schedule = Arc::new(Schedule { began, rate, requests, next: AtomicUsize::new(0) });
        let (request, tally) = (&self.request, &self.tally);
        let each = self
            .clients
            .drain(..)
            .map(|client| work(client, Arc::clone(request), Arc::clone(tally), Arc::clone(&schedule)));
        self.clients = all(each).await?;
        self.time += began.elapsed();
        if let (Some(process), Some(before)) = (&self.process, cpu) {
            self.cpu += process.cpu_time()?.saturating_sub(before);
        }
        Ok(())
    }

    fn report(&self) -> Result<Value, Error> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report: Map<String, Value> = tally.report(self.time);
        if let Some(process) = &self.process {
            let per_request = self.cpu.as_secs_f64() * 1e6 / tally.requests().max(1) as f64;
            report.insert("cpu_us_per_request".to_owned(), json!(rounded(per_request)));
            report.insert("cpu_clock".to_owned(), json!(process.clock().name()));
            report.insert("rss_kb".to_owned(), json!(process.rss_kb()?));
        }
        Ok(Value::Object(report))
    }
}

/// Hands out a block's requests to its connections.
struct Schedule {
    began: Instant,
    rate: Option<f64>,
    requests: usize,
    next: AtomicUsize,
}

impl Schedule {
    /// Waits until the next request is due. Returns when to count its time from, or `None` when all
    /// are given out.
    async fn next(&self) -> Option<Instant> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.requests {
            return None;
        }
        let now = Instant::now();
        let Some(rate) = self.rate else {
            return Some(now);
        };
        let due = self.began + Duration::from_secs_f64(index as f64 / rate);
        if due > now {
            sleep_until(due).await;
            // Timers wake up to a millisecond late, for which the target is not to blame.
            Some(Instant::now())
        } else {
            // All connections were busy when it was due. That wait is the target's: without it, a
            // target that stalls would be asked less in just the time in which it is slow.
            Some(due)
        }
    }
}

/// One connection's share of a block.
async fn work(
    mut client: Client,
    request: Arc<Request>,
    tally: Arc<Mutex<Tally>>,
    schedule: Arc<Schedule>,
) -> Client {
    while let Some(began) = schedule.next().await {
        let result = client.exchange(&request, began, || {}).await;
        tally.lock().unwrap_or_else(PoisonError::into_inner).add(result);
    }
    client
}

/// Runs all futures as tasks and waits for them.
pub async fn all<T, F>(futures: impl IntoIterator<Item = F>) -> Result<Vec<T>, Error>
where
    T: Send + 'static,
    F: std::future::Future<Output = T> + Send + 'static,
{
    let mut tasks: JoinSet<T> = JoinSet::new();
    for future in futures {
        tasks.spawn(future);
    }
    let mut results = Vec::with_capacity(tasks.len());
    while let Some(result) = tasks.join_next().await {
        let result = result.map_err(|error| Error::Failed(format!("a task ended: {error}")))?;
        results.push(result);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_request_is_timed_from_when_it_was_due_and_an_early_one_from_when_it_is_sent() {
        let gap = Duration::from_millis(20);
        let began = Instant::now() - gap;
        let schedule =
            Schedule { began, rate: Some(1.0 / gap.as_secs_f64()), requests: 3, next: AtomicUsize::new(0) };
        assert_eq!(schedule.next().await, Some(began));
        assert_eq!(schedule.next().await, Some(began + gap));
        let third = schedule.next().await.expect("one is left");
        assert!(third >= began + 2 * gap && third <= Instant::now());
        assert_eq!(schedule.next().await, None);
    }
}
