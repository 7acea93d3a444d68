//! The rules that a single file can break.
//!
//! The check reads lines, not syntax. rustfmt puts a closing brace below the first word of the item
//! that it closes, and the check needs no more grammar than that.

use std::fmt;
use std::path::Path;

const MOST_LINES: usize = 500;
const MOST_LINES_OF_A_FUNCTION: usize = 70;
const MOST_COLUMNS: usize = 100;
const FORBIDDEN_NAMES: [&str; 9] = [
    "common", "handler", "handlers", "helper", "helpers", "manager", "misc", "util", "utils",
];
const FORBIDDEN_MACROS: [&str; 3] = ["dbg", "todo", "unimplemented"];
const CRATES_OF_THE_HOST: [&str; 2] = ["alloc", "std"];
const FOR_THE_HOST: &str = "#[cfg(any(test, feature = \"host\"))]";
// Folders of development machines, without the leading slash.
const FOLDERS_OF_A_MACHINE: [&str; 3] = ["farm", "root", "work"];

/// Where an error of the daemon becomes a text.
const OUTERMOST: &str = "daemon/src/run.rs";

/// A broken rule, and its place.
#[derive(Debug)]
pub(crate) struct Fault {
    pub path: String,
    pub line: usize,
    pub rule: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// Checks the name of a file and of its folders.
pub(crate) fn name_faults(path: &str) -> Option<Fault> {
    let without_extension = Path::new(path).with_extension("");
    let word = without_extension
        .iter()
        .filter_map(|part| part.to_str())
        .find(|part| FORBIDDEN_NAMES.contains(part))?;
    let rule = format!("the name \"{word}\" has no meaning; name the idea in the file");
    Some(Fault {
        path: path.to_owned(),
        line: 1,
        rule,
    })
}

/// Checks the text of a file.
pub(crate) fn faults(path: &str, text: &str) -> Vec<Fault> {
    let mut found = Vec::new();
    for (line, text) in numbered(text) {
        if let Some(folder) = folder_of_a_machine(text) {
            found.push((line, format!("/{folder}/ is a path of one machine")));
        }
    }
    if path.ends_with(".rs") {
        let code = without_tests(path, text);
        found.extend(whole(text));
        found.extend(sizes(&code));
        let is_for_the_host = |folder: &&str| path.starts_with(*folder);
        let for_the_host = ["datapath/src/host/", "datapath/src/sweep/"];
        if path.starts_with("datapath/src/") && !for_the_host.iter().any(is_for_the_host) {
            found.extend(host(&code));
        }
        if path.starts_with("daemon/src/") && path != OUTERMOST {
            found.extend(untyped(&code));
        }
    }
    let fault = |(line, rule)| Fault {
        path: path.to_owned(),
        line,
        rule,
    };
    found.into_iter().map(fault).collect()
}

/// Rules for code and tests.
fn whole(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push((
            1,
            "the first line is not a //! that describes the file".into(),
        ));
    }
    for (number, line) in numbered(text).filter(|(_, line)| !is_comment(line)) {
        for name in FORBIDDEN_MACROS {
            if has_word(line, &format!("{name}!")) {
                found.push((number, format!("{name}! must not be in committed code")));
            }
        }
        if line.trim_start().starts_with("#[ignore") {
            let rule = "a test is never ignored; it may skip and name what is missing";
            found.push((number, rule.into()));
        }
    }
    found
}

/// Rules for the size of code.
fn sizes(code: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if let Some((number, _)) = code.get(MOST_LINES) {
        let lines = code.len();
        found.push((
            *number,
            format!("{lines} lines without tests; {MOST_LINES} are the most"),
        ));
    }
    for (number, name, lines) in functions(code) {
        if lines > MOST_LINES_OF_A_FUNCTION {
            let most = MOST_LINES_OF_A_FUNCTION;
            found.push((
                number,
                format!("fn {name} has {lines} lines; {most} are the most"),
            ));
        }
    }
    for (number, line) in code {
        let columns = line.chars().count();
        if columns > MOST_COLUMNS {
            found.push((
                *number,
                format!("{columns} columns; {MOST_COLUMNS} are the most"),
            ));
        }
    }
    found
}

/// Rules for the packet core, which also runs in the kernel.
fn host(code: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, (number, line)) in code.iter().enumerate() {
        let is_for_the_host = index
            .checked_sub(1)
            .is_some_and(|before| code[before].1.trim() == FOR_THE_HOST);
        if is_comment(line) || is_for_the_host {
            continue;
        }
        for name in CRATES_OF_THE_HOST {
            let is_used = has_word(line, &format!("{name}::"));
            if is_used || has_word(line, &format!("extern crate {name}")) {
                found.push((
                    *number,
                    format!("datapath runs in the kernel, which has no {name}"),
                ));
            }
        }
    }
    found
}

/// Rule for the daemon, whose modules name each error.
fn untyped(code: &[(usize, &str)]) -> Vec<(usize, String)> {
    let used = code.iter().filter(|(_, line)| has_word(line, "anyhow::"));
    used.map(|(number, _)| {
        let rule = format!("a module has an enum of its errors; anyhow is for {OUTERMOST}");
        (*number, rule)
    })
    .collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// The lines outside of test modules; none if the whole file is a test.
fn without_tests<'a>(path: &str, text: &'a str) -> Vec<(usize, &'a str)> {
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    if is_test {
        return Vec::new();
    }
    let mut code = Vec::new();
    let mut lines = numbered(text).peekable();
    while let Some((number, line)) = lines.next() {
        let opens = line.starts_with("#[cfg(test)]")
            && lines.peek().is_some_and(|(_, next)| next.ends_with('{'));
        if opens {
            lines.find(|(_, line)| *line == "}");
        } else {
            code.push((number, line));
        }
    }
    code
}

