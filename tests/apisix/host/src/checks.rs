//! Health checks of upstreams: active ones by TCP, passive ones by what live requests came to. As in APISIX, an upstream is
//! checked only once a request has used it, and only if it has more than one node.

use std::collections::HashMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{json, Value as Json};

use crate::config::{Active, Node, Upstream};

/// APISIX looks once a second for upstreams that were used and have no checks yet.
const CREATED_AFTER: Duration = Duration::from_secs(1);

/// The checks of every upstream, shared by all workers as APISIX keeps them in shared memory.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<HashMap<String, Checker>>>);

/// The checks of one upstream.
struct Checker {
    /// Of the file that the upstream is from.
    version: u64,
    /// The checks have begun.
    ready: bool,
    targets: Vec<(Node, Target)>,
}

/// What is known of one node.
#[derive(Clone, Copy, Default, Debug)]
struct Target {
    status: Status,
    successes: u64,
    http_failures: u64,
    tcp_failures: u64,
    timeouts: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Debug)]
enum Status {
    #[default]
    Healthy,
    MostlyHealthy,
    MostlyUnhealthy,
    Unhealthy,
}

/// What one request, or one check, told of a node.
#[derive(Clone, Copy)]
pub enum Report {
    Status(u16),
    TcpFailure,
    Timeout,
}

/// What is counted.
#[derive(Clone, Copy)]
enum Count {
    Success,
    HttpFailure,
    TcpFailure,
    Timeout,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Checker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes that are up. A request asks this before its first try, and the first one to ask starts the checks.
    pub fn up(&self, upstream: &Upstream) -> Vec<Node> {
        let all = || upstream.nodes.clone();
        let Some(checks) = upstream.checks.as_ref().filter(|_| upstream.nodes.len() > 1) else {
            return all();
        };
        let mut checkers = self.lock();
        let checker = checkers.entry(upstream.key.clone()).or_insert(Checker {
            version: 0,
            ready: false,
            targets: Vec::new(),
        });
        if checker.version < upstream.version {
            let before = std::mem::take(&mut checker.targets);
            let known = |node: &Node| before.iter().find(|(one, _)| one == node).map(|(_, target)| *target);
            *checker = Checker {
                version: upstream.version,
                ready: false,
                targets: all()
                    .into_iter()
                    .map(|node| (node.clone(), known(&node).unwrap_or_default()))
                    .collect(),
            };
            let (health, upstream, active) = (self.clone(), upstream.clone(), checks.active.clone());
            std::thread::spawn(move || health.begin(&upstream, &active));
            return all();
        }
        if !checker.ready {
            return all();
        }
        let is_up =
            |node: &&Node| checker.targets.iter().any(|(one, target)| one == *node && target.status.is_up());
        upstream.nodes.iter().filter(is_up).cloned().collect()
    }

    fn begin(&self, upstream: &Upstream, active: &Active) {
        std::thread::sleep(CREATED_AFTER);
        match self.lock().get_mut(&upstream.key) {
            Some(checker) if checker.version == upstream.version => checker.ready = true,
            _ => return,
        }
        eprintln!(
            "[info] create new checker for resource: {} and version: {}",
            upstream.key, upstream.version
        );
        for node in &upstream.nodes {
            let (health, upstream, active, node) =
                (self.clone(), upstream.clone(), active.clone(), node.clone());
            std::thread::spawn(move || health.watch(&upstream, &active, &node));
        }
    }

    /// Changes what is known of a node; returns its status, or `None` if this upstream is no longer checked.
    fn change(&self, upstream: &Upstream, node: &Node, change: impl FnOnce(&mut Target)) -> Option<Status> {
        let mut checkers = self.lock();
        let checker = checkers.get_mut(&upstream.key)?;
        if !checker.ready || checker.version != upstream.version {
            return None;
        }
        let (_, target) = checker.targets.iter_mut().find(|(one, _)| one == node)?;
        change(target);
        Some(target.status)
    }

    /// Checks a node for as long as its upstream is what it is now.
    fn watch(&self, upstream: &Upstream, active: &Active, node: &Node) {
        let mut status = Status::default();
        loop {
            let interval = if status.is_up() { active.healthy_interval } else { active.unhealthy_interval };
            std::thread::sleep(interval.max(Duration::from_millis(10)));
            let report = connected(node, active.timeout);
            let counted = self.change(upstream, node, |target| match report {
                None => target.count(Count::Success, active.successes),
                Some(Report::Timeout) => target.count(Count::Timeout, active.timeouts),
                Some(_) => target.count(Count::TcpFailure, active.tcp_failures),
            });
            match counted {
                Some(now) => status = now,
                None => return,
            }
        }
    }

