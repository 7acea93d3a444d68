//! The words of ipvsadm's command line, and which of them go together.

use std::fmt;

/// What a command line asks for. The names are those of ipvsadm's own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    AddService,
    EditService,
    DeleteService,
    Flush,
    List,
    AddServer,
    DeleteServer,
    EditServer,
    Set,
    StartDaemon,
    StopDaemon,
    Restore,
    Save,
    Zero,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::AddService => "add-service",
            Command::EditService => "edit-service",
            Command::DeleteService => "delete-service",
            Command::Flush => "flush",
            Command::List => "list",
            Command::AddServer => "add-server",
            Command::DeleteServer => "delete-server",
            Command::EditServer => "edit-server",
            Command::Set => "set",
            Command::StartDaemon => "start-daemon",
            Command::StopDaemon => "stop-daemon",
            Command::Restore => "restore",
            Command::Save => "save",
            Command::Zero => "zero",
        })
    }
}

/// What an option is about. Two options of one kind exclude each other.
///
/// The order is that in which ipvsadm looks for mistakes: of two, it reports the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Numeric,
    Connection,
    ServiceAddress,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    ForwardingMethod,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    Syncid,
    Exact,
    Ops,
    Engine,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
}

impl Kind {
    /// Every kind with its name, in the order of the declaration.
    const NAMES: [(Kind, &'static str); 34] = [
        (Kind::Numeric, "numeric"),
        (Kind::Connection, "connection"),
        (Kind::ServiceAddress, "service-address"),
        (Kind::Scheduler, "scheduler"),
        (Kind::Persistent, "persistent"),
        (Kind::Netmask, "netmask"),
        (Kind::RealServer, "real-server"),
        (Kind::ForwardingMethod, "forwarding-method"),
        (Kind::Weight, "weight"),
        (Kind::UpperThreshold, "u-threshold"),
        (Kind::LowerThreshold, "l-threshold"),
        (Kind::McastInterface, "mcast-interface"),
        (Kind::Timeout, "timeout"),
        (Kind::Daemon, "daemon"),
        (Kind::Stats, "stats"),
        (Kind::Rate, "rate"),
        (Kind::Thresholds, "thresholds"),
        (Kind::PersistentConn, "persistent-conn"),
        (Kind::NoSort, "nosort"),
        (Kind::Syncid, "syncid"),
        (Kind::Exact, "exact"),
        (Kind::Ops, "ops"),
        (Kind::Engine, "pe"),
        (Kind::SchedFlags, "sched-flags"),
        (Kind::McastGroup, "mcast-group"),
        (Kind::McastPort, "mcast-port"),
        (Kind::McastTtl, "mcast-ttl"),
        (Kind::SyncMaxlen, "sync-maxlen"),
        (Kind::TunInfo, "tun-info"),
        (Kind::TunType, "tun-type"),
        (Kind::TunPort, "tun-port"),
        (Kind::TunNocsum, "tun-nocsum"),
        (Kind::TunCsum, "tun-csum"),
        (Kind::TunRemcsum, "tun-remcsum"),
    ];

    pub(super) fn all() -> impl Iterator<Item = Kind> {
        Kind::NAMES.into_iter().map(|(kind, _)| kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Kind::NAMES.iter().find(|(kind, _)| kind == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

/// An option, as distinct from what it is about: `-t` and `-u` are one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Tcp,
    Udp,
    Sctp,
    Mark,
    Masquerade,
    Tunnel,
    Route,
    Ipv6,
    Sort,
    /// The only option of its kind.
    Only(Kind),
}

impl Choice {
    /// The kind that may be given once; `-6` and `--sort` may be repeated.
    #[must_use]
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Choice::Tcp | Choice::Udp | Choice::Sctp | Choice::Mark => Some(Kind::ServiceAddress),
            Choice::Masquerade | Choice::Tunnel | Choice::Route => Some(Kind::ForwardingMethod),
            Choice::Ipv6 | Choice::Sort => None,
            Choice::Only(kind) => Some(kind),
        }
    }
}

/// What a word of the command line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Command(Command),
    Option(Choice),
    Help,
    Version,
}

/// Whether a word has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    None,
    /// Left out when the next word begins with a dash, or there is none.
    Optional,
    Needed,
}

/// A word of the command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub long: &'static str,
    pub short: Option<char>,
    pub value: Value,
    pub token: Token,
}

