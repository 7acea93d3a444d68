//! `shunt events`: what happened to the director.

use clap::Args;
use shunt_model::event::{Event, Fact};

use super::{Form, Halt, Outside, warning, write_json};

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Options {
    /// Go on with the events that follow, until Ctrl-C
    #[arg(long)]
    follow: bool,
}

impl Options {
    pub(super) fn run(self, outside: &mut Outside<'_>) -> Result<(), Halt> {
        let mut client = (outside.open)()?;
        for event in client.events(self.follow)? {
            let event = event?;
            match outside.json {
                true => write_json(outside.out, &event, Form::JsonLine)?,
                false => writeln!(outside.out, "{}", line(&event))?,
            }
            if self.follow {
                outside.out.flush()?;
            }
        }
        Ok(())
    }
}

/// An event for people: when, its name, what it is about, why, and what follows.
fn line(event: &Event) -> String {
    let (time, name) = (time(event.at_ms), event.fact.name());
    let what = match &event.fact {
        Fact::DirectorReady
        | Fact::CallersWithoutServers { .. }
        | Fact::WritesRefused { .. }
        | Fact::WritesDone => String::new(),
        Fact::TableChanged { change } => format!("  {change}"),
        Fact::ChangeRefused { change, .. } => format!("  {change}"),
        Fact::ServerReached { service, server } | Fact::ServerUnreached { service, server } => {
            format!("  server {server} of {service}")
        }
        Fact::DefencesChanged { up } if up.is_empty() => "  none".to_owned(),
        Fact::DefencesChanged { up } => {
            let names: Vec<String> = up.iter().map(warning::defence).collect();
            format!("  {}", names.join("; "))
        }
        Fact::DeviceAttached { device, hook } => format!("  {device} by {hook}"),
        Fact::DeviceNotAttached { device, .. } => format!("  {device}"),
    };
    let (cause, consequence) = (&event.cause, &event.consequence);
    format!("{time}  {name}{what}  cause: {cause}  now: {consequence}")
}

/// A time in UTC, in the form of RFC 3339.
fn time(at_ms: u64) -> String {
    let (seconds, ms) = (at_ms / 1000, at_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. The year begins in March, so
/// that the leap day is its last; 719,468 days lie between 0000-03-01 and 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    (year, month, day - (153 * march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_time_cause_and_consequence() {
        let fact = Fact::ServerUnreached {
            service: "tcp/192.0.2.1:80".parse().unwrap(),
            server: "10.1.0.7:80".parse().unwrap(),
        };
        assert_eq!(
            line(&Event::new(3, 1_709_164_799_042, fact)),
            "2024-02-28T23:59:59.042Z  server_unreached  server 10.1.0.7:80 of tcp 192.0.2.1:80  \
             cause: the kernel has no next hop for it  now: it gets no new connection while \
             another server of the service is reached"
        );
    }

    #[test]
    fn dates_follow_the_calendar() {
        let day = 86_400_000;
        for (days, wanted) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (19_782, "2024-02-29"),
            (19_783, "2024-03-01"),
            (20_818, "2026-12-31"),
        ] {
            assert!(time(days * day).starts_with(wanted), "{}", time(days * day));
        }
    }
}
