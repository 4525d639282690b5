//! The filter as machine code. APISIX's host compiles it with wasmtime, and so does the stand-in, but only once: compiling
//! takes seconds and hundreds of stand-ins start in a test run, so the result is kept in a file that the next ones map
//! into memory.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::{Config, Engine, Module, WasmFeatures};

/// Files that were written longer ago than this are of builds that nobody runs any more.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What runs the filter. The host's wasmtime 0.38 knows WebAssembly 2.0 and nothing that came later (tail calls, extended
/// constant expressions, threads, 64-bit memories and so on), so a filter that needs more must not load here either.
pub fn engine() -> Result<Engine, wasmtime::Error> {
    let mut config = Config::new();
    config.wasm_features(WasmFeatures::WASM3.difference(WasmFeatures::WASM2), false);
    Engine::new(&config)
}

/// Where compiled filters are kept: beside the stand-in itself, so that they are cleaned away with it.
pub fn folder() -> io::Result<PathBuf> {
    let binary = std::env::current_exe()?;
    Ok(binary.parent().unwrap_or(Path::new(".")).join("compiled"))
}

/// The compiled filter, from `folder` if it is there. An error only if `wasm` is not a module that the engine accepts;
/// when the file cannot be kept, that is logged and the filter runs all the same.
pub fn module(engine: &Engine, wasm: &[u8], folder: io::Result<PathBuf>) -> Result<Module, wasmtime::Error> {
    let kept = folder.and_then(|folder| {
        fs::create_dir_all(&folder)?;
        let file = folder.join(file_name(engine, wasm));
        if let Some(module) = load(engine, &file) {
            return Ok((file, None, Some(module)));
        }
        // Stand-ins that start at the same time wait here for the first of them, instead of all compiling the same.
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        let module = load(engine, &file);
        Ok((file, Some(lock), module))
    });
    let (file, _lock) = match kept {
        Ok((_, _, Some(module))) => return Ok(module),
        Ok((file, lock, None)) => (Ok(file), lock),
        Err(problem) => (Err(problem), None),
    };
    let module = Module::new(engine, wasm)?;
    let machine_code = module.serialize()?;
    if let Err(problem) = file.and_then(|file| keep(&file, &machine_code)) {
        eprintln!("[warn] standin: the compiled filter cannot be kept for the next start: {problem}");
    }
    Ok(module)
}

/// A name that only this filter has, compiled by this wasmtime as this engine is configured.
fn file_name(engine: &Engine, wasm: &[u8]) -> String {
    let mut compiler = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compiler);
    let filter: String = Sha256::digest(wasm).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{filter}-{:016x}.cwasm", compiler.finish())
}

/// `None` if the file is not there, or not for this engine: wasmtime compares versions and settings itself.
fn load(engine: &Engine, file: &Path) -> Option<Module> {
    // SAFETY: the file must be what `Module::serialize` made, and must not change while it is mapped. Only `keep` writes
    // such a file, by moving a complete one into place, and nothing ever opens it for writing again.
    unsafe { Module::deserialize_file(engine, file) }.ok()
}

/// Writes a complete file and moves it into place, so that nobody ever sees half of it. The caller holds the lock.
fn keep(file: &Path, machine_code: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    for entry in fs::read_dir(folder)?.flatten() {
        let age =
            entry.metadata().and_then(|data| data.modified()).map(|at| SystemTime::now().duration_since(at));
        if entry.path().extension().is_some() && matches!(age, Ok(Ok(age)) if age > KEPT) {
            // A stand-in that still runs with it keeps it mapped.
            let _ = fs::remove_file(entry.path());
        }
    }
    let unfinished = file.with_extension("part");
    fs::write(&unfinished, machine_code)?;
    fs::rename(&unfinished, file)
}
