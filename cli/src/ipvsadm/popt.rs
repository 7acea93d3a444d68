//! Reads a command line word by word as popt 1.19 does, which ipvsadm is built with.
//!
//! Short words may be run together (`-Lnc`), a value may follow at once (`-t10.0.0.1:80`), after
//! `=`, or as the next word. Long words are never abbreviated. popt's `!#:+` is left out.

use std::fmt;

use super::words::{Token, Value, WORDS, Word};

/// Goes through the words of a command line.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    arguments: &'a [String],
    next: usize,
    /// The rest of a cluster of short words.
    cluster: Option<&'a str>,
    /// `--` was seen: all that follows is no option.
    only_leftovers: bool,
    leftovers: Vec<&'a str>,
}

/// Why a word could not be read, in popt's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Unknown,
    NoValue,
    UnwantedValue,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bad::Unknown => "unknown option",
            Bad::NoValue => "missing argument",
            Bad::UnwantedValue => "option does not take an argument",
        })
    }
}

type Read<'a> = Result<(Token, Option<&'a str>), Bad>;

impl<'a> Reader<'a> {
    /// The program's own name is not among the arguments.
    #[must_use]
    pub(super) fn new(arguments: &'a [String]) -> Self {
        Self {
            arguments,
            next: 0,
            cluster: None,
            only_leftovers: false,
            leftovers: Vec::new(),
        }
    }

    /// The next option with its value.
    pub(super) fn next(&mut self) -> Option<Read<'a>> {
        if let Some(cluster) = self.cluster.take() {
            return Some(self.short(cluster));
        }
        loop {
            let argument = self.take()?;
            if self.only_leftovers || !argument.starts_with('-') || argument == "-" {
                self.leftovers.push(argument);
                continue;
            }
            if argument == "--" {
                self.only_leftovers = true;
                continue;
            }
            return Some(match argument.strip_prefix("--") {
                Some(long) => self.long(long),
                None => self.short(&argument[1..]),
            });
        }
    }

    /// The argument that the last option stood in.
    #[must_use]
    pub(super) fn current(&self) -> &'a str {
        let index = self.next.saturating_sub(1);
        self.arguments.get(index).map_or("", String::as_str)
    }

    /// What was no option, in order.
    #[must_use]
    pub(super) fn leftovers(self) -> Vec<&'a str> {
        self.leftovers
    }

    fn long(&mut self, text: &'a str) -> Read<'a> {
        let (name, glued) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let word = find(|word| word.long == name)?;
        match (word.value, glued) {
            (Value::None, None) => Ok((word.token, None)),
            (Value::None, Some(_)) => Err(Bad::UnwantedValue),
            (_, Some(value)) => Ok((word.token, Some(value))),
            (_, None) => self.value(word),
        }
    }

    fn short(&mut self, cluster: &'a str) -> Read<'a> {
        let mut letters = cluster.chars();
        let letter = letters.next();
        let rest = letters.as_str();
        let word = find(|word| letter.is_some() && word.short == letter)?;
        match word.value {
            Value::None if rest.starts_with('=') => Err(Bad::UnwantedValue),
            Value::None => {
                self.cluster = (!rest.is_empty()).then_some(rest);
                Ok((word.token, None))
            }
            _ if rest.is_empty() => self.value(word),
            _ => Ok((word.token, Some(rest.strip_prefix('=').unwrap_or(rest)))),
        }
    }

    /// The value that is the next argument.
    fn value(&mut self, word: &Word) -> Read<'a> {
        let next = self.arguments.get(self.next);
        match (word.value, next) {
            (Value::Optional, None) => Ok((word.token, None)),
            (Value::Optional, Some(next)) if next.starts_with('-') => Ok((word.token, None)),
            (_, None) => Err(Bad::NoValue),
            (_, Some(_)) => Ok((word.token, self.take())),
        }
    }

    fn take(&mut self) -> Option<&'a str> {
        let argument = self.arguments.get(self.next)?;
        self.next += 1;
        Some(argument)
    }
}