const fn command(long: &'static str, short: char, command: Command) -> Word {
    Word {
        long,
        short: Some(short),
        value: Value::None,
        token: Token::Command(command),
    }
}

const fn long_command(long: &'static str, value: Value, command: Command) -> Word {
    Word {
        long,
        short: None,
        value,
        token: Token::Command(command),
    }
}

const fn flag(long: &'static str, short: Option<char>, choice: Choice) -> Word {
    Word {
        long,
        short,
        value: Value::None,
        token: Token::Option(choice),
    }
}

const fn valued(long: &'static str, short: Option<char>, choice: Choice) -> Word {
    Word {
        value: Value::Needed,
        ..flag(long, short, choice)
    }
}

const fn word(long: &'static str, short: char, token: Token) -> Word {
    Word {
        long,
        short: Some(short),
        value: Value::None,
        token,
    }
}

/// Every word there is.
pub(super) const WORDS: &[Word] = &[
    command("add-service", 'A', Command::AddService),
    command("edit-service", 'E', Command::EditService),
    command("delete-service", 'D', Command::DeleteService),
    command("clear", 'C', Command::Flush),
    command("list", 'L', Command::List),
    command("list", 'l', Command::List),
    command("zero", 'Z', Command::Zero),
    command("add-server", 'a', Command::AddServer),
    command("edit-server", 'e', Command::EditServer),
    command("delete-server", 'd', Command::DeleteServer),
    command("restore", 'R', Command::Restore),
    command("save", 'S', Command::Save),
    long_command("set", Value::None, Command::Set),
    long_command("start-daemon", Value::Needed, Command::StartDaemon),
    long_command("stop-daemon", Value::Needed, Command::StopDaemon),
    word("help", 'h', Token::Help),
    word("version", 'v', Token::Version),
    valued("tcp-service", Some('t'), Choice::Tcp),
    valued("udp-service", Some('u'), Choice::Udp),
    valued("sctp-service", None, Choice::Sctp),
    valued("fwmark-service", Some('f'), Choice::Mark),
    flag("ipv6", Some('6'), Choice::Ipv6),
    valued("scheduler", Some('s'), Choice::Only(Kind::Scheduler)),
    Word {
        value: Value::Optional,
        ..valued("persistent", Some('p'), Choice::Only(Kind::Persistent))
    },
    valued("netmask", Some('M'), Choice::Only(Kind::Netmask)),
    flag("ops", Some('o'), Choice::Only(Kind::Ops)),
    valued("pe", None, Choice::Only(Kind::Engine)),
    valued("sched-flags", Some('b'), Choice::Only(Kind::SchedFlags)),
    valued("real-server", Some('r'), Choice::Only(Kind::RealServer)),
    flag("masquerading", Some('m'), Choice::Masquerade),
    flag("ipip", Some('i'), Choice::Tunnel),
    flag("gatewaying", Some('g'), Choice::Route),
    valued("weight", Some('w'), Choice::Only(Kind::Weight)),
    valued("u-threshold", Some('x'), Choice::Only(Kind::UpperThreshold)),
    valued("l-threshold", Some('y'), Choice::Only(Kind::LowerThreshold)),
    valued("tun-type", None, Choice::Only(Kind::TunType)),
    valued("tun-port", None, Choice::Only(Kind::TunPort)),
    flag("tun-nocsum", None, Choice::Only(Kind::TunNocsum)),
    flag("tun-csum", None, Choice::Only(Kind::TunCsum)),
    flag("tun-remcsum", None, Choice::Only(Kind::TunRemcsum)),
    flag("numeric", Some('n'), Choice::Only(Kind::Numeric)),
    flag("connection", Some('c'), Choice::Only(Kind::Connection)),
    flag("timeout", None, Choice::Only(Kind::Timeout)),
    flag("daemon", None, Choice::Only(Kind::Daemon)),
    flag("stats", None, Choice::Only(Kind::Stats)),
    flag("rate", None, Choice::Only(Kind::Rate)),
    flag("thresholds", None, Choice::Only(Kind::Thresholds)),
    flag("persistent-conn", None, Choice::Only(Kind::PersistentConn)),
    flag("tun-info", None, Choice::Only(Kind::TunInfo)),
    flag("nosort", None, Choice::Only(Kind::NoSort)),
    flag("sort", None, Choice::Sort),
    flag("exact", Some('X'), Choice::Only(Kind::Exact)),
    valued("mcast-interface", None, Choice::Only(Kind::McastInterface)),
    valued("syncid", None, Choice::Only(Kind::Syncid)),
    valued("mcast-group", None, Choice::Only(Kind::McastGroup)),
    valued("mcast-port", None, Choice::Only(Kind::McastPort)),
    valued("mcast-ttl", None, Choice::Only(Kind::McastTtl)),
    valued("sync-maxlen", None, Choice::Only(Kind::SyncMaxlen)),
];

