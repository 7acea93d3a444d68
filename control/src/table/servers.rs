//! The real servers of the table's services.

use shunt_model::api::{Reason, Refusal};
use shunt_model::change::server::Change;
use shunt_model::{Server, ServerAddress, ServiceKey};

use super::rules::{self, refuse};
use super::{Applied, Table};

impl Table {
    pub(super) fn check_server(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Add { key, server } => self.may_add_server(key, server),
            Change::Edit { key, server } => {
                let entry = self.known(key)?;
                rules::of_server(key, server)?;
                entry.index(server.at).map(|_| ())
            }
            Change::Delete { key, at } => self.known(key)?.index(*at).map(|_| ()),
        }
    }

    pub(super) fn take_server(&mut self, change: &Change) -> Result<Applied, Refusal> {
        match change {
            Change::Add { key, server } => self.add_server(key, server),
            Change::Edit { key, server } => self.edit_server(key, server),
            Change::Delete { key, at } => self.delete_server(key, *at),
        }
    }

    fn may_add_server(&self, key: &ServiceKey, server: &Server) -> Result<(), Refusal> {
        let at = server.at;
        let entry = self.known(key)?;
        rules::of_server(key, server)?;
        if entry.server(at).is_some() {
            return refuse(
                Reason::ServerExists,
                format!("server {at} of service {key} exists already"),
            );
        }
        rules::of_server_address(at.address)?;
        if self.servers >= self.limits.servers {
            let most = self.limits.servers;
            return refuse(Reason::NoRoom, format!("there are {most} servers already"));
        }
        Ok(())
    }

    fn add_server(&mut self, key: &ServiceKey, server: &Server) -> Result<Applied, Refusal> {
        let at = server.at;
        self.entry(key)?.servers.insert(0, server.clone());
        self.servers += 1;
        Ok(Applied::ServerAdded { key: *key, at })
    }

    /// Replaces everything of the server; its place stays.
    fn edit_server(&mut self, key: &ServiceKey, server: &Server) -> Result<Applied, Refusal> {
        let entry = self.entry(key)?;
        let index = entry.index(server.at)?;
        let before = std::mem::replace(&mut entry.servers[index], server.clone());
        Ok(Applied::ServerEdited { key: *key, before })
    }

    fn delete_server(&mut self, key: &ServiceKey, at: ServerAddress) -> Result<Applied, Refusal> {
        let entry = self.entry(key)?;
        let index = entry.index(at)?;
        let server = entry.servers.remove(index);
        self.servers -= 1;
        Ok(Applied::ServerDeleted { key: *key, server })
    }
}
