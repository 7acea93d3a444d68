//! The rules that one file can break by itself.
//!
//! It reads lines, not syntax: rustfmt puts a test module's closing brace at the left margin, and that
//! is all the grammar it needs.

use std::fmt;
use std::path::Path;

const MOST_LINES: usize = 500;
const FORBIDDEN_NAMES: [&str; 9] = [
    "common", "handler", "handlers", "helper", "helpers", "manager", "misc", "util", "utils",
];
const FORBIDDEN_MACROS: [&str; 3] = ["dbg", "todo", "unimplemented"];
const CRATES_OF_THE_HOST: [&str; 2] = ["alloc", "std"];
// Folders of the machines that we work on, without the slash before them.
const FOLDERS_OF_A_MACHINE: [&str; 3] = ["farm", "root", "work"];

/// A rule that is broken somewhere.
#[derive(Debug)]
pub struct Fault {
    pub path: String,
    pub line: usize,
    pub rule: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// What is wrong with the name of a file or of the folders it is in.
pub fn name_faults(path: &str) -> Option<Fault> {
    let without_extension = Path::new(path).with_extension("");
    let word = without_extension
        .iter()
        .filter_map(|part| part.to_str())
        .find(|part| FORBIDDEN_NAMES.contains(part))?;
    let rule = format!("the name \"{word}\" says nothing; name the idea in it");
    Some(Fault {
        path: path.to_owned(),
        line: 1,
        rule,
    })
}

/// What is wrong with the text of a file.
pub fn faults(path: &str, text: &str) -> Vec<Fault> {
    let mut found = Vec::new();
    let mut fault = |line: usize, rule: String| {
        found.push(Fault {
            path: path.to_owned(),
            line,
            rule,
        });
    };
    for (number, line) in numbered(text) {
        if let Some(folder) = folder_of_a_machine(line) {
            fault(number, format!("/{folder}/ is a path of one machine"));
        }
    }
    if !path.ends_with(".rs") {
        return found;
    }
    if !text.starts_with("//!") {
        fault(
            1,
            "the first line does not begin with //! and say what this file is".into(),
        );
    }
    for (number, line) in numbered(text).filter(|(_, line)| !is_comment(line)) {
        for name in FORBIDDEN_MACROS {
            if has_word(line, &format!("{name}!")) {
                fault(number, format!("{name}! is not for code that is handed in"));
            }
        }
        if line.trim_start().starts_with("#[ignore") {
            fault(
                number,
                "a test is never ignored; it may skip and name what is missing".into(),
            );
        }
    }
    let code = without_tests(path, text);
    if code.len() > MOST_LINES {
        let rule = format!(
            "{} lines without tests; {MOST_LINES} are the most",
            code.len()
        );
        fault(MOST_LINES + 1, rule);
    }
    if path.starts_with("datapath/src/") {
        for (number, line) in code.into_iter().filter(|(_, line)| !is_comment(line)) {
            for name in CRATES_OF_THE_HOST {
                let uses = has_word(line, &format!("{name}::"));
                if uses || has_word(line, &format!("extern crate {name}")) {
                    fault(
                        number,
                        format!("datapath runs in the kernel, where {name} is not"),
                    );
                }
            }
        }
    }
    found
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// The lines that are not in a test module, or none if all of the file is a test.
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

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Whether the line has this text, and not as the end of a longer name or path.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// A folder that stands at the beginning of an absolute path.
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
