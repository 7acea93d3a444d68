//! Why a line of ipvsadm did not do what it says.

use std::io;

use shunt_model::api::{Reason, Refusal};

use crate::client::Failure;

/// What a refusal is about: the words differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Service,
    Server,
}

/// How a line ends that was not done.
#[derive(Debug)]
pub(super) enum Halt {
    /// This line ends with status 255; `-R` goes on with the next one.
    Line { text: String },
    /// The program ends, also in the middle of `-R`. Without text it ends in silence.
    Program { status: u8, text: String },
}

/// A mistake on the command line.
pub(super) fn usage<T>(text: String) -> Result<T, Halt> {
    Err(Halt::Program { status: 2, text })
}

/// A listing that cannot be made.
pub(super) fn listing<T>(text: String) -> Result<T, Halt> {
    Err(Halt::Program { status: 1, text })
}

/// ipvsadm's hint when there is nothing to go by.
pub(super) fn try_help(program: &str) -> Halt {
    Halt::Program {
        status: 255,
        text: format!("Try `{program} -h' or '{program} --help' for more information."),
    }
}

/// The daemon did not do it.
pub(super) fn failed(failure: Failure, subject: Subject) -> Halt {
    match failure {
        Failure::Refused(refusal) => Halt::Line {
            text: refused(refusal, subject),
        },
        failure => Halt::Program {
            status: 2,
            text: failure.to_string(),
        },
    }
}

/// Output that nobody reads (`| head`) is no reason for a message.
impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        let text = match error.kind() {
            io::ErrorKind::BrokenPipe => String::new(),
            _ => error.to_string(),
        };
        Halt::Program { status: 1, text }
    }
}

/// The daemon could not be reached: the form that ipvsadm has for a kernel without IPVS.
pub(super) fn not_initialized(failure: &Failure) -> Halt {
    let hint = match failure {
        Failure::NotPermitted { .. } => {
            "Are you sure that IP Virtual Server is built in the kernel or as module?"
        }
        _ => "Is the daemon running? Start it with: systemctl start shuntd",
    };
    let cause = match failure {
        Failure::NotPermitted { .. } => "Permission denied (you must be root)".to_owned(),
        failure => failure.to_string(),
    };
    Halt::Program {
        status: 2,
        text: format!("Can't initialize ipvs: {cause}\n{hint}"),
    }
}

/// ipvsadm's own words for a refusal, where it has some; else the refusal's sentence.
pub(super) fn refused(refusal: Refusal, subject: Subject) -> String {
    let known = match (refusal.reason, subject) {
        (Reason::ServiceExists | Reason::MarkedPackets, _) => SERVICE_EXISTS,
        (Reason::NoSuchService, Subject::Service) => NO_SUCH_SERVICE,
        (Reason::NoSuchService, Subject::Server) => "Service not defined",
        (Reason::ServerExists, _) => "Destination already exists",
        (Reason::NoSuchServer, _) => "No such destination",
        (Reason::OutOfRange, _) => "Numerical result out of range",
        (Reason::BadAddress, _) => {
            "Invalid operation.  Possibly wrong module version, address not unicast, ..."
        }
        (Reason::UnknownScheduler | Reason::UnknownEngine, _) => UNKNOWN_SCHEDULER,
        (
            Reason::MarkExists
            | Reason::NoSuchMark
            | Reason::NoSuchLocal
            | Reason::NotSupported
            | Reason::NoRoom
            | Reason::NotKept
            | Reason::NotPermitted
            | Reason::TooManyRequests
            | Reason::Stopping
            | Reason::BadRequest,
            _,
        ) => return refusal.text,
    };
    known.to_owned()
}

pub(super) const SERVICE_EXISTS: &str = "Service already exists";
pub(super) const NO_SUCH_SERVICE: &str = "No such service";
pub(super) const UNKNOWN_SCHEDULER: &str = "Scheduler or persistence engine not found";