/// Whether a kind of option goes with a command, or with a type of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Needed,
    Free,
    /// At most one of the exclusive kinds.
    Exclusive,
    Forbidden,
}

impl Command {
    #[must_use]
    pub(super) fn rule(self, kind: Kind) -> Rule {
        match self {
            Command::AddService | Command::EditService => match kind {
                Kind::ServiceAddress => Rule::Needed,
                Kind::Scheduler | Kind::Persistent | Kind::Netmask => Rule::Free,
                Kind::Ops | Kind::Engine | Kind::SchedFlags => Rule::Free,
                _ => Rule::Forbidden,
            },
            Command::DeleteService => match kind {
                Kind::ServiceAddress => Rule::Needed,
                _ => Rule::Forbidden,
            },
            Command::AddServer | Command::EditServer => match kind {
                Kind::ServiceAddress | Kind::RealServer => Rule::Needed,
                Kind::ForwardingMethod | Kind::Weight => Rule::Free,
                Kind::UpperThreshold | Kind::LowerThreshold => Rule::Free,
                Kind::TunType | Kind::TunPort => Rule::Free,
                Kind::TunNocsum | Kind::TunCsum | Kind::TunRemcsum => Rule::Free,
                _ => Rule::Forbidden,
            },
            Command::DeleteServer => match kind {
                Kind::ServiceAddress | Kind::RealServer => Rule::Needed,
                _ => Rule::Forbidden,
            },
            Command::List => match kind {
                Kind::Connection | Kind::ServiceAddress => Rule::Exclusive,
                Kind::Timeout | Kind::Daemon => Rule::Exclusive,
                Kind::Numeric | Kind::Exact | Kind::NoSort | Kind::Syncid => Rule::Free,
                Kind::Stats | Kind::Rate | Kind::Thresholds => Rule::Free,
                Kind::PersistentConn | Kind::TunInfo => Rule::Free,
                _ => Rule::Forbidden,
            },
            Command::StartDaemon => match kind {
                Kind::McastInterface | Kind::Syncid | Kind::SyncMaxlen => Rule::Free,
                Kind::McastGroup | Kind::McastPort | Kind::McastTtl => Rule::Free,
                _ => Rule::Forbidden,
            },
            Command::StopDaemon => match kind {
                Kind::Syncid => Rule::Free,
                _ => Rule::Forbidden,
            },
            Command::Save => match kind {
                Kind::Numeric => Rule::Free,
                _ => Rule::Forbidden,
            },
            Command::Zero => match kind {
                Kind::ServiceAddress => Rule::Free,
                _ => Rule::Forbidden,
            },
            Command::Flush | Command::Set | Command::Restore => Rule::Forbidden,
        }
    }
}

/// The type of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TunnelType {
    #[default]
    Ipip,
    Gue,
    Gre,
}

impl TunnelType {
    /// The kinds that only a tunnel has, in the order in which they are looked at.
    pub(super) const KINDS: [Kind; 4] = [
        Kind::TunPort,
        Kind::TunNocsum,
        Kind::TunCsum,
        Kind::TunRemcsum,
    ];

    #[must_use]
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "ipip" => Some(TunnelType::Ipip),
            "gue" => Some(TunnelType::Gue),
            "gre" => Some(TunnelType::Gre),
            _ => None,
        }
    }

    #[must_use]
    pub(super) fn rule(self, kind: Kind) -> Rule {
        match (self, kind) {
            (TunnelType::Gue, Kind::TunPort) => Rule::Needed,
            (TunnelType::Gue, Kind::TunNocsum | Kind::TunCsum | Kind::TunRemcsum) => {
                Rule::Exclusive
            }
            (TunnelType::Gre, Kind::TunNocsum | Kind::TunCsum) => Rule::Exclusive,
            _ => Rule::Forbidden,
        }
    }
}

impl fmt::Display for TunnelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TunnelType::Ipip => "ipip",
            TunnelType::Gue => "gue",
            TunnelType::Gre => "gre",
        })
    }
}
