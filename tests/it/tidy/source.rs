//! Rust's source files, read well enough to find the names in them.

use std::path::{Path, PathBuf};

/// A file. Its path is relative to the crate, with `/` on every system.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
    /// The text with blanks for comments and literals.
    pub(super) code: String,
}

/// A path in the code, resolved: it begins with `crate`, or with the name of another crate.
pub(super) struct Name {
    pub(super) line: usize,
    pub(super) path: Vec<String>,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `mod a;`
    Declared,
    /// `use a::b;`: it has brought something in, for others too.
    Used,
    /// `a::b` in the middle of the code.
    Written,
}

pub(super) struct Token {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// All `.rs` files below a folder of the crate, in order; none of what a build has left there.
pub(super) fn sources(folder: &str) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    found.sort();
    let relative = |path: PathBuf| path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
    found.into_iter().map(relative).map(|path| Source::read(&path)).collect()
}

impl Source {
    pub(super) fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        Self::new(path, &text.unwrap_or_else(|error| panic!("cannot read {path}: {error}")))
    }

    /// A file of which only the name is of interest.
    pub(super) fn named(path: &str) -> Self {
        Self::new(path, "")
    }

    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: code(text) }
    }

    /// The module that this file is, from the root of its crate: `["server", "poller"]`; nothing for a root.
    pub(super) fn module(&self) -> Vec<String> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        path.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main")).map(str::to_owned).collect()
    }

    pub(super) fn tokens(&self) -> Vec<Token> {
        let mut tokens = Vec::new();
        for (line, text) in (1..).zip(self.code.lines()) {
            let mut rest = text.trim_start();
            while let Some(first) = rest.chars().next() {
                let is_word = |c: char| c.is_alphanumeric() || c == '_';
                let length = match first {
                    _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                    ':' if rest.starts_with("::") => 2,
                    _ => first.len_utf8(),
                };
                tokens.push(Token { line, text: rest[..length].to_owned() });
                rest = rest[length..].trim_start();
            }
        }
        tokens
    }

    /// Every path in the code that is written from a root or from a module of this file's own: those of `use`, those in
    /// the middle of the code, and the modules that are declared. What a `use` has brought in is known by that `use`.
    pub(super) fn names(&self) -> Vec<Name> {
        let tokens = self.tokens();
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        let is_word = |at: usize| tokens.get(at).is_some_and(Token::is_word);
        let mut names = Vec::new();
        let declared = |at: usize| (text(at) == "mod" && is_word(at + 1)).then(|| text(at + 1).to_owned());
        let own: Vec<_> = (0..tokens.len()).filter_map(declared).collect();
        let resolve = |here: &[String], line, mut path: Vec<String>, kind| {
            if here.len() == self.module().len() && own.contains(&path[0]) {
                path.insert(0, "self".to_owned());
            }
            resolve(here, path).map(|path| Name { line, path, kind })
        };
        // The module that the code at hand is in, and for each that is opened by braces how deep these are.
        let (mut here, mut opened) = (self.module(), Vec::new());
        let (mut depth, mut at) = (0_usize, 0);
        while at < tokens.len() {
            let line = tokens[at].line;
            match text(at) {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    if opened.last().is_some_and(|inside| *inside > depth) {
                        opened.pop();
                        here.pop();
                    }
                }
                "mod" if is_word(at + 1) => {
                    let module = text(at + 1).to_owned();
                    names.extend(resolve(&here, line, vec!["self".to_owned(), module.clone()], Kind::Declared));
                    if text(at + 2) == "{" {
                        here.push(module);
                        opened.push(depth + 1);
                    }
                }
                "use" => {
                    let mut paths = Vec::new();
                    at = use_tree(&tokens, at + 1, &[], &mut paths);
                    names.extend(paths.into_iter().filter_map(|(line, path)| resolve(&here, line, path, Kind::Used)));
                }
                _ if is_word(at) && text(at + 1) == "::" => {
                    let mut path = vec![text(at).to_owned()];
                    while text(at + 1) == "::" && is_word(at + 2) {
                        path.push(text(at + 2).to_owned());
                        at += 2;
                    }
                    names.extend(resolve(&here, line, path, Kind::Written));
                }
                _ => {}
            }
            at += 1;
        }
        names
    }
}

/// Reads one tree of a `use`, from `at`, below `prefix`; returns where it ends.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], paths: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = prefix.to_vec();
    let mut line = 0;
    let mut is_self = false;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "::" => {}
            "{" => {
                while !matches!(tokens.get(at).map(|token| token.text.as_str()), None | Some("}")) {
                    at = use_tree(tokens, at + 1, &path, paths);
                }
                return at + 1;
            }
            // `a::{self}` is `a`.
            "self" if !path.is_empty() => (line, is_self) = (token.line, true),
            "as" => at += 1,
            _ if token.is_word() || token.text == "*" => {
                line = token.line;
                path.push(token.text.clone());
            }
            _ => break,
        }
        at += 1;
    }
    if is_self || path.len() > prefix.len() {
        paths.push((line, path));
    }
    at
}

/// Resolves a path that is written in the module `here`. `None` if it begins with something brought in elsewhere.
fn resolve(here: &[String], path: Vec<String>) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let (base, rest) = match path.first()?.as_str() {
        "std" | "core" | "alloc" => return Some(path),
        "crate" => (&here[..0], &path[1..]),
        "self" => (here, &path[1..]),
        "super" => (&here[..here.len().saturating_sub(supers)], &path[supers..]),
        _ => return None,
    };
    Some([&["crate".to_owned()], base, rest].concat())
}

/// The text with blanks for comments and literals; the lines stay where they are.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    let mut is_in_word = false;
    while let Some(first) = rest.chars().next() {
        let blank = rest.split_at(blank_length(rest, is_in_word)).0;
        code.extend(blank.chars().map(|c| if c == '\n' { c } else { ' ' }));
        if blank.is_empty() {
            code.push(first);
        }
        is_in_word = blank.is_empty() && (first.is_alphanumeric() || first == '_');
        rest = &rest[if blank.is_empty() { first.len_utf8() } else { blank.len() }..];
    }
    code
}

/// How long the comment or literal is that the text begins with; 0 if it begins with neither.
fn blank_length(text: &str, is_in_word: bool) -> usize {
    let from = |start: usize, end: &str| text[start..].find(end).map_or(text.len(), |at| start + at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        let (mut depth, mut at) = (1, 2);
        while depth > 0 && at < text.len() {
            match &text.as_bytes()[at..] {
                [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
                [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
                _ => at += 1,
            }
        }
        return at;
    }
    // `r"…"` and `r#"…"#`, with `b` or `c` before it; but not a word that ends so, nor `r#word`.
    let raw = text.trim_start_matches(['b', 'c']).strip_prefix('r').filter(|_| !is_in_word);
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            return from(text.len() - raw.len() + hashes + 1, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    // `'a'` and `'\n'`, but not the lifetime `'a`.
    let is_char = text.starts_with("'\\") || text.starts_with('\'') && text.chars().nth(2) == Some('\'');
    if text.starts_with('"') || is_char {
        let quote = text.as_bytes()[0];
        let mut is_escaped = false;
        let end = text.bytes().skip(1).position(|byte| {
            let is_end = byte == quote && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        });
        return end.map_or(text.len(), |at| at + 2);
    }
    0
}
