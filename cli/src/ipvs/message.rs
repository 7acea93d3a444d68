//! The messages of the netlink family of IPVS: `include/uapi/linux/ip_vs.h`.
//!
//! The code is pure: it turns bytes into types of the model. Numbers are in the machine's byte
//! order unless a comment names network order. Unknown attributes are skipped, because a later
//! kernel may have more.

use std::num::NonZeroU32;

use shunt_model::service::Granularity;
use shunt_model::{
    Encapsulation, Method, Persistence, Protocol, Scheduler, SchedulerFlags, Server, ServerAddress,
    Service, ServiceKey, Timeouts, TunnelChecksum,
};

use super::Failure;
use super::wire::{
    ACK, AF_INET, AF_INET6, Attributes, DUMP, NESTED, REQUEST, address, bodies, broken, ipv4_of,
    port_of, put, request, text_of, u8_of, u16_of, u32_of, union_of,
};

// `linux/genetlink.h`.
const CONTROL: u16 = 0x10;
const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;
const CONTROL_VERSION: u8 = 1;

/// `IPVS_GENL_NAME` with its terminating zero, and `IPVS_GENL_VERSION`.
const NAME: &[u8] = b"IPVS\0";
const VERSION: u8 = 1;
const GET_SERVICE: u8 = 4;
const GET_DEST: u8 = 8;
const GET_CONFIG: u8 = 13;

// The first level: `IPVS_CMD_ATTR_*`.
const SERVICE: u16 = 1;
const DEST: u16 = 2;
const TIMEOUT_TCP: u16 = 4;
const TIMEOUT_TCP_FIN: u16 = 5;
const TIMEOUT_UDP: u16 = 6;

// Of a service: `IPVS_SVC_ATTR_*`.
const SVC_AF: u16 = 1;
const SVC_PROTOCOL: u16 = 2;
const SVC_ADDR: u16 = 3;
const SVC_PORT: u16 = 4;
const SVC_FWMARK: u16 = 5;
const SVC_SCHED_NAME: u16 = 6;
const SVC_FLAGS: u16 = 7;
const SVC_TIMEOUT: u16 = 8;
const SVC_NETMASK: u16 = 9;
const SVC_PE_NAME: u16 = 11;

// Of a server: `IPVS_DEST_ATTR_*`.
const DEST_ADDR: u16 = 1;
const DEST_PORT: u16 = 2;
const DEST_FWD_METHOD: u16 = 3;
const DEST_WEIGHT: u16 = 4;
const DEST_U_THRESH: u16 = 5;
const DEST_L_THRESH: u16 = 6;
const DEST_ADDR_FAMILY: u16 = 11;
const DEST_TUN_TYPE: u16 = 13;
const DEST_TUN_PORT: u16 = 14;
const DEST_TUN_FLAGS: u16 = 15;

// `IP_VS_SVC_F_*`.
const PERSISTENT: u32 = 0x1;
const ONE_PACKET: u32 = 0x4;
const FIRST_FLAG: u32 = 0x8;
const SECOND_FLAG: u32 = 0x10;
const THIRD_FLAG: u32 = 0x20;

/// The bits of `IP_VS_CONN_F_*` that hold the forwarding method.
const METHOD_MASK: u32 = 0x7;

/// The request for the id of the IPVS family. The kernel loads the module for it if it can.
pub(super) fn find_family() -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, CONTROL_FAMILY_NAME, NAME);
    request(
        CONTROL,
        REQUEST | ACK,
        [CONTROL_GET_FAMILY, CONTROL_VERSION],
        &body,
    )
}

/// The id of the IPVS family in this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Family(u16);

/// A service's key, which must be readable, and the service, or why Shunt cannot express it.
#[derive(Debug)]
pub(super) struct Found {
    pub key: ServiceKey,
    pub service: Result<Service, String>,
}

impl Family {
    pub(super) fn read(answer: &[u8]) -> Result<Self, Failure> {
        let bodies = bodies(answer, CONTROL).map_err(|failure| match failure {
            Failure::Netlink(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                Failure::NoIpvs
            }
            other => other,
        })?;
        let body = bodies.first().ok_or_else(|| broken("an empty answer"))?;
        let attributes = Attributes::read(body)?;
        Ok(Self(attributes.must(CONTROL_FAMILY_ID, u16_of)?))
    }

