//! The fault library itself: it fails the calls that it is told to, and no others.

use crate::support::Scratch;
use crate::support::faults::Faults;
use std::process::Command;

/// Makes each kind of call twice and prints the error's name, or "ok".
const CALLS: &str = r#"
import errno, os, sys
os.chdir(sys.argv[1])
def call(name, work):
    for turn in 1, 2:
        try:
            result = work(turn)
            print(name, turn, "ok" if result is None else result)
        except OSError as error:
            print(name, turn, errno.errorcode[error.errno])
fd = os.open("plain", os.O_CREAT | os.O_RDWR)
call("create", lambda n: os.close(os.open(f"made{n}", os.O_CREAT | os.O_WRONLY)))
call("open", lambda n: os.close(os.open("plain", os.O_RDONLY)))
call("write", lambda n: os.write(fd, b"abcdefgh"))
call("pwrite", lambda n: os.pwrite(fd, b"abcdefgh", 0))
call("truncate", lambda n: os.ftruncate(fd, 10))
call("allocate", lambda n: os.posix_fallocate(fd, 0, 10))
call("fsync", lambda n: os.fsync(fd))
call("fdatasync", lambda n: os.fdatasync(fd))
call("mkdir", lambda n: os.mkdir(f"dir{n}"))
os.makedirs("dirs/1"); os.makedirs("dirs/2")
call("rename", lambda n: os.rename(f"dirs/{n}", f"dirs/new{n}"))
open("old1", "w"); open("old2", "w")
call("unlink", lambda n: os.unlink(f"old{n}"))
os.makedirs("gone/1"); os.makedirs("gone/2")
call("rmdir", lambda n: os.rmdir(f"gone/{n}"))
"#;

/// Runs the calls under rules; their lines that are not plain success.
fn failures(rules: &str) -> Vec<String> {
    let scratch = Scratch::new("fault_library");
    let work = scratch.0.join("ground");
    std::fs::create_dir(&work).unwrap();
    let faults = Faults::new(&scratch.0);
    faults.set(rules);
    let output = Command::new("python3")
        .args(["-c", CALLS])
        .arg(&work)
        .envs(faults.environment())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 24, "{text}");
    let hits = faults.hits().len();
    let failed: Vec<_> = text
        .lines()
        .filter(|line| !line.ends_with("ok") && !line.ends_with(" 8"))
        .map(str::to_owned)
        .collect();
    assert_eq!(hits, failed.len(), "{failed:?} {:?}", faults.hits());
    failed
}

#[test]
fn the_fault_library_fails_the_calls_it_is_told_to_and_no_others() {
    assert!(failures("").is_empty());
    assert!(failures("any */elsewhere/* 1 * EIO").is_empty());
    for (rule, failed) in [
        ("create */ground/made? 2 1 ENOSPC", vec!["create 2 ENOSPC"]),
        ("create */ground/made1 1 * EIO", vec!["create 1 EIO"]),
        ("write */plain 2 2 EIO", vec!["write 2 EIO", "pwrite 1 EIO"]),
        (
            "write */plain 3 * EIO+short",
            vec!["pwrite 1 4", "pwrite 2 EIO"],
        ),
        (
            "truncate */plain 1 * ENOSPC",
            vec![
                "truncate 1 ENOSPC",
                "truncate 2 ENOSPC",
                "allocate 1 ENOSPC",
                "allocate 2 ENOSPC",
            ],
        ),
        (
            "sync */plain 2 2 EIO",
            vec!["fsync 2 EIO", "fdatasync 1 EIO"],
        ),
        ("fdatasync */plain 1 1 EIO", vec!["fdatasync 1 EIO"]),
        ("mkdir */ground/dir? 2 1 EDQUOT", vec!["mkdir 2 EDQUOT"]),
        (
            "rename */ground/dirs/new2 1 1 EROFS",
            vec!["rename 2 EROFS"],
        ),
        (
            "unlink */old? 1 1 EACCES\nunlink */gone/? 2 1 EIO",
            vec!["unlink 1 EACCES", "rmdir 2 EIO"],
        ),
    ] {
        assert_eq!(failures(rule), failed, "{rule}");
    }
}
