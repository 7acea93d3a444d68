//! Packs a few files into the archive that a kernel unpacks as its first file system.
//!
//! The format is cpio's `newc`, as in the kernel's `early-userspace/buffer-format`. The archive is
//! not compressed: an emulated machine reads it faster than it would decompress it.

use std::collections::BTreeSet;
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;

/// Returns an archive with these files, executable, and `/dev/console`.
pub(crate) fn pack(files: &[(&Path, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    // A folder must come before its content. The order of the names ensures that.
    let mut folders = BTreeSet::from([Path::new("/dev")]);
    for (path, _) in files {
        folders.extend(
            path.ancestors()
                .skip(1)
                .filter(|folder| folder.parent().is_some()),
        );
    }
    for folder in folders {
        append(&mut archive, folder, FOLDER, (0, 0), b"");
    }
    append(&mut archive, Path::new("/dev/console"), DEVICE, (5, 1), b"");
    for (path, bytes) in files {
        append(&mut archive, path, PROGRAM, (0, 0), bytes);
    }
    append(&mut archive, Path::new("TRAILER!!!"), 0, (0, 0), b"");
    archive
}

fn append(archive: &mut Vec<u8>, path: &Path, mode: u32, device: (u32, u32), bytes: &[u8]) {
    let name = path.to_string_lossy();
    let name = name.trim_start_matches('/');
    let number = archive.len() as u32; // An inode number only has to be unique.
    let fields = [
        number,
        mode,
        0,
        0,
        1,
        0,
        bytes.len() as u32,
        0,
        0,
        device.0,
        device.1,
        name.len() as u32 + 1,
        0,
    ];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08X}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(bytes);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_files_and_the_trailer_is_last() {
        let archive = pack(&[
            (Path::new("/lib/a/b.so"), b"12345"),
            (Path::new("/init"), b"x"),
        ]);

        let text = String::from_utf8_lossy(&archive);
        let places: Vec<_> = ["lib\0", "lib/a\0", "lib/a/b.so\0", "init\0", "TRAILER!!!\0"]
            .iter()
            .map(|name| text.find(name).unwrap())
            .collect();
        assert!(places.is_sorted());
        assert_eq!(archive.len() % 4, 0);
        assert_eq!(text.matches("070701").count(), 7);
    }
}
