//! The system calls that builds are refused. Namespaces and lost capabilities already bound what the others can do; those named here either reach past a namespace,
//! hold memory that nothing counts, or are parts of the kernel that no build needs and attackers like.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

use super::SandboxError;

/// Refused whatever their arguments are.
const REFUSED: &[libc::c_long] = &[
    // Into other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Memory that belongs to no process and no file system of limited size.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Parts of the kernel with a history.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
];

/// Refused but for sockets between processes of the build itself. Some families of sockets know no network namespaces, for example those between a virtual machine and
/// its host.
const SOCKETS: [libc::c_long; 2] = [libc::SYS_socket, libc::SYS_socketpair];

/// On `x86_64` each call has a second number, for programs with 32-bit pointers, on kernels that were built with them.
#[cfg(target_arch = "x86_64")]
const SECOND_NUMBERS: Option<libc::c_long> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const SECOND_NUMBERS: Option<libc::c_long> = None;

/// Refuses these calls to this process and all that it starts, for ever. Needs no capability once new privileges were given up.
pub(super) fn apply() -> Result<(), SandboxError> {
    let failed = |error: String| SandboxError::Unavailable { reason: format!("filtering system calls: {error}") };
    let program = program().map_err(|error| failed(error.to_string()))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(error.to_string()))
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let not_local = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::AF_UNIX.unsigned_abs().into())?;
    let mut rules = BTreeMap::new();
    let mut refuse = |call: libc::c_long, conditions: &[SeccompRule]| {
        for offset in [Some(0), SECOND_NUMBERS].into_iter().flatten() {
            rules.insert(call + offset, conditions.to_vec());
        }
    };
    for call in REFUSED {
        refuse(*call, &[]);
    }
    for call in SOCKETS {
        refuse(call, &[SeccompRule::new(vec![not_local.clone()])?]);
    }
    let refusal = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, TargetArch::try_from(std::env::consts::ARCH)?)?.try_into()
}
