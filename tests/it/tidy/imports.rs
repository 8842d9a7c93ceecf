//! Which file imports from which, and where that goes round in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::Fault;
use super::source::{Kind, Name, Source};

/// Modules, as paths from the root of the crate, with their files and the names in them.
type Modules<'a> = BTreeMap<Vec<String>, (&'a Source, Vec<Name>)>;

/// Every import that is part of a circle of files. What a module passes on by `use` comes from where it is defined, so
/// that a short path makes no circle; that a module declares another is no import.
pub(super) fn circles(files: &[Source]) -> Vec<Fault> {
    let modules: Modules<'_> = files.iter().map(|file| (file.module(), (file, file.names()))).collect();
    let mut imports = BTreeMap::new();
    for (own, (_, names)) in &modules {
        for name in names.iter().filter(|name| name.kind != Kind::Declared) {
            if let Some(other) = origin(&modules, &name.path, 0).filter(|other| other != own) {
                imports.entry((own.clone(), other)).or_insert(name.line);
            }
        }
    }
    let fault = |((own, other), line): (&(Vec<String>, Vec<String>), &usize)| {
        Fault::new(modules[own].0, *line, format!("imports from `{}`, in a circle", other.join("::")))
    };
    let edges: BTreeSet<_> = imports.keys().cloned().collect();
    imports.iter().filter(|((own, other), _)| leads_to(&edges, other, own)).map(fault).collect()
}

fn leads_to(edges: &BTreeSet<(Vec<String>, Vec<String>)>, from: &Vec<String>, to: &Vec<String>) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        if seen.insert(module) {
            next.extend(edges.iter().filter(|(own, _)| own == module).map(|(_, other)| other));
        }
    }
    seen.contains(to)
}

/// The module in whose file a path's item is. `None` if it is in the root, or not in this crate.
fn origin(modules: &Modules<'_>, whole: &[String], depth: usize) -> Option<Vec<String>> {
    assert!(depth < 16, "`{}` is passed on and on", whole.join("::"));
    let path = whole.strip_prefix(&["crate".to_owned()][..])?;
    let length = (1..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
    let (module, item) = path.split_at(length);
    let passes_on = |name: &&Name| {
        name.kind == Kind::Used && name.path != whole && name.path[0] == "crate" && name.path.last() == item.first()
    };
    match modules[module].1.iter().find(passes_on) {
        Some(name) => origin(modules, &[&name.path, &item[1..]].concat(), depth + 1),
        None => Some(module.to_vec()),
    }
}
