//! The first stage of the child: out of the host's user, into namespaces of its own, with a file system put together for the build. It runs nothing of
//! the tenant's and reads nothing that the tenant has sent. It stays until the second stage has ended, and takes that with it when it is killed.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{DumpableBehavior, Gid, Uid, getegid, geteuid, set_dumpable_behavior};
use rustix::thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe};

use super::attach::{Piece, attach_all, inside, open_all};
use super::frames;
use super::{CHILD_ARGUMENT, HOME, INIT_ARGUMENT, Orders, SOURCE, SandboxError};

/// Where the new file system is put together. Any folder serves: it is covered in this process only, and left behind in the next stage.
const BASE: &str = "/tmp";

/// Does what the orders on standard input say.
pub(super) fn main() -> ExitCode {
    let ended = stdin().and_then(|mut stdin| frames::read_json(&mut stdin, frames::ORDERS)).map_err(host).and_then(|orders| run(&orders));
    match ended {
        Ok(code) => code,
        Err(error) => {
            // Whoever is not there to read it has gone for another reason.
            let _ = stdout().and_then(|mut stdout| frames::write_json(&mut stdout, frames::FAILED, &error));
            ExitCode::FAILURE
        }
    }
}

/// Standard input without a buffer, because the next stage reads on where this one has stopped.
pub(super) fn stdin() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Standard output without a buffer.
pub(super) fn stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

fn host(error: io::Error) -> SandboxError {
    SandboxError::Host { text: error.to_string() }
}

/// What was tried when something was refused.
fn unavailable(what: &str) -> impl FnOnce(Errno) -> SandboxError + '_ {
    move |error| SandboxError::Unavailable { reason: format!("{what}: {}", io::Error::from(error)) }
}

fn unavailable_io(what: &str) -> impl FnOnce(io::Error) -> SandboxError + '_ {
    move |error| SandboxError::Unavailable { reason: format!("{what}: {error}") }
}

fn unavailable_path((path, error): (PathBuf, io::Error)) -> SandboxError {
    SandboxError::Unavailable { reason: format!("making {} visible: {error}", path.display()) }
}

fn run(orders: &Orders) -> Result<ExitCode, SandboxError> {
    let pieces = give_up_root(orders)?;
    enter_namespaces()?;
    let pieces = match pieces {
        Some(pieces) => pieces,
        None => open_all(&orders.mounts).map_err(unavailable_path)?,
    };
    let root = make_root(orders)?;
    attach_all(&orders.mounts, pieces, &root).map_err(unavailable_path)?;
    let mut init = Command::new("/proc/self/exe");
    init.args([CHILD_ARGUMENT, INIT_ARGUMENT]).env_clear().current_dir(&root);
    let status = init.status().map_err(unavailable_io("starting the first process of a pid namespace"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Root outside would be root to every file that is visible inside, and is exempt from some limits. Another user is as good for building. What has to be visible
/// is taken hold of first, because that user may not be able to reach it.
fn give_up_root(orders: &Orders) -> Result<Option<Vec<Piece>>, SandboxError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let pieces = match open_all(&orders.mounts) {
        Ok(pieces) => Some(pieces),
        // Root of a container may lack the right. It is then tried as any user would, within namespaces.
        Err((_, error)) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => return Err(unavailable_path(error)),
    };
    let (uid, gid) = (Uid::from_raw(orders.build_user), Gid::from_raw(orders.build_user));
    set_thread_groups(&[]).map_err(unavailable("giving up the groups of root"))?;
    set_thread_res_gid(gid, gid, gid).map_err(unavailable("giving up the group of root"))?;
    set_thread_res_uid(uid, uid, uid).map_err(unavailable("giving up the user root"))?;
    // The kernel guards a process that has changed its user, also from itself: it could not write its own map of users.
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(unavailable("setting its own attributes"))?;
    Ok(pieces)
}

#[expect(unsafe_code, reason = "neither call has a safe function: one can split a table of open files, the other can close files under their owners")]
fn enter_namespaces() -> Result<(), SandboxError> {
    // What the host has inherited from whoever started it must not reach a build. SAFETY: no file is closed: they are marked to be closed when the next stage is started.
    if unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) } != 0 {
        return Err(unavailable_io("closing inherited files")(io::Error::last_os_error()));
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let namespaces = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    // SAFETY: the table of open files stays shared, as `FILES` is not among the flags; and this process has one thread.
    unsafe { unshare_unsafe(namespaces) }.map_err(unavailable("entering new user, mount, pid, network, ipc, uts and cgroup namespaces"))?;
    let map = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text).map_err(unavailable_io("mapping the user into its namespace"));
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("0 {uid} 1"))?;
    map("gid_map", format!("0 {gid} 1"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(unavailable("making mounts private"))
}

/// An empty file system of limited size, with the folders and files that every build finds.
fn make_root(orders: &Orders) -> Result<PathBuf, SandboxError> {
    let made = unavailable_io("making its file system");
    let root = fs::canonicalize(BASE).map_err(unavailable_io("finding /tmp"))?;
    let options = format!("mode=0755,size={},nr_inodes={}", orders.limits.disk_bytes, orders.limits.disk_files);
    let options = CString::new(options).map_err(|error| SandboxError::Host { text: error.to_string() })?;
    mount("tovuk", &root, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str()).map_err(unavailable("mounting a tmpfs"))?;
    fill(&root).map_err(made)?;
    Ok(root)
}

fn fill(root: &Path) -> io::Result<()> {
    for folder in ["/proc", "/dev/shm", "/etc", "/tmp", "/var/tmp", SOURCE, HOME] {
        fs::create_dir_all(inside(root, Path::new(folder)))?;
    }
    let file = |path: &str, text: &str| fs::write(inside(root, Path::new(path)), text);
    file("/etc/passwd", "build:x:0:0::/home:/bin/sh\n")?;
    file("/etc/group", "build:x:0:\n")?;
    file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")?;
    file("/etc/hosts", "127.0.0.1 localhost\n")?;
    let link = |path: &str, to: &str| std::os::unix::fs::symlink(to, inside(root, Path::new(path)));
    link("/dev/fd", "/proc/self/fd")?;
    link("/dev/stdin", "/proc/self/fd/0")?;
    link("/dev/stdout", "/proc/self/fd/1")?;
    link("/dev/stderr", "/proc/self/fd/2")
}