fn find(fits: impl Fn(&Word) -> bool) -> Result<&'static Word, Bad> {
    WORDS.iter().find(|word| fits(word)).ok_or(Bad::Unknown)
}

#[cfg(test)]
mod tests {
    use super::super::words::{Choice, Command, Kind};
    use super::*;

    const LIST: Token = Token::Command(Command::List);
    const NUMERIC: Token = Token::Option(Choice::Only(Kind::Numeric));
    const TCP: Token = Token::Option(Choice::Tcp);
    const PERSISTENT: Token = Token::Option(Choice::Only(Kind::Persistent));

    /// Each row was run through libpopt 1.19.
    #[test]
    fn reads_as_popt_reads() {
        accepts(&["-Lt="], &[(LIST, None), (TCP, Some(""))], &[]);
        accepts(&["-Lt=x"], &[(LIST, None), (TCP, Some("x"))], &[]);
        accepts(&["-t", "="], &[(TCP, Some("="))], &[]);
        accepts(&["-t", "-n"], &[(TCP, Some("-n"))], &[]);
        accepts(&["--tcp-service="], &[(TCP, Some(""))], &[]);
        accepts(&["-p=60"], &[(PERSISTENT, Some("60"))], &[]);
        accepts(&["-p", "60"], &[(PERSISTENT, Some("60"))], &[]);
        accepts(&["-pn"], &[(PERSISTENT, Some("n"))], &[]);
        accepts(&["-p", "-"], &[(PERSISTENT, None)], &["-"]);
        accepts(&["-p", "--", "x"], &[(PERSISTENT, None)], &["x"]);
        accepts(
            &["-Lp", "-n"],
            &[(LIST, None), (PERSISTENT, None), (NUMERIC, None)],
            &[],
        );
        accepts(&["-L", "--", "-n"], &[(LIST, None)], &["-n"]);
        accepts(&["-L", ""], &[(LIST, None)], &[""]);
        accepts(&["foo", "-L", "bar"], &[(LIST, None)], &["foo", "bar"]);
        accepts(&["--"], &[], &[]);
    }

    #[test]
    fn refuses_what_popt_refuses() {
        refuses(&["-L", "--numeric=5"], Bad::UnwantedValue, "--numeric=5");
        refuses(&["-Ln="], Bad::UnwantedValue, "-Ln=");
        refuses(&["-L="], Bad::UnwantedValue, "-L=");
        refuses(&["--=3"], Bad::Unknown, "--=3");
        refuses(&["-=3"], Bad::Unknown, "-=3");
        refuses(&["-Lqn"], Bad::Unknown, "-Lqn");
        refuses(&["-L-n"], Bad::Unknown, "-L-n");
        refuses(&["-Lé"], Bad::Unknown, "-Lé");
        refuses(&["--lis"], Bad::Unknown, "--lis");
        refuses(&["--tcp-service"], Bad::NoValue, "--tcp-service");
    }

    fn accepts(arguments: &[&str], options: &[(Token, Option<&str>)], leftovers: &[&str]) {
        let arguments = owned(arguments);
        let mut reader = Reader::new(&arguments);
        let mut seen = Vec::new();
        while let Some(read) = reader.next() {
            seen.push(read.unwrap());
        }
        assert_eq!(seen, options, "{arguments:?}");
        assert_eq!(reader.leftovers(), leftovers, "{arguments:?}");
    }

    fn refuses(arguments: &[&str], bad: Bad, current: &str) {
        let arguments = owned(arguments);
        let mut reader = Reader::new(&arguments);
        let seen = loop {
            match reader.next() {
                Some(Ok(_)) => {}
                Some(Err(bad)) => break Some(bad),
                None => break None,
            }
        };
        assert_eq!(seen, Some(bad), "{arguments:?}");
        assert_eq!(reader.current(), current);
    }

    fn owned(arguments: &[&str]) -> Vec<String> {
        arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect()
    }
}