/// The first line, the name and the number of lines of each function.
fn functions<'a>(code: &[(usize, &'a str)]) -> Vec<(usize, &'a str, usize)> {
    let mut functions = Vec::new();
    for (index, (number, line)) in code.iter().enumerate() {
        let declaration = line.trim_start();
        let Some((before, after)) = declaration.split_once("fn ") else {
            continue;
        };
        let words = [
            "pub",
            "pub(crate)",
            "pub(super)",
            "const",
            "async",
            "unsafe",
            "extern",
            "\"C\"",
        ];
        if !before.split_whitespace().all(|word| words.contains(&word)) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - declaration.len()]);
        // A function without a body, or on one line, ends on its first line.
        let is_short = line.ends_with(';') || line.ends_with('}');
        let length = code[index..].iter().position(|(_, line)| *line == end);
        if let (false, Some(length)) = (is_short, length) {
            let name = after.split(['(', '<']).next().unwrap_or(after);
            functions.push((*number, name, length + 1));
        }
    }
    functions
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Whether the line contains this text as a whole word, not as the end of a longer name or path.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// A folder at the beginning of an absolute path.
fn folder_of_a_machine(line: &str) -> Option<&'static str> {
    FOLDERS_OF_A_MACHINE.into_iter().find(|folder| {
        line.match_indices(&format!("/{folder}/")).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "._-/{}$*<>~".contains(c))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_has_no_fault() {
        let text = "//! What it is.\nuse core::fmt;\n// A note about the todo list.\n";

        assert!(rules("datapath/src/lib.rs", text).is_empty());
    }

    #[test]
    fn a_file_says_first_what_it_is() {
        assert_eq!(rules("model/src/a.rs", "use std::fmt;\n").len(), 1);
    }

    #[test]
    fn unfinished_code_is_named_with_its_line() {
        let text = format!("//! A.\nfn a() {{\n    {}!()\n}}\n", "todo");

        assert_eq!(faults("model/src/a.rs", &text)[0].line, 3);
    }

    #[test]
    fn no_test_is_ignored() {
        let text = format!("//! A.\n#[test]\n    #[{}]\nfn a() {{}}\n", "ignore");

        assert_eq!(rules("model/src/a.rs", &text).len(), 1);
    }

    #[test]
    fn the_packet_core_may_use_the_host_only_in_tests() {
        let test = "//! A.\n#[cfg(test)]\nmod tests {\n    use std::vec::Vec;\n}\n";

        assert!(rules("datapath/src/a.rs", test).is_empty());
        assert!(rules("datapath/src/a/tests.rs", "//! A.\nuse std::fmt;\n").is_empty());
        assert_eq!(
            rules("datapath/src/a.rs", "//! A.\nuse std::fmt;\n").len(),
            1
        );
        assert_eq!(
            rules("datapath/src/a.rs", "//! A.\nextern crate alloc;\n").len(),
            1
        );
        assert!(rules("control/src/a.rs", "//! A.\nuse std::fmt;\n").is_empty());
    }

    #[test]
    fn a_module_of_the_daemon_has_errors_of_its_own() {
        let text = "//! A.\nuse anyhow::Result;\n";

        assert_eq!(rules("daemon/src/kernel/a.rs", text).len(), 1);
        assert!(rules(OUTERMOST, text).is_empty());
        assert!(rules("xtask/src/a.rs", text).is_empty());
    }

    #[test]
    fn lines_of_tests_do_not_count() {
        let code = "//! A.\n".to_owned() + &"fn a() {}\n".repeat(MOST_LINES - 1);
        let tests = "#[cfg(test)]\nmod tests {\n".to_owned() + &"    // A.\n".repeat(100) + "}\n";

        assert!(rules("model/src/a.rs", &(code.clone() + &tests)).is_empty());
        assert_eq!(
            rules("model/src/a.rs", &(code + "fn b() {}\n" + &tests)).len(),
            1
        );
    }

    #[test]
    fn a_long_function_is_named() {
        let function = |lines: usize| {
            let body = "        1;\n".repeat(lines - 2);
            format!("//! A.\nimpl A {{\n    pub fn long<T>() {{\n{body}    }}\n}}\n")
        };

        assert!(rules("model/src/a.rs", &function(MOST_LINES_OF_A_FUNCTION)).is_empty());
        let faults = faults("model/src/a.rs", &function(MOST_LINES_OF_A_FUNCTION + 1));
        assert_eq!(
            faults[0].to_string(),
            "model/src/a.rs:3: fn long has 71 lines; 70 are the most"
        );
    }

    #[test]
    fn a_line_fits_in_a_hundred_columns() {
        let line = format!("//! {}\n", "é".repeat(MOST_COLUMNS - 4));

        assert!(rules("model/src/a.rs", &line).is_empty());
        assert_eq!(rules("model/src/a.rs", &line.replace('\n', "!\n")).len(), 1);
    }

    #[test]
    fn names_that_say_nothing_are_refused_for_files_and_folders() {
        assert!(name_faults("model/src/utils.rs").is_some());
        assert!(name_faults("lab/tests/common/mod.rs").is_some());
        assert!(name_faults("model/src/utility.rs").is_none());
    }

    #[test]
    fn paths_of_one_machine_are_refused_in_every_kind_of_file() {
        let folder = "farm";

        assert_eq!(rules("README.md", &format!("see /{folder}/notes")).len(), 1);
        assert!(rules("README.md", &format!("see docs/{folder}/notes")).is_empty());
    }

    fn rules(path: &str, text: &str) -> Vec<String> {
        faults(path, text)
            .into_iter()
            .map(|fault| fault.rule)
            .collect()
    }
}
