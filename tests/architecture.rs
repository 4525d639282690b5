//! Checks the structure of the sources: which module may use which, where the host is named, and how long a file is. Also checks
//! what the built filter imports from a host, what it exports, and its size.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules at the top of the crate, called districts, from the lowest to the highest. Each is listed with the districts that it
/// uses, which are all below it. `host` is not listed: it may use everything, and nothing may use it.
const DISTRICTS: [(&str, &[&str]); 13] = [
    ("bytes", &[]),
    ("base", &[]),
    ("health", &["base", "bytes"]),
    ("spend", &["base", "bytes", "health"]),
    ("client_api", &["bytes", "health", "spend"]),
    ("dialects", &["base", "bytes", "client_api", "health", "spend"]),
    ("routing", &["base", "bytes", "client_api", "dialects", "health", "spend"]),
    ("config", &["base", "bytes", "client_api", "dialects", "health", "routing", "spend"]),
    ("selection", &["base", "bytes", "client_api", "config", "health", "routing"]),
    ("record", &["base", "bytes", "health", "spend"]),
    ("response", &["bytes", "client_api", "config", "dialects", "health", "routing", "spend"]),
    ("relay", &["base", "bytes", "health"]),
    (
        "exchange",
        &[
            "base",
            "bytes",
            "client_api",
            "config",
            "dialects",
            "health",
            "record",
            "relay",
            "response",
            "routing",
            "selection",
            "spend",
        ],
    ),
];

/// Lines before the tests. A file that is longer holds more than one idea.
const LONGEST: usize = 450;

/// The largest module in bytes. Every host loads and compiles it before it serves. `docs/performance.md` says what the bytes are for.
const LARGEST: usize = 936_000;

/// The largest function in bytes. Beyond that, each byte takes a compiler longer.
const LARGEST_FUNCTION: usize = 12_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file.
struct Source {
    /// The path below `src`, such as `config/raw.rs`.
    path: String,
    /// The lines of code before the tests, without comments.
    code: Vec<String>,
    /// The number of all lines before the tests.
    lines: usize,
}

impl Source {
    /// The district that the file belongs to: its module at the top of the crate.
    fn district(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_host(&self) -> bool {
        self.district() == "host"
    }

    /// Whether any line of code contains the text.
    fn names(&self, text: &str) -> bool {
        self.code.iter().any(|line| line.contains(text))
    }

    /// The other districts that its code names.
    fn uses(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for line in &self.code {
            for (at, start) in line.match_indices("crate::") {
                let word: String = line[at + start.len()..]
                    .chars()
                    .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                    .collect();
                assert!(
                    !word.is_empty(),
                    "{}: write `use crate::district::module::Name`, one district a line: {line}",
                    self.path
                );
                found.insert(word);
            }
        }
        found.remove(self.district());
        found
    }
}

fn sources() -> Vec<Source> {
    fn files(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, all);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                all.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut paths = Vec::new();
    files(&src, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let before: Vec<&str> = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).collect();
        let is_code = |line: &&&str| !line.trim_start().starts_with("//");
        Source {
            path: path.strip_prefix(&src).unwrap().to_string_lossy().into_owned(),
            code: before.iter().filter(is_code).map(|line| (*line).to_owned()).collect(),
            lines: before.len(),
        }
    };
    let sources: Vec<Source> = paths.into_iter().map(read).collect();
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

/// The other districts that each district of the core uses.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.is_host() && source.path != "lib.rs") {
        imports.entry(source.district().to_owned()).or_default().extend(source.uses());
    }
    imports
}

#[test]
fn districts_use_what_the_table_says_and_no_more() {
    let imports = imports();
    let table: BTreeMap<&str, BTreeSet<&str>> =
        DISTRICTS.iter().map(|(name, used)| (*name, used.iter().copied().collect())).collect();
    let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(imports.keys().cloned().collect::<BTreeSet<_>>(), names(table.keys().copied().collect()));
    for (district, used) in &imports {
        let allowed = names(table[district.as_str()].iter().copied().collect());
        let strange: Vec<&String> = used.difference(&allowed).collect();
        let unused: Vec<&String> = allowed.difference(used).collect();
        assert!(
            strange.is_empty() && unused.is_empty(),
            "{district} uses {strange:?}, which the table of tests/architecture.rs does not allow, and does not use {unused:?}, \
             which it allows"
        );
    }
}

#[test]
fn every_district_uses_only_those_below_it() {
    for (floor, (district, used)) in DISTRICTS.iter().enumerate() {
        let below: Vec<&str> = DISTRICTS[..floor].iter().map(|(name, _)| *name).collect();
        let up: Vec<&&str> = used.iter().filter(|name| !below.contains(name)).collect();
        assert!(up.is_empty(), "{district} uses {up:?}, which stand above it");
    }
}

#[test]
fn the_core_never_names_the_host() {
    for source in sources().iter().filter(|source| !source.is_host()) {
        assert!(!source.uses().contains("host"), "{} uses the host", source.path);
        assert!(!source.names("proxy_wasm"), "{} names the SDK", source.path);
        let gate = source.path == "lib.rs";
        assert!(gate || !source.names("target_arch"), "{} differs by target", source.path);
    }
}

#[test]
fn host_calls_are_declared_in_one_file() {
    for source in sources().iter().filter(|source| source.path != "host/sys.rs") {
        for word in ["extern \"C\"", "wasm_import_module", "proxy_wasm::hostcalls", "unsafe {", "unsafe fn"] {
            assert!(!source.names(word), "{} has {word}", source.path);
        }
    }
}

