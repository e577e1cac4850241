//! Who has solved what: a folder with a file for each session, in which each task is true or false.
//!
//! The names of tasks are those of SWE-bench Pro: `instance_<owner>__<repo>-<commit>…`. Owner and repository are what the task is
//! about. Files that lack many tasks are left out, so that there are tasks that all the others have tried.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use s2_coordinator::{Capability, SwarmId};
use serde::Serialize;

use crate::replay::Failure;

/// A file with fewer entries than this share of the largest is left out, in percent.
const LEAST_PERCENT: usize = 75;

/// A task that all sessions have tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// What it is about: `repo:<owner>__<repo>`.
    pub area: Capability,
    /// For each session whether it has solved it.
    pub solved: Vec<bool>,
}

/// Sessions, and the tasks that all of them have tried.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// The sessions, by the names of their files.
    pub sessions: Vec<SwarmId>,
    /// The tasks, by name.
    pub tasks: Vec<Tried>,
    /// How they were read.
    pub read: OutcomesRead,
}

/// How a folder was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutcomesRead {
    /// Files that are used.
    pub files: usize,
    /// Files with too few entries.
    pub left_out: Vec<String>,
    /// Tasks that all have tried.
    pub tasks: usize,
    /// Names that are not of the form `instance_<owner>__<repo>-<commit>`.
    pub bad_names: usize,
}

/// What the task of this name is about.
fn area(name: &str) -> Option<Capability> {
    let rest = name.strip_prefix("instance_")?;
    let is_commit = |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let at = rest.match_indices('-').find(|(at, _)| rest.get(at + 1..at + 41).is_some_and(is_commit))?.0;
    Capability::new(format!("repo:{}", &rest[..at])).ok().filter(|_| rest[..at].contains("__"))
}

impl Outcomes {
    /// Reads a folder.
    ///
    /// # Errors
    ///
    /// When it, or a file of it, cannot be read, or there is no task that all have tried.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let mut files = read_files(folder)?;
        let most = files.values().map(BTreeMap::len).max().unwrap_or(0);
        let mut read = OutcomesRead::default();
        files.retain(|name, tasks| {
            let is_enough = tasks.len() * 100 >= most * LEAST_PERCENT;
            if !is_enough {
                read.left_out.push(name.clone());
            }
            is_enough
        });
        let mut common: Option<BTreeSet<&String>> = None;
        for tasks in files.values() {
            common = Some(match common {
                None => tasks.keys().collect(),
                Some(common) => common.into_iter().filter(|name| tasks.contains_key(*name)).collect(),
            });
        }
        let sessions = files.keys().map(|name| SwarmId::new(format!("models/{name}"))).collect::<Result<_, _>>()?;
        let mut list = Vec::new();
        for name in common.unwrap_or_default() {
            match area(name) {
                Some(area) => list.push(Tried { area, solved: files.values().map(|tasks| tasks[name]).collect() }),
                None => read.bad_names += 1,
            }
        }
        if list.is_empty() {
            return Err(format!("{}: no task that all of {} files know", folder.display(), files.len()).into());
        }
        (read.files, read.tasks) = (files.len(), list.len());
        Ok(Self { sessions, tasks: list, read })
    }
}

/// The outcomes of each file of a folder, by the name of the file.
fn read_files(folder: &Path) -> Result<BTreeMap<String, BTreeMap<String, bool>>, Failure> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read(&path).map_err(|error| failed(&path, &error))?;
        let tasks = serde_json::from_slice(&text).map_err(|error| failed(&path, &error))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, tasks);
    }
    Ok(files)
}
