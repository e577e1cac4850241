//! The order of the house: a module imports only from those above it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates, with their contracts and how many imports and async functions a check of them must see to mean anything.
const CRATES: [Crate; 3] = [
    Crate {
        name: "s2-coordinator",
        contracts: &["clock", "journal", "inbox", "settle", "delivery", "subscription", "tail", "bus"],
        imports: 100,
        functions: 30,
    },
    Crate { name: "s2-governor", contracts: &["ledger"], imports: 100, functions: 10 },
    Crate {
        name: "s2-core",
        contracts: &["context", "blocked", "job", "session", "session_builder", "people", "why"],
        imports: 50,
        functions: 8,
    },
];

struct Crate {
    name: &'static str,
    contracts: &'static [&'static str],
    imports: usize,
    functions: usize,
}

fn source(crate_name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(crate_name).join("src")
}

/// The modules that `file` declares, in order.
fn declared(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a module");
    let module = |line: &str| {
        let line = line.trim_start_matches("pub ");
        line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')).map(str::to_owned)
    };
    text.lines().filter_map(module).collect()
}

/// The files of a module, its own folder included.
fn files(module: &Path) -> Vec<PathBuf> {
    let file = module.with_extension("rs");
    if file.is_file() {
        return vec![file];
    }
    let entries = fs::read_dir(module).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "rs")).collect();
    files.sort();
    files
}

/// The paths below `prefix` that `text` mentions: the word that follows it.
fn mentions(text: &str, prefix: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    code.split(prefix).skip(1).map(word).filter(|word| !word.is_empty()).collect()
}

/// Everything that is wrong with the order of a crate.
fn violations(of: &Crate) -> Vec<String> {
    let root = source(of.name);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (folder, main, prefix) in [
        (root.clone(), "lib.rs", "crate::"),
        (root.join("memory"), "mod.rs", "crate::memory::"),
        (root.join("redis"), "mod.rs", "crate::redis::"),
        (root.join("conformance"), "mod.rs", "crate::conformance::"),
    ] {
        if !folder.is_dir() {
            continue;
        }
        let modules = declared(&folder.join(main));
        let order: HashMap<&str, usize> = modules.iter().enumerate().map(|(nth, name)| (name.as_str(), nth)).collect();
        for (nth, module) in modules.iter().enumerate() {
            for file in files(&folder.join(module)) {
                let text = fs::read_to_string(&file).expect("a module");
                assert!(
                    !text.contains(&format!("use {prefix}{{")),
                    "{}: one import a line, so that it can be checked",
                    file.display()
                );
                for used in mentions(&text, prefix) {
                    seen += 1;
                    assert!(
                        !used.starts_with(char::is_uppercase),
                        "{}: {prefix}{used} hides the module that it comes from",
                        file.display()
                    );
                    if order.get(used.as_str()).is_some_and(|used| *used > nth) {
                        wrong.push(format!("{} knows {prefix}{used}, which is below it", file.display()));
                    }
                }
            }
        }
    }
    assert!(seen > of.imports, "the check found too few imports of {} to mean anything: {seen}", of.name);
    wrong
}

#[test]
fn every_module_knows_only_those_above_it() {
    let wrong: Vec<String> = CRATES.iter().flat_map(violations).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_contract_names_no_backend() {
    for root in CRATES.map(|of| source(of.name)) {
        for module in declared(&root.join("lib.rs")) {
            if ["memory", "redis", "conformance"].contains(&module.as_str()) {
                continue;
            }
            for file in files(&root.join(&module)) {
                let text = fs::read_to_string(&file).expect("a module");
                for backend in ["crate::memory::", "crate::redis::"] {
                    assert_eq!(mentions(&text, backend), [""; 0], "{} knows {backend}", file.display());
                }
            }
        }
    }
}

/// The async functions of a contract, each with the docs above it.
fn async_functions(text: &str) -> Vec<(String, String)> {
    let (mut found, mut docs, mut public_trait) = (Vec::new(), String::new(), false);
    for line in text.lines() {
        if !line.starts_with([' ', '}']) && !line.is_empty() {
            public_trait = line.starts_with("pub trait");
        }
        let code = line.trim_start();
        match code {
            _ if code.starts_with("///") => docs.push_str(code),
            _ if code.starts_with("pub async fn") || (public_trait && code.starts_with("async fn")) => {
                found.push((code.to_owned(), std::mem::take(&mut docs)));
            }
            _ if code.starts_with("#[") => {}
            _ => docs.clear(),
        }
    }
    found
}

#[test]
fn every_async_function_of_a_contract_says_how_it_fails_and_what_cancelling_does() {
    for of in CRATES {
        let mut seen = 0;
        for contract in of.contracts {
            let text = fs::read_to_string(source(of.name).join(contract).with_extension("rs")).expect("a module");
            for (function, docs) in async_functions(&text) {
                seen += 1;
                assert!(docs.contains("# Cancel safety"), "{contract}: {function}");
                // These only wait.
                let cannot_fail =
                    ["sleep_until", "cancelled", "interrupted"].iter().any(|name| function.contains(name));
                assert!(docs.contains("# Errors") || cannot_fail, "{contract}: {function}");
            }
        }
        assert!(seen > of.functions, "the check found too few functions of {} to mean anything: {seen}", of.name);
    }
}

/// The Markdown files of the project, build output aside.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden && !path.ends_with("target") {
            documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut files = Vec::new();
    documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut files);
    let mut seen = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("a document");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.contains("://") {
                seen += 1;
                let target = file.parent().expect("a folder").join(link);
                assert!(target.exists(), "{} links to {link}", file.display());
            }
        }
    }
    assert!(seen > 8, "the check found too few links to mean anything: {seen}");
}
