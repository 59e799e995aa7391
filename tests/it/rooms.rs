//! A room imports only the rooms that it may, and stays small enough to be seen at a glance.
//!
//! The tables are the arrow line of ARCHITECTURE.md: `main → cli → app → http → node → {hub, broker, admission, cluster,
//! jobs}`; broker, admission, cluster and jobs may use redis; everyone may use protocol and clock. Test code inside a room
//! is held to the same rules: what needs two rooms that do not know each other is a behaviour test.

use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Every room, what it may import beside [`COMMON`], and why no more.
const ROOMS: &[(&str, &[&str], &str)] = &[
    ("protocol", &[], "the vocabulary is pure values"),
    ("clock", &[], "time depends on nothing"),
    ("hub", &[], "the hub has never heard of Redis or HTTP"),
    ("redis", &[], "the Redis room knows connections, not what they are for"),
    ("trace", &[], "a place in a trace is read and written; where spans go is not known"),
    ("telemetry", &[], "exporters know no room"),
    ("broker", &["redis"], "the broker has never heard of the hub: it yields deliveries"),
    ("admission", &["redis"], "admission asks Redis alone"),
    ("auth", &[], "a token is judged by configured keys alone"),
    ("cluster", &["redis"], "the cluster's totals come from Redis alone"),
    ("jobs", &["redis"], "job states come from events alone"),
    ("node", &["hub", "broker", "admission", "cluster", "jobs"], "the use cases know neither HTTP nor Redis"),
    ("http", &["node", "auth"], "HTTP knows who asks; everything else it reaches through the use cases"),
    (
        "config",
        &["hub", "redis", "broker", "admission", "auth", "cluster", "jobs", "node", "http", "telemetry"],
        "settings are broken up into each room's own, and know nothing that runs",
    ),
    (
        "app",
        &[
            "config",
            "hub",
            "redis",
            "broker",
            "admission",
            "auth",
            "cluster",
            "jobs",
            "node",
            "http",
            "telemetry",
        ],
        "the composition root knows every room but the command line",
    ),
    ("cli", &["app", "auth", "config", "broker", "redis"], "a command is an app, or a client of one"),
    (
        "main",
        &["cli", "app", "config", "telemetry"],
        "main is arguments, settings, telemetry, run, exit code",
    ),
];

/// What everyone may use.
const COMMON: &[&str] = &["protocol", "clock", "trace"];

/// Libraries that stay in one room.
const LIBRARIES: &[(&str, &[&str], &str)] = &[
    ("axum", &["http"], "http is the only room with status codes and headers"),
    ("hyper", &["http"], "http is the only room with status codes and headers"),
    ("tower_http", &["http"], "http is the only room with status codes and headers"),
    ("jsonwebtoken", &["auth"], "auth is the only room that reads and signs tokens"),
    ("deadpool", &["redis"], "redis is the only room with Redis connections"),
    ("prometheus_client", &["node"], "the node says what it counts in one place"),
    ("opentelemetry", &["telemetry", "trace"], "telemetry installs the exporters"),
    ("tracing_opentelemetry", &["telemetry", "trace"], "everybody else opens spans with tracing"),
];

/// The most lines of a file before its tests.
const MAX_LINES: usize = 400;

#[test]
fn rooms_import_only_what_they_may() {
    let complaints: Vec<String> = sources().iter().flat_map(|(path, text)| complaints(path, text)).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn files_stay_small() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| path.file_name().is_none_or(|name| name != "tests.rs"))
        .map(|(path, text)| (path, text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("src/{}: {lines} lines before its tests", path.display()))
        .collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines:\n{}\n", long.join("\n"));
}

#[test]
fn a_forbidden_import_is_caught_however_it_is_written() {
    // Lines to be read; none of them is ever compiled.
    for forbidden in [
        "use crate::broker::Broker;",
        "use crate::{clock::Clock, broker::{self, Broker}};",
        "fn f() -> crate::broker::Status { todo!() }",
        "struct A { b: crate::broker::Status }",
        "fn f() { println!(\"{:?}\", crate::broker::x()); }",
        "use super::broker::Broker;",
        "mod inner { use super::super::broker::Broker; }",
        "macro_rules! m { () => { $crate::broker::x() } }",
    ] {
        let found = complaints(Path::new("hub/mod.rs"), forbidden);
        assert_eq!(found.len(), 1, "{forbidden}: {found:?}");
        assert!(found[0].contains("src/hub/mod.rs:1") && found[0].contains("`hub` may not import `broker`"));
        assert!(found[0].contains("the hub has never heard of Redis or HTTP"), "{found:?}");
    }
    assert_eq!(complaints(Path::new("hub/wheel.rs"), "use super::super::redis::Pool;").len(), 1);
    assert_eq!(complaints(Path::new("main.rs"), "use fanlight::node::Node;").len(), 1);
    assert_eq!(complaints(Path::new("node/mod.rs"), "use axum::http::StatusCode;").len(), 1);
    assert_eq!(complaints(Path::new("attic/mod.rs"), "").len(), 1, "a room that is in no table");
}

#[test]
fn what_is_allowed_is_not_reported() {
    for (path, allowed) in [
        ("hub/mod.rs", "use crate::{clock::Clock, protocol::{self, event::Event}, hub::wheel};"),
        ("hub/wheel.rs", "use super::broker; mod tests { use super::super::broker; }"),
        ("hub/mod.rs", "// use crate::broker;\n/// [`crate::broker`]\nconst A: &str = \"crate::broker\";"),
        ("broker/redis/mod.rs", "use crate::redis::Pool;"),
        ("http/mod.rs", "use axum::Router; use crate::node::Node;"),
        ("main.rs", "use fanlight::{cli, config::Settings};"),
    ] {
        assert_eq!(complaints(Path::new(path), allowed), Vec::<String>::new(), "{allowed}");
    }
}

