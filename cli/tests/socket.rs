//! The client of the socket, against a daemon that says what the test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use shunt_cli::client::socket::Socket;
use shunt_cli::client::{Client, Failure};
use shunt_model::Timeouts;
use shunt_model::api::Reason;
use shunt_model::batch::{Batch, Mode};
use shunt_model::change::{Change, service};

#[test]
fn many_requests_go_over_one_connection() {
    let daemon = Daemon::new(
        "one",
        &[
            answer("200 OK", "{}"),
            answer("200 OK", r#"{"tcp_s":1,"tcp_fin_s":2,"udp_s":3}"#),
        ],
    );
    let mut socket = Socket::open(&daemon.path).unwrap();

    socket
        .change(&Change::Service(service::Change::Flush))
        .unwrap();
    let timeouts = socket.timeouts().unwrap();

    let expected = Timeouts {
        tcp_s: 1,
        tcp_fin_s: 2,
        udp_s: 3,
    };
    assert_eq!(timeouts, expected);
    let requests = daemon.requests();
    assert!(requests[0].starts_with("POST /v1/change "), "{requests:?}");
    assert!(
        requests[0].ends_with(r#"{"change":"flush"}"#),
        "{requests:?}"
    );
    assert!(requests[1].starts_with("GET /v1/timeouts "), "{requests:?}");
}

#[test]
fn a_refusal_comes_through_with_its_reason() {
    let body = r#"{"reason":"no_such_service","text":"there is no service tcp 192.0.2.1:80"}"#;
    let daemon = Daemon::new("refusal", &[answer("409 Conflict", body)]);
    let mut socket = Socket::open(&daemon.path).unwrap();

    let failure = socket
        .change(&Change::Service(service::Change::Flush))
        .unwrap_err();

    let Failure::Refused(refusal) = failure else {
        panic!("{failure:?}");
    };
    assert_eq!(refusal.reason, Reason::NoSuchService);
}

#[test]
fn a_batch_says_which_of_its_changes_were_refused() {
    let refused = r#"{"index":1,"reason":"no_such_service","text":"there is no such service"}"#;
    let each = format!(r#"{{"refused":[{refused}]}}"#);
    let whole = format!(r#"{{"reason":"no_such_service","text":"no","refused":[{refused}]}}"#);
    let daemon = Daemon::new(
        "batch",
        &[
            answer("200 OK", r#"{"refused":[]}"#),
            answer("200 OK", &each),
            answer("409 Conflict", &whole),
            answer(
                "409 Conflict",
                r#"{"reason":"not_kept","text":"the disk is full"}"#,
            ),
        ],
    );
    let mut socket = Socket::open(&daemon.path).unwrap();
    let mut batch = |mode| {
        let changes = vec![Change::Service(service::Change::Flush)];
        socket.batch(&Batch { mode, changes })
    };

    assert_eq!(batch(Mode::Each).unwrap(), []);
    for mode in [Mode::Each, Mode::Whole] {
        let refused = batch(mode).unwrap();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].index, 1);
        assert_eq!(refused[0].refusal.reason, Reason::NoSuchService);
    }
    let failure = batch(Mode::Whole).unwrap_err();
    assert_eq!(failure.to_string(), "the disk is full");
    let requests = daemon.requests();
    assert!(requests[0].starts_with("POST /v1/batch "), "{requests:?}");
    let body = r#"{"mode":"each","changes":[{"change":"flush"}]}"#;
    assert!(requests[0].ends_with(body), "{requests:?}");
}

#[test]
fn connections_come_line_by_line_wherever_the_pieces_are_cut() {
    let line = r#"{"protocol":"tcp","client":"198.51.100.1:5","virtual_address":"192.0.2.1:80","server":"10.1.0.1:80","state":"SYN_RECV","expires_s":60}"#;
    let lines = format!("{line}\n{line}\n{line}");
    let mut chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for piece in lines.as_bytes().chunks(50) {
        let text = std::str::from_utf8(piece).unwrap();
        chunked += &format!("{:x}\r\n{text}\r\n", piece.len());
    }
    chunked += "0\r\n\r\n";
    let daemon = Daemon::new("lines", &[chunked]);
    let mut socket = Socket::open(&daemon.path).unwrap();

    let entries: Result<Vec<_>, _> = socket.connections().unwrap().collect();

    let entries = entries.unwrap();
    assert_eq!(entries.len(), 3);
    assert!(entries.iter().all(|entry| entry.expires_s == 60));
}

#[test]
fn a_daemon_that_is_not_there_is_named_by_its_path() {
    let path = std::env::temp_dir().join("shunt-no-daemon-here.sock");

    let failure = Socket::open(&path).unwrap_err();

    assert!(
        matches!(&failure, Failure::NotReachable { .. }),
        "{failure:?}"
    );
    assert!(failure.to_string().contains("shunt-no-daemon-here.sock"));
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Takes one connection and gives each request the next answer.
struct Daemon {
    path: PathBuf,
    heard: JoinHandle<Vec<String>>,
}

impl Daemon {
    fn new(name: &str, answers: &[String]) -> Self {
        let name = format!("shunt-{}-{name}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let answers = answers.to_vec();
        let place = path.clone();
        let heard = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::fs::remove_file(place).unwrap();
            let mut heard = Vec::new();
            for answer in answers {
                heard.push(hear(&stream));
                stream.write_all(answer.as_bytes()).unwrap();
            }
            heard
        });
        Self { path, heard }
    }

    fn requests(self) -> Vec<String> {
        self.heard.join().unwrap()
    }
}

/// A request: its first line and its body.
fn hear(stream: &UnixStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request).unwrap();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        if let Some(text) = header.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    request + &String::from_utf8(body).unwrap()
}

#[test]
fn this_machines_kernel_is_asked_for_its_ipvs_and_answers() {
    use shunt_cli::ipvs::{Failure, socket::read};

    let answer = read();

    let is_answer = matches!(answer, Ok(_) | Err(Failure::NoIpvs | Failure::NotPermitted));
    assert!(is_answer, "{answer:?}");
}
