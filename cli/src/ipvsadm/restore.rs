//! `ipvsadm -R` and `ipvsadm-restore`: lines of commands from standard input.

use std::io::{self, BufRead};

/// The words of the next line that has some, without the word `ipvsadm`; `None` at the end.
pub fn next_line(input: &mut dyn BufRead) -> io::Result<Option<Vec<String>>> {
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let words = words(&String::from_utf8_lossy(&line));
        if !words.is_empty() {
            return Ok(Some(words));
        }
    }
}

/// Words end at white space and nowhere else: there are no quotes and no comments.
fn words(line: &str) -> Vec<String> {
    line.split([' ', '\t', '\r', '\n'])
        .filter(|word| !word.is_empty() && *word != "ipvsadm")
        .map(str::to_owned)
        .collect()
}

/// What `ipvsadm-restore` feeds to `-R`: everything but the lines that begin with `#`.
pub fn without_comments(input: &mut dyn BufRead) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? != 0 {
        if !line.starts_with(b"#") {
            kept.extend_from_slice(&line);
        }
        line.clear();
    }
    Ok(kept)
}
