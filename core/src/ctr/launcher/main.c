/* The launcher: launches a container and stays as its supervisor.
 *
 * See ctr/launcher/protocol.py for its descriptors and what it says.  It runs from a sealed
 * memfd (CVE-2019-5736) and is run by the engine alone.
 */
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "launcher.h"
#include "syscalls.h"

/* A supervisor ends with its container; that is ended through the control socket. */
static const int IGNORED[] = {
	SIGHUP,	 SIGINT,  SIGQUIT, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1,
	SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU, SIGXFSZ, SIGVTALRM,
};

static bool isolate(void)
{
	sigset_t none;
	size_t i;
	int null, fd;

	for (i = 0; i < sizeof(IGNORED) / sizeof(*IGNORED); i++)
		signal(IGNORED[i], SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* ignored, it would reap the container by itself */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (sys_close_range(CLIENT_STDIN_FD + 3, ~0U, 0) < 0 || chdir("/") < 0)
		return false;
	for (fd = CONTROL_FD; fd < CLIENT_STDIN_FD + 3; fd++)
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			return false;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (fd = 0; fd < 3; fd++)
		if (null < 0 || dup2(null, fd) < 0)
			return false;
	close(null);
	umask(022);
	prctl(PR_SET_NAME, "ctr-supervisor", 0, 0, 0);
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0; /* parent and child are born with it */
}

/* Held for as long as this process lives, and by nobody else: M and C close it. */
static bool take_lock(void)
{
	int fd = openat(RUN_DIR_FD, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static bool refuse(const char *what, int index)
{
	char text[MAX_TEXT] = "";

	if (index >= 0) {
		append(text, sizeof(text), "operation ");
		append_number(text, sizeof(text), index);
		append(text, sizeof(text), " ");
	}
	append(text, sizeof(text), what);
	send_message(CONTROL_FD, FAILED, -1, errno, text);
	return false;
}

/* A copy of the program, so that nobody can change it after it was checked. */
static bool load(struct program *program)
{
	struct stat status;
	const char *wrong;
	void *data;
	int index = -1;

	if (fstat(PROGRAM_FD, &status) < 0)
		return refuse("fstat the launch program", -1);
	errno = EINVAL;
	if (status.st_size <= 0 || status.st_size > PROGRAM_MAX_SIZE)
		return refuse("the launch program is empty or too large", -1);
	data = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED)
		return refuse("mmap", -1);
	if (pread(PROGRAM_FD, data, (size_t)status.st_size, 0) != status.st_size)
		return refuse("read the launch program", -1);
	errno = EINVAL;
	wrong = program_check(program, data, (size_t)status.st_size, &index);
	return wrong ? refuse(wrong, index) : true;
}

/* Nobody has cleaned up after the container: the cleaner does, in our place. */
static _Noreturn void clean_up(char **cleaner)
{
	size_t i;

	for (i = 0; i < sizeof(IGNORED) / sizeof(*IGNORED); i++)
		signal(IGNORED[i], SIG_DFL);
	if (*cleaner)
		execve(*cleaner, cleaner, environ);
	_exit(*cleaner ? 1 : 0);
}

int main(int argc, char **argv)
{
	struct program program;
	struct supervisor supervisor;

	if (argc < 2 || !isolate() || !take_lock() || !load(&program))
		return 1;
	if (send_message(CONTROL_FD, HELLO, PROTOCOL_VERSION, 0, NULL) < 0)
		return 1;
	if (!supervise_launch(&supervisor, &program, argv))
		return 1;
	munmap((void *)(uintptr_t)program.data, program.size);
	close(PROGRAM_FD);
	supervise_container(&supervisor);
	if (supervisor.cleaned)
		return 0;
	clean_up(argv + 2);
}
