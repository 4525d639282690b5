//! Health of upstream nodes: active checks by TCP, passive ones by what live requests came to.

use std::collections::HashMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{Active, Checks, Node, Upstream};

/// Shared by all workers, as APISIX keeps it in shared memory.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<HashMap<(String, Node), State>>>);

#[derive(Default)]
struct State {
    unhealthy: bool,
    successes: u64,
    http_failures: u64,
    tcp_failures: u64,
    timeouts: u64,
}

/// What one request, or one check, told of a node.
#[derive(Clone, Copy)]
pub enum Report {
    Status(u16),
    TcpFailure,
    Timeout,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Node), State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a node may be asked. The first question starts its active check.
    pub fn is_up(&self, upstream: &Upstream, node: &Node) -> bool {
        let Some(checks) = &upstream.checks else { return true };
        let key = (upstream.key.clone(), node.clone());
        let mut states = self.lock();
        if let Some(state) = states.get(&key) {
            return !state.unhealthy;
        }
        states.insert(key.clone(), State::default());
        if let Some(active) = checks.active.clone() {
            let health = self.clone();
            std::thread::spawn(move || health.watch(&key, &active));
        }
        true
    }

    /// Checks a node for as long as the stand-in runs.
    fn watch(&self, key: &(String, Node), active: &Active) {
        let address = format!("{}:{}", key.1.host, key.1.port);
        loop {
            let connected = address
                .to_socket_addrs()
                .ok()
                .and_then(|mut all| all.next())
                .is_some_and(|address| TcpStream::connect_timeout(&address, active.timeout).is_ok());
            if let Some(state) = self.lock().get_mut(key) {
                state.count(connected, active);
            }
            std::thread::sleep(active.interval.max(Duration::from_millis(10)));
        }
    }

    /// A passive check.
    pub fn report(&self, upstream: &Upstream, node: &Node, report: Report) {
        let Some(Checks { passive: Some(passive), .. }) = &upstream.checks else { return };
        let mut states = self.lock();
        let Some(state) = states.get_mut(&(upstream.key.clone(), node.clone())) else { return };
        match report {
            Report::Status(status) if passive.healthy.contains(&status.into()) => {
                state.successes += 1;
                if state.successes >= passive.successes {
                    *state = State::default();
                }
                return;
            }
            Report::Status(status) if passive.unhealthy.contains(&status.into()) => state.http_failures += 1,
            Report::Status(_) => return,
            Report::TcpFailure => state.tcp_failures += 1,
            Report::Timeout => state.timeouts += 1,
        }
        state.successes = 0;
        let reached = |count: u64, limit: u64| limit > 0 && count >= limit;
        state.unhealthy |= reached(state.http_failures, passive.http_failures)
            || reached(state.tcp_failures, passive.tcp_failures)
            || reached(state.timeouts, passive.timeouts);
    }
}

impl State {
    fn count(&mut self, connected: bool, active: &Active) {
        if connected {
            self.successes += 1;
            self.tcp_failures = 0;
            if self.successes >= active.successes {
                *self = State { successes: self.successes, ..State::default() };
            }
        } else {
            self.successes = 0;
            self.tcp_failures += 1;
            self.unhealthy |= self.tcp_failures >= active.failures;
        }
    }
}
