//! Shows an answer once, or repeatedly until the operator stops it.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::{Form, Halt, Outside};
use crate::client::Client;

#[derive(Clone, Copy, Debug, Default, Args)]
#[expect(
    missing_docs,
    reason = "clap would print the comment as the description of each command with --watch"
)]
pub struct Watch {
    /// Show it again every SECONDS seconds, until Ctrl-C
    #[arg(long = "watch", value_name = "SECONDS", num_args = 0..=1,
          default_missing_value = "2", value_parser = seconds)]
    every: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let told = || format!("\"{text}\" is not a waiting time; write seconds from 0.1 to 3600");
    let seconds: f64 = text.parse().map_err(|_| told())?;
    match (0.1..=3600.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(told()),
    }
}

/// A function that asks the daemon a question and writes the answer in this form.
pub type Draw<'a> = &'a dyn Fn(&mut dyn Client, &mut dyn Write, Form) -> Result<(), Halt>;

/// Shows an answer once or repeatedly. If the daemon does not answer the first time, the command
/// fails. If it does not answer later, for example during a restart, the failure is printed and the
/// question is asked again.
pub fn show(outside: &mut Outside<'_>, watch: Watch, draw: Draw<'_>) -> Result<(), Halt> {
    let Some(every) = watch.every else {
        let mut client = (outside.open)()?;
        let form = if outside.json { Form::Json } else { Form::Text };
        return draw(client.as_mut(), outside.out, form);
    };
    let form = if outside.json {
        Form::JsonLine
    } else {
        Form::Text
    };
    let mut first = true;
    loop {
        let mut picture = Vec::new();
        let drawn = (outside.open)()
            .map_err(Halt::from)
            .and_then(|mut client| draw(client.as_mut(), &mut picture, form));
        match drawn {
            Ok(()) => {}
            Err(Halt::Failed(failure)) if !first => writeln!(outside.error, "{failure}")?,
            Err(halt) => return Err(halt),
        }
        put(outside, &picture, first)?;
        first = false;
        if !(outside.wait)(every) {
            return Ok(());
        }
    }
}

/// On a terminal each picture replaces the one before. Elsewhere it follows it.
fn put(outside: &mut Outside<'_>, picture: &[u8], first: bool) -> io::Result<()> {
    let is_text = !outside.json;
    if outside.is_terminal && is_text && !picture.is_empty() {
        // Move to the top left, clear each line to its end, then clear below: nothing flickers.
        let text = String::from_utf8_lossy(picture).replace('\n', "\x1b[K\n");
        let start = if first { "\x1b[2J" } else { "" };
        write!(outside.out, "{start}\x1b[H{text}\x1b[J")?;
    } else {
        if is_text && !first && !picture.is_empty() {
            writeln!(outside.out)?;
        }
        outside.out.write_all(picture)?;
    }
    outside.out.flush()
}

/// Waits on the real clock. From the first wait on, Ctrl-C ends the program with success.
pub fn pause(time: Duration) -> bool {
    let end = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only makes calls that are allowed in a signal handler.
    let heard = unsafe { sigaction(Signal::SIGINT, &end) };
    std::thread::sleep(time);
    heard.is_ok()
}

extern "C" fn end(_: i32) {
    // SAFETY: both are async-signal-safe (POSIX.1-2017, 2.4.3), and the byte is a constant.
    unsafe {
        // The shell's prompt then begins on its own line, below the "^C".
        libc::write(2, c"\n".as_ptr().cast(), 1);
        libc::_exit(0);
    }
}
