"""The default profile: what is not allowed here is refused.

It allows what docker's does (moby v28 and its later tightening): ordinary programs work,
system calls that reach beyond the container or into rarely used parts of the kernel do not,
unless the container was given the capability that governs them.
"""

from __future__ import annotations

from ctr.security.capabilities import mask_of
from ctr.security.seccomp.profile import (
    ALLOW,
    ENOSYS,
    EPERM,
    ERRNO,
    Condition,
    Profile,
    Rule,
    native,
)

_FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown
    fchown32 fchownat fcntl fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
    ftruncate ftruncate64 futimesat getcwd getdents getdents64 ioctl lchown lchown32 link linkat
    _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open
    openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead
    readlink readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat
    stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate
    truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev
    arm_fadvise64_64 arm_sync_file_range
"""

# Reading the mount table; changing it is below.
_MOUNTS = "listmount statmount"

_ATTRIBUTES = """
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat
    llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
"""

_NOTIFICATION = """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch _newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd
    signalfd4
"""

# The old asynchronous interface.  io_uring is not here: too many holes were found in it.
_ASYNCHRONOUS = """
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
"""

_MEMORY = """
    brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2
    mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
    pkey_mprotect process_mrelease remap_file_pages
"""

_PROCESSES = """
    execve execveat exit exit_group fork getpgid getpgrp getpid getppid getpriority getrlimit
    getrusage getsid gettid ioprio_get ioprio_set pause pidfd_open prctl prlimit64 restart_syscall
    sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield setpgid setpriority setrlimit
    setsid sysinfo times ugetrlimit uname vfork wait4 waitid waitpid
"""

# Since Linux 4.8 ptrace can't be used to get around a filter; ctr needs a later one anyway.
_DEBUGGING = "process_vm_readv process_vm_writev ptrace uretprobe"

_THREADS = """
    arch_prctl breakpoint cacheflush futex futex_requeue futex_time64 futex_wait futex_waitv
    futex_wake getcpu get_robust_list get_thread_area modify_ldt rseq set_robust_list
    set_thread_area set_tid_address set_tls
"""

_SIGNALS = """
    alarm kill pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack
    sigprocmask sigreturn tgkill tkill
"""

_IDENTITY = """
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getresgid getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32
    setresuid setresuid32 setreuid setreuid32 setuid setuid32
"""

# A process may confine itself further.
_CONFINEMENT = "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp"

# adjtimex and its like read the clock without CAP_SYS_TIME; the kernel checks for more.
_TIME = """
    adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep
    setitimer time timer_create timer_delete timerfd_create timerfd_gettime timerfd_gettime64
    timerfd_settime timerfd_settime64 timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64
"""

# socketpair(2) makes no more than pairs of Unix sockets; socket(2) has conditions, below.
# socketcall and ipc are i386's multiplexers: their arguments are out of a filter's reach.
_NETWORK = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
"""

_IPC = """
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
    semtimedop_time64 shmat shmctl shmdt shmget
"""

_RANDOM = "getrandom"

_ALWAYS = (
    _FILES,
    _MOUNTS,
    _ATTRIBUTES,
    _NOTIFICATION,
    _ASYNCHRONOUS,
    _MEMORY,
    _PROCESSES,
    _DEBUGGING,
    _THREADS,
    _SIGNALS,
    _IDENTITY,
    _CONFINEMENT,
    _TIME,
    _NETWORK,
    _IPC,
    _RANDOM,
)

#: What a capability opens.
_BY_CAPABILITY = {
    "DAC_READ_SEARCH": "open_by_handle_at",
    "SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
        lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount
        umount2 unshare
    """,
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module finit_module init_module",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": """
        kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace
    """,
    "SYS_RAWIO": "ioperm iopl",
    "SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "SYS_TTY_CONFIG": "vhangup",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYSLOG": "syslog",
    "BPF": "bpf",
    "PERFMON": "perf_event_open",
}

# from linux/sched.h: CLONE_NEW NS, CGROUP, UTS, IPC, USER, PID, NET.  CLONE_NEWTIME is the
# same bit as a part of the exit signal, and clone(2) does not take it.
_NAMESPACES = 0x7E020000

# from linux/socket.h.  AF_VSOCK reaches the hypervisor past the network namespace; AF_ALG
# opens the kernel's cryptography to everyone.  The allowed are listed one by one, with all 64
# bits: the kernel looks at 32 of them only, so "not 40" would let 1 << 32 | 40 through.
_AF_ALG = 38
_ALLOWED_ABOVE = (39, 41, 42, 43, 44, 45)  # NFC, KCM, QIPCRTR, SMC, XDP, MCTP

# from linux/personality.h: PER_LINUX and PER_LINUX32, each also with UNAME26; the last asks.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def default_profile(machine: str, capabilities: int) -> Profile:
    """The profile for a container with the mask ``capabilities``.

    ``machine`` is uname(2)'s.  Raises UnsupportedError for one without a profile.
    """
    names = " ".join(_ALWAYS).split()
    for capability, more in _BY_CAPABILITY.items():
        if capabilities & mask_of([capability]):
            names += more.split()
    rules = [Rule(tuple(dict.fromkeys(names)), ALLOW)]
    if not capabilities & mask_of(["SYS_ADMIN"]):
        no_namespace = Condition(0, "masked", 0, _NAMESPACES)
        rules.append(Rule(("clone",), ALLOW, (no_namespace,)))
        # Its flags are behind a pointer.  With ENOSYS the C library falls back to clone.
        rules.append(Rule(("clone3",), ERRNO | ENOSYS))
    rules.append(Rule(("socket",), ALLOW, (Condition(0, "lt", _AF_ALG),)))
    rules += [Rule(("socket",), ALLOW, (Condition(0, "eq", one),)) for one in _ALLOWED_ABOVE]
    rules += [Rule(("personality",), ALLOW, (Condition(0, "eq", one),)) for one in _PERSONALITIES]
    return Profile(ERRNO | EPERM, native(machine), tuple(rules))
