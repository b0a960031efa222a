/* What the launcher needs of a C library, for x86_64 and aarch64 (build.py: FREESTANDING).
 *
 * Every container keeps a copy of the launcher in a memfd that nobody shares: with a static
 * glibc 700 kB, with this 30 kB.  It also leaves nothing that would look for a locale or for
 * NSS inside of a container (CVE-2019-14271).  Each function is the manual page's, as far as
 * it is used here; string.h is in freestanding_strings.c.  Elsewhere, and for the sanitizers,
 * the C library is used instead.
 */
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>

#include "launcher.h"
#include "syscalls.h"

#define KERNEL_SIGSET_SIZE 8

int main(int argc, char **argv);
_Noreturn void start(long *stack);
long settle(long result);

char **environ;
static int last_error;

int *__errno_location(void)
{
	return &last_error;
}

/* -- the machine ----------------------------------------------------------------------- */

/* syscall(2) moves its arguments to where the kernel wants them.  It always moves six: what
 * was not given, the kernel does not look at. */
#if defined(__x86_64__)

__asm__(".globl _start, syscall\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call start\n"
	"syscall:\n"
	"	mov %rdi, %rax\n"
	"	mov %rsi, %rdi\n"
	"	mov %rdx, %rsi\n"
	"	mov %rcx, %rdx\n"
	"	mov %r8, %r10\n"
	"	mov %r9, %r8\n"
	"	mov 8(%rsp), %r9\n"
	"	syscall\n"
	"	mov %rax, %rdi\n"
	"	jmp settle\n");

#elif defined(__aarch64__)

__asm__(".globl _start, syscall\n"
	"_start:\n"
	"	mov x29, #0\n"
	"	mov x30, #0\n"
	"	mov x0, sp\n"
	"	bl start\n"
	"syscall:\n"
	"	mov x8, x0\n"
	"	mov x0, x1\n"
	"	mov x1, x2\n"
	"	mov x2, x3\n"
	"	mov x3, x4\n"
	"	mov x4, x5\n"
	"	mov x5, x6\n"
	"	svc #0\n"
	"	b settle\n");

#else
#error "no freestanding build for this machine"
#endif

void start(long *stack)
{
	char **argv = (char **)(stack + 1);

	environ = argv + stack[0] + 1;
	_exit(main((int)stack[0], argv));
}

long settle(long result)
{
	if (result < 0 && result >= -4095) {
		last_error = (int)-result;
		return -1;
	}
	return result;
}

/* -- system calls ---------------------------------------------------------------------- */

void _exit(int status)
{
	for (;;)
		syscall(SYS_exit_group, status);
}

int open(const char *path, int flags, ...)
{
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0);
}

int openat(int dirfd, const char *path, int flags, ...)
{
	va_list list;
	int mode;

	va_start(list, flags);
	mode = flags & O_CREAT ? va_arg(list, int) : 0;
	va_end(list);
	return (int)syscall(SYS_openat, dirfd, path, flags, mode);
}

int fcntl(int fd, int command, ...)
{
	va_list list;
	int value;

	va_start(list, command);
	value = va_arg(list, int);
	va_end(list);
	return (int)syscall(SYS_fcntl, fd, command, value);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *value;

	va_start(list, request);
	value = va_arg(list, void *);
	va_end(list);
	return (int)syscall(SYS_ioctl, fd, request, value);
}

/* Always called with all five. */
int prctl(int option, ...)
{
	unsigned long arguments[4];
	va_list list;
	int i;

	va_start(list, option);
	for (i = 0; i < 4; i++)
		arguments[i] = va_arg(list, unsigned long);
	va_end(list);
	return (int)syscall(SYS_prctl, option, arguments[0], arguments[1], arguments[2],
			    arguments[3]);
}

int close(int fd)
{
	return (int)syscall(SYS_close, fd);
}

ssize_t read(int fd, void *buffer, size_t size)
{
	return syscall(SYS_read, fd, buffer, size);
}

