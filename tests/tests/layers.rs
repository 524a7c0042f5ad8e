//! Which modules of a crate use which: no two modules of a folder use each other, not even by way of others, and in the trainer
//! no module uses one of a floor above it. Read from the paths in the sources (`crate::`, `super::`, `pub use`).

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates whose modules are looked at.
const CRATES: [&str; 11] = [
    "loader/disk",
    "loader/storage",
    "concepts",
    "loader/jpeg",
    "loader",
    "loader/python",
    "ingest",
    "trainer",
    "tools/program",
    "tools",
    "tools/sql",
];

/// The floors of the trainer, from the bottom up. A folder may use those of the floors before its own, and no other of its own.
const TRAINER: [&[&str]; 12] = [
    &["torch"],
    &["error", "observer"],
    &["device", "distributed", "weights"],
    &["towers"],
    &["method"],
    &["settings"],
    &["data"],
    &["checkpoint"],
    &["inference", "pretrain"],
    &["evaluation", "export", "pictures"],
    &["run", "serve"],
    &["commands"],
];

/// What the library of the trainer must not say: only its commands may.
const ONLY_COMMANDS: [(&str, &str); 8] = [
    ("clap::", "command lines are in commands/"),
    ("print!(", PRINTS),
    ("println!(", PRINTS),
    ("dbg!(", PRINTS),
    ("stdout()", PRINTS),
    ("stderr()", PRINTS),
    ("program::", SIGNALS),
    ("storage::interrupted", SIGNALS),
];
const PRINTS: &str = "the library prints nothing: it reports to an observer, or returns a value";
const SIGNALS: &str = "progress, and the signals that stop work, reach the library through an observer";

/// Files of `method/` must not say these.
const NOT_IN_METHOD: [&str; 5] = ["std::fs", "std::path", "loader::", "toml", "crate::weights"];

type ModulePath = Vec<String>;

/// The modules of a crate, and the names that each passes on from others (`pub use`).
struct Crate {
    name: &'static str,
    sources: BTreeMap<ModulePath, String>,
    passed_on: BTreeMap<(ModulePath, String), ModulePath>,
}

impl Crate {
    fn read(name: &'static str) -> Self {
        let root = sources_of(name);
        let mut sources: BTreeMap<ModulePath, String> = BTreeMap::new();
        for file in files(&root) {
            let inside = file.strip_prefix(&root).unwrap().with_extension("");
            let mut path: ModulePath = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            // The source of a folder, and of the crate.
            if path.last().is_some_and(|last| last == "mod") || path == ["lib"] || path == ["main"] {
                path.pop();
            }
            // A file of tests.
            if path.last().is_some_and(|last| last == "tests") {
                continue;
            }
            sources.entry(path).or_default().push_str(&code(&fs::read_to_string(&file).unwrap()));
        }
        let mut passed_on = BTreeMap::new();
        for (module, text) in &sources {
            for (path, name) in public_uses(text) {
                passed_on.insert((module.clone(), name), absolute(module, &path));
            }
        }
        Self { name, sources, passed_on }
    }

    /// The module that a path leads to.
    fn module(&self, path: &[String]) -> ModulePath {
        let mut path = path.to_vec();
        // More steps would go round in a circle.
        for _ in 0..8 {
            let depth =
                (0..=path.len()).rev().find(|&depth| self.sources.contains_key(&path[..depth])).unwrap();
            let Some(name) = path.get(depth) else { return path };
            let module = path[..depth].to_vec();
            match self.passed_on.get(&(module.clone(), name.clone())) {
                Some(from) if *from != path[..=depth] => path.clone_from(from),
                _ => return module,
            }
        }
        path
    }

    /// All pairs of a module and one that it uses.
    fn arrows(&self) -> BTreeSet<(ModulePath, ModulePath)> {
        let arrows = self.sources.iter().flat_map(|(module, text)| {
            uses(text).into_iter().map(|path| (module.clone(), self.module(&absolute(module, &path))))
        });
        arrows.collect()
    }
}

fn sources_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// A source without its comments, and without its tests, which are at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    // Not the slashes of an address in a string.
    let end = |line: &str| line.match_indices("//").map(|(at, _)| at).find(|&at| !line[..at].ends_with(':'));
    text.lines().map(|line| &line[..end(line).unwrap_or(line.len())]).collect::<Vec<_>>().join("\n")
}

/// Names, `::`, and every other character that is not white space.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            ':' if rest.starts_with("::") => 2,
            c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The paths of a tree such as `a::{b, c as d}`, each with the name that it gives; returns how many tokens the tree has.
fn tree(tokens: &[&str], before: &[String], paths: &mut Vec<(ModulePath, String)>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while !matches!(tokens.get(at), None | Some(&"}")) {
                    at += match tokens[at] {
                        "," => 1,
                        _ => tree(&tokens[at..], &path, paths).max(1),
                    };
                }
                return at + 1;
            }
            Some(name) if name.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                path.push((*name).to_owned());
            }
            _ => break,
        }
        at += 1;
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    // `a::{self, b}` gives `a`.
    let path: ModulePath = path
        .iter()
        .enumerate()
        .filter(|(i, part)| *i == 0 || *part != "self")
        .map(|(_, part)| part.clone())
        .collect();
    let mut name = path.last().cloned().unwrap_or_default();
    if let ["as", alias, ..] = tokens[at.min(tokens.len())..] {
        alias.clone_into(&mut name);
        at += 2;
    }
    paths.push((path, name));
    at
}

/// All paths of a source that begin with `crate` or `super`.
fn uses(text: &str) -> Vec<ModulePath> {
    let tokens = tokens(text);
    let mut paths = Vec::new();
    for at in 0..tokens.len() {
        let begins = ["crate", "super"].contains(&tokens[at]) && tokens.get(at + 1) == Some(&"::");
        if begins && (at == 0 || tokens[at - 1] != "::") {
            tree(&tokens[at..], &[], &mut paths);
        }
    }
    paths.into_iter().map(|(path, _)| path).collect()
}

