//! What earlier daemons left on a BPF file system: whose it is, and whether it is what it seems.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use shunt_daemon::kernel::pins;
use shunt_daemon::kernel::place::Place;
use shunt_daemon::kernel::presence;

/// How long the kernel may take to clean a namespace up.
const LIMIT: Duration = Duration::from_secs(30);

/// A BPF file system that this thread alone sees.
fn file_system(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("shunt-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).expect("a folder");
    unshare(CloneFlags::CLONE_NEWNS).expect("mounts of its own");
    let none = None::<&str>;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(none, "/", none, private, none).expect("private mounts");
    mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), none).expect("a BPF file system");
    path
}

fn place(root: &Path, number: u64) -> Place {
    let pins = root.join(format!("shunt-{number}")).join("v1");
    fs::create_dir_all(&pins).expect("a folder for pins");
    Place {
        runtime: root.to_owned(),
        pins,
        namespace: number,
    }
}

#[test]
fn pins_of_a_namespace_that_is_gone_are_swept_and_no_others() {
    if !geteuid().is_root() {
        println!("skipped: pinning needs root");
        return;
    }
    let test = thread::spawn(|| {
        let root = file_system("sweep");
        let (own, dead, living, silent) = (
            place(&root, 1),
            place(&root, 2),
            place(&root, 3),
            place(&root, 4),
        );
        let gone = dead.clone();
        let brief = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own");
            presence::mark(&gone).expect("a mark");
            // As the journal's second copy is, beside the layouts.
            let journal = Array::<MapData, u32>::create(1, 0).expect("a map");
            let path = gone.pins.with_file_name("journal");
            journal.pin(path).expect("a pin");
        });
        // Without a process, but with a thread that keeps it.
        let (marked, is_marked) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let kept = living.clone();
        let keeper = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own");
            presence::mark(&kept).expect("a mark");
            // A second time changes nothing.
            presence::mark(&kept).expect("a mark");
            marked.send(()).expect("the test");
            let _ = ended.recv();
        });
        is_marked.recv().expect("the keeper");
        brief.join().expect("the first namespace");

        let begun = Instant::now();
        while dead.pins.exists() && begun.elapsed() < LIMIT {
            presence::sweep(&own);
            thread::yield_now();
        }

        assert!(!dead.pins.exists(), "the dead one's pins are there still");
        for other in [&own, &living, &silent] {
            assert!(other.pins.exists(), "{} is gone", other.pins.display());
        }
        drop(end);
        keeper.join().expect("the second namespace");
        let begun = Instant::now();
        while living.pins.exists() && begun.elapsed() < LIMIT {
            presence::sweep(&own);
            thread::yield_now();
        }
        assert!(!living.pins.exists(), "it lived no longer");
        assert!(silent.pins.exists(), "nothing says that it is gone");
        let _ = nix::mount::umount(&root);
        let _ = fs::remove_dir(&root);
    });
    test.join().expect("the test");
}

#[test]
fn maps_of_another_kind_or_size_are_not_ours() {
    if !geteuid().is_root() {
        println!("skipped: pinning needs root");
        return;
    }
    let test = thread::spawn(|| {
        const MAPPED: u32 = 1 << 10;
        let root = file_system("unfit");
        let unfit = |entries: &[(&str, u32)]| {
            pins::unfit(&root, shunt_ebpf::DIRECTOR, &["POOLS"], entries).expect("the object")
        };
        let path = root.join("POOLS");
        let entries = [("POOLS", 64)];

        assert_eq!(unfit(&entries).len(), 1, "nothing is there");
        let ours = Array::<MapData, u64>::create(64, MAPPED).expect("a map");
        ours.pin(&path).expect("a pin");
        assert_eq!(unfit(&entries), BTreeMap::new());
        assert_eq!(
            unfit(&[("POOLS", 65)]).len(),
            1,
            "another number of entries"
        );
        assert_eq!(unfit(&[]).len(), 1, "the object's own number of entries");
        fs::remove_file(&path).expect("a pin");
        let narrow = Array::<MapData, u32>::create(64, MAPPED).expect("a map");
        narrow.pin(&path).expect("a pin");
        assert_eq!(unfit(&entries).len(), 1, "another size of value");
        fs::remove_file(&path).expect("a pin");
        let unmapped = Array::<MapData, u64>::create(64, 0).expect("a map");
        unmapped.pin(&path).expect("a pin");
        assert_eq!(unfit(&entries).len(), 1, "no memory to map");
        fs::remove_file(&path).expect("a pin");
        fs::write(&path, "").expect_err("no other files here");
        let _ = nix::mount::umount(&root);
        let _ = fs::remove_dir(&root);
    });
    test.join().expect("the test");
}