    /// A passive check.
    pub fn report(&self, upstream: &Upstream, node: &Node, report: Report) {
        let Some(passive) = upstream.checks.as_ref().and_then(|checks| checks.passive.as_ref()) else {
            return;
        };
        self.change(upstream, node, |target| match report {
            Report::Status(status) if passive.healthy.contains(&status.into()) => {
                target.count(Count::Success, passive.successes);
            }
            Report::Status(status) if passive.unhealthy.contains(&status.into()) => {
                target.count(Count::HttpFailure, passive.http_failures);
            }
            Report::Status(_) => {}
            Report::TcpFailure => target.count(Count::TcpFailure, passive.tcp_failures),
            Report::Timeout => target.count(Count::Timeout, passive.timeouts),
        });
    }

    /// The nodes of an upstream as the control API lists them: an empty Lua table, which is `{}`, if it is not checked.
    pub fn listed(&self, upstream: &Upstream) -> Json {
        match self.lock().get(&upstream.key) {
            Some(checker) if checker.ready => {
                checker.targets.iter().map(|(node, target)| target.listed(node)).collect()
            }
            _ => json!({}),
        }
    }
}

/// What came of a connection to a node; `None`: it was made.
fn connected(node: &Node, timeout: Duration) -> Option<Report> {
    let address = (node.host.as_str(), node.port).to_socket_addrs().ok().and_then(|mut all| all.next());
    let Some(address) = address else { return Some(Report::TcpFailure) };
    match TcpStream::connect_timeout(&address, timeout) {
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Some(Report::Timeout),
        Err(_) => Some(Report::TcpFailure),
    }
}

impl Status {
    fn is_up(self) -> bool {
        matches!(self, Status::Healthy | Status::MostlyHealthy)
    }

    fn name(self) -> &'static str {
        match self {
            Status::Healthy => "healthy",
            Status::MostlyHealthy => "mostly_healthy",
            Status::MostlyUnhealthy => "mostly_unhealthy",
            Status::Unhealthy => "unhealthy",
        }
    }
}

impl Target {
    /// Counts one more. At its limit the status changes; a limit of 0 switches the counter off. A success clears the
    /// failures, and a failure the successes. What a node is already without doubt is not counted any more.
    fn count(&mut self, count: Count, limit: u64) {
        let success = matches!(count, Count::Success);
        let full = if success { Status::Healthy } else { Status::Unhealthy };
        if limit == 0 || self.status == full {
            return;
        }
        let status = self.status;
        if success {
            *self = Target { status, successes: self.successes, ..Target::default() };
        } else {
            self.successes = 0;
        }
        let counter = match count {
            Count::Success => &mut self.successes,
            Count::HttpFailure => &mut self.http_failures,
            Count::TcpFailure => &mut self.tcp_failures,
            Count::Timeout => &mut self.timeouts,
        };
        *counter += 1;
        self.status = match status {
            _ if *counter >= limit => full,
            Status::Healthy => Status::MostlyHealthy,
            Status::Unhealthy => Status::MostlyUnhealthy,
            other => other,
        };
    }

    fn listed(&self, node: &Node) -> Json {
        let address = (node.host.as_str(), node.port).to_socket_addrs().ok().and_then(|mut all| all.next());
        let ip = address.map_or_else(|| node.host.clone(), |address| address.ip().to_string());
        json!({
            "ip": ip,
            "port": node.port,
            "hostname": ip,
            "status": self.status.name(),
            "counter": {
                "success": self.successes,
                "http_failure": self.http_failures,
                "tcp_failure": self.tcp_failures,
                "timeout_failure": self.timeouts,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(counts: &[(Count, u64)]) -> Target {
        let mut target = Target::default();
        for (count, limit) in counts {
            target.count(*count, *limit);
        }
        target
    }

    #[test]
    fn a_node_goes_through_its_states() {
        use Count::{HttpFailure, Success, TcpFailure};
        assert_eq!(after(&[(HttpFailure, 2)]).status, Status::MostlyHealthy);
        assert_eq!(after(&[(HttpFailure, 2), (HttpFailure, 2)]).status, Status::Unhealthy);
        // Failures of two kinds are counted apart.
        assert_eq!(after(&[(HttpFailure, 2), (TcpFailure, 2)]).status, Status::MostlyHealthy);
        let down = [(HttpFailure, 1), (Success, 2)];
        assert_eq!(after(&down).status, Status::MostlyUnhealthy);
        assert_eq!(after(&[down[0], down[1], down[1]]).status, Status::Healthy);
    }

    #[test]
    fn a_success_clears_the_failures_and_a_healthy_node_counts_none() {
        use Count::{HttpFailure, Success};
        assert_eq!(after(&[(Success, 1)]).successes, 0);
        let target = after(&[(HttpFailure, 3), (HttpFailure, 3), (Success, 1)]);
        assert_eq!((target.http_failures, target.successes, target.status), (0, 1, Status::Healthy));
    }

    #[test]
    fn a_limit_of_zero_counts_nothing() {
        assert_eq!(after(&[(Count::Timeout, 0)]).timeouts, 0);
    }
}
