//! The settings and timeouts of the whole director.

use shunt_model::api::Refusal;
use shunt_model::change::setting::Change;
use shunt_model::{Setting, Timeouts};

use super::{Applied, Table, rules};

impl Table {
    pub(super) fn check_setting(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Set { .. } => Ok(()),
            Change::Timeouts { timeouts } => rules::of_timeouts(timeouts),
        }
    }

    pub(super) fn take_setting(&mut self, change: &Change) -> Applied {
        match change {
            Change::Set { setting } => self.set(*setting),
            Change::Timeouts { timeouts } => self.set_timeouts(timeouts),
        }
    }

    fn set(&mut self, setting: Setting) -> Applied {
        self.settings.set(setting);
        Applied::SettingSet
    }

    fn set_timeouts(&mut self, wanted: &Timeouts) -> Applied {
        let or = |wanted: u32, known: u32| if wanted == 0 { known } else { wanted };
        self.timeouts = Timeouts {
            tcp_s: or(wanted.tcp_s, self.timeouts.tcp_s),
            tcp_fin_s: or(wanted.tcp_fin_s, self.timeouts.tcp_fin_s),
            udp_s: or(wanted.udp_s, self.timeouts.udp_s),
        };
        Applied::TimeoutsSet {
            timeouts: self.timeouts,
        }
    }
}