/// What is wrong with the imports of the file `path` (below `src/`).
fn complaints(path: &Path, text: &str) -> Vec<String> {
    let module = module_path(path);
    let Some(room) = module.first().cloned() else { return Vec::new() };
    let Some((_, allowed, why)) = ROOMS.iter().find(|(name, ..)| *name == room) else {
        return vec![format!("src/{}: `{room}` is in no table of tests/it/rooms.rs", path.display())];
    };
    let tokens = text.parse().unwrap_or_else(|e| panic!("src/{}: {e}", path.display()));
    let mut imports = Vec::new();
    collect(tokens, &module, &mut imports);
    let place = |import: &Import| format!("src/{}:{}", path.display(), import.line);
    let mut found = Vec::new();
    for import in &imports {
        let name = import.name.as_str();
        if import.is_room && name != room && !COMMON.contains(&name) && !allowed.contains(&name) {
            found.push(format!("{}: `{room}` may not import `{name}`: {why}", place(import)));
        }
        let library =
            LIBRARIES.iter().find(|(library, homes, _)| *library == name && !homes.contains(&room.as_str()));
        if let (false, Some((_, _, why))) = (import.is_room, library) {
            found.push(format!("{}: `{room}` may not use the library `{name}`: {why}", place(import)));
        }
    }
    found
}

/// The first name of a path: a room of ours, or a library (or anything else that stands before `::`).
#[derive(Debug)]
struct Import {
    name: String,
    is_room: bool,
    line: usize,
}

/// Finds every path in `tokens`, which stand in the module `module`.
fn collect(tokens: TokenStream, module: &[String], imports: &mut Vec<Import>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut inner: Option<Vec<String>> = None;
    let mut i = 0;
    while i < tokens.len() {
        match &tokens[i] {
            TokenTree::Group(group) => {
                let module = inner.take().unwrap_or_else(|| module.to_vec());
                collect(group.stream(), &module, imports);
            }
            TokenTree::Ident(word) if word == "mod" => {
                let name = tokens.get(i + 1).map(ToString::to_string);
                inner = Some(module.iter().cloned().chain(name).collect());
            }
            TokenTree::Ident(_) if i < 2 || !is_separator(&tokens, i - 2) => {
                let (supers, next) = root(&tokens, i);
                imports.extend(first_names(&tokens, next, supers, module));
                i = next;
                continue;
            }
            TokenTree::Punct(mark) if mark.as_char() == ';' => inner = None,
            _ => {}
        }
        i += 1;
    }
}

/// What a path begins with.
enum Root {
    /// `crate::` (or the library's own name, in the binary).
    Crate,
    /// So many `super::`.
    Supers(usize),
    /// A name.
    Name,
}

/// How the path at `i` begins, and where its first proper name stands (or `i + 1` when it is no path at all).
fn root(tokens: &[TokenTree], i: usize) -> (Root, usize) {
    let is_path = |i: usize| is_separator(tokens, i + 1);
    let is = |i: usize, word: &str| tokens.get(i).is_some_and(|t| t.to_string() == word);
    if is_path(i) && (is(i, "crate") || is(i, "fanlight")) {
        return (Root::Crate, i + 3);
    }
    let supers = (0..).take_while(|k| is(i + 3 * k, "super") && is_path(i + 3 * k)).count();
    if supers > 0 {
        return (Root::Supers(supers), i + 3 * supers);
    }
    (Root::Name, i + 1)
}

/// The rooms or the library that the path names, whose first proper name (or group of names) stands at `at`.
fn first_names(tokens: &[TokenTree], at: usize, root: Root, module: &[String]) -> Vec<Import> {
    let is_room = match root {
        Root::Crate => true,
        Root::Supers(count) if count >= module.len() => true,
        Root::Supers(_) => return Vec::new(),
        Root::Name if is_separator(tokens, at) => false,
        Root::Name => return Vec::new(),
    };
    match tokens.get(if is_room { at } else { at - 1 }) {
        Some(TokenTree::Ident(name)) => {
            vec![Import { name: name.to_string(), is_room, line: name.span().start().line }]
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let mut first = true;
            let names = group.stream().into_iter().filter_map(|token| match token {
                TokenTree::Ident(name) if std::mem::replace(&mut first, false) => {
                    Some(Import { name: name.to_string(), is_room, line: name.span().start().line })
                }
                TokenTree::Punct(mark) => {
                    first |= mark.as_char() == ',';
                    None
                }
                _ => None,
            });
            names.collect()
        }
        _ => Vec::new(),
    }
}

/// `::` stands at `i`.
fn is_separator(tokens: &[TokenTree], i: usize) -> bool {
    let is_colon = |i: usize| matches!(tokens.get(i), Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    is_colon(i) && is_colon(i + 1)
}

/// `hub/wheel.rs` is `[hub, wheel]`, `hub/mod.rs` is `[hub]`, `lib.rs` is the root.
fn module_path(path: &Path) -> Vec<String> {
    let names = path.with_extension("");
    let names = names.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "mod" && name != "lib").collect()
}

/// Every source file: its path below `src/` and its text.
fn sources() -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![src.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push((
                    path.strip_prefix(&src).unwrap().to_owned(),
                    std::fs::read_to_string(&path).unwrap(),
                ));
            }
        }
    }
    assert!(files.len() > 5, "too few sources in {src:?}");
    files
}