#[test]
fn the_clock_the_environment_and_randomness_are_arguments() {
    for source in sources().iter().filter(|source| source.path != "host/sys.rs") {
        for word in ["SystemTime", "Instant::now", "env::var", "thread::", "std::fs", "std::net"] {
            assert!(!source.names(word), "{} has {word}", source.path);
        }
        // These draw from a generator whose seed is not an argument.
        let chance = ["Rng::new()", "fastrand::u", "fastrand::f", "RandomState"];
        assert!(!chance.iter().any(|word| source.names(word)), "{} draws its own numbers", source.path);
    }
}

#[test]
fn files_are_short() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.lines > LONGEST)
        .map(|source| format!("src/{}: {} lines before its tests", source.path, source.lines))
        .collect();
    assert!(long.is_empty(), "more than {LONGEST}:\n{}", long.join("\n"));
}

/// The imports (as `module name`), the exports and the size of the filter that `make build` built, and that of its largest function.
struct Wasm {
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
    size: usize,
    largest_function: usize,
}

impl Wasm {
    fn built() -> Self {
        let path = root().join("dist/shunt.wasm");
        let bytes = std::fs::read(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run make build", path.display()));
        Self::read(&bytes)
    }

    /// Reads the sections of imports, exports and code (WebAssembly Core Specification, 5.5), as far as our linker uses them.
    fn read(bytes: &[u8]) -> Self {
        const HEAD: &[u8] = b"\0asm\x01\0\0\0";
        const IMPORTS: u8 = 2;
        const EXPORTS: u8 = 7;
        const CODE: u8 = 10;
        assert!(bytes.starts_with(HEAD), "no WebAssembly module");
        let mut wasm = Self {
            imports: BTreeSet::new(),
            exports: BTreeSet::new(),
            size: bytes.len(),
            largest_function: 0,
        };
        let mut input = Input(&bytes[HEAD.len()..]);
        while !input.0.is_empty() {
            let section = input.byte();
            let length = input.number();
            let mut content = Input(input.take(length));
            match section {
                IMPORTS => {
                    for _ in 0..content.number() {
                        let (module, name) = (content.name(), content.name());
                        let kind = content.byte();
                        assert_eq!(kind, 0, "{module} {name}: only functions are imported");
                        content.number();
                        wasm.imports.insert(format!("{module} {name}"));
                    }
                    assert!(content.0.is_empty(), "the imports were not read to their end");
                }
                EXPORTS => {
                    for _ in 0..content.number() {
                        let name = content.name();
                        content.byte();
                        content.number();
                        wasm.exports.insert(name);
                    }
                    assert!(content.0.is_empty(), "the exports were not read to their end");
                }
                CODE => {
                    for _ in 0..content.number() {
                        let length = content.number();
                        content.take(length);
                        wasm.largest_function = wasm.largest_function.max(length);
                    }
                    assert!(content.0.is_empty(), "the functions were not read to their end");
                }
                _ => {}
            }
        }
        wasm
    }
}

/// The bytes that are not yet read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    /// An unsigned LEB128 number of 32 bits.
    fn number(&mut self) -> usize {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte();
            value |= usize::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        panic!("a number longer than 32 bits")
    }

    fn name(&mut self) -> String {
        let length = self.number();
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn is_blessing() -> bool {
    std::env::var("SHUNT_BLESS").is_ok_and(|value| value == "1")
}

#[test]
fn the_filter_imports_what_the_list_says_and_no_more() {
    let found: String = Wasm::built().imports.iter().map(|name| format!("{name}\n")).collect();
    let place = root().join("tests/golden/imports.txt");
    if is_blessing() {
        std::fs::write(&place, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&place).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (found, expected) = (lines(&found), lines(&expected));
    let new: Vec<&String> = found.difference(&expected).collect();
    let gone: Vec<&String> = expected.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "tests/golden/imports.txt lacks {new:?} and has {gone:?} too much; SHUNT_BLESS=1 rewrites it, if this is meant"
    );
}

#[test]
fn the_filter_imports_nothing_that_a_host_lacks() {
    // A host that lacks an imported function refuses to load the module. Some hosts lack these two.
    let imports = Wasm::built().imports;
    for name in ["proxy_get_log_level", "proxy_get_metric"] {
        assert!(!imports.contains(&format!("env {name}")), "{name} is imported");
    }
    let strange: Vec<&String> = imports
        .iter()
        .filter(|name| !name.starts_with("env proxy_") && !name.starts_with("wasi_snapshot_preview1 "))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn the_filter_exports_the_abi_of_both_gateways() {
    let exports = Wasm::built().exports;
    for name in ["proxy_abi_version_0_2_1", "proxy_on_memory_allocate", "proxy_on_context_create", "memory"] {
        assert!(exports.contains(name), "{name} is not exported");
    }
    let versions: Vec<&String> =
        exports.iter().filter(|name| name.starts_with("proxy_abi_version_")).collect();
    assert_eq!(versions, ["proxy_abi_version_0_2_1"]);
    assert!(
        exports.contains("_initialize") != exports.contains("_start"),
        "a reactor or a command, not both"
    );
}

#[test]
fn the_filter_is_small() {
    let size = Wasm::built().size;
    assert!(size < LARGEST, "{size} bytes");
}

#[test]
fn the_filter_has_no_function_that_takes_long_to_compile() {
    let largest = Wasm::built().largest_function;
    assert!(largest > 1_000, "the functions were not read");
    assert!(largest < LARGEST_FUNCTION, "{largest} bytes; see -inline-max-stacksize in .cargo/config.toml");
}
