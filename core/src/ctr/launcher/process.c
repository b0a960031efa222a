/* Operations on the process, its namespaces and its limits. */
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "operations.h"
#include "syscalls.h"

/* from linux/keyctl.h */
#define JOIN_SESSION_KEYRING 1

OPERATION(unshare)
{
	(void)run;
	return (int)syscall(SYS_unshare, fields[0].number);
}

OPERATION(setns)
{
	int fd = slot_get(run, fields);

	return fd < 0 ? -1 : (int)syscall(SYS_setns, fd, (int)fields[1].number);
}

/* The child is the supervisor's (CLONE_PARENT), so that it outlives this process.  There it
 * first waits for the parent's end.  When the supervisor died before guard_process, that is
 * seen here: its end of the channel is closed. */
OPERATION(clone)
{
	struct clone_args64 args = {.flags = (uint64_t)fields[0].number | SHARE_PARENT};
	int cgroup;
	long pid;

	if (fields[1].number != NO_SLOT) {
		cgroup = slot_get(run, &fields[1]);
		if (cgroup < 0)
			return -1;
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid > 0) {
		run->child = (pid_t)pid;
		return send_message(run->channel, CHILD_IS, (int32_t)pid, 0, NULL);
	}
	if (pid == 0) {
		run->side = CHILD;
		if (guard_process() < 0)
			return -1;
		await_go(run);
		return 0;
	}
	return -1;
}

/* Writes a file of the child in procfs. */
static int write_child(struct run *run, const char *name, const void *data, size_t size)
{
	char path[MAX_TEXT] = "/proc/";
	int fd;

	append_number(path, sizeof(path), run->child);
	append(path, sizeof(path), "/");
	append(path, sizeof(path), name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(run, "open", path);
	if (verify(fd, 2 /* Verify.PROCFS */, 0, 0) < 0)
		return closing(fd, fail(run, "it is not procfs:", path));
	if (write(fd, data, size) != (ssize_t)size)
		return closing(fd, fail(run, "write", path));
	return closing(fd, 0);
}

OPERATION(write_id_maps)
{
	if (write_child(run, "uid_map", fields[0].data, fields[0].size) < 0)
		return -1;
	return write_child(run, "gid_map", fields[1].data, fields[1].size);
}

OPERATION(oom_score)
{
	char text[NUMBER_SIZE] = "";

	append_number(text, sizeof(text), fields[0].number);
	return write_child(run, "oom_score_adj", text, strlen(text));
}

OPERATION(sync)
{
	if (send_message(run->channel, SYNC, (int32_t)fields[0].number, 0, NULL) < 0)
		return -1;
	if (run->side == PARENT)
		run->synced = true;
	else
		await_go(run);
	return 0;
}

OPERATION(join_cgroup)
{
	int fd = slot_get(run, fields);

	if (fd < 0)
		return -1;
	return write(fd, "0", 1) == 1 ? 0 : -1;
}

OPERATION(rlimit)
{
	struct rlimit limit = {(rlim_t)fields[1].number, (rlim_t)fields[2].number};

	(void)run; /* -1 is RLIM_INFINITY */
	return setrlimit((unsigned)fields[0].number, &limit);
}

OPERATION(hostname)
{
	(void)run;
	return sethostname((const char *)fields[0].data, fields[0].size);
}

OPERATION(domainname)
{
	(void)run;
	return setdomainname((const char *)fields[0].data, fields[0].size);
}

OPERATION(session_keyring)
{
	(void)run;
	if (syscall(SYS_keyctl, JOIN_SESSION_KEYRING, fields[0].data) < 0)
		return errno == ENOSYS ? 0 : -1;
	return 0;
}

OPERATION(link_up)
{
	struct ifreq request = {0};
	int fd, result;

	if (fields[0].size >= sizeof(request.ifr_name))
		return fail_with(run, ENAMETOOLONG, "the interface's name is too long", NULL);
	memcpy(request.ifr_name, fields[0].data, fields[0].size);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(run, "socket", NULL);
	result = ioctl(fd, SIOCGIFFLAGS, &request);
	request.ifr_flags |= IFF_UP;
	if (result == 0)
		result = ioctl(fd, SIOCSIFFLAGS, &request);
	return closing(fd, result);
}

OPERATION(umask)
{
	(void)run;
	umask((mode_t)fields[0].number);
	return 0;
}
