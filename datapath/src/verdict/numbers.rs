//! Reasons from the numbers in words.

use super::{Bounce, Drop, Pass};

impl From<u32> for Pass {
    #[inline(always)]
    fn from(value: u32) -> Self {
        match value {
            0 => Pass::NotIp,
            1 => Pass::NotOurs,
            2 => Pass::NotUnderstood,
            3 => Pass::NotOpening,
            4 => Pass::Local,
            5 => Pass::Icmp,
            6 => Pass::NoRest,
            7 => Pass::Bypassed,
            8 => Pass::LostFragment,
            9 => Pass::OtherHost,
            10 => Pass::Tagged,
            _ => Pass::WrongDevice,
        }
    }
}

impl From<u32> for Bounce {
    #[inline(always)]
    fn from(value: u32) -> Self {
        match value {
            0 => Bounce::Unreachable,
            1 => Bounce::TooBig,
            2 => Bounce::TimeExceeded,
            _ => Bounce::Reset,
        }
    }
}

impl From<u32> for Drop {
    #[inline(always)]
    fn from(value: u32) -> Self {
        match value {
            0 => Drop::ServerGone,
            1 => Drop::NoNextHop,
            2 => Drop::TableFull,
            3 => Drop::NoServer,
            4 => Drop::Expired,
            5 => Drop::TooBig,
            6 => Drop::BadChecksum,
            7 => Drop::BadSource,
            8 => Drop::NoRoom,
            9 => Drop::LostFragment,
            10 => Drop::BadFragment,
            12 => Drop::NoWayBack,
            13 => Drop::Defence,
            14 => Drop::NoLocalPort,
            15 => Drop::NoTranslation,
            16 => Drop::CutChecksum,
            17 => Drop::Untranslatable,
            18 => Drop::NoCallId,
            19 => Drop::NotCarried,
            _ => Drop::Internal,
        }
    }
}
