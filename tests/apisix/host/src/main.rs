//! `standin`: stands in for Apache APISIX 3.18 and its wasm host in Shunt's tests.
//!
//! It loads the very filter and the very files that APISIX loads, and does with them what APISIX does: no faster, and no
//! more forgiving. A request lives in `phases.rs`; `vm.rs` and `imports.rs` are the wasm host; `proxy.rs` is nginx's
//! upstream; `http2.rs` is a client's HTTP/2; `lua.rs` runs the Lua lines. What it does not know, it refuses.

mod abi;
mod call;
mod checks;
mod compiled;
mod config;
mod control;
mod counts;
mod faults;
mod http1;
mod http2;
mod imports;
mod lua;
mod nginx;
mod phases;
mod proxy;
mod request;
mod vm;
mod yaml;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use lexopt::prelude::{Long, ValueExt};

use crate::config::{Apisix, Static};
use crate::faults::Faults;
use crate::phases::{Active, Server, Worker};
use crate::vm::{Filter, Vm};

const USAGE: &str = "\
standin --config CONFIG.YAML --routes APISIX.YAML [--workers N] [--access-log FILE] [--fault NAME]...
        [--active FILE]     how many requests of clients are under way, kept there as eight bytes
        [--counts FILE]     what was done for each request, a line of JSON there when it is over
        [--keep-contexts]   the filter's contexts survive proxy-buffering's move to another location
standin --faults            list the faults";

#[derive(Default)]
struct Options {
    config: PathBuf,
    routes: PathBuf,
    workers: usize,
    access_log: Option<PathBuf>,
    active: Option<PathBuf>,
    counts: Option<PathBuf>,
    faults: Faults,
    keep_contexts: bool,
    list: bool,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options { workers: 1, ..Options::default() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => options.config = parser.value()?.into(),
            Long("routes") => options.routes = parser.value()?.into(),
            Long("workers") => options.workers = parser.value()?.parse()?,
            Long("access-log") => options.access_log = Some(parser.value()?.into()),
            Long("active") => options.active = Some(parser.value()?.into()),
            Long("counts") => options.counts = Some(parser.value()?.into()),
            Long("fault") => options.faults.add(&parser.value()?.string()?)?,
            Long("keep-contexts") => options.keep_contexts = true,
            Long("faults") => options.list = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

/// The exit status for a defect of the stand-in itself.
const DEFECT: i32 = 101;

fn main() -> ExitCode {
    // A panic in one connection must not pass for a connection that was closed.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("FATAL: a defect of the stand-in: {panic}");
        std::process::exit(DEFECT);
    }));
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("standin: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.list {
        for (name, why) in faults::rows() {
            println!("{name}\t{why}");
        }
        return ExitCode::SUCCESS;
    }
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("standin: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> Result<(), String> {
    let config = Arc::new(Static::read(&options.config)?);
    let filter = std::fs::read(&config.wasm.file)
        .map_err(|error| format!("{}: {error}", config.wasm.file.display()))
        .and_then(|bytes| Filter::load(&bytes))
        .map_err(|problem| eprintln!("[error] failed to load plugin [{}] err: {problem}", config.wasm.name))
        .ok();
    let apisix = Apisix::read(&options.routes, 1, &config, filter.is_some())?;
    let access_log = match &options.access_log {
        Some(path) => Some(Mutex::new(
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| format!("{}: {error}", path.display()))?,
        )),
        None => None,
    };
    let active = Active::new(options.active.as_deref()).map_err(|error| format!("--active: {error}"))?;
    let counts =
        counts::Ledger::new(options.counts.as_deref()).map_err(|error| format!("--counts: {error}"))?;
    let server = Arc::new(Server {
        routes_file: options.routes,
        apisix: RwLock::new(Arc::new(apisix)),
        filter_loaded: filter.is_some(),
        health: checks::Health::default(),
        access_log,
        active,
        counts,
        faults: Arc::new(options.faults),
        keep_contexts: options.keep_contexts,
        requests: AtomicU64::new(0),
        config: config.clone(),
    });
    // What nginx lets through to its workers; an entry may give the value itself.
    let environment: Vec<String> = config
        .environment
        .iter()
        .filter_map(|entry| match entry.contains('=') {
            true => Some(entry.clone()),
            false => std::env::var(entry).ok().map(|value| format!("{entry}={value}")),
        })
        .collect();
    let workers: Vec<Arc<Worker>> = (0..options.workers.max(1))
        .map(|_| {
            let vm = filter.as_ref().map(|filter| {
                Mutex::new(Vm::new(filter, &config.wasm.name, environment.clone(), server.faults.clone()))
            });
            Arc::new(Worker {
                server: server.clone(),
                vm,
                scripts: Mutex::new(lua::Scripts::new()),
                previous_call: Mutex::default(),
            })
        })
        .collect();
    let mut listeners = Vec::new();
    for address in &config.listeners {
        listeners.push(TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?);
    }
    let control = match config.control {
        Some(address) => Some(TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?),
        None => None,
    };
    eprintln!("standin: {} workers serve on {:?}", workers.len(), config.listeners);
    let next = Arc::new(AtomicUsize::new(0));
    if let Some(listener) = control {
        let server = server.clone();
        std::thread::spawn(move || control::serve(&listener, &server));
    }
    let threads: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let (workers, next) = (workers.clone(), next.clone());
            std::thread::spawn(move || accept(&listener, &workers, &next))
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Gives each connection to the next worker, in a thread of its own.
fn accept(listener: &TcpListener, workers: &[Arc<Worker>], next: &AtomicUsize) {
    for stream in listener.incoming().flatten() {
        let worker = workers[next.fetch_add(1, Ordering::Relaxed) % workers.len()].clone();
        std::thread::spawn(move || worker.serve(stream));
    }
}
