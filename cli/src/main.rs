//! One binary with several programs: the name by which it is called selects one.

use std::io::{self, BufReader, BufWriter, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use shunt_cli::client::socket::{self, Socket};
use shunt_cli::client::{Client, Failure};
use shunt_cli::ipvsadm::{self, Program, Streams};
use shunt_cli::{demo, shunt};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let called = arguments.first().map_or("shunt", String::as_str);
    let name = Path::new(called).file_name().and_then(|name| name.to_str());
    if name == Some("shuntd") {
        return shunt_daemon::run::main(std::env::args_os());
    }
    match arguments.get(1).map(String::as_str) {
        Some("demo") if name == Some("shunt") => return demo::main(&arguments[1..]),
        Some("agent") if name == Some("shunt") => return agent(&arguments[1..]),
        _ => {}
    }
    let status = match name.and_then(Program::from_name) {
        Some(program) => {
            let streams = Streams {
                // Lines of `-R` that arrive together are sent together.
                input: &mut BufReader::with_capacity(1 << 17, io::stdin().lock()),
                out: &mut BufWriter::new(io::stdout().lock()),
                error: &mut io::stderr().lock(),
            };
            let line = arguments.get(1..).unwrap_or_default();
            ipvsadm::run(
                program,
                called,
                line,
                open,
                &ipvsadm::names::System,
                streams,
            )
        }
        None => shunt::run(
            &arguments,
            shunt::Outside {
                open: &open,
                kernel: &shunt_cli::ipvs::socket::read,
                // The streams are not locked: a demo and an agent also write from their own
                // threads.
                out: &mut BufWriter::new(io::stdout()),
                error: &mut io::stderr(),
                is_terminal: io::stdout().is_terminal(),
                wait: &mut shunt::watch::pause,
                json: false,
            },
        ),
    };
    ExitCode::from(status)
}

fn open() -> Result<Box<dyn Client>, Failure> {
    let path = socket::path().map_err(|error| Failure::Broken(error.to_string()))?;
    Ok(Box::new(Socket::open(&path)?))
}

/// `shunt agent`, whose arguments the agent parses itself.
fn agent(line: &[String]) -> ExitCode {
    use clap::Parser;
    let arguments = match shunt_agent::Arguments::try_parse_from(line) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match shunt_agent::main(arguments) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("shunt agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