ssize_t pread(int fd, void *buffer, size_t size, off_t offset)
{
	return syscall(SYS_pread64, fd, buffer, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
	return syscall(SYS_write, fd, data, size);
}

ssize_t splice(int from, off_t *at, int to, off_t *where, size_t size, unsigned flags)
{
	return syscall(SYS_splice, from, at, to, where, size, flags);
}

int pipe2(int fds[2], int flags)
{
	return (int)syscall(SYS_pipe2, fds, flags);
}

int dup2(int fd, int number)
{
	return (int)syscall(SYS_dup3, fd, number, 0);
}

int poll(struct pollfd *polls, nfds_t count, int milliseconds)
{
	struct timespec timeout = {.tv_sec = milliseconds / 1000};

	return (int)syscall(SYS_ppoll, polls, count, milliseconds < 0 ? NULL : &timeout, NULL, 0);
}

int flock(int fd, int operation)
{
	return (int)syscall(SYS_flock, fd, operation);
}

int fstat(int fd, struct stat *status)
{
	return (int)syscall(SYS_fstat, fd, status);
}

int stat(const char *restrict path, struct stat *restrict status)
{
	return (int)syscall(SYS_newfstatat, AT_FDCWD, path, status, 0);
}

int fstatfs(int fd, struct statfs *status)
{
	return (int)syscall(SYS_fstatfs, fd, status);
}

ssize_t readlinkat(int dirfd, const char *restrict path, char *restrict buffer, size_t size)
{
	return syscall(SYS_readlinkat, dirfd, path, buffer, size);
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
	return (int)syscall(SYS_mkdirat, dirfd, path, mode);
}

int mknodat(int dirfd, const char *path, mode_t mode, dev_t device)
{
	return (int)syscall(SYS_mknodat, dirfd, path, mode, device);
}

int symlinkat(const char *target, int dirfd, const char *path)
{
	return (int)syscall(SYS_symlinkat, target, dirfd, path);
}

int fchown(int fd, uid_t uid, gid_t gid)
{
	return (int)syscall(SYS_fchown, fd, uid, gid);
}

int fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
	return (int)syscall(SYS_fchownat, dirfd, path, uid, gid, flags);
}

int chdir(const char *path)
{
	return (int)syscall(SYS_chdir, path);
}

int fchdir(int fd)
{
	return (int)syscall(SYS_fchdir, fd);
}

mode_t umask(mode_t mask)
{
	return (mode_t)syscall(SYS_umask, mask);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

int munmap(void *address, size_t size)
{
	return (int)syscall(SYS_munmap, address, size);
}

int socket(int domain, int type, int protocol)
{
	return (int)syscall(SYS_socket, domain, type, protocol);
}

int socketpair(int domain, int type, int protocol, int fds[2])
{
	return (int)syscall(SYS_socketpair, domain, type, protocol, fds);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
	return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	return syscall(SYS_sendmsg, fd, message, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	return syscall(SYS_recvmsg, fd, message, flags);
}

pid_t fork(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

int execve(const char *path, char *const argv[], char *const environment[])
{
	return (int)syscall(SYS_execve, path, argv, environment);
}

pid_t waitpid(pid_t pid, int *status, int options)
{
	return (pid_t)syscall(SYS_wait4, pid, status, options, NULL);
}

pid_t getpid(void)
{
	return (pid_t)syscall(SYS_getpid);
}

pid_t getppid(void)
{
	return (pid_t)syscall(SYS_getppid);
}

pid_t setsid(void)
{
	return (pid_t)syscall(SYS_setsid);
}

int setpgid(pid_t pid, pid_t group)
{
	return (int)syscall(SYS_setpgid, pid, group);
}

int kill(pid_t pid, int number)
{
	return (int)syscall(SYS_kill, pid, number);
}

/* Only for SIG_DFL and SIG_IGN: a handler would need a way to return. */
__sighandler_t signal(int number, __sighandler_t action)
{
	struct {
		__sighandler_t action;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} new = {.action = action};

	return syscall(SYS_rt_sigaction, number, &new, NULL, KERNEL_SIGSET_SIZE) < 0 ? SIG_ERR
										     : SIG_DFL;
}

int sigemptyset(sigset_t *set)
{
	memset(set, 0, sizeof(*set));
	return 0;
}

int sigfillset(sigset_t *set)
{
	memset(set, -1, sizeof(*set));
	return 0;
}

int sigprocmask(int how, const sigset_t *restrict set, sigset_t *restrict before)
{
	return (int)syscall(SYS_rt_sigprocmask, how, set, before, KERNEL_SIGSET_SIZE);
}

int sigwaitinfo(const sigset_t *restrict set, siginfo_t *restrict info)
{
	return (int)syscall(SYS_rt_sigtimedwait, set, info, NULL, KERNEL_SIGSET_SIZE);
}

int setgroups(size_t count, const gid_t *groups)
{
	return (int)syscall(SYS_setgroups, count, groups);
}

int setresuid(uid_t real, uid_t effective, uid_t saved)
{
	return (int)syscall(SYS_setresuid, real, effective, saved);
}

int setresgid(gid_t real, gid_t effective, gid_t saved)
{
	return (int)syscall(SYS_setresgid, real, effective, saved);
}

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	return (int)syscall(SYS_prlimit64, 0, resource, limit, NULL);
}

int sethostname(const char *name, size_t size)
{
	return (int)syscall(SYS_sethostname, name, size);
}

int setdomainname(const char *name, size_t size)
{
	return (int)syscall(SYS_setdomainname, name, size);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	return (int)syscall(SYS_clock_gettime, clock, now);
}

dev_t gnu_dev_makedev(unsigned major, unsigned minor)
{
	return (major & 0xfffULL) << 8 | (minor & 0xffULL) | (major & ~0xfffULL) << 32 |
	       (minor & ~0xffULL) << 12;
}
