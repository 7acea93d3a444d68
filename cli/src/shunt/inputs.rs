//! `shunt inputs`: what the daemon's control heard last.

use super::{Form, Halt, Outside, write_json};

pub(super) fn run(outside: &mut Outside<'_>) -> Result<(), Halt> {
    let mut client = (outside.open)()?;
    for input in client.inputs()? {
        write_json(outside.out, &input?, Form::JsonLine)?;
    }
    Ok(())
}
