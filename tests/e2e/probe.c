/* What attacks a container from the inside: probe COMMAND [ARGUMENT…]. */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* The descriptors that are open, by number. */
static void descriptors(void)
{
	int fd;

	for (fd = 0; fd < 4096; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			printf("%d ", fd);
	puts("");
}

static const struct call {
	const char *name;
	long number, arguments[4];
} CALLS[] = {
	{"add_key", SYS_add_key, {0, 0, 0, 0}},
	{"bpf", SYS_bpf, {-1}},
	{"clone-user", SYS_clone, {CLONE_NEWUSER | SIGCHLD}},
	{"clone-net", SYS_clone, {CLONE_NEWNET | SIGCHLD}},
	{"fsopen", SYS_fsopen, {(long)"tmpfs"}},
	{"io_uring_setup", SYS_io_uring_setup, {0, 0}},
	{"kexec_load", SYS_kexec_load, {0}},
	{"keyctl", SYS_keyctl, {KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0}},
	{"mount", SYS_mount, {(long)"none", (long)"/tmp", (long)"tmpfs"}},
	{"move_mount", SYS_move_mount, {-1, (long)"", -1, (long)""}},
	{"open_by_handle_at", SYS_open_by_handle_at, {-1, 0, 0}},
	{"open_tree", SYS_open_tree, {AT_FDCWD, (long)"/", 1}},
	{"perf_event_open", SYS_perf_event_open, {0}},
	{"pivot_root", SYS_pivot_root, {(long)".", (long)"."}},
	{"request_key", SYS_request_key, {0}},
	{"setns", SYS_setns, {-1, 0}},
	{"socket-vsock", SYS_socket, {40, SOCK_STREAM, 0}},
	{"swapon", SYS_swapon, {0}},
	{"umount", SYS_umount2, {(long)"/proc/sys", 2}},
	{"unshare-user", SYS_unshare, {CLONE_NEWUSER}},
	{"unshare-mount", SYS_unshare, {CLONE_NEWNS}},
	{"userfaultfd", SYS_userfaultfd, {0}},
	/* not refused */
	{"clone3", SYS_clone3, {0, 0}},
	{"ptrace", SYS_ptrace, {PTRACE_TRACEME}},
};

/* The calls a filter refuses, each in a process of its own: name and errno. */
static void calls(void)
{
	size_t i;
	int status;

	for (i = 0; i < sizeof(CALLS) / sizeof(*CALLS); i++) {
		const struct call *c = &CALLS[i];

		fflush(stdout);
		if (fork() == 0) {
			long result = syscall(c->number, c->arguments[0], c->arguments[1],
					      c->arguments[2], c->arguments[3], 0, 0);
			_exit(result < 0 ? errno : 0);
		}
		wait(&status);
		printf("%s %s\n", c->name,
		       WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "0");
	}
}

/* Leaves a chroot as root can, and says whether it sees `file` then. */
static void leave(const char *file)
{
	int i, outside = open("/", O_RDONLY | O_DIRECTORY);

	mkdir("/jail", 0755);
	if (outside < 0 || chroot("/jail") < 0 || fchdir(outside) < 0)
		exit(3);
	for (i = 0; i < 100; i++)
		chdir("..");
	if (chroot(".") < 0)
		exit(3);
	printf("%s %s\n", access(file, F_OK) ? "gone" : "there",
	       access("/jail", F_OK) ? "gone" : "there");
}

static void reach(const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(address.sun_path + 1, name);
	if (connect(fd, (struct sockaddr *)&address,
		    offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)) == 0)
		puts("connected");
	else
		puts(strerrorname_np(errno));
}

/* Opens a file to write, and with something to write does so. */
static void overwrite(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_APPEND);

	if (fd >= 0 && (!text || write(fd, text, strlen(text)) >= 0))
		puts("written");
	else
		puts(strerrorname_np(errno));
}

static void read_one(const char *path)
{
	char byte;
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	ssize_t size = fd < 0 ? -1 : read(fd, &byte, 1);

	puts(size < 0 ? strerrorname_np(errno) : size ? "data" : "empty");
}

/* As many processes as there may be, each trying for one more; no signal that can be ignored ends
 * them. */
static void bomb(void)
{
	signal(SIGTERM, SIG_IGN);
	for (;;)
		if (fork() < 0)
			usleep(1000);
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	const char *argument = argc > 2 ? argv[2] : "";

	if (!strcmp(command, "descriptors"))
		descriptors();
	else if (!strcmp(command, "bomb"))
		bomb();
	else if (!strcmp(command, "calls"))
		calls();
	else if (!strcmp(command, "leave"))
		leave(argument);
	else if (!strcmp(command, "reach"))
		reach(argument);
	else if (!strcmp(command, "overwrite"))
		overwrite(argument, argv[3]);
	else if (!strcmp(command, "read"))
		read_one(argument);
	else if (!strcmp(command, "ids"))
		printf("%d %d\n", getuid(), geteuid());
	else if (!strcmp(command, "keyring"))
		printf("%ld\n", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID,
					KEY_SPEC_SESSION_KEYRING, 0));
	else if (!strcmp(command, "attach"))
		puts(ptrace(PTRACE_ATTACH, atoi(argument), 0, 0) ? strerrorname_np(errno) : "attached");
	else
		return 2;
	return 0;
}