    pub(super) fn ask_timeouts(self) -> Vec<u8> {
        request(self.0, REQUEST | ACK, [GET_CONFIG, VERSION], &[])
    }

    pub(super) fn ask_services(self) -> Vec<u8> {
        request(self.0, REQUEST | DUMP, [GET_SERVICE, VERSION], &[])
    }

    pub(super) fn ask_servers(self, key: &ServiceKey) -> Vec<u8> {
        let mut service = Vec::new();
        let family = match key.family() {
            shunt_model::Family::Ipv4 => AF_INET,
            shunt_model::Family::Ipv6 => AF_INET6,
        };
        put(&mut service, SVC_AF, &family.to_ne_bytes());
        match *key {
            ServiceKey::Mark { mark, .. } => {
                put(&mut service, SVC_FWMARK, &mark.get().to_ne_bytes());
            }
            ServiceKey::Address {
                protocol,
                address,
                port,
            } => {
                let number = u16::from(protocol.number());
                put(&mut service, SVC_PROTOCOL, &number.to_ne_bytes());
                put(&mut service, SVC_ADDR, &union_of(address));
                put(&mut service, SVC_PORT, &port.to_be_bytes());
            }
        }
        let mut body = Vec::new();
        put(&mut body, SERVICE | NESTED, &service);
        request(self.0, REQUEST | DUMP, [GET_DEST, VERSION], &body)
    }

    pub(super) fn timeouts(self, answer: &[u8]) -> Result<Timeouts, Failure> {
        let bodies = bodies(answer, self.0)?;
        let body = bodies.first().ok_or_else(|| broken("no timeouts"))?;
        let attributes = Attributes::read(body)?;
        let default = Timeouts::default();
        // A kernel built without a protocol sends no timeout for it.
        let or = |kind, default| Ok::<_, Failure>(attributes.may(kind, u32_of)?.unwrap_or(default));
        Ok(Timeouts {
            tcp_s: or(TIMEOUT_TCP, default.tcp_s)?,
            tcp_fin_s: or(TIMEOUT_TCP_FIN, default.tcp_fin_s)?,
            udp_s: or(TIMEOUT_UDP, default.udp_s)?,
        })
    }

    pub(super) fn services(self, answer: &[u8]) -> Result<Vec<Found>, Failure> {
        let bodies = bodies(answer, self.0)?;
        let read = |body: &&[u8]| service(&Attributes::read(body)?.nested(SERVICE)?);
        bodies.iter().map(read).collect()
    }

    /// The servers of a service of this family: the address of each, and the server, or why Shunt
    /// cannot express it.
    #[expect(clippy::type_complexity, reason = "the caller destructures it")]
    pub(super) fn servers(
        self,
        answer: &[u8],
        family: shunt_model::Family,
    ) -> Result<Vec<(ServerAddress, Result<Server, String>)>, Failure> {
        let bodies = bodies(answer, self.0)?;
        let read = |body: &&[u8]| server(&Attributes::read(body)?.nested(DEST)?, family);
        bodies.iter().map(read).collect()
    }
}

fn service(attributes: &Attributes<'_>) -> Result<Found, Failure> {
    let key = service_key(attributes)?;
    let name = attributes.must(SVC_SCHED_NAME, text_of)?;
    // Flags, and a mask that is all ones in an answer.
    let flags = attributes.must(SVC_FLAGS, |bytes| u32_of(bytes.get(..4)?))?;
    let has = |flag| flags & flag != 0;
    let mut persistence = None;
    let mut idle_engine = attributes.may(SVC_PE_NAME, text_of)?;
    if has(PERSISTENT) {
        let granularity = match key.family() {
            shunt_model::Family::Ipv4 => Granularity::Mask(attributes.must(SVC_NETMASK, ipv4_of)?),
            shunt_model::Family::Ipv6 => {
                let length = attributes.must(SVC_NETMASK, u32_of)?;
                let told = || broken(&format!("service {key} has a prefix of {length} bits"));
                Granularity::Prefix(u8::try_from(length).map_err(|_| told())?)
            }
        };
        persistence = Some(Persistence {
            timeout_s: attributes.must(SVC_TIMEOUT, u32_of)?,
            granularity,
            engine: idle_engine.take(),
        });
    }
    let service = match name.parse::<Scheduler>() {
        Ok(scheduler) => Ok(Service {
            key,
            scheduler,
            flags: SchedulerFlags {
                fallback: has(FIRST_FLAG),
                port: has(SECOND_FLAG),
                third: has(THIRD_FLAG),
                large: false,
            },
            persistence,
            one_packet: has(ONE_PACKET),
            settings: Default::default(),
            idle_engine,
            announce: None,
        }),
        // The kernel's name for the scheduler of a service whose scheduler was removed.
        Err(_) if name == "none" => Err("it has no scheduler".to_owned()),
        Err(unknown) => Err(unknown.to_string()),
    };
    Ok(Found { key, service })
}

