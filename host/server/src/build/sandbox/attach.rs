//! What of the host's file system a build sees, and how it gets there: read-only, without devices but for four harmless ones, and nothing else.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount_remount, move_mount, open_tree};

use super::{Mount, OPERATOR_CARGO, SandboxConfig, TOOLCHAIN};

/// Programs and libraries of the system.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"];
/// What of `/etc` programs need to find others: which compiler `cc` is, and where libraries are.
const CONFIGURATION: [&str; 2] = ["/etc/alternatives", "/etc/ld.so.cache"];
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// What of the operator's cargo folder is visible. Its credentials are not.
const CARGO: [&str; 4] = ["registry", "git", "vendor", "config.toml"];

/// Everything that is attached, in order. What does not exist on this machine is left out.
pub(super) fn mounts(config: &SandboxConfig) -> Vec<Mount> {
    let same = |path: &Path| Mount { from: path.to_owned(), to: path.to_owned(), device: false };
    let mut mounts: Vec<Mount> = SYSTEM.iter().chain(&CONFIGURATION).map(|path| same(Path::new(path))).collect();
    if !config.toolchain.starts_with("/usr") {
        mounts.push(Mount { from: config.toolchain.clone(), to: TOOLCHAIN.into(), device: false });
    }
    if let Some(cargo) = &config.cargo_home {
        mounts.extend(CARGO.iter().map(|name| Mount { from: cargo.join(name), to: Path::new(OPERATOR_CARGO).join(name), device: false }));
    }
    mounts.extend(config.read_only.iter().map(|path| same(path)));
    mounts.extend(DEVICES.iter().map(|path| Mount { device: true, ..same(Path::new(path)) }));
    mounts.retain(|mount| mount.from.exists());
    mounts
}

/// Something that is to be attached: a copy of a part of the file system, or a link as the system has it.
pub(super) enum Piece {
    Tree { tree: OwnedFd, is_folder: bool },
    Link(PathBuf),
}

/// Takes hold of everything. Doing this before giving up the host's user allows a toolchain in a folder that only the host's user may enter.
pub(super) fn open_all(mounts: &[Mount]) -> Result<Vec<Piece>, (PathBuf, io::Error)> {
    let open = |mount: &Mount| -> io::Result<Piece> {
        let metadata = fs::symlink_metadata(&mount.from)?;
        if metadata.is_symlink() && mount.from == mount.to {
            return fs::read_link(&mount.from).map(Piece::Link);
        }
        let is_folder = fs::metadata(&mount.from)?.is_dir();
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if is_folder {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        Ok(Piece::Tree { tree: open_tree(CWD, &mount.from, flags)?, is_folder })
    };
    mounts.iter().map(|mount| open(mount).map_err(|error| (mount.from.clone(), error))).collect()
}

/// Attaches everything below `root`, an empty file system, and takes away the right to write there.
pub(super) fn attach_all(mounts: &[Mount], pieces: Vec<Piece>, root: &Path) -> Result<(), (PathBuf, io::Error)> {
    for (mount, piece) in mounts.iter().zip(pieces) {
        attach(mount, piece, root).map_err(|error| (mount.from.clone(), error))?;
    }
    restrict(mounts, root)
}

fn attach(mount: &Mount, piece: Piece, root: &Path) -> io::Result<()> {
    let target = inside(root, &mount.to);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    match piece {
        Piece::Link(link) => std::os::unix::fs::symlink(link, target),
        Piece::Tree { tree, is_folder } => {
            if is_folder { fs::create_dir_all(&target) } else { fs::write(&target, []) }?;
            Ok(move_mount(&tree, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
        }
    }
}

/// An absolute path inside, as it is called outside.
pub(super) fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Makes every mount below `root` read-only. Those that came along inside another are included, so the kernel's list of mounts is gone through.
fn restrict(mounts: &[Mount], root: &Path) -> Result<(), (PathBuf, io::Error)> {
    let list = fs::read_to_string("/proc/self/mountinfo").map_err(|error| ("/proc/self/mountinfo".into(), error))?;
    for (path, options) in list.lines().filter_map(mount_point).filter(|(path, _)| path != root && path.starts_with(root)) {
        let is_device = mounts.iter().any(|mount| mount.device && inside(root, &mount.to) == path);
        let mut flags = kept(options) | MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
        flags |= if is_device { MountFlags::NOEXEC } else { MountFlags::NODEV };
        mount_remount(&path, flags, "").map_err(|error| (path, error.into()))?;
    }
    Ok(())
}

/// Path and options of a line of `mountinfo`.
fn mount_point(line: &str) -> Option<(PathBuf, &str)> {
    let mut fields = line.split(' ').skip(4);
    Some((unescaped(fields.next()?), fields.next()?))
}

/// Blanks and the like stand there as three octal digits.
fn unescaped(field: &str) -> PathBuf {
    let mut parts = field.split('\\');
    let mut path = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.split_at_checked(3).and_then(|(digits, rest)| Some((u8::from_str_radix(digits, 8).ok()?, rest))) {
            Some((byte, rest)) => {
                path.push(byte);
                path.extend_from_slice(rest.as_bytes());
            }
            None => path.extend_from_slice(part.as_bytes()),
        }
    }
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(path).into()
}

/// The options that a mount has and must keep: inside a user namespace they cannot be taken away, and a call that would is refused.
fn kept(options: &str) -> MountFlags {
    let of = |option: &str| match option {
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        "nosymfollow" => MountFlags::NOSYMFOLLOW,
        _ => MountFlags::empty(),
    };
    options.split(',').map(of).fold(MountFlags::empty(), |all, flag| all | flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo_give_path_and_options() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402/a\134b rw,noatime,nodev master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(mount_point(line), Some((PathBuf::from(r"/mnt 2/a\b"), "rw,noatime,nodev")));
        assert_eq!(kept("rw,noatime,nodev"), MountFlags::NOATIME | MountFlags::NODEV);
        assert_eq!(mount_point("36 35"), None);
    }
}