/// The paths in `pub use`, `pub(crate) use` and the like, with the names that they give.
fn public_uses(text: &str) -> Vec<(ModulePath, String)> {
    let tokens = tokens(text);
    let mut paths = Vec::new();
    for at in 0..tokens.len() {
        let visibility = match tokens[at..] {
            ["pub", "use", ..] => 1,
            ["pub", "(", _, ")", "use", ..] => 4,
            _ => continue,
        };
        tree(&tokens[at + visibility + 1..], &[], &mut paths);
    }
    paths
}

/// The same path from the root of the crate. One in `pub use` may begin with a child of the module.
fn absolute(module: &[String], path: &[String]) -> ModulePath {
    if path.first().is_some_and(|first| first == "crate") {
        return path[1..].to_vec();
    }
    let up = path.iter().take_while(|part| *part == "super").count();
    let down = if path.first().is_some_and(|first| first == "self") { 1 } else { up };
    [&module[..module.len().saturating_sub(up)], &path[down..]].concat()
}

fn shown(path: &[String]) -> String {
    path.join("/")
}

/// One circle among the modules of a folder, if there is one: each uses the next, the last the first.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        at: &str,
        uses: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|passed| passed == at) {
            return Some(way[start..].to_vec());
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        way.push(at.to_owned());
        let found = uses.get(at).into_iter().flatten().find_map(|next| visit(next, uses, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|start| visit(start, uses, &mut Vec::new(), &mut done))
}

#[test]
fn no_modules_use_each_other() {
    let mut problems = Vec::new();
    for of in CRATES.map(Crate::read) {
        // Per folder: which of its modules use which, with everything below them. A module may use its own children and the
        // folder's own file.
        let mut folders: BTreeMap<ModulePath, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (from, to) in of.arrows() {
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) {
                let folder = folders.entry(from[..shared].to_vec()).or_default();
                folder.entry(a.clone()).or_default().insert(b.clone());
            }
        }
        for (folder, uses) in &folders {
            if let Some(circle) = circle(uses) {
                problems.push(format!("{}/{}: {}", of.name, shown(folder), circle.join(" -> ")));
            }
        }
    }
    assert!(
        problems.is_empty(),
        "modules that use each other, each the next and the last the first: {problems:#?}"
    );
}

#[test]
fn the_trainer_uses_nothing_of_a_floor_above() {
    let of = Crate::read("trainer");
    let floor = |module: &ModulePath| {
        let top = module.first()?;
        Some(TRAINER.iter().position(|floor| floor.contains(&top.as_str())).unwrap_or_else(|| {
            panic!(
                "trainer/src/{top} has no floor; add it to TRAINER, and to the table in trainer/src/lib.rs"
            )
        }))
    };
    let arrows = of.arrows();
    // The reader of sources finds what is there.
    for (from, to) in [("run/setup", "checkpoint"), ("data/vision_source", "method/settings")] {
        let found = arrows.iter().any(|(user, used)| shown(user) == from && shown(used).starts_with(to));
        assert!(found, "{from} uses {to}");
    }
    let is_wrong = |from: &ModulePath, to: &ModulePath| {
        let same_folder = from.first() == to.first();
        floor(from).zip(floor(to)).is_some_and(|(user, used)| used > user || (used == user && !same_folder))
    };
    let upward: Vec<String> = arrows
        .iter()
        .filter(|(from, to)| is_wrong(from, to))
        .map(|(from, to)| format!("{} uses {}", shown(from), shown(to)))
        .collect();
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn what_the_rooms_of_the_trainer_do_not_know() {
    let root = sources_of("trainer");
    let mut problems = Vec::new();
    for file in files(&root) {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = code(&fs::read_to_string(&file).unwrap());
        let is_library = !name.starts_with("commands/") && name != "main.rs";
        for (word, why) in ONLY_COMMANDS.iter().filter(|(word, _)| is_library && text.contains(word)) {
            problems.push(format!("{name} has {word}: {why}"));
        }
        for word in NOT_IN_METHOD {
            if name.starts_with("method/") && text.contains(word) {
                problems.push(format!("{name} has {word}: the method knows neither files nor formats"));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

/// The reader of sources itself.
#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let path = |text: &str| -> ModulePath { text.split("::").map(str::to_owned).collect() };
    let text = "use crate::a::{self, b::{C, D as E}, *}; fn f() { super::super::g::h(crate::X::<u8>::new()) } // crate::no";
    let found: Vec<String> = uses(&code(text)).iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        ["crate::a", "crate::a::b::C", "crate::a::b::D", "crate::a", "super::super::g::h", "crate::X"]
    );
    let given: Vec<String> = public_uses("pub use a::{B as C, d}; use e::F; pub(super) use self::g::H;")
        .into_iter()
        .map(|(path, name)| format!("{} {name}", path.join("::")))
        .collect();
    assert_eq!(given, ["a::B C", "a::d d", "self::g::H H"]);
    assert_eq!(absolute(&path("a::b"), &path("super::c::D")), path("a::c::D"));
    assert_eq!(absolute(&path("a::b"), &path("crate::D")), path("D"));
    assert_eq!(absolute(&path("a::b"), &path("c::D")), path("a::b::c::D"));
    let uses = |arrows: &[(&str, &str)]| {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in arrows {
            uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        uses
    };
    assert_eq!(circle(&uses(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert_eq!(
        circle(&uses(&[("a", "b"), ("b", "c"), ("c", "b")])),
        Some(vec!["b".to_owned(), "c".to_owned()])
    );
}