fn service_key(attributes: &Attributes<'_>) -> Result<ServiceKey, Failure> {
    let family = attributes.must(SVC_AF, u16_of)?;
    if let Some(mark) = attributes.may(SVC_FWMARK, u32_of)? {
        let mark = NonZeroU32::new(mark).ok_or_else(|| broken("a firewall mark of 0"))?;
        let family = match family {
            AF_INET => shunt_model::Family::Ipv4,
            AF_INET6 => shunt_model::Family::Ipv6,
            other => return Err(broken(&format!("address family {other}"))),
        };
        return Ok(ServiceKey::Mark { mark, family });
    }
    let number = attributes.must(SVC_PROTOCOL, u16_of)?;
    let protocol = u8::try_from(number).ok().and_then(Protocol::from_number);
    Ok(ServiceKey::Address {
        protocol: protocol.ok_or_else(|| broken(&format!("protocol {number}")))?,
        address: address(family, attributes.get(SVC_ADDR))?,
        port: attributes.must(SVC_PORT, port_of)?,
    })
}

fn server(
    attributes: &Attributes<'_>,
    family: shunt_model::Family,
) -> Result<(ServerAddress, Result<Server, String>), Failure> {
    // Kernels before 3.18 do not allow a server of another family than its service.
    let family = attributes
        .may(DEST_ADDR_FAMILY, u16_of)?
        .unwrap_or(match family {
            shunt_model::Family::Ipv4 => AF_INET,
            shunt_model::Family::Ipv6 => AF_INET6,
        });
    let at = ServerAddress {
        address: address(family, attributes.get(DEST_ADDR))?,
        port: attributes.must(DEST_PORT, port_of)?,
    };
    let weight = attributes.must(DEST_WEIGHT, u32_of)?;
    let upper_threshold = attributes.must(DEST_U_THRESH, u32_of)?;
    let lower_threshold = attributes.must(DEST_L_THRESH, u32_of)?;
    let server = method(attributes)?.map(|method| Server {
        at,
        method,
        weight,
        upper_threshold,
        lower_threshold,
    });
    Ok((at, server))
}

/// `IP_VS_CONN_F_MASQ` and the values after it.
fn method(attributes: &Attributes<'_>) -> Result<Result<Method, String>, Failure> {
    let number = attributes.must(DEST_FWD_METHOD, u32_of)? & METHOD_MASK;
    Ok(match number {
        0 => Ok(Method::Masquerade),
        1 => Ok(Method::Local),
        2 => encapsulation(attributes)?.map(Method::Tunnel),
        3 => Ok(Method::Route),
        other => Err(format!("unknown forwarding method {other}")),
    })
}

/// `IP_VS_CONN_F_TUNNEL_TYPE_*`. A kernel before 5.3 has only IP in IP and does not send the type.
fn encapsulation(attributes: &Attributes<'_>) -> Result<Result<Encapsulation, String>, Failure> {
    let kind = attributes.may(DEST_TUN_TYPE, u8_of)?.unwrap_or(0);
    if kind == 0 {
        return Ok(Ok(Encapsulation::Ipip));
    }
    let checksum = match attributes.must(DEST_TUN_FLAGS, u16_of)? {
        0 => TunnelChecksum::Off,
        1 => TunnelChecksum::On,
        2 => TunnelChecksum::Remote,
        other => return Ok(Err(format!("unknown tunnel flags {other:#x}"))),
    };
    Ok(match kind {
        1 => Ok(Encapsulation::Gue {
            port: attributes.must(DEST_TUN_PORT, port_of)?,
            checksum,
        }),
        2 => Ok(Encapsulation::Gre { checksum }),
        other => Err(format!("unknown tunnel type {other}")),
    })
}
